//! Which events came already: the latest ones, by their identities.
//!
//! Two sets: when the young one is full it becomes the old one, and the old one is forgotten. So at least as many of the latest events are known
//! as one set holds, and at most twice as many. A set takes nine bytes for each of its places, of which it has a power of two, at most
//! seven eighths full: 19 MB for two sets of up to 917,504.

use std::mem;

use foldhash::HashSet;

/// Identities are hashes already, so the quickest hash of them will do.
type Identities = HashSet<u64>;

#[derive(Debug)]
pub(crate) struct Seen {
    young: Identities,
    old: Identities,
    young_max: usize,
}

impl Seen {
    /// Knows at least so many of the latest.
    pub(crate) fn new(young_max: usize) -> Self {
        Self { young: Identities::default(), old: Identities::default(), young_max }
    }

    /// Whether it is here for the first time, as far as is known. From now on it is not.
    pub(crate) fn is_new(&mut self, identity: u64) -> bool {
        if self.young.contains(&identity) || self.old.contains(&identity) {
            return false;
        }
        if self.young.len() >= self.young_max {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(identity);
        true
    }

    /// Forgets events that were not kept after all.
    pub(crate) fn forget(&mut self, identities: impl Iterator<Item = u64>) {
        for identity in identities {
            self.young.remove(&identity);
            self.old.remove(&identity);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_new_once_until_enough_others_came() {
        let mut seen = Seen::new(100);
        for n in 0..1000_u64 {
            let identity = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            assert!(seen.is_new(identity) && !seen.is_new(identity));
            if n >= 100 {
                assert!(!seen.is_new((n - 100).wrapping_mul(0x9e37_79b9_7f4a_7c15)), "{n}: the latest hundred are known");
            }
        }
        assert!(seen.young.len() + seen.old.len() <= 200);
        seen.forget([999_u64.wrapping_mul(0x9e37_79b9_7f4a_7c15)].into_iter());
        assert!(seen.is_new(999_u64.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    }
}
