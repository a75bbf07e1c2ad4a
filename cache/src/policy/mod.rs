//! What an SSD keeps: pure decisions, the same in the engine and in `larder replay`. No clock, no chance, no I/O.
//!
//! A device's segments stand on two [`Shelf`]s, each a queue with one open segment: slices that are new, and slices that were wanted again. To make
//! room the oldest segment of one shelf is reclaimed; what was asked for while it stood there is written again, to the shelf of the proven; the rest
//! leaves and is remembered as a ghost, which goes to the proven at once if it comes back. That is S3-FIFO (Yang et al., SOSP 2023) by segments;
//! with a large first shelf it keeps what LRU keeps. How large the first shelf is, no figure fits all traffic: [`trial`] measures it.
//!
//! What always holds: reclaiming makes progress, as a slice that is kept loses the hits that kept it; what is written again is bounded by what is
//! admitted and asked for ([`Allowance`]). State besides the index's hits is two to three bytes per slice ([`ghost`]) and a constant ([`trial`]).

mod ghost;
mod shared;
mod trial;

use ghost::Ghosts;
pub(crate) use shared::SharedPolicy;
use trial::{Sample, Trial};

/// Segments that are free before one is opened: that one, and one for what is written again while the next one is reclaimed.
pub(crate) const FREE_MIN: usize = 2;
/// After so many segments that were reclaimed to free one, nothing more is written again.
pub(crate) const ROUNDS_MAX: usize = 8;

/// Bytes that may be written again per byte admitted. Write amplification of traffic that seldom hits is one and a half at most.
const REWRITTEN_OF_ADMITTED: f64 = 0.5;
/// Bytes that may be written again per byte asked for. Where nearly all is hit little is admitted, and that alone would not pay for keeping what is wanted.
const REWRITTEN_OF_ASKED: f64 = 0.1;
/// How much of that may be saved up, as a part of the device.
const SAVED_SHARE: f64 = 0.25;

/// How many records make their mean size.
const RECORDS_LATELY: f64 = 10_000.0;

/// Where a slice stands. Each shelf has an open segment of its own and is reclaimed oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shelf {
    /// Not asked for again yet.
    New,
    /// Asked for again.
    Proven,
}

/// How often a slice was asked for since it was written, up to three: two of the four bits that the index has for it.
///
/// Hits while its segment is still open do not count: who asks for a slice tends to ask twice in a moment ("correlated references", O'Neil et al.,
/// LRU-K, SIGMOD 1993), which says nothing of tomorrow and would double what is written again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Hits(u8);

impl Hits {
    /// The index has room for it.
    pub(crate) const MAX: u8 = 3;

    /// As the index holds it.
    pub(crate) fn from_bits(bits: u8) -> Self {
        Self(bits.min(Self::MAX))
    }

    /// For the index: 0 to 3.
    pub(crate) fn bits(self) -> u8 {
        self.0
    }

    /// It was asked for; its segment is sealed.
    pub(crate) fn hit(self) -> Self {
        Self((self.0 + 1).min(Self::MAX))
    }

    /// What is left when a reclaimed slice is written again, or nothing: then it goes.
    fn kept(self, from: Shelf) -> Option<Self> {
        let left = self.0.checked_sub(1)?;
        Some(Self(if from == Shelf::New { 0 } else { left }))
    }
}

/// A way of sharing a device between the new and the proven.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Share {
    /// The part of the device for the new.
    new: f64,
    /// Whether what comes back is proven at once.
    ghosts: bool,
    /// The part of the new that is let in, by hash.
    admitted: f64,
}

impl Share {
    /// From quick demotion, which serves a stable popularity and survives scans, to LRU's patience. The last two are for loops that are larger than the
    /// device, of which any queue would keep nothing: a part that stays beats a whole that passes through (BIP: Qureshi et al., ISCA 2007).
    const ALL: [Self; 8] = [
        Self { new: 0.05, ghosts: true, admitted: 1.0 },
        Self { new: 0.1, ghosts: false, admitted: 1.0 },
        Self { new: 0.1, ghosts: true, admitted: 1.0 },
        Self { new: 0.3, ghosts: true, admitted: 1.0 },
        Self { new: 0.6, ghosts: true, admitted: 1.0 },
        Self { new: 0.85, ghosts: false, admitted: 1.0 },
        Self { new: 0.1, ghosts: true, admitted: 0.5 },
        Self { new: 0.1, ghosts: true, admitted: 0.15 },
    ];
    /// Until the trial knows better: until the device is full all ways are the same, and in the middle none is far.
    const FIRST: usize = 4;

    fn verdict(self, hash: u64, left_lately: bool) -> Verdict {
        // The hash's middle: the ghosts use both of its ends.
        let draw = f64::from((hash >> 24) as u32) / f64::from(u32::MAX);
        match left_lately {
            _ if draw > self.admitted => Verdict::Bypass,
            true if self.ghosts => Verdict::Write(Shelf::Proven),
            _ => Verdict::Write(Shelf::New),
        }
    }

    /// `new` and `proven`: what stands on the shelves, in any unit. Never chooses an empty shelf unless both are.
    fn reclaims(self, new: u64, proven: u64) -> Shelf {
        let has_too_many_new = new as f64 > self.new * (new + proven) as f64;
        if proven == 0 || has_too_many_new { Shelf::New } else { Shelf::Proven }
    }
}

/// What becomes of a slice that was filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is written to this shelf's open segment.
    Write(Shelf),
    /// It is not written.
    Bypass,
}

/// What may be written again: earned by what is admitted and what is asked for, spent by what is kept.
struct Allowance {
    bytes: f64,
    bytes_max: f64,
}

impl Allowance {
    fn new(device_bytes: u64) -> Self {
        Self { bytes: 0.0, bytes_max: (device_bytes as f64 * SAVED_SHARE).max(1.0) }
    }

    fn admitted(&mut self, bytes: u64) {
        self.earn(bytes as f64 * REWRITTEN_OF_ADMITTED);
    }

    fn asked(&mut self, bytes: u64) {
        self.earn(bytes as f64 * REWRITTEN_OF_ASKED);
    }

    fn earn(&mut self, bytes: f64) {
        self.bytes = (self.bytes + bytes).min(self.bytes_max);
    }

    /// Whether there is enough to keep a slice with these hits. As it runs short, it is kept for what was asked for most.
    fn affords(&self, bytes: u64, hits: Hits) -> bool {
        let hits_min = match self.bytes / self.bytes_max {
            plenty if plenty >= 0.25 => 1,
            some if some >= 0.1 => 2,
            _ => 3,
        };
        hits.0 >= hits_min && self.bytes >= bytes as f64
    }

    /// The hits that a reclaimed slice is written again with, or nothing: then it leaves.
    fn keeps(&mut self, from: Shelf, hits: Hits, bytes: u64) -> Option<Hits> {
        let kept = hits.kept(from).filter(|_| self.affords(bytes, hits))?;
        self.bytes -= bytes as f64;
        Some(kept)
    }
}

/// One device's policy. Slices are known by the 64-bit hash that the index files them under.
pub(crate) struct Policy {
    trial: Trial,
    ghosts: Ghosts,
    allowance: Allowance,
    bytes: u64,
    /// Of what was offered lately, the mean bytes of a record.
    record_bytes: f64,
}

impl Policy {
    /// For a device (or what of it is not planned) of `bytes`.
    pub(crate) fn new(bytes: u64, slice_bytes: u64, segment_bytes: u64) -> Self {
        Self {
            trial: Trial::new(bytes, slice_bytes, segment_bytes),
            ghosts: Ghosts::new(bytes / slice_bytes.max(1)),
            allowance: Allowance::new(bytes),
            bytes,
            record_bytes: slice_bytes as f64,
        }
    }

    /// A slice was asked for whose record takes `bytes`: call it when it is found in any tier, and when it was not and is offered.
    pub(crate) fn asked(&mut self, hash: u64, bytes: u64) {
        self.asked_bytes(bytes);
        self.shown(hash, bytes);
    }

    /// Half of [`Self::asked`]: so many bytes were asked for.
    fn asked_bytes(&mut self, bytes: u64) {
        self.allowance.asked(bytes);
    }

    /// The other half: the trial sees it, if it is one that [`Self::sample`] has.
    fn shown(&mut self, hash: u64, bytes: u64) {
        self.trial.asked(hash, bytes);
    }

    /// Which slices the trial wants to see.
    fn sample(&self) -> Sample {
        self.trial.sample()
    }

    /// A slice was filled whose record takes `bytes`.
    pub(crate) fn offered(&mut self, hash: u64, bytes: u64) -> Verdict {
        let verdict = self.trial.share().verdict(hash, self.ghosts.take(hash));
        if verdict != Verdict::Bypass {
            self.allowance.admitted(bytes);
            self.record_bytes += (bytes as f64 - self.record_bytes) / RECORDS_LATELY;
        }
        verdict
    }

    /// The shelf whose oldest segment makes room, given how many sealed segments stand on each.
    pub(crate) fn reclaims(&self, new: u64, proven: u64) -> Shelf {
        self.trial.share().reclaims(new, proven)
    }

    /// A slice that stood in a reclaimed segment of `from`, its record taking `bytes`: the hits it is written again with, to [`Shelf::Proven`], or nothing
    /// if it leaves, as all do that nothing `may_keep`.
    pub(crate) fn keeps(&mut self, hash: u64, from: Shelf, hits: Hits, bytes: u64, may_keep: bool) -> Option<Hits> {
        let kept = if may_keep { self.allowance.keeps(from, hits, bytes) } else { None };
        if kept.is_none() {
            self.ghosts.fit((self.bytes as f64 / self.record_bytes) as u64);
            self.ghosts.add(hash);
        }
        kept
    }

    /// The share of the device for the new that is in force, 0 to 1.
    pub(crate) fn new_share(&self) -> f64 {
        self.trial.share().new
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Any number becomes an even hash (the finalizer of SplitMix64).
    pub(crate) fn hash(number: u64) -> u64 {
        let mut mixed = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    const SLICE: u64 = 1 << 20;

    /// Room for 1000 slices, with all that may be saved.
    fn policy() -> Policy {
        let mut policy = Policy::new(1000 * SLICE, SLICE, 16 * SLICE);
        policy.allowance.bytes = policy.allowance.bytes_max;
        policy
    }

    #[test]
    fn a_slice_that_was_asked_for_is_kept_and_one_that_was_not_comes_back_as_proven() {
        let mut policy = policy();
        assert_eq!(policy.offered(hash(1), SLICE), Verdict::Write(Shelf::New));
        assert_eq!(policy.keeps(hash(1), Shelf::New, Hits::default().hit(), SLICE, true), Some(Hits(0)));
        assert_eq!(policy.keeps(hash(1), Shelf::Proven, Hits(0), SLICE, true), None);
        assert_eq!(policy.offered(hash(1), SLICE), Verdict::Write(Shelf::Proven));
        assert_eq!(policy.offered(hash(1), SLICE), Verdict::Write(Shelf::New), "a ghost is taken once");
    }

    #[test]
    fn whatever_is_kept_leaves_after_four_rounds_unless_it_is_asked_for() {
        let mut policy = policy();
        for bits in 0..=u8::MAX {
            let mut hits = Hits::from_bits(bits);
            let mut rounds = 0;
            let mut shelf = Shelf::New;
            while let Some(left) = policy.keeps(hash(7), shelf, hits, 1, true) {
                (hits, shelf, rounds) = (left, Shelf::Proven, rounds + 1);
            }
            assert!(rounds <= 4, "{rounds} rounds from {bits}");
        }
    }

    #[test]
    fn what_is_written_again_is_bounded_by_what_is_admitted() {
        let mut policy = Policy::new(1000 * SLICE, SLICE, 16 * SLICE);
        let (mut admitted, mut again) = (0, 0);
        for slice in 0..100_000 {
            if policy.offered(hash(slice), SLICE) != Verdict::Bypass {
                admitted += SLICE;
            }
            if policy.keeps(hash(slice), Shelf::Proven, Hits(Hits::MAX), SLICE, true).is_some() {
                again += SLICE;
            }
        }
        let share = again as f64 / admitted as f64;
        assert!((0.45..=REWRITTEN_OF_ADMITTED).contains(&share), "{share}");
    }

    #[test]
    fn what_is_asked_for_pays_for_keeping_it_where_hardly_anything_is_admitted() {
        let mut policy = Policy::new(1000 * SLICE, SLICE, 16 * SLICE);
        let keep = |policy: &mut Policy| policy.keeps(hash(1), Shelf::Proven, Hits(Hits::MAX), SLICE, true).is_some();
        assert!(!keep(&mut policy));
        (0..100).for_each(|slice| policy.asked(hash(slice), SLICE));
        let kept = (0..100).filter(|_| keep(&mut policy)).count();
        assert!((9..=10).contains(&kept), "a tenth: {kept}");
    }

    #[test]
    fn an_empty_shelf_is_not_reclaimed() {
        for share in Share::ALL {
            for count in [1, 2, 80, 100_000] {
                assert_eq!(share.reclaims(count, 0), Shelf::New);
                assert_eq!(share.reclaims(0, count), Shelf::Proven);
            }
        }
    }

    #[test]
    fn hits_are_counted_to_three_and_fit_two_bits() {
        let hits = (0..10).fold(Hits::default(), |hits, _| hits.hit());
        assert_eq!((hits.bits(), Hits::from_bits(hits.bits()), Hits::from_bits(15)), (3, hits, hits));
    }
}
