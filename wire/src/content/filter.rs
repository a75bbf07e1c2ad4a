//! A binary fuse filter with 8-bit fingerprints (Graf and Lemire, "Binary Fuse Filters: Fast and Smaller Than Xor Filters", ACM Journal of
//! Experimental Algorithmics 27, 2022): about nine bits a key, and no false negatives.
//!
//! As bytes: the seed (8, little-endian), the logarithm of a segment's length (1), the number of segments in which a key's first place may
//! lie (4, little-endian), and the fingerprints, one byte each, for two more segments than that. In JSON: these bytes in base64 (RFC 4648 §4).

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Of hashes that a filter was not made of, the share that it affirms all the same.
pub const FALSE_POSITIVES: f64 = 1.0 / 256.0;
/// What stands before the fingerprints, in bytes.
const HEAD_BYTES: usize = 13;
/// The most bytes of a filter that is taken from others.
const BYTES_MAX: usize = 1 << 20;
/// The longest segment, as a power of two.
const SEGMENT_BITS_MAX: u8 = 18;
/// With this many seeds tried the next tries get a larger table. One in some thousand seeds fails at the first size.
const SEEDS_PER_SIZE: u64 = 16;

/// A set of 64-bit hashes, approximately.
#[derive(Clone, PartialEq, Eq)]
pub struct Filter {
    seed: u64,
    segment_bits: u8,
    /// Segments in which a key's first place may lie; its other two lie in the next two segments.
    segments: u32,
    fingerprints: Vec<u8>,
}

impl Filter {
    /// A filter over `hashes`, each there once.
    pub fn of(hashes: &[u64]) -> Self {
        let mut room = room(hashes.len());
        for seed in 1.. {
            if let Some(filter) = Self::try_of(hashes, seed, room) {
                return filter;
            }
            if seed % SEEDS_PER_SIZE == 0 {
                room += room / 4;
            }
        }
        unreachable!("a table grows until each key has a place of its own")
    }

    fn try_of(hashes: &[u64], seed: u64, room: usize) -> Option<Self> {
        let segment_bits = segment_bits(hashes.len());
        let segments = room.div_ceil(1 << segment_bits).saturating_sub(2).max(1);
        let mut filter = Self {
            seed,
            segment_bits,
            segments: u32::try_from(segments).expect("a digest has a bounded number of hashes"),
            fingerprints: vec![0; (segments + 2) << segment_bits],
        };
        // Of each place: how many keys want it, and these keys xored, so that the last one left is known.
        let mut wanted = vec![(0_u32, 0_u64); filter.fingerprints.len()];
        for hash in hashes {
            let mixed = filter.mixed(*hash);
            filter.places(mixed).into_iter().for_each(|place| {
                wanted[place].0 += 1;
                wanted[place].1 ^= mixed;
            });
        }
        let mut alone: Vec<usize> = (0..wanted.len()).filter(|place| wanted[*place].0 == 1).collect();
        let mut order = Vec::with_capacity(hashes.len());
        while let Some(place) = alone.pop() {
            let (count, mixed) = wanted[place];
            if count != 1 {
                continue;
            }
            order.push((mixed, place));
            for other in filter.places(mixed) {
                wanted[other].0 -= 1;
                wanted[other].1 ^= mixed;
                if wanted[other].0 == 1 {
                    alone.push(other);
                }
            }
        }
        if order.len() < hashes.len() {
            return None;
        }
        // Last out, first in: a key's own place is written when no later key reads it any more.
        for (mixed, place) in order.into_iter().rev() {
            let others = filter.places(mixed).into_iter().filter(|other| *other != place);
            let fingerprint = others.fold(fingerprint(mixed), |print, other| print ^ filter.fingerprints[other]);
            filter.fingerprints[place] = fingerprint;
        }
        Some(filter)
    }

    /// Whether `hash` is there: always true of what the filter was made of, and of [`FALSE_POSITIVES`] of all else.
    pub fn contains(&self, hash: u64) -> bool {
        let mixed = self.mixed(hash);
        self.places(mixed).into_iter().fold(fingerprint(mixed), |print, place| print ^ self.fingerprints[place]) == 0
    }

    /// Its size as bytes.
    pub fn bytes(&self) -> usize {
        HEAD_BYTES + self.fingerprints.len()
    }

    /// MurmurHash3's finalizer of hash and seed.
    fn mixed(&self, hash: u64) -> u64 {
        let mut mixed = hash.wrapping_add(self.seed);
        mixed = (mixed ^ mixed >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
        mixed = (mixed ^ mixed >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        mixed ^ mixed >> 33
    }

    /// Three places in three segments that follow each other.
    fn places(&self, mixed: u64) -> [usize; 3] {
        let length = 1_usize << self.segment_bits;
        let firsts = u128::from(self.segments) << self.segment_bits;
        let first = usize::try_from((u128::from(mixed) * firsts) >> 64).expect("below the table's length");
        let low = |bits: u64| usize::try_from(bits & (length as u64 - 1)).expect("below a segment's length");
        [first, (first + length) ^ low(mixed >> 18), (first + 2 * length) ^ low(mixed)]
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.bytes());
        bytes.extend(self.seed.to_le_bytes());
        bytes.push(self.segment_bits);
        bytes.extend(self.segments.to_le_bytes());
        bytes.extend(&self.fingerprints);
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, FilterError> {
        if bytes.len() > BYTES_MAX {
            return Err(FilterError::TooLarge);
        }
        let (head, fingerprints) = bytes.split_at_checked(HEAD_BYTES).ok_or(FilterError::Flawed)?;
        let seed = u64::from_le_bytes(head[..8].try_into().expect("8 bytes"));
        let segment_bits = head[8];
        let segments = u32::from_le_bytes(head[9..].try_into().expect("4 bytes"));
        if segment_bits > SEGMENT_BITS_MAX || segments == 0 {
            return Err(FilterError::Flawed);
        }
        if (u64::from(segments) + 2) << segment_bits != fingerprints.len() as u64 {
            return Err(FilterError::Flawed);
        }
        Ok(Self { seed, segment_bits, segments, fingerprints: fingerprints.to_vec() })
    }
}

fn fingerprint(mixed: u64) -> u8 {
    (mixed ^ mixed >> 32) as u8
}

/// Places for so many keys, as the paper has it for three places a key.
fn room(keys: usize) -> usize {
    let keys = keys.max(2) as f64;
    (keys * f64::max(1.125, 0.875 + 0.25 * 1e6_f64.ln() / keys.ln())).round() as usize
}

/// The length of a segment, likewise.
fn segment_bits(keys: usize) -> u8 {
    let bits = ((keys.max(2) as f64).ln() / 3.33_f64.ln() + 2.25).floor() as u8;
    bits.min(SEGMENT_BITS_MAX)
}

impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Filter({} bytes)", self.bytes())
    }
}

impl Serialize for Filter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64_STANDARD.encode(self.to_bytes()))
    }
}

impl<'de> Deserialize<'de> for Filter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.len() > BYTES_MAX.div_ceil(3) * 4 {
            return Err(serde::de::Error::custom(FilterError::TooLarge));
        }
        let bytes = BASE64_STANDARD.decode(text).map_err(serde::de::Error::custom)?;
        Self::from_bytes(&bytes).map_err(serde::de::Error::custom)
    }
}

/// Why bytes are no filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// More than a mebibyte.
    #[error("a filter has at most {BYTES_MAX} bytes")]
    TooLarge,
    /// Its parts do not fit each other.
    #[error("a filter's length does not agree with what its head says")]
    Flawed,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hashes(count: u64) -> Vec<u64> {
        (0..count).map(|n| super::super::slice_hash(1, "/a", n)).collect()
    }

    #[test]
    fn what_it_was_made_of_is_there_and_one_in_256_of_the_rest_seems_to_be() {
        const ASKED: u64 = 1_000_000;
        let kept = hashes(100_000);
        let filter = Filter::of(&kept);
        assert!(kept.iter().all(|hash| filter.contains(*hash)));
        let wrong = (0..ASKED).filter(|n| filter.contains(super::super::slice_hash(2, "/b", *n))).count();
        let rate = wrong as f64 / ASKED as f64;
        assert!((FALSE_POSITIVES * 0.9..FALSE_POSITIVES * 1.1).contains(&rate), "{rate}");
        let bits = filter.bytes() as f64 * 8.0 / kept.len() as f64;
        assert!(bits < 9.6, "{bits} bits a key");
    }

    #[test]
    fn a_filter_over_nothing_affirms_next_to_nothing() {
        let filter = Filter::of(&[]);
        let wrong = hashes(100_000).into_iter().filter(|hash| filter.contains(*hash)).count();
        assert!(wrong < 500, "{wrong}");
    }

    #[test]
    fn the_bytes_are_the_same_in_every_release() {
        let filter = Filter::of(&hashes(5));
        assert_eq!(BASE64_STANDARD.encode(filter.to_bytes()), "AQAAAAAAAAADAQAAAAAAAAAAAIUAAEgAAAAAAJwAAAAArQAA8A==");
    }

    #[test]
    fn bytes_that_do_not_fit_are_no_filter() {
        let good = Filter::of(&hashes(100)).to_bytes();
        assert!(Filter::from_bytes(&good).is_ok());
        for bad in [&good[..good.len() - 1], &good[..HEAD_BYTES], &good[..5], &[]] {
            assert_eq!(Filter::from_bytes(bad), Err(FilterError::Flawed));
        }
        let spoilt = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            Filter::from_bytes(&bytes)
        };
        assert_eq!(spoilt(8, 64), Err(FilterError::Flawed));
        assert_eq!(spoilt(12, 255), Err(FilterError::Flawed));
        assert_eq!(Filter::from_bytes(&vec![0; BYTES_MAX + 1]), Err(FilterError::TooLarge));
    }

    proptest! {
        #[test]
        fn no_hash_is_ever_denied(hashes in prop::collection::hash_set(any::<u64>(), 0..300)) {
            let hashes: Vec<_> = hashes.into_iter().collect();
            let filter = Filter::of(&hashes);
            prop_assert!(hashes.iter().all(|hash| filter.contains(*hash)));
            prop_assert_eq!(Filter::from_bytes(&filter.to_bytes()), Ok(filter));
        }

        #[test]
        fn whatever_bytes_come_nothing_breaks(bytes in prop::collection::vec(any::<u8>(), 0..200), hash: u64) {
            if let Ok(filter) = Filter::from_bytes(&bytes) {
                filter.contains(hash);
            }
        }
    }
}
