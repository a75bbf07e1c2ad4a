//! Purges: what must not be served any more, by object, by prefix and by tag.
//!
//! Nothing is looked for and nothing is deleted. A purge has a number; what was learnt before it and is covered by it is not found any
//! more. So a purge costs the same however many slices it hits, holds for the next request, and holds for fills that are under way, since
//! they carry the number that was current when they began.
//!
//! A *doubt* is weaker and has a number, too: of this object there may be an older version on some device, so what was learnt before it is asked
//! about before it is believed to be the current one.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use parking_lot::RwLock;

/// What to forget.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Purge {
    /// One object, by its whole key.
    Object(String),
    /// All objects whose keys begin so.
    Prefix(String),
    /// All objects that have this tag ([`crate::Generation::tags`]).
    Tag(String),
    /// Everything.
    All,
}

impl fmt::Display for Purge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Object(key) => write!(f, "object {key}"),
            Self::Prefix(prefix) => write!(f, "prefix {prefix}"),
            Self::Tag(tag) => write!(f, "tag {tag}"),
            Self::All => f.write_str("all"),
        }
    }
}

/// What is written down to outlast a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Note {
    Purge(Purge),
    /// Of this object, or of all.
    Doubt(Option<String>),
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Purge(purge) => write!(f, "the purge of {purge}"),
            Self::Doubt(Some(key)) => write!(f, "the doubt of object {key}"),
            Self::Doubt(None) => f.write_str("the doubt of all"),
        }
    }
}

/// As many doubts are remembered one by one. Beyond, the older half becomes one doubt of everything that was learnt before it.
pub(crate) const DOUBTS_MAX: usize = 16_384;

/// As many purges are remembered one by one. Beyond, the older half becomes one purge of everything that was learnt before it.
pub(crate) const PURGES_MAX: usize = 16_384;

/// The purges that may still cover something.
#[derive(Default)]
pub(crate) struct Purges {
    number: AtomicU64,
    known: RwLock<Known>,
    doubted: RwLock<Doubted>,
}

#[derive(Default)]
struct Doubted {
    all: u64,
    objects: HashMap<String, u64>,
}

#[derive(Default)]
struct Known {
    all: u64,
    objects: HashMap<String, u64>,
    /// By length in bytes, so that a key is held against each length once.
    prefixes: BTreeMap<usize, HashMap<String, u64>>,
    tags: HashMap<String, u64>,
}

impl Purges {
    /// What is learnt now is covered by later purges only.
    pub(crate) fn now(&self) -> u64 {
        self.number.load(Ordering::Acquire)
    }

    /// Numbers go on from here: above everything that a former run has seen.
    pub(crate) fn continue_after(&self, number: u64) {
        self.number.fetch_max(number, Ordering::AcqRel);
    }

    /// Makes `purge` hold from now on, and says its number.
    pub(crate) fn add(&self, purge: Purge) -> u64 {
        let mut known = self.known.write();
        // Under the lock, so that whoever reads the new number finds the purge.
        let number = self.number.fetch_add(1, Ordering::AcqRel) + 1;
        known.note(purge, number);
        if known.len() > PURGES_MAX {
            known.shorten();
        }
        number
    }

    /// A number that nothing learnt so far has.
    pub(crate) fn next(&self) -> u64 {
        self.number.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Brings back what a former run has written down.
    pub(crate) fn recall(&self, note: Note, number: u64) {
        match note {
            Note::Purge(purge) => self.known.write().note(purge, number),
            Note::Doubt(key) => self.doubted.write().note(key, number),
        }
        self.continue_after(number);
    }

    /// From now on what was learnt of the object is doubted. Says the doubt's number.
    pub(crate) fn doubt(&self, key: &str) -> u64 {
        let mut doubted = self.doubted.write();
        let number = self.next();
        doubted.note(Some(key.to_owned()), number);
        number
    }

    /// Whether what was learnt of the object at `number` may have been replaced since.
    pub(crate) fn doubts(&self, key: &str, number: u64) -> bool {
        if number >= self.now() {
            return false;
        }
        let doubted = self.doubted.read();
        doubted.all > number || doubted.objects.get(key).is_some_and(|since| *since > number)
    }

    /// Whether what was learnt at `number` must not be served any more.
    pub(crate) fn covers(&self, key: &str, tags: &[String], number: u64) -> bool {
        if number >= self.now() {
            return false;
        }
        let known = self.known.read();
        let later = |purged: Option<&u64>| purged.is_some_and(|purged| *purged > number);
        known.all > number
            || later(known.objects.get(key))
            || tags.iter().any(|tag| later(known.tags.get(tag)))
            || known.prefixes.iter().any(|(length, prefixes)| key.get(..*length).is_some_and(|start| later(prefixes.get(start))))
    }

    /// Drops what can cover nothing any more, since all that is left was learnt at `oldest` or later.
    pub(crate) fn forget_before(&self, oldest: u64) {
        let mut known = self.known.write();
        known.retain(|number| number > oldest);
        // What turns up later all the same, from a device that is not there now, is covered by one purge of everything.
        known.all = known.all.max(oldest);
        drop(known);
        // Purged is more than doubted.
        self.doubted.write().objects.retain(|_, number| *number > oldest);
    }

    /// About what a journal of them takes, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        let known = self.known.read();
        let doubted = self.doubted.read();
        let names = known.objects.keys().chain(known.tags.keys()).chain(known.prefixes.values().flat_map(HashMap::keys));
        names.chain(doubted.objects.keys()).map(|name| name.len() as u64 + 40).sum::<u64>() + 128
    }

    /// All of them and all doubts, to be written down.
    pub(crate) fn list(&self) -> Vec<(Note, u64)> {
        let (known, doubted) = (self.known.read(), self.doubted.read());
        let prefixes = known.prefixes.values().flatten();
        let all = (known.all > 0).then_some((Purge::All, known.all));
        let purges = all
            .into_iter()
            .chain(known.objects.iter().map(|(key, number)| (Purge::Object(key.clone()), *number)))
            .chain(prefixes.map(|(prefix, number)| (Purge::Prefix(prefix.clone()), *number)))
            .chain(known.tags.iter().map(|(tag, number)| (Purge::Tag(tag.clone()), *number)));
        let all = (doubted.all > 0).then_some((Note::Doubt(None), doubted.all));
        let doubts = doubted.objects.iter().map(|(key, number)| (Note::Doubt(Some(key.clone())), *number));
        purges.map(|(purge, number)| (Note::Purge(purge), number)).chain(all).chain(doubts).collect()
    }

    /// Objects that are doubted one by one.
    pub(crate) fn doubted(&self) -> usize {
        self.doubted.read().objects.len()
    }

    pub(crate) fn len(&self) -> usize {
        self.known.read().len()
    }
}

impl Known {
    fn note(&mut self, purge: Purge, number: u64) {
        let place = match purge {
            Purge::All => &mut self.all,
            Purge::Object(key) => self.objects.entry(key).or_default(),
            Purge::Prefix(prefix) => self.prefixes.entry(prefix.len()).or_default().entry(prefix).or_default(),
            Purge::Tag(tag) => self.tags.entry(tag).or_default(),
        };
        *place = number.max(*place);
    }

    fn len(&self) -> usize {
        self.objects.len() + self.tags.len() + self.prefixes.values().map(HashMap::len).sum::<usize>() + usize::from(self.all > 0)
    }

    fn retain(&mut self, stays: impl Fn(u64) -> bool) {
        self.objects.retain(|_, number| stays(*number));
        self.tags.retain(|_, number| stays(*number));
        self.prefixes.values_mut().for_each(|prefixes| prefixes.retain(|_, number| stays(*number)));
        self.prefixes.retain(|_, prefixes| !prefixes.is_empty());
        if !stays(self.all) {
            self.all = 0;
        }
    }

    fn shorten(&mut self) {
        let mut numbers: Vec<u64> = self.objects.values().chain(self.tags.values()).copied().collect();
        numbers.extend(self.prefixes.values().flat_map(HashMap::values));
        let half = numbers.len() / 2;
        let (_, middle, _) = numbers.select_nth_unstable(half);
        let middle = *middle;
        self.all = self.all.max(middle);
        self.retain(|number| number >= middle);
    }
}

impl Doubted {
    fn note(&mut self, key: Option<String>, number: u64) {
        let place = match key {
            None => &mut self.all,
            Some(key) => self.objects.entry(key).or_default(),
        };
        *place = number.max(*place);
        if self.objects.len() > DOUBTS_MAX {
            let mut numbers: Vec<u64> = self.objects.values().copied().collect();
            let half = numbers.len() / 2;
            let (_, middle, _) = numbers.select_nth_unstable(half);
            self.all = self.all.max(*middle);
            let all = self.all;
            self.objects.retain(|_, number| *number > all);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purge_covers_what_was_learnt_before_it() {
        let purges = Purges::default();
        let before = purges.now();
        assert!(!purges.covers("/a/1", &[], before));
        purges.add(Purge::Prefix("/a/".into()));
        purges.add(Purge::Object("/b/1".into()));
        purges.add(Purge::Tag("film".into()));
        for (key, tag, covered) in [
            ("/a/1", "x", true),
            ("/a", "x", false),
            ("/é", "x", false),
            ("/b/1", "x", true),
            ("/b/12", "x", false),
            ("/c/1", "film", true),
            ("/c/1", "films", false),
        ] {
            assert_eq!(purges.covers(key, &[tag.into()], before), covered, "{key} {tag}");
            assert!(!purges.covers(key, &[tag.into()], purges.now()), "{key} was learnt afterwards");
        }
        purges.add(Purge::All);
        assert!(purges.covers("/é", &[], before));
        let recalled = Purges::default();
        purges.list().into_iter().for_each(|(purge, number)| recalled.recall(purge, number));
        assert_eq!((recalled.now(), recalled.len()), (purges.now(), 4));
        purges.forget_before(purges.now());
        assert_eq!(purges.len(), 1, "all that is older, should it turn up");
    }

    #[test]
    fn too_many_purges_become_one_of_everything_older() {
        let purges = Purges::default();
        for n in 0..=PURGES_MAX {
            purges.add(Purge::Object(format!("/{n}")));
        }
        assert!(purges.len() <= PURGES_MAX / 2 + 2);
        assert!(purges.covers("/0", &[], 0) && purges.covers("/never purged", &[], 0));
        assert!(!purges.covers("/never purged", &[], purges.now() - 1), "what is young stays");
        assert!(purges.covers(&format!("/{PURGES_MAX}"), &[], purges.now() - 1));
    }

    #[test]
    fn a_doubt_is_of_what_was_learnt_before_it_and_too_many_become_one_of_everything_older() {
        let purges = Purges::default();
        let number = purges.doubt("/a");
        assert!(purges.doubts("/a", 0) && !purges.doubts("/a", number) && !purges.doubts("/b", 0));
        assert!(!purges.covers("/a", &[], 0), "it may still be served, once somebody was asked");
        for n in 0..DOUBTS_MAX {
            purges.doubt(&format!("/{n}"));
        }
        assert!(purges.doubted() <= DOUBTS_MAX / 2 + 1);
        assert!(purges.doubts("/a", 0) && purges.doubts("/never doubted", 0));
        assert!(!purges.doubts("/never doubted", purges.now() - 1), "what is young stays");
        assert!(purges.doubts(&format!("/{}", DOUBTS_MAX - 1), purges.now() - 1));
        let recalled = Purges::default();
        purges.list().into_iter().for_each(|(note, number)| recalled.recall(note, number));
        assert_eq!((recalled.now(), recalled.doubted()), (purges.now(), purges.doubted()));
        assert!(recalled.doubts("/never doubted", 0));
    }
}
