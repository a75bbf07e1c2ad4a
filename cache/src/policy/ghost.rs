//! Ghosts: what left a device not long ago, in two bytes each.
//!
//! A fingerprint filter in the manner of a set-associative cache: sets of eight fingerprints, the newest first, and one that is pushed out is forgotten.
//! So it remembers about as many slices as it has room for, those that left last. Of strangers it takes about one in 8,000 for a ghost.

/// Fingerprints in a set: one set is a quarter of a cache line.
const WAYS: usize = 8;
/// No fingerprint.
const EMPTY: u16 = 0;

/// See the module.
pub(crate) struct Ghosts {
    sets: Vec<[u16; WAYS]>,
}

impl Ghosts {
    /// Remembers about `slices`, in two bytes each.
    pub(crate) fn new(slices: u64) -> Self {
        let sets = usize::try_from(slices).unwrap_or(usize::MAX).div_ceil(WAYS).max(1);
        Self { sets: vec![[EMPTY; WAYS]; sets] }
    }

    /// Makes room for about as many as `slices`, if there is much less. Nothing is forgotten.
    pub(crate) fn fit(&mut self, slices: u64) {
        while slices > (self.sets.len() * WAYS * 3 / 2) as u64 {
            // Which half of a set's hashes a fingerprint is of, nobody knows any more: both halves get it, and forget it in time.
            self.sets = self.sets.iter().flat_map(|set| [*set, *set]).collect();
        }
    }

    /// It left.
    pub(crate) fn add(&mut self, hash: u64) {
        let (set, fingerprint) = self.place(hash);
        let oldest = set.iter().position(|known| *known == fingerprint).unwrap_or(WAYS - 1);
        set[..=oldest].rotate_right(1);
        set[0] = fingerprint;
    }

    /// Whether it left not long ago; forgets it.
    pub(crate) fn take(&mut self, hash: u64) -> bool {
        let (set, fingerprint) = self.place(hash);
        let Some(at) = set.iter().position(|known| *known == fingerprint) else { return false };
        set[at..].rotate_left(1);
        set[WAYS - 1] = EMPTY;
        true
    }

    fn place(&mut self, hash: u64) -> (&mut [u16; WAYS], u16) {
        // The high bits choose the set, evenly for any number of sets; the low bits are the fingerprint.
        let set = ((u128::from(hash) * self.sets.len() as u128) >> 64) as usize;
        (&mut self.sets[set], (hash as u16).max(EMPTY + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::hash;

    #[test]
    fn what_left_last_is_remembered_and_only_once() {
        let mut ghosts = Ghosts::new(1000);
        (0..10_000).for_each(|slice| ghosts.add(hash(slice)));
        let found = (9_500..10_000).filter(|slice| ghosts.take(hash(*slice))).count();
        assert!(found > 480, "{found} of the last 500");
        assert_eq!((9_500..10_000).filter(|slice| ghosts.take(hash(*slice))).count(), 0);
        let old = (0..8_000).filter(|slice| ghosts.take(hash(*slice))).count();
        assert!(old < 40, "{old} that left long ago");
    }

    #[test]
    fn strangers_are_hardly_ever_taken_for_ghosts() {
        let mut ghosts = Ghosts::new(4096);
        (0..8192).for_each(|slice| ghosts.add(hash(slice)));
        let found = (1 << 20..(1 << 20) + 100_000).filter(|slice| ghosts.take(hash(*slice))).count();
        assert!(found < 40, "{found} of 100,000");
    }

    #[test]
    fn more_room_forgets_nothing() {
        let mut ghosts = Ghosts::new(1000);
        (0..500).for_each(|slice| ghosts.add(hash(slice)));
        let before = ghosts.sets.len();
        ghosts.fit(1400);
        assert_eq!(ghosts.sets.len(), before);
        ghosts.fit(10_000);
        assert_eq!(ghosts.sets.len(), before * 8);
        let found = (0..500).filter(|slice| ghosts.take(hash(*slice))).count();
        assert!(found > 490, "{found} of 500");
    }

    #[test]
    fn leaving_twice_takes_one_place() {
        let mut ghosts = Ghosts::new(1);
        let one_set: Vec<u64> = (0..WAYS as u64).map(|slice| hash(slice) | 1 << 15 | slice).collect();
        one_set.iter().for_each(|slice| ghosts.add(*slice));
        (0..100).for_each(|_| ghosts.add(one_set[3]));
        assert!(one_set.iter().all(|slice| ghosts.take(*slice)));
    }
}
