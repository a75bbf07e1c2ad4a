//! What a cache holds, told by hashes: how a slice is known outside of this run, and which ones are here.

use std::hash::{BuildHasher as _, RandomState};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::{Cache, Shared, ssd::SliceName};

/// A slice's hash. The second round spreads the slices of one object.
pub(crate) fn slice_hash(seed: u64, key: &str, index: u64) -> u64 {
    xxh3_64_with_seed(&index.to_le_bytes(), xxh3_64_with_seed(key.as_bytes(), seed))
}

/// A seed for a cache without an SSD tier, of which nothing outlasts the run.
pub(crate) fn random_seed() -> u64 {
    RandomState::new().hash_one(0)
}

impl Cache {
    /// What the hashes of slices are seeded with: the same for as long as the SSD tier lasts, or else for this run.
    pub fn seed(&self) -> u64 {
        self.0.seed
    }

    /// The hash of a slice: XXH3 (64 bits) of its number as eight bytes, little-endian, seeded with XXH3 of the object's key, which is seeded with
    /// [`Self::seed`].
    pub fn slice_hash(&self, key: &str, index: u64) -> u64 {
        slice_hash(self.0.seed, key, index)
    }

    /// Calls `each` with the hash of every slice that is in RAM or on SSD now; of one that is in both, twice. Takes a while where there are millions:
    /// not for a thread that serves.
    pub fn hashes(&self, mut each: impl FnMut(u64)) {
        self.0.memory.hashes().into_iter().for_each(&mut each);
        if let Some(disk) = self.0.disk() {
            disk.hashes(each);
        }
    }
}

impl Shared {
    /// What a slice is known by.
    pub(crate) fn slice_hash(&self, slice: SliceName<'_>) -> u64 {
        slice_hash(self.seed, slice.key, slice.index)
    }
}
