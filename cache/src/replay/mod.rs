//! A cache without bytes: requests of a trace go through the same policies as a viewer's, and what comes of them is counted.
//!
//! RAM is foyer's own table, as [`crate::Cache`] sets it up; the SSD is a model (`log.rs`) of segments that asks the engine's own policy. There is one
//! reader: no fill takes time, so nobody waits and nothing is read ahead.
//!
//! A request is for the first `bytes` of an object, cut into slices as the cache does. A slice that is kept but is shorter than what is wanted of it now
//! is missing.

mod farthest;
mod log;

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

pub use farthest::{Farthest, TooLong};
use foyer_memory::{Cache, CacheBuilder, EvictionConfig};
use serde::Serialize;

use crate::{disk::Cut, memory::Policy, slab::record_bytes};
pub(crate) use log::Log;

/// The tiers of a cache to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tiers {
    /// For slices in RAM, in bytes; 0 for none.
    pub ram_bytes: u64,
    /// Who leaves when RAM is full.
    pub ram_policy: Policy,
    /// The device, in bytes; 0 for none. Below [`Self::ssd_bytes_min`] it keeps nothing.
    pub ssd_bytes: u64,
    /// The unit in which the device is reclaimed, in bytes.
    pub segment_bytes: u64,
    /// Bytes per slice.
    pub slice_bytes: u64,
}

impl Tiers {
    /// The smallest device that there is.
    pub fn ssd_bytes_min(&self) -> u64 {
        Cut::bytes_min(self.segment_bytes)
    }
}

/// A request's slices as they are known in all of this module.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Piece {
    pub(crate) hash: u64,
    pub(crate) bytes: u64,
}

/// Cuts a request into slices.
fn pieces(object: u64, bytes: u64, slice_bytes: u64) -> impl Iterator<Item = Piece> {
    (0..bytes.div_ceil(slice_bytes)).map(move |index| {
        let mut name = [0; 16];
        name[..8].copy_from_slice(&object.to_le_bytes());
        name[8..].copy_from_slice(&index.to_le_bytes());
        Piece { hash: xxhash_rust::xxh3::xxh3_64(&name), bytes: slice_bytes.min(bytes - index * slice_bytes) }
    })
}

/// What a record of `bytes` takes, on a device and of the budget.
fn charged(bytes: u64) -> u64 {
    record_bytes(usize::try_from(bytes).expect("a slice fits in memory")) as u64
}

/// What came of requests. Bytes unless named otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Outcome {
    /// Requests.
    pub requests: u64,
    /// Asked for.
    pub bytes: u64,
    /// Of these, found in RAM.
    pub bytes_ram: u64,
    /// Of these, found on SSD and not in RAM.
    pub bytes_ssd: u64,
    /// Requests of which every byte was in RAM.
    pub objects_ram: u64,
    /// Requests of which every byte was in RAM or on SSD.
    pub objects_hit: u64,
    /// Slices that came from the origin, as records.
    pub bytes_offered: u64,
    /// Of these, what the SSD took.
    pub bytes_admitted: u64,
    /// Written to the SSD again to keep it.
    pub bytes_rewritten: u64,
}

impl Outcome {
    /// Not found in any tier.
    pub fn bytes_origin(&self) -> u64 {
        self.bytes - self.bytes_ram - self.bytes_ssd
    }

    /// Bytes written to SSD per byte admitted; `None` when none were.
    pub fn write_amplification(&self) -> Option<f64> {
        let written = self.bytes_admitted + self.bytes_rewritten;
        (self.bytes_admitted > 0).then(|| written as f64 / self.bytes_admitted as f64)
    }
}

/// A cache without bytes.
pub struct Replay {
    tiers: Tiers,
    ram: Option<Cache<u64, u64, BuildHasherDefault<Hashed>>>,
    ssd: Option<Log>,
    outcome: Outcome,
}

impl Replay {
    /// An empty one. Memory: about 180 bytes per slice that it holds in RAM, 80 on SSD.
    pub fn new(tiers: Tiers) -> Self {
        Self::with(tiers, tiers.ram_policy.eviction())
    }

    /// RAM alone, under a policy with foyer's own settings: to compare with.
    pub fn of_foyer(policy: Policy, ram_bytes: u64, slice_bytes: u64) -> Self {
        let tiers = Tiers { ram_bytes, ram_policy: policy, ssd_bytes: 0, segment_bytes: slice_bytes, slice_bytes };
        Self::with(tiers, policy.of_foyer())
    }

    fn with(tiers: Tiers, eviction: EvictionConfig) -> Self {
        let ram_bytes = usize::try_from(tiers.ram_bytes).unwrap_or(usize::MAX);
        let ram = (ram_bytes > 0).then(|| {
            CacheBuilder::new(ram_bytes)
                .with_name("replay")
                .with_shards(1)
                .with_eviction_config(eviction)
                .with_hash_builder(BuildHasherDefault::default())
                .with_weighter(|_: &u64, bytes: &u64| charged(*bytes) as usize)
                .build()
        });
        let ssd = Log::new(&tiers);
        Self { tiers, ram, ssd, outcome: Outcome::default() }
    }

    /// The first `bytes` of `object` are asked for. No object of no bytes is kept or missed.
    pub fn request(&mut self, object: u64, bytes: u64) {
        let before = self.outcome;
        for piece in pieces(object, bytes, self.tiers.slice_bytes) {
            self.slice(piece);
        }
        let outcome = &mut self.outcome;
        outcome.requests += 1;
        outcome.bytes += bytes;
        let ram = outcome.bytes_ram - before.bytes_ram;
        let ssd = outcome.bytes_ssd - before.bytes_ssd;
        outcome.objects_ram += u64::from(ram == bytes);
        outcome.objects_hit += u64::from(ram + ssd == bytes);
    }

    fn slice(&mut self, piece: Piece) {
        let Piece { hash, bytes } = piece;
        let is_in_ram = self.ram.as_ref().and_then(|ram| ram.get(&hash)).is_some_and(|kept| *kept.value() >= bytes);
        let is_on_ssd = self.ssd.as_ref().is_some_and(|ssd| ssd.has(piece));
        match &mut self.ssd {
            Some(ssd) if is_in_ram || is_on_ssd => ssd.found(hash),
            Some(ssd) => {
                let written = ssd.offer(piece);
                self.outcome.bytes_admitted += written.admitted;
                self.outcome.bytes_rewritten += written.again;
            }
            None => {}
        }
        match (is_in_ram, is_on_ssd) {
            (true, _) => self.outcome.bytes_ram += bytes,
            (false, true) => self.outcome.bytes_ssd += bytes,
            (false, false) => self.outcome.bytes_offered += charged(bytes),
        }
        if let Some(ram) = &self.ram
            && !is_in_ram
        {
            ram.insert(hash, bytes);
        }
    }

    /// What came of it so far.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// The tiers it has.
    pub fn tiers(&self) -> Tiers {
        self.tiers
    }

    /// The share of the SSD, 0 to 1, that is for slices not asked for again yet: the policy's present choice.
    pub fn ssd_new_share(&self) -> Option<f64> {
        self.ssd.as_ref().map(Log::new_share)
    }
}

/// Which bytes were asked for before. What was not is missed by every cache that waits to be asked.
///
/// Memory: about 40 bytes an object.
#[derive(Default)]
pub struct Seen {
    objects: HashMap<u64, u64>,
    /// Requests for objects never asked for before.
    pub first_requests: u64,
    /// Bytes never asked for before.
    pub first_bytes: u64,
}

impl Seen {
    /// The first `bytes` of `object` are asked for.
    pub fn request(&mut self, object: u64, bytes: u64) {
        self.first_requests += u64::from(!self.objects.contains_key(&object));
        let known = self.objects.entry(object).or_insert(0);
        self.first_bytes += bytes.saturating_sub(*known);
        *known = bytes.max(*known);
    }

    /// How many objects were asked for.
    pub fn objects(&self) -> u64 {
        self.objects.len() as u64
    }
}

/// Keys are hashes already.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only numbers are hashed here");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
mod tests;
