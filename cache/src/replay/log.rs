//! A device without bytes: segments, written and reclaimed as the engine does (`disk/write.rs`, `disk/reclaim.rs`), by the engine's own policy.
//!
//! What it leaves out: planned content, purges, writes that take time. A test runs one trace through both and compares.

use std::collections::{HashMap, VecDeque};

use super::{Piece, Tiers, charged};
use crate::{
    disk::Cut,
    policy::{FREE_MIN, Hits, Policy, ROUNDS_MAX, Shelf, Stand, Verdict, eighth},
    slab::UNIT_BYTES as PAGE,
};

/// A device.
pub(crate) struct Log {
    policy: Policy,
    index: HashMap<u64, Place>,
    cut: Cut,
    /// By shelf.
    open: [Option<Segment>; 2],
    /// By shelf: open ones that were too full for some record.
    tails: [Option<Segment>; 2],
    /// By shelf; the oldest first.
    sealed: [VecDeque<Segment>; 2],
    /// Segments that never held anything.
    blank: u64,
    /// Reclaimed ones: what nobody kept of them is still there until they are written over.
    leaving: VecDeque<Segment>,
    segments_opened: u64,
}

/// Where a slice is.
#[derive(Clone, Copy)]
struct Place {
    bytes: u64,
    segment: u64,
    hits: Hits,
}

struct Segment {
    number: u64,
    slices: Vec<u64>,
    /// Taken, the head included.
    pages: usize,
}

/// Bytes of records that an offer had written.
#[derive(Default)]
pub(crate) struct Written {
    pub(crate) admitted: u64,
    pub(crate) again: u64,
}

impl Log {
    pub(crate) fn new(tiers: &Tiers) -> Option<Self> {
        let cut = Cut::of(tiers.ssd_bytes, tiers.segment_bytes)?;
        Some(Self {
            policy: Policy::new(u64::from(cut.segments) * cut.segment_bytes, tiers.slice_bytes, cut.segment_bytes),
            index: HashMap::new(),
            cut,
            open: Default::default(),
            tails: Default::default(),
            sealed: Default::default(),
            blank: cut.segments.into(),
            leaving: VecDeque::new(),
            segments_opened: 0,
        })
    }

    /// Whether the slice is there. No use of it: that is [`Self::asked`].
    pub(crate) fn has(&self, piece: Piece) -> bool {
        self.index.get(&piece.hash).is_some_and(|place| place.bytes >= piece.bytes)
    }

    /// The slice was found, here or in RAM.
    pub(crate) fn found(&mut self, hash: u64) {
        let Some(place) = self.index.get_mut(&hash) else { return };
        let is_open = self.open.iter().chain(&self.tails).flatten().any(|segment| segment.number == place.segment);
        if !is_open {
            place.hits = place.hits.hit(eighth(self.segments_opened - 1 - place.segment, self.policy.stay()));
        }
        self.policy.asked(hash, charged(place.bytes));
    }

    /// A slice came from elsewhere.
    pub(crate) fn offer(&mut self, piece: Piece) -> Written {
        let bytes = charged(piece.bytes);
        self.policy.asked(piece.hash, bytes);
        let Verdict::Write(shelf) = self.policy.offered(piece.hash, bytes) else { return Written::default() };
        let again = self.make_room(shelf, bytes);
        self.append(shelf, piece, Hits::default());
        Written { admitted: bytes, again }
    }

    pub(crate) fn new_share(&self) -> f64 {
        self.policy.new_share()
    }

    /// Sees to it that an open segment of the shelf has room for a record of so many bytes. Says how much was written again for it.
    fn make_room(&mut self, shelf: Shelf, bytes: u64) -> u64 {
        if self.room(shelf, bytes).is_some() {
            return 0;
        }
        self.close(shelf);
        let mut again = 0;
        let mut rounds = 0;
        while self.free() < FREE_MIN {
            again += self.reclaim(rounds < ROUNDS_MAX);
            rounds += 1;
        }
        // What was written again may have opened one already.
        if self.room(shelf, bytes).is_none() {
            self.close(shelf);
            self.open_segment(shelf);
        }
        again
    }

    /// The open segment of the shelf that has room for a record of so many bytes.
    fn room(&mut self, shelf: Shelf, bytes: u64) -> Option<&mut Segment> {
        let (cut, pages) = (self.cut, bytes as usize / PAGE);
        let open = [&mut self.tails[shelf as usize], &mut self.open[shelf as usize]];
        open.into_iter().flatten().find(|open| cut.has_room(open.pages, open.slices.len(), pages))
    }

    fn free(&self) -> usize {
        self.blank as usize + self.leaving.len()
    }

    /// The open segment has no room for a record. On a device of many segments it stays open for smaller ones, until the next one has none either.
    fn close(&mut self, shelf: Shelf) {
        let Some(open) = self.open[shelf as usize].take() else { return };
        let full = if self.cut.keeps_tails() { self.tails[shelf as usize].replace(open) } else { Some(open) };
        self.sealed[shelf as usize].extend(full);
    }

    fn open_segment(&mut self, shelf: Shelf) {
        if self.blank > 0 {
            self.blank -= 1;
        } else if let Some(left) = self.leaving.pop_front() {
            for hash in left.slices {
                if self.index.get(&hash).is_some_and(|place| place.segment == left.number) {
                    self.index.remove(&hash);
                }
            }
        }
        self.open[shelf as usize] = Some(Segment { number: self.segments_opened, slices: Vec::new(), pages: 1 });
        self.segments_opened += 1;
    }

    fn append(&mut self, shelf: Shelf, Piece { hash, bytes }: Piece, hits: Hits) {
        let open = self.room(shelf, charged(bytes)).expect("room was made");
        open.slices.push(hash);
        open.pages += charged(bytes) as usize / PAGE;
        let segment = open.number;
        self.index.insert(hash, Place { bytes, segment, hits });
    }

    /// Reclaims a segment, and says how much was written again for it.
    fn reclaim(&mut self, may_keep: bool) -> u64 {
        let stand = |shelf: Shelf| {
            let sealed = &self.sealed[shelf as usize];
            let age = sealed.front().map_or(0, |oldest| self.segments_opened - 1 - oldest.number);
            Stand { size: sealed.len() as u64, age }
        };
        let from = self.policy.reclaims(stand(Shelf::New), stand(Shelf::Proven));
        let Some(segment) = self.sealed[from as usize].pop_front() else {
            unreachable!("a shelf that is reclaimed has sealed segments");
        };
        let mut again = 0;
        for hash in &segment.slices {
            // A slice that was filled anew since stands elsewhere by now.
            let Some(place) = self.index.get(hash).copied().filter(|place| place.segment == segment.number) else { continue };
            let Some((to, hits)) = self.policy.keeps(*hash, from, place.hits, charged(place.bytes), may_keep) else { continue };
            if self.room(to, charged(place.bytes)).is_none() {
                if self.free() == 0 {
                    continue;
                }
                self.close(to);
                self.open_segment(to);
            }
            self.append(to, Piece { hash: *hash, bytes: place.bytes }, hits);
            again += charged(place.bytes);
        }
        self.leaving.push_back(segment);
        again
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{memory, policy::tests::hash};

    const SEGMENT: u64 = 1 << 20;
    const SLICE: u64 = 64 << 10;

    fn log(ssd_bytes: u64) -> Log {
        let tiers =
            Tiers { ram_bytes: 0, ram_policy: memory::Policy::Lru, ssd_bytes, segment_bytes: SEGMENT, slice_bytes: SLICE };
        Log::new(&tiers).expect("large enough")
    }

    #[test]
    fn a_device_never_holds_more_than_its_segments_and_knows_where_each_slice_is() {
        for more_bytes in [0, 5 * SEGMENT, 5 * SEGMENT + 1, 40 * SEGMENT] {
            let ssd_bytes = Cut::bytes_min(SEGMENT) + more_bytes;
            let mut log = log(ssd_bytes);
            for at in 0..20_000 {
                let piece = Piece { hash: hash(hash(at) % 2000), bytes: 1 + hash(at) % SLICE };
                if log.has(piece) {
                    log.found(piece.hash);
                } else {
                    let written = log.offer(piece);
                    assert!(log.has(piece) == (written.admitted > 0), "what was just written is there");
                }
            }
            let open = || log.open.iter().chain(&log.tails).flatten();
            let all = || open().chain(log.sealed.iter().flatten()).chain(&log.leaving);
            assert_eq!(all().count() as u64 + log.blank, u64::from(log.cut.segments));
            assert!(all().all(|segment| (segment.pages * PAGE) as u64 <= log.cut.segment_bytes));
            assert!(u64::from(log.cut.segments) * log.cut.segment_bytes <= ssd_bytes);
            for (hash, place) in &log.index {
                let home = all().find(|segment| segment.number == place.segment).expect("a segment that there is");
                assert!(home.slices.contains(hash));
            }
        }
    }

    #[test]
    fn what_nobody_kept_is_there_until_it_is_written_over() {
        let mut log = log(Cut::bytes_min(SEGMENT) + 8 * SEGMENT);
        let piece = |number| Piece { hash: hash(number), bytes: SLICE };
        for number in 0..400 {
            log.offer(piece(number));
            let last = log.segments_opened - 1;
            let segments_there = u64::from(log.cut.segments).min(last + 1);
            // All segments but the one that is being written are full of what came last: 14 slices each.
            let oldest = (last + 1 - segments_there) * 14;
            assert!((oldest..=number).all(|known| log.has(piece(known))), "{oldest} to {number}");
        }
    }

    #[test]
    fn a_slice_that_grew_is_filled_anew() {
        let mut log = log(Cut::bytes_min(SEGMENT));
        log.offer(Piece { hash: 1, bytes: 1000 });
        assert!(log.has(Piece { hash: 1, bytes: 900 }));
        assert!(!log.has(Piece { hash: 1, bytes: 1001 }));
        log.offer(Piece { hash: 1, bytes: 1001 });
        assert!(log.has(Piece { hash: 1, bytes: 1001 }));
    }

    #[test]
    fn what_is_too_small_is_no_device() {
        let tiers = |ssd_bytes| Tiers {
            ram_bytes: 0,
            ram_policy: memory::Policy::Lru,
            ssd_bytes,
            segment_bytes: SEGMENT,
            slice_bytes: SLICE,
        };
        let min = Cut::bytes_min(SEGMENT);
        assert!(Log::new(&tiers(min)).is_some() && Log::new(&tiers(min - 1)).is_none());
        assert_eq!(tiers(0).ssd_bytes_min(), min);
    }
}
