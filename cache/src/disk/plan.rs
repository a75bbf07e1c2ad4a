//! Planned content: what came on demand and is written again among it, where no flood of other requests takes it away; and what was purged of it.

use std::sync::{Arc, atomic::Ordering};

use tokio::sync::oneshot;

use super::{
    Disk,
    device::{self, Volume},
    engine::Refusal,
    index::Place,
    layout::{Class, Entry},
    reclaim::Reinserted,
    write::{Job, Refused, Writing},
};
use crate::{Generation, policy::Hits};

/// So many segments are looked through for what was purged when a slice has no room: about as many bytes are read as the slice has.
const LOOKS_MAX: usize = 4;

/// How a slice stands to planned content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Planned {
    /// It is a part of it already.
    Was,
    /// It was on demand, and is written again as a part of it.
    Moved,
    /// It is not on a device, or not in this version.
    Absent,
    /// It cannot be moved now; why is counted.
    Refused,
}

/// A slice that is to become planned content.
pub(super) struct ToPlan {
    key: Arc<str>,
    index: u64,
    generation: Arc<Generation>,
    done: oneshot::Sender<Planned>,
}

impl ToPlan {
    /// Nobody may wait for it any more.
    pub(super) fn is(self, planned: Planned) {
        let _ = self.done.send(planned);
    }
}

impl Disk {
    /// Whether the slice is planned content; `None` if it is not there. Asks no device.
    pub(crate) fn is_planned(&self, key: &str, index: u64) -> Option<bool> {
        let place = self.engine.index.place(self.engine.hash(key, index))?;
        let volume = self.engine.devices[place.device()].volume()?;
        Some(volume.segment(place.segment()).class().is_planned())
    }

    /// Makes planned content of a slice of this version, if it is on a device, or was offered to one before.
    pub(crate) async fn plan(&self, key: &Arc<str>, index: u64, generation: &Arc<Generation>) -> Planned {
        let engine = &self.engine;
        let place = engine.index.place(engine.hash(key, index)).map(Place::device);
        let Some(device) = place.filter(|at| engine.devices[*at].serves()).or_else(|| engine.device_for(key)) else {
            return Planned::Absent;
        };
        let (done, planned) = oneshot::channel();
        let job = ToPlan { key: key.clone(), index, generation: generation.clone(), done };
        // A writer that is gone says no more.
        let _ = self.writers[device].send(Job::Plan(Box::new(job)));
        planned.await.unwrap_or(Planned::Refused)
    }
}

impl Writing {
    pub(super) async fn plan(&mut self, wanted: &ToPlan) -> Result<Planned, Refused> {
        let volume = self.volume().ok_or(Refused::Why(Refusal::Device))?;
        let hash = self.engine.hash(&wanted.key, wanted.index);
        // It may be on its way, to here or there.
        self.land_all().await;
        let Some(known) = self.place_here(hash) else { return Ok(Planned::Absent) };
        if volume.segment(known.segment()).class().is_planned() {
            return Ok(Planned::Was);
        }
        self.make_room(&volume, usize::from(known.pages()), Class::Planned).await?;
        // It may have had to go, or was written to another place, to make room.
        let Some(known) = self.place_here(hash) else { return Ok(Planned::Absent) };
        let tag = self.engine.tag(&wanted.key, wanted.index);
        let entry = Entry { hash, page: known.page(), pages: known.pages(), hits: known.hits().bits(), tag };
        let moved = self
            .reinsert(&volume, known, entry, Class::Planned, known.hits(), |head| {
                *head.key == *wanted.key && head.index == wanted.index && head.generation.same_bytes(&wanted.generation)
            })
            .await?;
        if moved != Reinserted::Written {
            return Ok(Planned::Absent);
        }
        self.engine.counters.planned_again.add(1);
        Ok(Planned::Moved)
    }

    /// Forgets what was purged, in a few segments of planned content that were not looked through since. Nobody asks for it any more, and what nobody asks
    /// for is not found to be purged in any other way.
    pub(super) async fn forget_purged(&mut self, volume: &Arc<Volume>) -> Result<(), Refused> {
        let (engine, now) = (self.engine.clone(), self.engine.purges.now());
        let looked_at = |segment: &u32| &volume.segment(*segment).purged_to;
        let is_due = |segment: &u32| looked_at(segment).load(Ordering::Relaxed) < now;
        let mut due: Vec<u32> = self.sealed[Class::Planned as usize].iter().copied().filter(is_due).collect();
        due.sort_by_key(|segment| looked_at(segment).load(Ordering::Relaxed));
        for segment in due.into_iter().take(LOOKS_MAX) {
            for entry in self.entries_of(volume, segment).await? {
                let place = Place::new(self.device, segment, entry.page, entry.pages, Hits::default());
                if engine.index.place(entry.hash).is_none_or(|known| !known.is_same(place)) {
                    continue;
                }
                let at = volume.at(segment, usize::from(entry.page));
                let page = device::read_pages(&engine.io, &volume.file, at, 1, engine.limit()).await?;
                let head = engine.head_of(page.as_slice(), volume.life(segment), usize::from(entry.pages));
                if head.is_ok_and(|head| engine.purges.covers(&head.key, &head.generation.tags, head.number)) {
                    engine.unfile(entry.hash, place);
                    engine.counters.evictions.add(1);
                }
            }
            looked_at(&segment).store(now, Ordering::Relaxed);
        }
        Ok(())
    }

    fn place_here(&self, hash: u64) -> Option<Place> {
        self.engine.index.place(hash).filter(|place| place.device() == self.device)
    }
}
