//! Memory: what is in the journal and not yet in the database, summed up per user and title.
//!
//! Two tables: the *active* one takes what is committed, the *sealed* one is on its way to the database. Whoever reads takes what is here
//! first and the database's second, and joins them: what is in both counts once, and what moves meanwhile is missed nowhere.
//! One thread writes (the journal's), anyone reads. Bounded by whoever asks [`Memory::is_full`] before writing.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::{BuildHasher as _, RandomState},
    mem,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};
use wire::{object::Digest, title::TitleId};

use super::{
    mark::{self, Mark},
    record::{Change, Record},
    view::{self, View},
};
use crate::identity::user::UserId;

/// Each is locked for one user's edits alone.
const SHARDS: usize = 64;
/// How much of the journal one table may stand for, however little is left of it once summed up: this is read again at a restart.
const JOURNAL_BYTES_MAX: u64 = 512 << 20;

/// What became of one user since the database was told last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Edits {
    /// All that the database has of her is to go first: when that was asked for.
    pub(crate) forgotten_ms: Option<u64>,
    pub(crate) views: Vec<View>,
    pub(crate) marks: Vec<Mark>,
}

impl Edits {
    /// These on top of older ones.
    fn over(self, older: Self, gap_ms: u64) -> Self {
        if self.forgotten_ms.is_some() {
            return self;
        }
        let mut all = older;
        self.views.into_iter().for_each(|part| {
            view::fold(&mut all.views, part, gap_ms);
        });
        self.marks.into_iter().for_each(|mark| {
            mark::fold(&mut all.marks, mark);
        });
        all
    }
}

/// Who was forgotten, and until when what she did is not taken any more: an event from before may still be on its way.
///
/// A user stands here as the first half of the SHA-256 of her id.
#[derive(Debug, Default)]
pub(crate) struct Forgotten(HashMap<ForgottenId, u64>);

/// A user who is not to be named any more.
pub(crate) type ForgottenId = [u8; 16];

/// The name under which a user is known to be forgotten.
pub(crate) fn forgotten_id(user: &UserId) -> ForgottenId {
    *Digest::of(user.as_str().as_bytes()).as_bytes().first_chunk().expect("a digest has 32 bytes")
}

impl Forgotten {
    /// Those that the database knows.
    pub(crate) fn of(known: impl IntoIterator<Item = (ForgottenId, u64)>) -> Self {
        Self(known.into_iter().collect())
    }

    fn add(&mut self, user: &UserId, at_ms: u64) {
        let until_ms = self.0.entry(forgotten_id(user)).or_default();
        *until_ms = at_ms.max(*until_ms);
    }

    /// Whether an event of this time is from before she was forgotten.
    fn covers(&self, user: &UserId, at_ms: u64) -> bool {
        !self.0.is_empty() && self.0.get(&forgotten_id(user)).is_some_and(|until_ms| at_ms <= *until_ms)
    }

    fn drop_before(&mut self, at_ms: u64) {
        self.0.retain(|_, until_ms| *until_ms >= at_ms);
    }
}

/// Both tables.
pub(crate) struct Memory {
    tables: RwLock<Tables>,
    forgotten: Mutex<Forgotten>,
    gap_ms: u64,
    bytes_max: usize,
}

struct Tables {
    active: Arc<Table>,
    sealed: Option<Arc<Table>>,
}

impl Memory {
    /// Empty. Holds about `bytes_max`, half of it in each table.
    pub(crate) fn new(bytes_max: usize, gap_ms: u64, forgotten: Forgotten) -> Self {
        let tables = Tables { active: Arc::new(Table::new()), sealed: None };
        Self { tables: RwLock::new(tables), forgotten: Mutex::new(forgotten), gap_ms, bytes_max }
    }

    /// Adds what was committed. True if it was summed up with what was there.
    pub(crate) fn add(&self, record: Record) -> bool {
        let active = Arc::clone(&self.tables.read().active);
        active.is_touched.store(true, Ordering::Relaxed);
        let Record { user, change } = record;
        {
            let mut forgotten = self.forgotten.lock();
            match &change {
                Change::Forgotten { at_ms } => forgotten.add(&user, *at_ms),
                Change::Watched { at_ms, .. } | Change::Rated { at_ms, .. } | Change::Hidden { at_ms, .. } => {
                    if forgotten.covers(&user, *at_ms) {
                        return true;
                    }
                }
            }
        }
        active.add(user, change, self.gap_ms)
    }

    /// What is added next takes so much of the journal.
    pub(crate) fn add_journal_bytes(&self, bytes: u64) {
        self.tables.read().active.journal_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// There is something in the journal, if only what the database has already.
    pub(crate) fn touch(&self) {
        self.tables.read().active.is_touched.store(true, Ordering::Relaxed);
    }

    /// Whether there is anything in the journal for the database.
    pub(crate) fn is_touched(&self) -> bool {
        let tables = self.tables.read();
        tables.sealed.is_some() || tables.active.is_touched.load(Ordering::Relaxed)
    }

    /// Whether the active table should go to the database now.
    pub(crate) fn is_half_full(&self) -> bool {
        let tables = self.tables.read();
        tables.active.bytes() >= self.bytes_max / 2 || tables.active.journal_bytes() >= JOURNAL_BYTES_MAX
    }

    /// Whether more can only be taken once a table is in the database.
    pub(crate) fn is_full(&self) -> bool {
        let tables = self.tables.read();
        let sum = |of: fn(&Table) -> u64| of(&tables.active) + tables.sealed.as_ref().map_or(0, |sealed| of(sealed));
        sum(|table| table.bytes() as u64) >= self.bytes_max as u64 || sum(Table::journal_bytes) >= 2 * JOURNAL_BYTES_MAX
    }

    /// How many bytes both tables take, about.
    pub(crate) fn bytes(&self) -> usize {
        let tables = self.tables.read();
        tables.active.bytes() + tables.sealed.as_ref().map_or(0, |sealed| sealed.bytes())
    }

    /// Whether there is a sealed table, which is to be dealt with first.
    pub(crate) fn has_sealed(&self) -> bool {
        self.tables.read().sealed.is_some()
    }

    /// Seals the active table and begins another.
    ///
    /// # Panics
    /// If there is a sealed one.
    pub(crate) fn seal(&self) -> Arc<Table> {
        let mut tables = self.tables.write();
        assert!(tables.sealed.is_none(), "one at a time");
        let sealed = mem::replace(&mut tables.active, Arc::new(Table::new()));
        tables.sealed = Some(Arc::clone(&sealed));
        sealed
    }

    /// The sealed table is in the database.
    pub(crate) fn drop_sealed(&self) {
        // Freed after the lock is.
        let _dropped = self.tables.write().sealed.take();
    }

    /// What the database does not have yet of a user.
    pub(crate) fn edits(&self, user: &UserId) -> Edits {
        let (active, sealed) = self.tables();
        let newer = active.edits(user, |edits| edits.clone()).unwrap_or_default();
        match sealed.and_then(|sealed| sealed.edits(user, |edits| edits.clone())) {
            Some(older) => newer.over(older, self.gap_ms),
            None => newer,
        }
    }

    /// The same, of one title alone.
    pub(crate) fn edits_of(&self, user: &UserId, title: &TitleId) -> Edits {
        let of_title = |edits: &Edits| Edits {
            forgotten_ms: edits.forgotten_ms,
            views: edits.views.iter().filter(|view| view.title == *title).cloned().collect(),
            marks: edits.marks.iter().filter(|mark| mark.title == *title).cloned().collect(),
        };
        let (active, sealed) = self.tables();
        let newer = active.edits(user, of_title).unwrap_or_default();
        match sealed.and_then(|sealed| sealed.edits(user, of_title)) {
            Some(older) => newer.over(older, self.gap_ms),
            None => newer,
        }
    }

    fn tables(&self) -> (Arc<Table>, Option<Arc<Table>>) {
        let tables = self.tables.read();
        (Arc::clone(&tables.active), tables.sealed.clone())
    }

    /// Whether an event of this time is from before its user was forgotten.
    #[cfg(test)]
    pub(crate) fn is_forgotten(&self, user: &UserId, at_ms: u64) -> bool {
        self.forgotten.lock().covers(user, at_ms)
    }

    /// Nothing can be added until what this returns is dropped.
    #[cfg(test)]
    pub(crate) fn stall(&self) -> impl Drop + '_ {
        self.tables.write()
    }

    /// Events from before `at_ms` are not taken from anyone, so who was forgotten before that need not be remembered as such.
    pub(crate) fn drop_forgotten_before(&self, at_ms: u64) {
        self.forgotten.lock().drop_before(at_ms);
    }
}

/// Edits by user.
pub(crate) struct Table {
    shards: Box<[Mutex<HashMap<UserId, Edits>>]>,
    hasher: RandomState,
    bytes: AtomicUsize,
    journal_bytes: AtomicU64,
    /// Something was added, if only to be left out.
    is_touched: AtomicBool,
}

impl Table {
    fn new() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self {
            shards,
            hasher: RandomState::new(),
            bytes: AtomicUsize::new(0),
            journal_bytes: AtomicU64::new(0),
            is_touched: AtomicBool::new(false),
        }
    }

    fn shard(&self, user: &UserId) -> &Mutex<HashMap<UserId, Edits>> {
        // The low bits of a hash choose the bucket in a map; these are others.
        &self.shards[(self.hasher.hash_one(user) >> 32) as usize % SHARDS]
    }

    fn add(&self, user: UserId, change: Change, gap_ms: u64) -> bool {
        let mut shard = self.shard(&user).lock();
        let (edits, is_new) = match shard.entry(user) {
            Entry::Occupied(there) => (there.into_mut(), false),
            Entry::Vacant(vacant) => {
                self.bytes.fetch_add(USER_BYTES + vacant.key().as_str().len(), Ordering::Relaxed);
                (vacant.insert(Edits::default()), true)
            }
        };
        let (bytes, joined) = match change {
            Change::Watched { title, at_ms, position_ms, device } => {
                let part = View::at(title, at_ms, position_ms, device);
                let bytes = size_of::<View>() + part.title.as_str().len();
                (bytes, view::fold(&mut edits.views, part, gap_ms))
            }
            Change::Rated { title, at_ms, opinion } => {
                let bytes = size_of::<Mark>() + title.as_str().len();
                (bytes, mark::fold(&mut edits.marks, Mark { opinion, opinion_ms: at_ms, ..Mark::none(title) }))
            }
            Change::Hidden { title, at_ms } => {
                let bytes = size_of::<Mark>() + title.as_str().len();
                (bytes, mark::fold(&mut edits.marks, Mark { hidden_ms: at_ms, ..Mark::none(title) }))
            }
            Change::Forgotten { at_ms } => {
                *edits = Edits { forgotten_ms: Some(at_ms), ..Edits::default() };
                return !is_new;
            }
        };
        if !joined {
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        joined
    }

    fn edits<T>(&self, user: &UserId, of: impl FnOnce(&Edits) -> T) -> Option<T> {
        self.shard(user).lock().get(user).map(of)
    }

    fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    fn journal_bytes(&self) -> u64 {
        self.journal_bytes.load(Ordering::Relaxed)
    }

    /// The edits of all users, shard by shard and sorted in each, so that a database of sorted pages meets neighbours.
    pub(crate) fn all(&self) -> impl Iterator<Item = (UserId, Edits)> + '_ {
        self.shards.iter().flat_map(|shard| {
            let mut edits: Vec<_> = shard.lock().iter().map(|(user, edits)| (user.clone(), edits.clone())).collect();
            edits.sort_by(|(a, _), (b, _)| a.cmp(b));
            edits
        })
    }
}

/// What a user takes in a table beside her edits: the map's entry and what allocations round up.
const USER_BYTES: usize = size_of::<(UserId, Edits)>() + 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::viewers::{
        mark::Opinion,
        record::tests::{user, watched},
        view::tests::title,
    };

    fn memory() -> Memory {
        Memory::new(1 << 20, 10, Forgotten::default())
    }

    fn positions(edits: &Edits) -> Vec<(&str, u64)> {
        let mut positions: Vec<_> = edits.views.iter().map(|view| (view.title.as_str(), view.position_ms)).collect();
        positions.sort_unstable();
        positions
    }

    #[test]
    fn what_is_sealed_is_seen_until_it_is_dropped() {
        let memory = memory();
        assert!(!memory.add(watched("alice", "a", 100, 1)));
        let sealed = memory.seal();
        assert!(memory.has_sealed());
        assert!(!memory.add(watched("alice", "a", 105, 2)), "in the other table");
        assert!(memory.add(watched("alice", "a", 106, 3)));
        memory.add(watched("alice", "b", 50, 4));
        let edits = memory.edits(&user("alice"));
        assert_eq!(positions(&edits), [("a", 3), ("b", 4)]);
        assert_eq!(edits.views.iter().map(|view| view.begun_ms).min(), Some(50));
        assert_eq!(positions(&memory.edits_of(&user("alice"), &title("a"))), [("a", 3)]);
        assert_eq!(memory.edits(&user("bob")), Edits::default());
        assert_eq!(sealed.all().count(), 1);
        memory.drop_sealed();
        assert_eq!(memory.edits_of(&user("alice"), &title("a")).views[0].begun_ms, 105);
        assert!(!memory.has_sealed());
    }

    #[test]
    fn who_is_forgotten_is_forgotten_in_both_tables_and_for_events_from_before() {
        let memory = memory();
        let of = |change| Record { user: user("alice"), change };
        memory.add(watched("alice", "a", 100, 1));
        memory.add(watched("bob", "a", 100, 1));
        memory.seal();
        memory.add(watched("alice", "a", 101, 1));
        memory.add(of(Change::Rated { title: title("a"), at_ms: 102, opinion: Opinion::Like }));
        memory.add(of(Change::Forgotten { at_ms: 110 }));
        let nothing = Edits { forgotten_ms: Some(110), ..Edits::default() };
        assert_eq!(memory.edits(&user("alice")), nothing);
        // Was on its way.
        memory.add(watched("alice", "a", 110, 9));
        memory.add(of(Change::Hidden { title: title("a"), at_ms: 109 }));
        assert_eq!(memory.edits(&user("alice")), nothing);
        memory.add(watched("alice", "a", 111, 5));
        assert_eq!(positions(&memory.edits(&user("alice"))), [("a", 5)]);
        assert_eq!(memory.edits(&user("alice")).forgotten_ms, Some(110));
        assert_eq!(positions(&memory.edits(&user("bob"))), [("a", 1)]);
        memory.drop_forgotten_before(111);
        memory.add(watched("alice", "b", 90, 7));
        assert_eq!(positions(&memory.edits(&user("alice"))), [("a", 5), ("b", 7)], "so old an event is refused elsewhere");
    }

    #[test]
    fn only_what_is_new_takes_memory() {
        let memory = Memory::new(2 * (USER_BYTES + 5 + size_of::<View>() + 1), 10, Forgotten::default());
        assert!(!memory.is_half_full());
        for n in 0..1000 {
            memory.add(watched("alice", "a", n, n));
        }
        let bytes = memory.bytes();
        assert!(memory.is_half_full() && !memory.is_full(), "{bytes}");
        memory.seal();
        assert!(!memory.is_full());
        memory.add(watched("carol", "a", 1, 1));
        assert!(memory.is_full());
        assert_eq!(memory.bytes(), 2 * bytes);
        memory.drop_sealed();
        assert!(!memory.is_full());
        memory.add(watched("bobby", "a", 1, 1));
        assert!(memory.is_full(), "also while nobody seals");
    }
}
