//! Trial: small copies of the cache that try every way of sharing it, on a sample of the slices.
//!
//! Each [`Shadow`] is the device's policy in little, without bytes: it holds a fixed share of what the device would hold and is shown that share of the
//! slices, by hash. The way whose shadow had most of the bytes asked of it lately is the one that the device follows ("miniature simulations":
//! Waldspurger et al., USENIX ATC 2017; the sample by hash is that of SHARDS, FAST 2015). Memory is bounded by [`SLICES_MAX`], however large the device.

use std::collections::{HashMap, VecDeque};

use super::{Allowance, Hits, Share, Shelf, Stand, Verdict, eighth, ghost::Ghosts};

/// Slices in a shadow. When there are more, as they are small, the sample is halved.
const SLICES_MAX: usize = 8192;
/// What a shadow holds at the start, in slices of full size.
const SLICES: u64 = 4096;
/// How often ways are compared while as much is asked for as a shadow holds.
const JUDGED: u64 = 16;
/// What is left of a score at the next comparison: it halves while as much is asked for as a shadow holds.
const FADE: f64 = 0.96;
/// Another way must have so many times the hits of the present one to take its place.
const CLEARLY: f64 = 1.006;

/// See the module.
pub(crate) struct Trial {
    shadows: [Shadow; Share::ALL.len()],
    leader: usize,
    sample: Sample,
    /// Bytes that a shadow holds: that part of the device's which the sample is of all slices.
    bytes_max: u64,
    /// The part of the device that an open segment is: hits on what came so lately are not counted.
    open_share: f64,
    /// Bytes asked since ways were compared last.
    asked: u64,
}

/// Which slices are shown to the shadows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) below: u64,
}

impl Sample {
    pub(super) fn has(self, hash: u64) -> bool {
        // Mixed, as the hash's own bits choose devices and sets of ghosts (the finalizer of MurmurHash3).
        let mut mixed = hash;
        for odd in [0xFF51_AFD7_ED55_8CCD_u64, 0xC4CE_B9FE_1A85_EC53] {
            mixed = (mixed ^ mixed >> 33).wrapping_mul(odd);
        }
        mixed < self.below
    }
}

impl Trial {
    /// For a device that holds `bytes` in slices of `slice_bytes` and segments of `segment_bytes`.
    pub(crate) fn new(bytes: u64, slice_bytes: u64, segment_bytes: u64) -> Self {
        let bytes = bytes.max(1);
        let bytes_max = (SLICES * slice_bytes).min(bytes);
        let below = (u128::from(bytes_max) * u128::from(u64::MAX) / u128::from(bytes)) as u64;
        let ghosts = (bytes_max / slice_bytes.max(1)).max(1);
        let shadows = Share::ALL.map(|share| Shadow::new(share, ghosts, bytes_max));
        let open_share = segment_bytes as f64 / bytes as f64;
        Self { shadows, leader: Share::FIRST, sample: Sample { below }, bytes_max, open_share, asked: 0 }
    }

    pub(super) fn sample(&self) -> Sample {
        self.sample
    }

    /// Follows this way until another is clearly better.
    #[cfg(test)]
    pub(super) fn follow(&mut self, way: usize) {
        self.leader = way;
    }

    /// What serves best now.
    pub(crate) fn share(&self) -> Share {
        self.shadows[self.leader].share
    }

    /// A slice was asked for, whether or not the device had it.
    pub(crate) fn asked(&mut self, hash: u64, bytes: u64) {
        if !self.sample.has(hash) {
            return;
        }
        let open_bytes = (self.bytes_max as f64 * self.open_share) as u64;
        for shadow in &mut self.shadows {
            shadow.asked(hash, bytes, self.bytes_max, open_bytes);
        }
        self.asked += bytes;
        if self.asked >= self.bytes_max / JUDGED {
            self.asked = 0;
            self.judge();
        }
        if self.shadows.iter().any(|shadow| shadow.slices.len() > SLICES_MAX) {
            self.halve_sample();
        }
    }

    fn judge(&mut self) {
        let scores = self.shadows.iter().map(|shadow| shadow.score).enumerate();
        let (best, score) = scores.max_by(|(_, a), (_, b)| a.total_cmp(b)).expect("there are shadows");
        if score > self.shadows[self.leader].score * CLEARLY {
            self.leader = best;
        }
        self.shadows.iter_mut().for_each(|shadow| shadow.score *= FADE);
    }

    fn halve_sample(&mut self) {
        self.sample = Sample { below: self.sample.below / 2 };
        self.bytes_max = (self.bytes_max / 2).max(1);
        self.shadows.iter_mut().for_each(|shadow| shadow.retain(self.sample));
    }
}

/// One way of sharing, in little.
struct Shadow {
    share: Share,
    slices: HashMap<u64, Slice>,
    new: Queue,
    proven: Queue,
    ghosts: Ghosts,
    allowance: Allowance,
    /// How long a slice stays, in bytes written.
    stay: u64,
    /// Bytes asked for and there, the latest counting most.
    score: f64,
}

#[derive(Clone, Copy)]
struct Slice {
    bytes: u64,
    hits: Hits,
    shelf: Shelf,
    /// [`Queue::written`] when it came, of its shelf and of both.
    at: u64,
    at_of_both: u64,
}

/// A shelf: its slices, the oldest first.
#[derive(Default)]
struct Queue {
    hashes: VecDeque<u64>,
    bytes: u64,
    /// All bytes that ever came.
    written: u64,
}

impl Shadow {
    fn new(share: Share, ghosts: u64, bytes_max: u64) -> Self {
        let (new, proven) = (Queue::default(), Queue::default());
        Self {
            share,
            slices: HashMap::new(),
            new,
            proven,
            ghosts: Ghosts::new(ghosts),
            allowance: Allowance::new(bytes_max),
            stay: bytes_max,
            score: 0.0,
        }
    }

    fn asked(&mut self, hash: u64, bytes: u64, bytes_max: u64, open_bytes: u64) {
        self.allowance.asked(bytes);
        let written_of_both = self.written();
        if let Some(slice) = self.slices.get_mut(&hash) {
            self.score += slice.bytes as f64;
            let written = if slice.shelf == Shelf::New { self.new.written } else { self.proven.written };
            if written - slice.at > open_bytes {
                slice.hits = slice.hits.hit(eighth(written_of_both - slice.at_of_both, self.stay));
            }
            return;
        }
        let Verdict::Write(shelf) = self.share.verdict(hash, self.ghosts.take(hash)) else { return };
        self.put(hash, bytes, shelf, Hits::default());
        self.allowance.admitted(bytes);
        while self.new.bytes + self.proven.bytes > bytes_max {
            self.reclaim();
        }
    }

    fn put(&mut self, hash: u64, bytes: u64, shelf: Shelf, hits: Hits) {
        let queue = self.queue(shelf);
        queue.hashes.push_back(hash);
        queue.bytes += bytes;
        queue.written += bytes;
        let at = queue.written;
        let at_of_both = self.written();
        self.slices.insert(hash, Slice { bytes, hits, shelf, at, at_of_both });
    }

    fn written(&self) -> u64 {
        self.new.written + self.proven.written
    }

    fn stand(&self, queue: &Queue) -> Stand {
        let age = queue.hashes.front().map_or(0, |oldest| self.written() - self.slices[oldest].at_of_both);
        Stand { size: queue.bytes, age }
    }

    fn reclaim(&mut self) {
        let (new, proven) = (self.stand(&self.new), self.stand(&self.proven));
        let shelf = self.share.reclaims(new, proven);
        let age = if shelf == Shelf::New { new.age } else { proven.age };
        self.stay = self.share.stay(shelf, age).unwrap_or(self.stay);
        let hash = self.queue(shelf).hashes.pop_front().expect("a shelf that is reclaimed holds something");
        let slice = self.slices.remove(&hash).expect("what is queued is known");
        self.queue(shelf).bytes -= slice.bytes;
        match self.allowance.keeps(self.share, shelf, slice.hits, slice.bytes) {
            Some((to, hits)) => self.put(hash, slice.bytes, to, hits),
            None => {
                self.ghosts.fit(self.slices.len() as u64);
                self.ghosts.add(hash);
            }
        }
    }

    fn queue(&mut self, shelf: Shelf) -> &mut Queue {
        match shelf {
            Shelf::New => &mut self.new,
            Shelf::Proven => &mut self.proven,
        }
    }

    fn retain(&mut self, sample: Sample) {
        self.slices.retain(|hash, _| sample.has(*hash));
        for queue in [&mut self.new, &mut self.proven] {
            queue.hashes.retain(|hash| sample.has(*hash));
            queue.bytes = queue.hashes.iter().map(|hash| self.slices[hash].bytes).sum();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::hash;

    const SLICE: u64 = 1 << 20;

    fn feed(trial: &mut Trial, slices: impl Iterator<Item = u64>) -> f64 {
        slices.for_each(|slice| trial.asked(hash(slice), SLICE));
        trial.share().new
    }

    #[test]
    fn scans_between_a_few_favourites_call_for_quick_demotion_and_what_is_wanted_for_a_while_calls_for_patience() {
        let mut trial = Trial::new(1000 * SLICE, SLICE, 16 * SLICE);
        // Favourites come every 4000 slices, which is more than fit; what is between them never comes again.
        let share = feed(&mut trial, (0..200_000).map(|n| if n % 5 == 0 { n / 5 % 800 } else { 1_000_000 + n }));
        assert!(share < 0.2, "{share}");
        // Now every slice is wanted twice, the second time after 300 others.
        let share = feed(&mut trial, (0..200_000).map(|n| 10_000_000 + n / 2 - if n % 2 == 0 { 0 } else { 300 }));
        assert!(share > 0.5, "{share}");
    }

    #[test]
    fn of_a_loop_that_is_larger_than_the_device_a_part_is_let_in() {
        let mut trial = Trial::new(1000 * SLICE, SLICE, 16 * SLICE);
        feed(&mut trial, (0..100_000).map(|n| n % 3000));
        assert!(trial.share().admitted < 1.0);
        feed(&mut trial, (0..100_000).map(|n| n % 500));
        assert!(trial.share().admitted == 1.0);
    }

    #[test]
    fn memory_is_bounded_however_large_the_device_and_however_small_the_slices() {
        let mut trial = Trial::new(100 << 40, SLICE, 64 * SLICE);
        for slice in 0..3_000_000 {
            trial.asked(hash(slice), 4096);
        }
        // Of a device of 100 TiB, one slice in 25,600 is shown.
        assert!((50..200).contains(&trial.shadows[0].slices.len()));
        let mut trial = Trial::new(8 << 30, SLICE, 64 * SLICE);
        for slice in 0..300_000 {
            trial.asked(hash(slice), 4096);
            assert!(trial.shadows.iter().all(|shadow| shadow.slices.len() <= SLICES_MAX));
        }
        assert_eq!(trial.bytes_max, 128 * SLICE);
        for shadow in &trial.shadows {
            assert_eq!(shadow.slices.len(), shadow.new.hashes.len() + shadow.proven.hashes.len());
            assert_eq!(shadow.new.bytes + shadow.proven.bytes, shadow.slices.len() as u64 * 4096);
        }
    }
}
