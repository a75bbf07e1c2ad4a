//! What an SSD keeps: pure decisions, the same in the engine and in `larder replay`. No clock, no chance, no I/O.
//!
//! A device's segments stand on two [`Shelf`]s, each a queue with one open segment. To make room the oldest segment of one shelf is reclaimed; what was
//! asked for while it stood there may be written again, the rest leaves and is remembered as a ghost. There are two manners ([`Share`]). One has a
//! shelf for what is new and one for what is proven, that is, was asked for again: S3-FIFO (Yang et al., SOSP 2023) by segments. The other is LRU by
//! segments: what was asked for late in its stay begins another one, what was asked for earlier has half a stay on the second shelf. Which manner, and
//! how large the first shelf is, no figure fits all traffic: [`trial`] measures it.
//!
//! What always holds: reclaiming makes progress, as a slice that is kept loses the hits that kept it; what is written again is bounded by what is
//! admitted and asked for ([`Allowance`]). State besides the index's hits is two to three bytes per slice ([`ghost`]) and a constant ([`trial`]).

mod ghost;
mod shared;
mod trial;

use ghost::Ghosts;
pub(crate) use shared::SharedPolicy;
use trial::{Sample, Trial};

/// Segments that can be opened before one is: that one, and one for each shelf that slices of the next one that is reclaimed are written again to. Until they
/// are opened they serve.
pub(crate) const FREE_MIN: usize = 3;
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
    /// Not asked for again yet; under LRU, with all of a stay before it.
    New,
    /// Asked for again; under LRU, with half a stay before it.
    Proven,
}

/// A shelf's sealed segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Stand {
    /// How much stands there: segments, or bytes.
    pub(crate) size: u64,
    /// How much was opened (segments) or written (bytes) on the device since its oldest was.
    pub(crate) age: u64,
}

/// How often a slice was asked for since it was written, up to three, and when in its stay that was last, in eighths: five bits of the index.
///
/// Hits while its segment is still open do not count: who asks for a slice tends to ask twice in a moment ("correlated references", O'Neil et al.,
/// LRU-K, SIGMOD 1993), which says nothing of tomorrow and would double what is written again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Hits(u8);

impl Hits {
    /// The index has room for as much.
    pub(crate) const BITS_MAX: u8 = 31;
    const COUNT_MAX: u8 = 3;

    fn new(count: u8, eighth: u8) -> Self {
        Self(count | eighth << 2)
    }

    /// As the index holds it.
    pub(crate) fn from_bits(bits: u8) -> Self {
        Self(bits & Self::BITS_MAX)
    }

    /// For the index: 0 to 31.
    pub(crate) fn bits(self) -> u8 {
        self.0
    }

    /// It was asked for in this eighth of its stay (see [`eighth`]); its segment is sealed.
    pub(crate) fn hit(self, eighth: u8) -> Self {
        Self::new((self.count() + 1).min(Self::COUNT_MAX), eighth.min(EIGHTHS - 1))
    }

    fn count(self) -> u8 {
        self.0 & Self::COUNT_MAX
    }

    fn eighth(self) -> u8 {
        self.0 >> 2
    }
}

/// Of a stay.
const EIGHTHS: u8 = 8;

/// The eighth of its stay in which something is of this age, where a stay lasts until the age of `stay`; the last one after that.
pub(crate) fn eighth(age: u64, stay: u64) -> u8 {
    let eighth = u128::from(age) * u128::from(EIGHTHS) / u128::from(stay.max(1));
    eighth.min(u128::from(EIGHTHS - 1)) as u8
}

/// A way of sharing a device between the two shelves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Share {
    /// The part of the device for the new; all of it is LRU.
    new: f64,
    /// Whether what comes back is proven at once.
    ghosts: bool,
    /// The part of the new that is let in, by hash.
    admitted: f64,
}

impl Share {
    /// From quick demotion, which serves a stable popularity and survives scans, to LRU. The last two are for loops that are larger than the device, of
    /// which any queue would keep nothing: a part that stays beats a whole that passes through (BIP: Qureshi et al., ISCA 2007).
    const ALL: [Self; 7] = [
        Self { new: 0.05, ghosts: true, admitted: 1.0 },
        Self { new: 0.1, ghosts: false, admitted: 1.0 },
        Self { new: 0.1, ghosts: true, admitted: 1.0 },
        Self { new: 0.3, ghosts: true, admitted: 1.0 },
        Self { new: 1.0, ghosts: false, admitted: 1.0 },
        Self { new: 0.1, ghosts: true, admitted: 0.5 },
        Self { new: 0.1, ghosts: true, admitted: 0.15 },
    ];
    /// Until the trial knows better. Until the device is full all ways are the same, and LRU writes least again.
    const FIRST: usize = 4;

    fn is_lru(self) -> bool {
        self.new >= 1.0
    }

    fn verdict(self, hash: u64, left_lately: bool) -> Verdict {
        // The hash's middle: the ghosts use both of its ends.
        let draw = f64::from((hash >> 24) as u32) / f64::from(u32::MAX);
        match left_lately {
            _ if draw > self.admitted => Verdict::Bypass,
            true if self.ghosts => Verdict::Write(Shelf::Proven),
            _ => Verdict::Write(Shelf::New),
        }
    }

    /// Never chooses an empty shelf unless both are.
    fn reclaims(self, new: Stand, proven: Stand) -> Shelf {
        let is_new_due = if self.is_lru() {
            new.size > 0 && new.age > proven.age.saturating_mul(2)
        } else {
            new.size as f64 > self.new * (new.size + proven.size) as f64
        };
        if proven.size == 0 || is_new_due { Shelf::New } else { Shelf::Proven }
    }

    /// How long a stay is now, from the age of what was just reclaimed from a shelf. `None` if that says nothing of it.
    fn stay(self, from: Shelf, age: u64) -> Option<u64> {
        match from {
            Shelf::New => Some(age),
            Shelf::Proven if self.is_lru() => Some(age.saturating_mul(2)),
            Shelf::Proven => None,
        }
    }

    /// Where a reclaimed slice with these hits is written again, and with which; or nothing: then it goes.
    fn keeps(self, from: Shelf, hits: Hits) -> Option<(Shelf, Hits)> {
        let left = hits.count().checked_sub(1)?;
        if !self.is_lru() {
            return Some((Shelf::Proven, Hits::new(if from == Shelf::New { 0 } else { left }, 0)));
        }
        // In sixteenths of a stay, the middle of the eighth: LRU would keep it for so long yet. It gets none, half a stay or a whole one, whichever is nearest.
        let asked = u32::from(hits.eighth()) * 2 + 1;
        let remaining = if from == Shelf::New { asked } else { asked + 8 };
        match remaining {
            ..4 => None,
            4..12 => Some((Shelf::Proven, Hits::default())),
            12.. => Some((Shelf::New, Hits::default())),
        }
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
        hits.count() >= hits_min && self.bytes >= bytes as f64
    }

    /// [`Share::keeps`], as far as there is enough for it.
    fn keeps(&mut self, share: Share, from: Shelf, hits: Hits, bytes: u64) -> Option<(Shelf, Hits)> {
        let kept = share.keeps(from, hits).filter(|_| self.affords(bytes, hits))?;
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
    /// See [`Self::stay`].
    stay: u64,
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
            stay: bytes / segment_bytes.max(1),
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

    /// The shelf whose oldest segment makes room, given what stands on each.
    pub(crate) fn reclaims(&mut self, new: Stand, proven: Stand) -> Shelf {
        let shelf = self.trial.share().reclaims(new, proven);
        let age = if shelf == Shelf::New { new.age } else { proven.age };
        self.stay = self.trial.share().stay(shelf, age).unwrap_or(self.stay);
        shelf
    }

    /// How long a slice stays that nobody asks for, as the age of its segment: see [`Stand::age`].
    pub(crate) fn stay(&self) -> u64 {
        self.stay
    }

    /// A slice that stood in a reclaimed segment of `from`, its record taking `bytes`: where it is written again and with which hits, or nothing if it
    /// leaves, as all do that nothing `may_keep`.
    pub(crate) fn keeps(&mut self, hash: u64, from: Shelf, hits: Hits, bytes: u64, may_keep: bool) -> Option<(Shelf, Hits)> {
        let share = self.trial.share();
        let kept = if may_keep { self.allowance.keeps(share, from, hits, bytes) } else { None };
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

    /// Asked for as often as is counted, the last time at the end of its stay.
    const MOST: Hits = Hits(Hits::BITS_MAX);

    #[test]
    fn a_slice_that_was_asked_for_is_kept_and_one_that_was_not_comes_back_as_proven() {
        let mut policy = policy();
        policy.trial.follow(3);
        assert_eq!(policy.offered(hash(1), SLICE), Verdict::Write(Shelf::New));
        let kept = policy.keeps(hash(1), Shelf::New, Hits::default().hit(0), SLICE, true);
        assert_eq!(kept, Some((Shelf::Proven, Hits::default())));
        assert_eq!(policy.keeps(hash(1), Shelf::Proven, Hits::default(), SLICE, true), None);
        assert_eq!(policy.offered(hash(1), SLICE), Verdict::Write(Shelf::Proven));
        assert_eq!(policy.offered(hash(1), SLICE), Verdict::Write(Shelf::New), "a ghost is taken once");
    }

    #[test]
    fn under_lru_a_slice_stays_for_about_a_stay_after_it_was_asked_for_last() {
        let lru = Share::ALL[Share::FIRST];
        assert!(lru.is_lru());
        for from in [Shelf::New, Shelf::Proven] {
            assert_eq!(lru.keeps(from, Hits::default()), None, "nobody asked for it");
            for asked_in in 0..EIGHTHS {
                let kept = lru.keeps(from, Hits::default().hit(asked_in));
                // In sixteenths: how long it has stood, when it was asked for, how long it stays yet.
                let stood = if from == Shelf::New { 16 } else { 8 };
                let since = stood - i32::from(asked_in * 2 + 1);
                let stays = kept.map_or(0, |(shelf, _)| if shelf == Shelf::New { 16 } else { 8 });
                assert!((12..=20).contains(&(since + stays)) || asked_in >= 4 && from == Shelf::Proven, "{from:?}, {asked_in}");
            }
        }
    }

    #[test]
    fn under_lru_the_shelf_that_is_overdue_makes_room() {
        let lru = Share::ALL[Share::FIRST];
        let stand = |size, age| Stand { size, age };
        assert_eq!(lru.reclaims(stand(5, 101), stand(5, 50)), Shelf::New);
        assert_eq!(lru.reclaims(stand(5, 99), stand(5, 50)), Shelf::Proven);
        assert_eq!((lru.stay(Shelf::New, 101), lru.stay(Shelf::Proven, 50)), (Some(101), Some(100)));
    }

    #[test]
    fn a_stay_has_eighths_and_what_overstays_is_in_the_last() {
        assert_eq!([0, 11, 12, 13, 50, 99, 100, u64::MAX].map(|age| eighth(age, 100)), [0, 0, 0, 1, 4, 7, 7, 7]);
        assert_eq!((eighth(0, 0), eighth(5, 0)), (0, 7));
    }

    #[test]
    fn whatever_is_kept_leaves_after_four_rounds_unless_it_is_asked_for() {
        for way in 0..Share::ALL.len() {
            let mut policy = policy();
            policy.trial.follow(way);
            for bits in 0..=Hits::BITS_MAX {
                let mut hits = Hits::from_bits(bits);
                let mut rounds = 0;
                let mut shelf = Shelf::New;
                while let Some(left) = policy.keeps(hash(7), shelf, hits, 1, true) {
                    ((shelf, hits), rounds) = (left, rounds + 1);
                }
                assert!(rounds <= 4, "{rounds} rounds from {bits}");
            }
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
            if policy.keeps(hash(slice), Shelf::Proven, MOST, SLICE, true).is_some() {
                again += SLICE;
            }
        }
        let share = again as f64 / admitted as f64;
        assert!((0.45..=REWRITTEN_OF_ADMITTED).contains(&share), "{share}");
    }

    #[test]
    fn what_is_asked_for_pays_for_keeping_it_where_hardly_anything_is_admitted() {
        let mut policy = Policy::new(1000 * SLICE, SLICE, 16 * SLICE);
        let keep = |policy: &mut Policy| policy.keeps(hash(1), Shelf::Proven, MOST, SLICE, true).is_some();
        assert!(!keep(&mut policy));
        (0..100).for_each(|slice| policy.asked(hash(slice), SLICE));
        let kept = (0..100).filter(|_| keep(&mut policy)).count();
        assert!((9..=10).contains(&kept), "a tenth: {kept}");
    }

    #[test]
    fn an_empty_shelf_is_not_reclaimed() {
        for share in Share::ALL {
            for size in [1, 2, 80, 100_000] {
                let some = Stand { size, age: size };
                assert_eq!(share.reclaims(some, Stand::default()), Shelf::New);
                assert_eq!(share.reclaims(Stand::default(), some), Shelf::Proven);
            }
        }
    }

    #[test]
    fn hits_are_counted_to_three_and_fit_five_bits() {
        let hits = (0..10).fold(Hits::default(), |hits, eighth| hits.hit(eighth));
        assert_eq!((hits.count(), hits.eighth(), hits.bits()), (3, 7, 31));
        for bits in 0..=Hits::BITS_MAX {
            assert_eq!(Hits::from_bits(bits).bits(), bits);
        }
    }
}
