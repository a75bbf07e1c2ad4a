//! Reading: from a place to bytes that are known to be right.
//!
//! Nothing that a device says is handed on before the record's head names the wanted key, slice and version and every checksum fits. What does not fit
//! is a miss; what ought to have fitted counts against the device.

use std::{ops::Range, sync::Arc};

use super::{
    Disk, Loaded,
    device::{self, Fault, Volume},
    engine::Engine,
    index::Place,
    layout::{CHECKED_BYTES, PAGE, RecordHead},
    record::Flaw,
};
use crate::{
    Generation,
    slab::{HEAD_BYTES, Permit, Slab},
};

/// What is wanted of a place.
pub(super) struct Wanted<'a> {
    pub(super) key: &'a str,
    pub(super) index: u64,
    pub(super) place: Place,
    /// The version; any will do where it is not known.
    pub(super) generation: Option<&'a Generation>,
}

/// Why a record is not handed on.
enum Unfit {
    /// Another key's (two with one hash), or another version's, which may be the one that is wanted next.
    Unwanted,
    Purged,
    /// Not what was written there.
    Corrupt(Flaw),
    Device(Fault),
}

impl From<Flaw> for Unfit {
    fn from(flaw: Flaw) -> Self {
        Self::Corrupt(flaw)
    }
}

impl Engine {
    pub(super) async fn load(&self, wanted: Wanted<'_>, permit: Permit) -> Option<Loaded> {
        let volume = self.volume_with_room(&wanted, usize::from(wanted.place.pages()) * PAGE)?;
        let loaded = self.load_whole(&volume, &wanted, permit).await;
        self.judge(&volume, &wanted, loaded)
    }

    fn volume_with_room(&self, wanted: &Wanted<'_>, bytes: usize) -> Option<Arc<Volume>> {
        let volume = self.devices[wanted.place.device()].volume()?;
        if !self.has_room_to_read(&volume, bytes) {
            self.counters.busy.add(1);
            return None;
        }
        Some(volume)
    }

    async fn load_whole(&self, volume: &Arc<Volume>, wanted: &Wanted<'_>, permit: Permit) -> Result<Loaded, Unfit> {
        let place = wanted.place;
        let padded = (usize::from(place.pages()) * PAGE).checked_sub(HEAD_BYTES).ok_or(Flaw::Place)?;
        if padded > self.slice_bytes {
            return Err(Unfit::Unwanted);
        }
        let (slab, writer) = Slab::new(permit, padded);
        let at = volume.at(place.segment(), usize::from(place.page()));
        let buf = device::read(&self.io, &volume.file, at, writer.into_io(), self.limit()).await.map_err(Unfit::Device)?;
        let head = self.head_of_whole(buf.as_slice(), volume.life(place.segment()))?;
        self.check_wanted(&head, wanted)?;
        buf.into_writer().expect("it came from one").loaded(head.slice_bytes as usize);
        let RecordHead { generation, vouched_at, number, .. } = head;
        let is_doubted = number < self.devices[place.device()].doubted();
        let vouched_at = (!is_doubted).then_some(vouched_at);
        Ok(Loaded { generation, vouched_at, number, slab })
    }

    /// Reads the checked pieces around `range`; gives them, and where in them the range begins.
    pub(super) async fn load_part(&self, wanted: Wanted<'_>, range: Range<usize>, permit: Permit) -> Option<(Arc<Slab>, usize)> {
        let volume = self.volume_with_room(&wanted, HEAD_BYTES + Disk::part_bytes(&range))?;
        let loaded = self.load_pieces(&volume, &wanted, range, permit).await;
        self.judge(&volume, &wanted, loaded)
    }

    async fn load_pieces(
        &self,
        volume: &Arc<Volume>,
        wanted: &Wanted<'_>,
        range: Range<usize>,
        permit: Permit,
    ) -> Result<(Arc<Slab>, usize), Unfit> {
        let place = wanted.place;
        let padded = (usize::from(place.pages()) * PAGE).saturating_sub(HEAD_BYTES);
        let first = range.start / CHECKED_BYTES;
        let (start, end) = (first * CHECKED_BYTES, range.end.next_multiple_of(CHECKED_BYTES).min(padded));
        if range.is_empty() || range.end > end {
            return Err(Unfit::Unwanted);
        }
        let (slab, writer) = Slab::new(permit, end - start);
        let page = usize::from(place.page());
        let (head_at, at) = (volume.at(place.segment(), page), volume.at(place.segment(), page + 1 + start / PAGE));
        let (io, limit) = (&self.io, self.limit());
        let head = device::read_pages(io, &volume.file, head_at, 1, limit);
        let pieces = device::read(io, &volume.file, at, writer.into_io_after_head(), limit);
        let (head, buf) = tokio::try_join!(head, pieces).map_err(Unfit::Device)?;
        let head = self.head_of(head.as_slice(), volume.life(place.segment()), usize::from(place.pages()))?;
        self.check_wanted(&head, wanted)?;
        let length = (head.slice_bytes as usize).min(end).saturating_sub(start);
        if range.end > head.slice_bytes as usize {
            return Err(Flaw::Length.into());
        }
        head.check(first, &buf.as_slice()[..length])?;
        buf.into_writer().expect("it came from one").loaded(length);
        Ok((slab, range.start - start))
    }

    /// Holds a record's head, which is right, against what is wanted.
    fn check_wanted(&self, head: &RecordHead, wanted: &Wanted<'_>) -> Result<(), Unfit> {
        let is_wanted = head.key == wanted.key
            && head.index == wanted.index
            && wanted.generation.is_none_or(|generation| generation.same_bytes(&head.generation));
        if !is_wanted {
            return Err(Unfit::Unwanted);
        }
        if self.purges.covers(wanted.key, &head.generation.tags, head.number) { Err(Unfit::Purged) } else { Ok(()) }
    }

    fn judge<T>(&self, volume: &Arc<Volume>, wanted: &Wanted<'_>, result: Result<T, Unfit>) -> Option<T> {
        let unfit = match result {
            Ok(fit) => return Some(fit),
            Err(unfit) => unfit,
        };
        let hash = self.hash(wanted.key, wanted.index);
        self.counters.rejected.add(1);
        // What was written over while it was read is no longer in the index: nobody's fault.
        let is_still_there = self.index.place(hash).is_some_and(|place| place.is_same(wanted.place));
        match unfit {
            Unfit::Unwanted => {}
            Unfit::Purged => _ = self.unfile(hash, wanted.place),
            Unfit::Corrupt(flaw) if is_still_there => {
                self.unfile(hash, wanted.place);
                let device = wanted.place.device();
                tracing::error!(
                    device = %self.config.devices[device].path.display(),
                    at = volume.at(wanted.place.segment(), usize::from(wanted.place.page())),
                    key = wanted.key, slice = wanted.index, %flaw, "a record is not what was written"
                );
                if let Some(fault) = self.devices[device].is_corrupt() {
                    self.give_up(device, Some(volume), &fault);
                }
            }
            Unfit::Corrupt(_) => {}
            Unfit::Device(fault) => self.give_up(wanted.place.device(), Some(volume), &fault),
        }
        None
    }
}
