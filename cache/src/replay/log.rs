//! A device without bytes: segments, two of them open, reclaimed as [`crate::policy`] says.

use std::collections::{HashMap, VecDeque};

use super::{Piece, Tiers, charged};
use crate::{
    disk::FREE_MIN,
    policy::{Hits, Policy, Shelf, Verdict},
};

/// Before the first segment: the device's own description.
const SEGMENTS_AT: u64 = 1 << 20;
/// A segment's head, and what its footer is made of: of each slice, and besides.
const HEAD_BYTES: u64 = 4096;
const FOOTER_BYTES: (u64, u64) = (16, 80);
/// Segments that hold nothing yet: those that the engine has before it opens one, but for that one.
const FREE_SEGMENTS: u64 = FREE_MIN as u64 - 1;
/// The open segments of both shelves, a free one, and one that is sealed.
const SEGMENTS_MIN: u64 = 2 + FREE_SEGMENTS + 1;

/// The smallest device that keeps anything.
pub(super) fn device_bytes_min(segment_bytes: u64) -> u64 {
    SEGMENTS_AT + SEGMENTS_MIN * segment_bytes
}

/// A device.
pub(super) struct Log {
    policy: Policy,
    index: HashMap<u64, Place>,
    shelves: [Rack; 2],
    sealed_max: u64,
    segment_bytes: u64,
    segments_written: u64,
}

/// Where a slice is.
#[derive(Clone, Copy)]
struct Place {
    bytes: u64,
    segment: u64,
    hits: Hits,
}

/// A shelf's segments.
#[derive(Default)]
struct Rack {
    open: Segment,
    /// The oldest first.
    sealed: VecDeque<Segment>,
}

#[derive(Default)]
struct Segment {
    number: u64,
    slices: Vec<u64>,
    bytes: u64,
}

impl Segment {
    fn has_room(&self, bytes: u64, segment_bytes: u64) -> bool {
        let footer = FOOTER_BYTES.1 + FOOTER_BYTES.0 * (self.slices.len() as u64 + 1);
        HEAD_BYTES + self.bytes + bytes + footer.next_multiple_of(HEAD_BYTES) <= segment_bytes
    }
}

/// Bytes of records that an offer had written.
#[derive(Default)]
pub(super) struct Written {
    pub(super) admitted: u64,
    pub(super) again: u64,
}

impl Log {
    pub(super) fn new(tiers: &Tiers) -> Self {
        let segments = tiers.ssd_bytes.saturating_sub(SEGMENTS_AT) / tiers.segment_bytes;
        let rack = |number| Rack { open: Segment { number, ..Segment::default() }, sealed: VecDeque::new() };
        Self {
            policy: Policy::new(tiers.ssd_bytes, tiers.slice_bytes, tiers.segment_bytes),
            index: HashMap::new(),
            shelves: [rack(0), rack(1)],
            sealed_max: segments - 2 - FREE_SEGMENTS,
            segment_bytes: tiers.segment_bytes,
            segments_written: 2,
        }
    }

    /// Whether the slice is there; counts as a use of it.
    pub(super) fn find(&mut self, piece: Piece) -> bool {
        let open = self.shelves.each_ref().map(|shelf| shelf.open.number);
        let Some(place) = self.index.get_mut(&piece.hash).filter(|place| place.bytes >= piece.bytes) else { return false };
        if !open.contains(&place.segment) {
            place.hits = place.hits.hit();
        }
        self.policy.asked(piece.hash, charged(piece.bytes));
        true
    }

    /// A slice came from elsewhere.
    pub(super) fn offer(&mut self, piece: Piece) -> Written {
        self.policy.asked(piece.hash, charged(piece.bytes));
        let Verdict::Write(shelf) = self.policy.offered(piece.hash, charged(piece.bytes)) else { return Written::default() };
        self.write(shelf, piece, Hits::default());
        let mut written = Written { admitted: charged(piece.bytes), again: 0 };
        while self.sealed() > self.sealed_max {
            written.again += self.reclaim();
        }
        written
    }

    pub(super) fn new_share(&self) -> f64 {
        self.policy.new_share()
    }

    fn sealed(&self) -> u64 {
        self.shelves.iter().map(|shelf| shelf.sealed.len() as u64).sum()
    }

    fn write(&mut self, shelf: Shelf, Piece { hash, bytes }: Piece, hits: Hits) {
        let rack = &mut self.shelves[shelf as usize];
        if !rack.open.has_room(charged(bytes), self.segment_bytes) {
            let next = Segment { number: self.segments_written, ..Segment::default() };
            self.segments_written += 1;
            rack.sealed.push_back(std::mem::replace(&mut rack.open, next));
        }
        rack.open.slices.push(hash);
        rack.open.bytes += charged(bytes);
        self.index.insert(hash, Place { bytes, segment: rack.open.number, hits });
    }

    /// Makes room of a segment, and says how much was written again for it.
    fn reclaim(&mut self) -> u64 {
        let sealed = |shelf: Shelf| self.shelves[shelf as usize].sealed.len() as u64;
        let from = self.policy.reclaims(sealed(Shelf::New), sealed(Shelf::Proven));
        let Some(segment) = self.shelves[from as usize].sealed.pop_front() else {
            unreachable!("a shelf that is reclaimed has sealed segments");
        };
        let mut again = 0;
        for hash in segment.slices {
            // A slice that was filled anew since stands elsewhere by now.
            let Some(place) = self.index.get(&hash).copied().filter(|place| place.segment == segment.number) else { continue };
            match self.policy.keeps(hash, from, place.hits, charged(place.bytes)) {
                Some(hits) => {
                    self.write(Shelf::Proven, Piece { hash, bytes: place.bytes }, hits);
                    again += charged(place.bytes);
                }
                None => {
                    self.index.remove(&hash);
                }
            }
        }
        again
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{memory, policy::tests::hash};

    const SEGMENT: u64 = 1 << 20;
    const SLICE: u64 = 64 << 10;

    fn log(segments: u64) -> Log {
        let ssd_bytes = SEGMENTS_AT + segments * SEGMENT;
        Log::new(&Tiers { ram_bytes: 0, ram_policy: memory::Policy::Lru, ssd_bytes, segment_bytes: SEGMENT, slice_bytes: SLICE })
    }

    #[test]
    fn a_device_never_holds_more_than_its_segments_and_knows_where_each_slice_is() {
        for segments in [SEGMENTS_MIN, 10, 40] {
            let mut log = log(segments);
            for at in 0..20_000 {
                let piece = Piece { hash: hash(hash(at) % 2000), bytes: 1 + hash(at) % SLICE };
                if !log.find(piece) {
                    log.offer(piece);
                    assert!(
                        log.find(piece) || log.policy.new_share() < 0.2,
                        "what was just written is there, unless it was not let in"
                    );
                }
            }
            let all = || log.shelves.iter().flat_map(|rack| rack.sealed.iter().chain([&rack.open]));
            assert!(all().count() as u64 + FREE_SEGMENTS <= segments);
            assert!(all().all(|segment| segment.bytes + HEAD_BYTES <= SEGMENT));
            for (hash, place) in &log.index {
                let home = all().find(|segment| segment.number == place.segment).expect("a segment that there is");
                assert!(home.slices.contains(hash));
            }
        }
    }

    #[test]
    fn a_slice_that_grew_is_filled_anew() {
        let mut log = log(10);
        log.offer(Piece { hash: 1, bytes: 1000 });
        assert!(log.find(Piece { hash: 1, bytes: 900 }));
        assert!(!log.find(Piece { hash: 1, bytes: 1001 }));
        log.offer(Piece { hash: 1, bytes: 1001 });
        assert!(log.find(Piece { hash: 1, bytes: 1001 }));
    }
}
