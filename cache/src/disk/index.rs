//! Where each slice is: 16 bytes a slice, and some air.
//!
//! A hash of key and slice number leads to a place. Two slices with one hash are not told apart here: what comes from the place is held against
//! what was wanted, and the later one has the entry.

use parking_lot::Mutex;

use crate::policy::Hits;

/// Shards, each with a lock and a table of its own.
const SHARDS: usize = 64;
/// A table grows when more of it is taken than this: seven eighths.
const LOAD_MAX: (usize, usize) = (7, 8);
/// The smallest table, in slots.
const SLOTS_MIN: usize = 16;

/// Where a record is, and what is known of its popularity, in 64 bits: device (6), segment (20), page (16), pages (11), hits (5).
/// Never 0, because no record begins at page 0 of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place(u64);

/// What [`Place`] has room for.
pub(crate) const DEVICES_MAX: usize = 1 << 6;
pub(crate) const SEGMENTS_MAX: u32 = 1 << 20;
pub(crate) const PAGES_MAX: usize = (1 << 11) - 1;
const HITS_ROOM: u8 = (1 << 5) - 1;
const _: () = assert!(Hits::BITS_MAX <= HITS_ROOM, "the policy's hits fit");

impl Place {
    pub(crate) fn new(device: usize, segment: u32, page: u16, pages: u16, hits: Hits) -> Self {
        debug_assert!(device < DEVICES_MAX && segment < SEGMENTS_MAX && page > 0 && usize::from(pages) <= PAGES_MAX);
        let place = (device as u64) << 52 | u64::from(segment) << 32 | u64::from(page) << 16 | u64::from(pages) << 5;
        Self(place | u64::from(hits.bits()))
    }

    pub(crate) fn device(self) -> usize {
        (self.0 >> 52) as usize
    }

    pub(crate) fn segment(self) -> u32 {
        (self.0 >> 32) as u32 & (SEGMENTS_MAX - 1)
    }

    pub(crate) fn page(self) -> u16 {
        (self.0 >> 16) as u16
    }

    pub(crate) fn pages(self) -> u16 {
        (self.0 >> 5) as u16 & 0x7ff
    }

    pub(crate) fn hits(self) -> Hits {
        Hits::from_bits(self.0 as u8 & HITS_ROOM)
    }

    fn with_hits(self, hits: Hits) -> Self {
        Self(self.0 & !u64::from(HITS_ROOM) | u64::from(hits.bits()))
    }

    /// Whether both are the same record, however popular.
    pub(crate) fn is_same(self, other: Self) -> bool {
        self.with_hits(Hits::default()) == other.with_hits(Hits::default())
    }
}

/// The index of all devices.
pub(crate) struct Index {
    shards: Box<[Mutex<Table>]>,
}

impl Default for Index {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }
}

impl Index {
    /// The slice's place, if it has one.
    pub(crate) fn place(&self, hash: u64) -> Option<Place> {
        let table = self.shard(hash).lock();
        table.position(hash).map(|at| table.slots[at].place)
    }

    /// Notes that the slice was asked for, in this eighth of its stay. Gives its place.
    pub(crate) fn hit(&self, hash: u64, eighth: u8) -> Option<Place> {
        let mut table = self.shard(hash).lock();
        let at = table.position(hash)?;
        let place = &mut table.slots[at].place;
        *place = place.with_hits(place.hits().hit(eighth));
        Some(*place)
    }

    /// Files the slice, unless `stays` says that the place it has is the better one. Gives the place that it has no longer.
    pub(crate) fn insert(&self, hash: u64, place: Place, stays: impl FnOnce(Place) -> bool) -> Result<Option<Place>, Stays> {
        self.shard(hash).lock().insert(Slot { hash, place }, stays)
    }

    /// Moves the slice from one place to another. `false` if it is not at the first any more: a newer one was filed, or it was forgotten.
    pub(crate) fn replace(&self, hash: u64, from: Place, to: Place) -> bool {
        let mut table = self.shard(hash).lock();
        let at = table.position(hash).filter(|at| table.slots[*at].place.is_same(from));
        if let Some(at) = at {
            table.slots[at].place = to;
        }
        at.is_some()
    }

    /// Forgets the slice if its record is still `place`'s. Says with which hits.
    pub(crate) fn remove(&self, hash: u64, place: Place) -> Option<Place> {
        self.shard(hash).lock().remove(hash, place)
    }

    /// Forgets all that `stays` does not want.
    pub(crate) fn retain(&self, stays: impl Fn(Place) -> bool) {
        for shard in &self.shards {
            let mut table = shard.lock();
            let kept = table.slots.iter().filter(|slot| slot.is_taken() && stays(slot.place)).copied().collect();
            *table = Table::of(kept);
        }
    }

    /// Calls `each` with the hash of every slice that is filed. A table is left to others after every few thousand slots; what moves in it
    /// meanwhile may be missed, or come twice.
    pub(crate) fn hashes(&self, mut each: impl FnMut(u64)) {
        const SLOTS_AT_ONCE: usize = 4096;
        for shard in &self.shards {
            let mut from = 0;
            loop {
                let table = shard.lock();
                let slots = &table.slots[from.min(table.slots.len())..];
                let at_once = &slots[..slots.len().min(SLOTS_AT_ONCE)];
                at_once.iter().filter(|slot| slot.is_taken()).for_each(|slot| each(slot.hash));
                if at_once.len() == slots.len() {
                    break;
                }
                from += SLOTS_AT_ONCE;
            }
        }
    }

    /// Slices.
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().taken).sum()
    }

    /// Memory, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().slots.capacity() * size_of::<Slot>() + size_of::<Mutex<Table>>()).sum()
    }

    fn shard(&self, hash: u64) -> &Mutex<Table> {
        &self.shards[(hash >> 58) as usize]
    }
}

/// The new place was not filed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stays;

#[derive(Clone, Copy)]
struct Slot {
    hash: u64,
    place: Place,
}

impl Slot {
    const EMPTY: Self = Self { hash: 0, place: Place(0) };

    fn is_taken(self) -> bool {
        self.place.0 != 0
    }
}

/// Open addressing with linear probing; what is removed is filled up from behind, so there are no tombstones. Any number of slots,
/// so that it grows by a quarter and not by doubling.
#[derive(Default)]
struct Table {
    slots: Vec<Slot>,
    taken: usize,
}

impl Table {
    fn of(kept: Vec<Slot>) -> Self {
        let mut table = Self::default();
        table.resize(kept.len() * LOAD_MAX.1 / LOAD_MAX.0 + SLOTS_MIN);
        kept.into_iter().for_each(|slot| table.put(slot));
        table
    }

    /// Where the search for `hash` begins: its middle bits, scaled, as its highest chose the shard.
    fn home(&self, hash: u64) -> usize {
        ((u128::from(hash << 6) * self.slots.len() as u128) >> 64) as usize
    }

    fn next(&self, at: usize) -> usize {
        if at + 1 == self.slots.len() { 0 } else { at + 1 }
    }

    fn position(&self, hash: u64) -> Option<usize> {
        if self.slots.is_empty() {
            return None;
        }
        let mut at = self.home(hash);
        while self.slots[at].is_taken() {
            if self.slots[at].hash == hash {
                return Some(at);
            }
            at = self.next(at);
        }
        None
    }

    fn insert(&mut self, slot: Slot, stays: impl FnOnce(Place) -> bool) -> Result<Option<Place>, Stays> {
        if let Some(at) = self.position(slot.hash) {
            let old = self.slots[at].place;
            if stays(old) {
                return Err(Stays);
            }
            self.slots[at] = slot;
            return Ok(Some(old));
        }
        if (self.taken + 1) * LOAD_MAX.1 > self.slots.len() * LOAD_MAX.0 {
            self.resize(self.slots.len() + self.slots.len() / 4 + SLOTS_MIN);
        }
        self.put(slot);
        Ok(None)
    }

    /// A slot whose hash is not there yet, into a table that has room.
    fn put(&mut self, slot: Slot) {
        let mut at = self.home(slot.hash);
        while self.slots[at].is_taken() {
            at = self.next(at);
        }
        self.slots[at] = slot;
        self.taken += 1;
    }

    fn resize(&mut self, count: usize) {
        let old = std::mem::replace(&mut self.slots, vec![Slot::EMPTY; count]);
        self.taken = 0;
        old.into_iter().filter(|slot| slot.is_taken()).for_each(|slot| self.put(slot));
    }

    fn remove(&mut self, hash: u64, place: Place) -> Option<Place> {
        let mut hole = self.position(hash).filter(|at| self.slots[*at].place.is_same(place))?;
        let removed = self.slots[hole].place;
        let mut at = self.next(hole);
        while self.slots[at].is_taken() {
            // It may move into the hole unless its home lies after the hole, on the way to where it is.
            let home = self.home(self.slots[at].hash);
            let is_between = if hole < at { hole < home && home <= at } else { hole < home || home <= at };
            if !is_between {
                self.slots[hole] = self.slots[at];
                hole = at;
            }
            at = self.next(at);
        }
        self.slots[hole] = Slot::EMPTY;
        self.taken -= 1;
        Some(removed)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn place(n: u64) -> Place {
        Place::new(
            (n % 64) as usize,
            (n % 1_000_003) as u32 % SEGMENTS_MAX,
            (n % 65_535) as u16 + 1,
            (n % 1025) as u16,
            Hits::default(),
        )
    }

    #[test]
    fn a_place_has_room_for_all_that_it_names() {
        let most = Hits::from_bits(Hits::BITS_MAX);
        let place = Place::new(63, SEGMENTS_MAX - 1, u16::MAX, 1025, most);
        let parts = (place.device(), place.segment(), place.page(), place.pages(), place.hits());
        assert_eq!(parts, (63, SEGMENTS_MAX - 1, u16::MAX, 1025, most));
        let unused = place.with_hits(Hits::default());
        assert!(place.is_same(unused) && place != unused && unused.hits() == Hits::default());
    }

    #[test]
    fn a_million_slices_take_less_than_24_bytes_each() {
        let index = Index::default();
        let mut worst = 0.0_f64;
        for n in 0..1_000_000_u64 {
            index.insert(n.wrapping_mul(0x9e37_79b9_7f4a_7c15), place(n), |_| false).expect("new");
            if n > 100_000 && n % 50_000 == 0 {
                worst = worst.max(index.bytes() as f64 / index.len() as f64);
            }
        }
        assert_eq!(index.len(), 1_000_000);
        let (mut seen, mut sum) = (0, 0_u64);
        index.hashes(|hash| (seen, sum) = (seen + 1, sum.wrapping_add(hash)));
        let expected = (0..1_000_000_u64).fold(0_u64, |sum, n| sum.wrapping_add(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        assert_eq!((seen, sum), (1_000_000, expected), "each is listed once");
        assert!(worst < 24.0, "{worst} bytes a slice");
    }

    proptest! {
        /// Against a map, with hashes that crowd a few shards and slots.
        #[test]
        fn it_is_a_map(steps in prop::collection::vec((0_u64..200, 0..5), 0..600)) {
            let (index, mut model) = (Index::default(), HashMap::new());
            for (n, (key, step)) in steps.into_iter().enumerate() {
                let (hash, new) = ((key % 3) << 62 | (key % 7) << 50 | key, place(n as u64 + 1));
                match step {
                    0 | 1 => prop_assert_eq!(index.insert(hash, new, |_| false), Ok(model.insert(hash, new))),
                    2 => {
                        let known = model.get(&hash).copied();
                        prop_assert_eq!(index.remove(hash, new), None);
                        prop_assert_eq!(known.and_then(|known| index.remove(hash, known)), known);
                        model.remove(&hash);
                    }
                    3 => {
                        let known = model.get(&hash).copied();
                        prop_assert!(!index.replace(hash, new, new));
                        prop_assert_eq!(known.map(|known| index.replace(hash, known.with_hits(Hits::default()), new)), known.map(|_| true));
                        model.entry(hash).and_modify(|known| *known = new);
                    }
                    _ => {
                        let hit = index.hit(hash, 3);
                        let known = model.get_mut(&hash).map(|known: &mut Place| {
                            *known = known.with_hits(known.hits().hit(3));
                            *known
                        });
                        prop_assert_eq!(hit, known);
                    }
                }
                prop_assert_eq!(index.len(), model.len());
            }
            let mut hashes = Vec::new();
            index.hashes(|hash| hashes.push(hash));
            hashes.sort_unstable();
            let mut expected: Vec<_> = model.keys().copied().collect();
            expected.sort_unstable();
            prop_assert_eq!(hashes, expected);
            index.retain(|place| place.device() % 2 == 0);
            for (hash, place) in model {
                prop_assert_eq!(index.place(hash), (place.device() % 2 == 0).then_some(place));
            }
        }
    }
}
