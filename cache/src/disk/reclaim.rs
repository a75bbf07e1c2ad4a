//! Reclaiming: a segment's slices are written again or leave, and then the segment is free. Those that leave are there until it is written over.
//!
//! Which segment and which slices is the policy's to say; planned content is apart from it and leaves only when nothing leads to it any more. Reclaiming
//! always makes progress, because after some rounds nothing on demand is written again.

use std::sync::{Arc, atomic::Ordering};

use super::{
    device::{self, SEGMENTS_MIN, Volume},
    engine::Refusal,
    index::Place,
    layout::{Class, Entry, Footer, Life, PAGE, RecordHead},
    write::{Record, Refused, WRITES_MAX, Writing},
};
use crate::policy::{FREE_MIN, Hits, ROUNDS_MAX, Shelf, Stand};

/// Segments that planned content leaves to what is on demand: two open, three that can be opened, and one that stays.
const DEMAND_MIN: usize = SEGMENTS_MIN as usize - 2;
/// A planned segment with more than this part alive is not worth reclaiming: planned content has no more room then.
const PLANNED_LIVE_MAX: (usize, usize) = (9, 10);

/// A segment that was reclaimed, and what nobody kept of it.
pub(super) struct Leaving {
    number: u32,
    rest: Vec<(u64, Place)>,
}

/// What became of a record that was to be written again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reinserted {
    Written,
    /// It is not what was wanted, has been purged, or is not right.
    Unfit,
    NoRoom,
}

impl Writing {
    /// Sees to it that enough segments are free for one of the class to be opened, for a record of so many pages.
    pub(super) async fn make_free(&mut self, volume: &Arc<Volume>, pages: usize, class: Class) -> Result<(), Refused> {
        if class.is_planned() && self.planned_segments() >= self.planned_max(volume) {
            // What is alive in the victim must have a place to go to.
            self.make_free_on_demand(volume, 1).await?;
            let mut victim = self.planned_victim(volume, pages);
            if victim.is_none() {
                self.forget_purged(volume).await?;
                victim = self.planned_victim(volume, pages);
            }
            let victim = victim.ok_or(Refused::Why(Refusal::PlannedFull))?;
            self.reclaim(volume, Class::Planned, victim, true).await?;
        }
        self.make_free_on_demand(volume, FREE_MIN).await
    }

    async fn make_free_on_demand(&mut self, volume: &Arc<Volume>, free_min: usize) -> Result<(), Refused> {
        let mut rounds = 0;
        while self.free_segments() < free_min {
            let (class, victim) = self.victim(volume).ok_or(Refused::Why(Refusal::NoRoom))?;
            self.reclaim(volume, class, victim, rounds < ROUNDS_MAX).await?;
            rounds += 1;
        }
        Ok(())
    }

    /// Segments that can be opened.
    fn free_segments(&self) -> usize {
        self.free.len() + self.leaving.len()
    }

    /// A segment to open: one that holds nothing, or the one that was reclaimed first; what is left there is forgotten now.
    pub(super) fn take_free(&mut self, volume: &Volume) -> Option<u32> {
        if let Some(number) = self.free.pop_front() {
            return Some(number);
        }
        let Leaving { number, rest } = self.leaving.pop_front()?;
        let gone = rest.into_iter().filter(|(hash, place)| self.engine.unfile(*hash, *place)).count();
        self.engine.counters.evictions.add(gone as u64);
        volume.end(number);
        Some(number)
    }

    fn planned_segments(&self) -> usize {
        let class = Class::Planned as usize;
        self.sealed[class].len() + [&self.open[class], &self.tails[class]].into_iter().flatten().count()
    }

    fn planned_max(&self, volume: &Volume) -> usize {
        let segments = volume.segments.len();
        ((segments as f64 * self.engine.config.planned_share) as usize).min(segments - DEMAND_MIN)
    }

    /// The next segment to reclaim, taken from its list: of those on demand, where there is one.
    fn victim(&mut self, volume: &Volume) -> Option<(Class, u32)> {
        let stand = |class: Class| {
            let sealed = &self.sealed[class as usize];
            Stand { size: sealed.len() as u64, age: sealed.front().map_or(0, |oldest| volume.age(*oldest)) }
        };
        let (new, proven) = (stand(Class::New), stand(Class::Proven));
        let shelf = self.engine.devices[self.device].policy().with(|policy| {
            let shelf = policy.reclaims(new, proven);
            volume.stay.store(policy.stay(), Ordering::Relaxed);
            shelf
        });
        let (new, proven) = (new.size, proven.size);
        let class = match shelf {
            _ if new + proven == 0 => return self.planned_victim(volume, 0).map(|victim| (Class::Planned, victim)),
            Some(Shelf::Proven) if proven > 0 => Class::Proven,
            _ if new > 0 => Class::New,
            _ => Class::Proven,
        };
        self.sealed[class as usize].pop_front().map(|victim| (class, victim))
    }

    /// The sealed segment of planned content with the least that is still alive, taken from its list, if a record of so many pages fits beside that.
    /// Without a free segment, what is alive in it would be lost.
    fn planned_victim(&mut self, volume: &Volume, pages: usize) -> Option<u32> {
        let has_free = self.free_segments() > 0;
        let live = |number: &u32| volume.segment(*number).live_pages.load(Ordering::Relaxed) as usize;
        let sealed = &mut self.sealed[Class::Planned as usize];
        let (at, number) = sealed.iter().enumerate().min_by_key(|(_, number)| live(number))?;
        let (live_pages, segment) = (live(number), volume.pages_per_segment());
        // Head and footer aside; a record has a page at least.
        let has_room = live_pages + pages + 1 + Footer::pages(live_pages + 1) <= segment;
        let is_worth_it = has_room && live_pages * PLANNED_LIVE_MAX.1 <= segment * PLANNED_LIVE_MAX.0;
        if is_worth_it && (has_free || live_pages == 0) { sealed.remove(at) } else { None }
    }

    async fn reclaim(&mut self, volume: &Arc<Volume>, class: Class, victim: u32, may_keep: bool) -> Result<(), Refused> {
        let mut has_survivors = false;
        let mut rest = Vec::new();
        for entry in self.entries_of(volume, victim).await? {
            let place = Place::new(self.device, victim, entry.page, entry.pages, Hits::default());
            let Some(known) = self.engine.index.place(entry.hash).filter(|known| known.is_same(place)) else { continue };
            let Some((to, hits)) = self.keeps(entry.hash, class, known, may_keep) else {
                rest.push((entry.hash, known));
                continue;
            };
            match self.reinsert(volume, known, entry, to, hits, |_| true).await? {
                Reinserted::Written => {
                    has_survivors = true;
                    self.engine.counters.reinsertions.add(1);
                }
                Reinserted::NoRoom => rest.push((entry.hash, known)),
                Reinserted::Unfit => self.engine.counters.evictions.add(u64::from(self.engine.unfile(entry.hash, known))),
            }
        }
        // The survivors are in the index at their new places, and would outlast a loss of power there, before the old ones are written over.
        self.land_all().await;
        if has_survivors {
            device::sync(&self.engine.io, &volume.file, self.engine.limit()).await?;
        }
        if rest.is_empty() {
            volume.end(victim);
            self.free.push_back(victim);
        } else {
            self.leaving.push_back(Leaving { number: victim, rest });
        }
        Ok(())
    }

    /// Where a slice is written again, and with which hits, if it is still wanted.
    fn keeps(&self, hash: u64, class: Class, known: Place, may_keep: bool) -> Option<(Class, Hits)> {
        let shelf = match class {
            Class::Planned => return may_keep.then_some((Class::Planned, known.hits())),
            Class::New => Shelf::New,
            Class::Proven => Shelf::Proven,
        };
        let bytes = u64::from(known.pages()) * PAGE as u64;
        let policy = self.engine.devices[self.device].policy();
        let kept = policy.with(|policy| policy.keeps(hash, shelf, known.hits(), bytes, may_keep));
        kept.flatten().map(|(shelf, hits)| (Class::from(shelf), hits))
    }

    pub(super) async fn entries_of(&mut self, volume: &Arc<Volume>, segment: u32) -> Result<Vec<Entry>, Refused> {
        let footer = self.engine.read_footer(volume, segment).await?;
        if let Some(footer) = footer.filter(|footer| footer.life == volume.life(segment)) {
            return Ok(footer.entries);
        }
        tracing::error!(segment, "a footer is not what was written; its segment is dropped");
        if let Some(fault) = self.engine.devices[self.device].is_corrupt() {
            return Err(Refused::Device(fault));
        }
        let device = self.device;
        self.engine.index.retain(|place| place.device() != device || place.segment() != segment);
        Ok(Vec::new())
    }

    /// Writes a record again if its head is `wanted`.
    pub(super) async fn reinsert(
        &mut self,
        volume: &Arc<Volume>,
        known: Place,
        entry: Entry,
        to: Class,
        hits: Hits,
        wanted: impl FnOnce(&RecordHead) -> bool,
    ) -> Result<Reinserted, Refused> {
        let pages = usize::from(entry.pages);
        if self.room(volume, pages, to).is_none() {
            if self.free_segments() == 0 {
                return Ok(Reinserted::NoRoom);
            }
            self.close_full(volume, to).await?;
            self.open_segment(volume, to).await?;
        }
        let Some(Life { sequence, .. }) = self.room(volume, pages, to).map(|open| open.life) else {
            return Ok(Reinserted::NoRoom);
        };
        let (head, mut buf) = match self.engine.read_record(volume, known.segment(), &entry).await? {
            Ok(record) => record,
            Err(flaw) => {
                tracing::error!(segment = known.segment(), page = entry.page, %flaw, "a record is not what was written; it is dropped");
                let fault = self.engine.devices[self.device].is_corrupt();
                return fault.map_or(Ok(Reinserted::Unfit), |fault| Err(Refused::Device(fault)));
            }
        };
        if !wanted(&head) || self.engine.purges.covers(&head.key, &head.generation.tags, head.number) {
            return Ok(Reinserted::Unfit);
        }
        RecordHead::move_to(buf.as_mut_slice(), sequence);
        self.land_to(WRITES_MAX - 1).await;
        // A write that failed meanwhile has given the device up.
        if self.room(volume, pages, to).is_none_or(|open| open.life.sequence != sequence) {
            return Ok(Reinserted::NoRoom);
        }
        self.append(
            volume,
            Record {
                hash: entry.hash,
                pages,
                hits,
                tag: entry.tag,
                number: head.number,
                class: to,
                queued: None,
                from: Some(known),
            },
            buf,
        );
        Ok(Reinserted::Written)
    }
}
