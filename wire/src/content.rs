//! What an edge holds, in few bytes: a filter over the hashes of its slices, or over a sample of them, that control asks how much of a title is there.
//!
//! A slice is known by a 64-bit hash of its object's path and its number ([`slice_hash`]), the one by which a cache files it on SSD. Of large
//! caches only the hashes that end in [`Digest::sample_bits`] zero bits are in the filter, so a digest has a bounded size and the sample is
//! the same for all who ask. A filter never denies what it was made of; it affirms about one in 256 of all other hashes.

mod filter;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

pub use filter::{FALSE_POSITIVES, Filter, FilterError};

/// The most slices that a digest's filter is made of: with that many it takes 512 KiB at most.
pub const SLICES_MAX: usize = 400_000;
/// An estimate looks no further once it has seen so many slices of the sample: its standard error is a sixteenth then, at worst.
const SEEN_MAX: u64 = 64;

/// What a slice is filed under: XXH3 (64 bits, version 0.8) of its number as eight bytes, little-endian, seeded with XXH3 of the object's path,
/// which is seeded with the cache's own `seed`.
pub fn slice_hash(seed: u64, path: &str, number: u64) -> u64 {
    xxh3_64_with_seed(&number.to_le_bytes(), xxh3_64_with_seed(path.as_bytes(), seed))
}

/// What an edge says of its content.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Digest {
    /// Slices that it holds, in RAM or on SSD.
    pub slices: u64,
    /// Bytes of a whole slice.
    pub slice_bytes: u64,
    /// What the cache seeds its hashes with, as 16 hexadecimal digits: JSON's numbers are exact to 53 bits only (RFC 8259 §6).
    #[serde(with = "hex")]
    pub seed: u64,
    /// Only hashes that end in so many zero bits are in the filter, at most 63.
    pub sample_bits: u32,
    /// Over these.
    pub filter: Filter,
}

/// Hashes on their way into a digest: all are counted, and no more than [`SLICES_MAX`] are kept.
#[derive(Debug, Clone)]
pub struct Sample {
    hashes: Vec<u64>,
    hashes_max: usize,
    bits: u32,
    slices: u64,
    sum: u64,
}

impl Default for Sample {
    fn default() -> Self {
        Self::of_at_most(SLICES_MAX)
    }
}

impl Sample {
    fn of_at_most(hashes_max: usize) -> Self {
        Self { hashes: Vec::new(), hashes_max, bits: 0, slices: 0, sum: 0 }
    }

    /// The hash of a slice that is there. One that comes twice counts twice, and is kept once.
    pub fn add(&mut self, hash: u64) {
        self.slices += 1;
        self.sum = self.sum.wrapping_add(hash);
        if is_sampled(hash, self.bits) {
            self.hashes.push(hash);
            self.shrink();
        }
    }

    fn shrink(&mut self) {
        if self.hashes.len() <= self.hashes_max {
            return;
        }
        self.hashes.sort_unstable();
        self.hashes.dedup();
        // Half of the room is free afterwards, so that this is seldom.
        while self.hashes.len() > self.hashes_max / 2 {
            self.bits += 1;
            self.hashes.retain(|hash| is_sampled(*hash, self.bits));
        }
    }

    /// How many came, and their sum: almost surely another one when others came.
    pub fn fingerprint(&self) -> (u64, u64) {
        (self.slices, self.sum)
    }

    /// What is told of a cache with this seed and slices of so many bytes.
    pub fn digest(mut self, seed: u64, slice_bytes: u64) -> Digest {
        self.hashes.sort_unstable();
        self.hashes.dedup();
        Digest { slices: self.slices, slice_bytes, seed, sample_bits: self.bits, filter: Filter::of(&self.hashes) }
    }
}

impl Digest {
    /// Which share of these objects (path and length in bytes) is there, from 0 to 1, as far as the sample can tell. `None` where it cannot: no slice of them is in
    /// the sample.
    pub fn share(&self, objects: impl IntoIterator<Item = (impl AsRef<str>, u64)>) -> Option<f64> {
        let (mut seen, mut held) = (0, 0);
        for (path, bytes) in objects {
            let slices = bytes.div_ceil(self.slice_bytes.max(1)).max(1);
            for number in 0..slices {
                let hash = slice_hash(self.seed, path.as_ref(), number);
                if is_sampled(hash, self.sample_bits) {
                    seen += 1;
                    held += u64::from(self.filter.contains(hash));
                    if seen == SEEN_MAX {
                        return Some(held as f64 / seen as f64);
                    }
                }
            }
        }
        (seen > 0).then(|| held as f64 / seen as f64)
    }
}

fn is_sampled(hash: u64, sample_bits: u32) -> bool {
    hash.trailing_zeros() >= sample_bits
}

mod hex {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{value:016x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.len() {
            16 => u64::from_str_radix(&text, 16).map_err(D::Error::custom),
            _ => Err(D::Error::custom("a seed is 16 hexadecimal digits")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn segment(title: usize, number: usize) -> String {
        format!("/titles/{title}/v720/{number:05}.m4s")
    }

    /// A cache that has the first `held` segments of three slices each, for each title.
    fn digest_of_at_most(hashes_max: usize, titles: usize, held: usize) -> Digest {
        let mut sample = Sample::of_at_most(hashes_max);
        for title in 0..titles {
            for number in 0..held {
                (0..3).for_each(|slice| sample.add(slice_hash(7, &segment(title, number), slice)));
            }
        }
        sample.digest(7, MIB)
    }

    fn digest(titles: usize, held: usize) -> Digest {
        digest_of_at_most(SLICES_MAX, titles, held)
    }

    fn share(digest: &Digest, title: usize, segments: usize) -> Option<f64> {
        let paths: Vec<_> = (0..segments).map(|number| segment(title, number)).collect();
        digest.share(paths.iter().map(|path| (path.as_str(), 3 * MIB)))
    }

    #[test]
    fn hashes_are_the_same_in_every_release() {
        // The XXH3 library's own, version 0.8.
        assert_eq!(xxh3_64_with_seed(b"", 0), 0x2d06_8005_38d3_94c2);
        let hashes = [(0, 0), (0, 1), (7, 1)].map(|(seed, number)| slice_hash(seed, "/titles/a/v720/00001.m4s", number));
        assert_eq!(hashes, [7_896_497_534_773_883_336, 1_741_612_948_028_731_578, 13_343_083_577_161_777_206]);
    }

    #[test]
    fn a_title_is_there_as_far_as_its_slices_are() {
        let digest = digest(50, 20);
        assert_eq!((digest.slices, digest.sample_bits), (3000, 0));
        assert_eq!(share(&digest, 3, 20), Some(1.0), "what is there is never denied");
        // Of forty segments the first 64 slices are looked at, and 60 of these are there.
        assert!(share(&digest, 3, 40).is_some_and(|share| (0.93..0.98).contains(&share)));
        assert!(share(&digest, 1000, 20).is_some_and(|share| share < 0.1));
        assert_eq!(digest.share([("", 0); 0]), None);
    }

    #[test]
    fn of_a_large_cache_a_sample_is_told_that_answers_as_well() {
        let digest = digest_of_at_most(20_000, 100, 1000);
        assert_eq!((digest.slices, digest.sample_bits), (300_000, 4));
        assert!(digest.filter.bytes() < 24_000, "{}", digest.filter.bytes());
        for title in [0, 17, 99] {
            assert_eq!(share(&digest, title, 1000), Some(1.0));
        }
        assert!(share(&digest, 5000, 1000).is_some_and(|share| share < 0.1));
    }

    #[test]
    fn what_comes_twice_is_kept_once_and_other_slices_have_another_fingerprint() {
        let mut sample = Sample::of_at_most(4);
        let before = sample.fingerprint();
        (0..100).for_each(|_| sample.add(5));
        assert_eq!((sample.bits, sample.slices), (0, 100));
        assert_ne!(sample.fingerprint(), before);
        assert!(sample.digest(0, 1).filter.contains(5));
    }

    #[test]
    fn a_digest_fits_a_line() {
        let filter = Filter::of(&(0..SLICES_MAX as u64).collect::<Vec<_>>());
        assert!(filter.bytes() <= 512 << 10, "{}", filter.bytes());
        assert!(filter.bytes().div_ceil(3) * 4 + 1000 < crate::report::UP_LINE_BYTES_MAX);
    }

    #[test]
    fn it_passes_as_json() {
        let digest = digest(2, 2);
        let json = serde_json::to_string(&digest).unwrap();
        assert!(json.contains(r#""seed":"0000000000000007""#), "{json}");
        assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), digest);
        assert!(serde_json::from_str::<Digest>(&json.replace("0000000000000007", "7")).is_err());
        let newer = json.replacen('{', r#"{"later":[1],"#, 1);
        assert_eq!(serde_json::from_str::<Digest>(&newer).unwrap(), digest, "what is not known is passed over");
    }
}
