//! Stocking: bringing to SSD, ahead of all viewers, what is planned.
//!
//! Knows one range of one object at a time; which ones, when and how fast is whoever calls's. What is stocked does not go to RAM, unless a viewer came for it
//! while it was on its way.

use std::{ops::Range, sync::Arc};

use crate::{
    Ask, Cache, Errand, FillError, Handle, Source, Wanted,
    disk::Planned,
    flight::CameFrom,
    object::Known,
    slab::Priority,
    ssd::{SliceName, Ssd},
};

/// What stocking came to. Bytes of whole slices.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stocked {
    /// Fetched from the source and offered to the SSD tier, which may still refuse them.
    pub bytes_filled: u64,
    /// Planned content already.
    pub bytes_there: u64,
    /// On SSD because viewers had asked for them, and written again as planned content.
    pub bytes_moved: u64,
    /// Not fetched or not moved, for want of memory, of room or of an SSD tier: worth another try.
    pub bytes_refused: u64,
    /// Why the rest of the range was not looked at.
    pub stopped_by: Option<FillError>,
}

/// What became of a slice.
enum Fate {
    Filled,
    There,
    Moved,
    Refused,
}

impl Cache {
    /// Sees to it that the slices of `range` (bytes; it may end beyond the object) are planned content on SSD, one after the other. Those that are on SSD because
    /// viewers had asked for them are written again there; only those that are nowhere are fetched.
    pub async fn stock<S: Source>(&self, key: &Arc<str>, range: Range<u64>, source: &Arc<S>) -> Stocked {
        let mut stocked = Stocked::default();
        let Some(ssd) = self.0.ssd.get() else {
            return Stocked { bytes_refused: range.end.saturating_sub(range.start), ..stocked };
        };
        ssd.room(self.0.config.slice_bytes as u64).await;
        let opened = match self.open_for(Errand::Plan, key, range.start, source).await {
            Ok(opened) => opened,
            Err(FillError::Busy) => return Stocked { bytes_refused: range.end.saturating_sub(range.start), ..stocked },
            Err(error) => return Stocked { stopped_by: Some(error), ..stocked },
        };
        let (known, mut first) = (opened.known, opened.first);
        let slice_bytes = self.0.config.slice_bytes as u64;
        // The one slice of an empty object is empty.
        let end = range.end.min(known.generation.length.max(1));
        for index in range.start / slice_bytes..end.div_ceil(slice_bytes) {
            let bytes = self.0.slice_length(&known.generation, index) as u64;
            let first = first.take_if(|handle| handle.flight.index == index);
            match self.stock_slice(ssd, key, &known, index, first, source).await {
                Ok(Fate::Filled) => stocked.bytes_filled += bytes,
                Ok(Fate::There) => stocked.bytes_there += bytes,
                Ok(Fate::Moved) => stocked.bytes_moved += bytes,
                Ok(Fate::Refused) | Err(FillError::Busy) => stocked.bytes_refused += bytes,
                Err(error) => return Stocked { stopped_by: Some(error), ..stocked },
            }
        }
        stocked
    }

    async fn stock_slice<S: Source>(
        &self,
        ssd: &Ssd,
        key: &Arc<str>,
        known: &Known,
        index: u64,
        first: Option<Handle>,
        source: &Arc<S>,
    ) -> Result<Fate, FillError> {
        let slice = SliceName { key, index };
        let mut first = first;
        // The second time, because a viewer's flight was joined and what it brought was not taken.
        for _ in 0..2 {
            let handle = match first.take() {
                Some(handle) => handle,
                None => {
                    if let Some(fate) = self.fate_on_ssd(ssd, slice, key, known).await {
                        return Ok(fate);
                    }
                    ssd.room(self.0.config.slice_bytes as u64).await;
                    let (wanted, errand, number) = (Wanted::Exactly(known.clone()), Errand::Plan, known.number);
                    self.join(Ask { key, index, wanted, number, errand, place: None, permit: None }, source)
                }
            };
            let is_ours = handle.leads();
            handle.flight.end().await?;
            let is_filled = handle.flight.brought().is_some_and(|(_, _, from)| from == CameFrom::Source);
            if is_ours && is_filled {
                return Ok(Fate::Filled);
            }
            // A viewer's flight brought it on demand, or it came from SSD, where it may stand on demand.
            if let Some(fate) = fate_of(ssd.plan(key, index, &known.generation).await) {
                return Ok(fate);
            }
        }
        Ok(Fate::Refused)
    }

    /// What becomes of the slice if it is on SSD; `None` if it must be fetched.
    async fn fate_on_ssd(&self, ssd: &Ssd, slice: SliceName<'_>, key: &Arc<str>, known: &Known) -> Option<Fate> {
        if !ssd.is_planned(slice)? {
            return fate_of(ssd.plan(key, slice.index, &known.generation).await);
        }
        match self.is_stocked(ssd, slice, known).await {
            None => Some(Fate::Refused),
            Some(is_stocked) => is_stocked.then_some(Fate::There),
        }
    }

    /// Whether the slice, which is planned content, is that of this version. `None` if that cannot be told for want of memory.
    ///
    /// That something is there is enough, unless the object was purged or replaced at some time: then only a look shows what it is.
    async fn is_stocked(&self, ssd: &Ssd, slice: SliceName<'_>, known: &Known) -> Option<bool> {
        if !self.0.purges.covers(slice.key, &known.generation.tags, 0) || self.0.slice_length(&known.generation, slice.index) == 0
        {
            return Some(true);
        }
        let Some(place) = ssd.find(slice) else { return Some(false) };
        let (first_byte, wait_max) = (0..1, self.0.config.memory_wait_max);
        let bytes = crate::disk::Disk::part_bytes(&first_byte);
        let permit = self.0.budget.acquire(bytes, Priority::Plan, wait_max).await?;
        Some(ssd.load_part(slice, place, &known.generation, first_byte, permit).await.is_some())
    }
}

fn fate_of(planned: Planned) -> Option<Fate> {
    match planned {
        Planned::Was => Some(Fate::There),
        Planned::Moved => Some(Fate::Moved),
        Planned::Refused => Some(Fate::Refused),
        Planned::Absent => None,
    }
}
