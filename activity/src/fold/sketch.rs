//! Quantiles of numbers, to a sixteenth, in at most 241 counts.
//!
//! Buckets as HdrHistogram has them: linear in eight steps between powers of two, so that the middle of a bucket is at most a sixteenth off, and
//! sketches of other hours and regions can be added.

use std::collections::BTreeMap;

use crate::pack::{Damaged, Unpack, put};

/// Steps between two powers of two, as a power of two.
const STEP_BITS: u32 = 3;

/// How often which numbers came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sketch(BTreeMap<u16, u64>);

impl Sketch {
    pub(crate) fn add(&mut self, number: u32, times: u64) {
        let count = self.0.entry(bucket(number)).or_default();
        *count = count.saturating_add(times);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (bucket, times) in &other.0 {
            let count = self.0.entry(*bucket).or_default();
            *count = count.saturating_add(*times);
        }
    }

    /// How many numbers there are.
    pub fn count(&self) -> u64 {
        self.0.values().fold(0, |sum, times| sum.saturating_add(*times))
    }

    /// A number that `share` (0 to 1) of all are not above; `None` when there are none.
    pub fn quantile(&self, share: f64) -> Option<u64> {
        let wanted = (share * self.count() as f64).ceil().max(1.0) as u64;
        let mut below = 0_u64;
        let found = self.0.iter().find(|(_, times)| {
            below = below.saturating_add(**times);
            below >= wanted
        });
        found.map(|(bucket, _)| middle(*bucket))
    }

    pub(crate) fn save(&self, out: &mut Vec<u8>) {
        put(out, self.0.len() as u64);
        for (bucket, times) in &self.0 {
            put(out, u64::from(*bucket));
            put(out, *times);
        }
    }

    pub(crate) fn load(unpack: &mut Unpack<'_>) -> Result<Self, Damaged> {
        let each = (0..unpack.count()?).map(|_| Ok((unpack.small()?, unpack.number()?)));
        let buckets = each.collect::<Result<BTreeMap<u16, u64>, Damaged>>()?;
        if buckets.keys().any(|at| *at > bucket(u32::MAX)) { Err(unpack.damaged()) } else { Ok(Self(buckets)) }
    }
}

const fn bucket(number: u32) -> u16 {
    if number < 1 << STEP_BITS {
        return number as u16;
    }
    let power = number.ilog2() - STEP_BITS;
    ((power << STEP_BITS) + (number >> power)) as u16
}

/// The middle of a bucket.
const fn middle(bucket: u16) -> u64 {
    let bucket = bucket as u64;
    if bucket < 2 << STEP_BITS {
        return bucket;
    }
    let power = (bucket >> STEP_BITS) - 1;
    let low = (bucket - (power << STEP_BITS)) << power;
    low + (1 << power) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_a_numbers_bucket_is_within_a_sixteenth() {
        for number in
            (0..5000).chain((1..32).flat_map(|bits| [(1_u32 << bits) - 1, 1 << bits, (1 << bits) + 1])).chain([u32::MAX])
        {
            let off = middle(bucket(number)).abs_diff(u64::from(number));
            assert!(off * 16 <= u64::from(number), "{number}: {off}");
        }
        assert_eq!(bucket(u32::MAX), 239);
    }

    #[test]
    fn quantiles_are_those_of_the_numbers_and_survive_saving_and_adding() {
        let (mut low, mut high) = (Sketch::default(), Sketch::default());
        (1..=500).for_each(|n| low.add(n, 2));
        (501..=1000).for_each(|n| high.add(n, 2));
        low.merge(&high);
        let mut bytes = Vec::new();
        low.save(&mut bytes);
        assert_eq!(Sketch::load(&mut Unpack::new(&bytes, "it")), Ok(low.clone()));
        assert_eq!(low.count(), 2000);
        for (share, expected) in [(0.5, 500), (0.95, 950), (0.0, 1), (1.0, 1000)] {
            let found = low.quantile(share).unwrap();
            assert!(found.abs_diff(expected) * 16 <= expected, "{share}: {found}");
        }
        assert_eq!(Sketch::default().quantile(0.5), None);
    }
}
