//! An optimum for scale: a cache that knows the future and gives up the slice that is wanted latest (Belady, 1966).
//!
//! It does not keep what never comes again. With slices of one size no cache does better; as the last slice of an object is smaller than the others,
//! this is close to the optimum and no bound. It has neither heads nor segments to pay for.

use std::collections::{BTreeSet, HashMap};

use super::{Outcome, Piece, charged, pieces};

/// No later request.
const NEVER: u32 = u32::MAX;

/// A trace as it is needed to know the future: all of it.
///
/// Memory: about 12 bytes per slice whenever it is asked for, and 80 per slice that there is.
pub struct Farthest {
    slice_bytes: u64,
    /// Slices of each request, and its bytes.
    requests: Vec<(u32, u64)>,
    slices: Vec<(u32, u32)>,
    numbers: HashMap<u64, u32>,
}

/// More slices are asked for than can be kept in mind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the trace is too long to know its future: more than {} slices are asked for", NEVER - 1)]
pub struct TooLong;

impl Farthest {
    /// Knows nothing yet.
    pub fn new(slice_bytes: u64) -> Self {
        Self { slice_bytes, requests: Vec::new(), slices: Vec::new(), numbers: HashMap::new() }
    }

    /// The next request will be for the first `bytes` of `object`.
    ///
    /// # Errors
    /// When there are too many to remember.
    pub fn learn(&mut self, object: u64, bytes: u64) -> Result<(), TooLong> {
        let before = self.slices.len();
        for Piece { hash, bytes } in pieces(object, bytes, self.slice_bytes) {
            if self.slices.len() as u64 >= u64::from(NEVER) {
                return Err(TooLong);
            }
            let next = self.numbers.len() as u32;
            let number = *self.numbers.entry(hash).or_insert(next);
            self.slices.push((number, bytes as u32));
        }
        self.requests.push(((self.slices.len() - before) as u32, bytes));
        Ok(())
    }

    /// What a cache of `bytes_max` does with all that was learnt. All hits count as those of RAM.
    pub fn replay(&self, bytes_max: u64) -> Outcome {
        let nexts = self.nexts();
        let mut kept = Kept { bytes_max, bytes: 0, by_next: BTreeSet::new(), slices: vec![None; self.numbers.len()] };
        let mut outcome = Outcome::default();
        let mut slices = self.slices.iter().zip(&nexts);
        for (count, bytes) in &self.requests {
            let mut hit = 0;
            for (&(number, bytes), &next) in slices.by_ref().take(*count as usize) {
                hit += if kept.take(number, bytes) { u64::from(bytes) } else { 0 };
                kept.put(number, bytes, next);
            }
            outcome.requests += 1;
            outcome.bytes += bytes;
            outcome.bytes_ram += hit;
            outcome.objects_hit += u64::from(hit == *bytes);
            outcome.objects_ram = outcome.objects_hit;
        }
        outcome
    }

    /// For each slice asked for, when it is asked for next.
    fn nexts(&self) -> Vec<u32> {
        let mut known = vec![NEVER; self.numbers.len()];
        let mut nexts = vec![NEVER; self.slices.len()];
        for (at, (number, _)) in self.slices.iter().enumerate().rev() {
            nexts[at] = std::mem::replace(&mut known[*number as usize], at as u32);
        }
        nexts
    }
}

struct Kept {
    bytes_max: u64,
    bytes: u64,
    /// When each is wanted next, and which it is.
    by_next: BTreeSet<(u32, u32)>,
    /// When each is wanted next, and its bytes.
    slices: Vec<Option<(u32, u32)>>,
}

impl Kept {
    /// Whether it is there, all of it; it is not any more.
    fn take(&mut self, number: u32, bytes: u32) -> bool {
        let Some((next, kept)) = self.slices[number as usize].take() else { return false };
        self.by_next.remove(&(next, number));
        self.bytes -= charged(u64::from(kept));
        kept >= bytes
    }

    fn put(&mut self, number: u32, bytes: u32, next: u32) {
        if next == NEVER {
            return;
        }
        self.slices[number as usize] = Some((next, bytes));
        self.by_next.insert((next, number));
        self.bytes += charged(u64::from(bytes));
        while self.bytes > self.bytes_max {
            let (_, latest) = self.by_next.last().copied().expect("bytes are of slices");
            self.take(latest, 0);
        }
    }
}
