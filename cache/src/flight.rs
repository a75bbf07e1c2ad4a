//! Flights: one fill of one slice, and all who wait for it.
//!
//! Whoever finds no flight for a slice starts one; all others join it. A flight belongs to none of them, and counts them by their handles. They are
//! woken when bytes arrive, and fail together when it fails. How it is flown is [`crate::fly`]'s.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::{Errand, FillError, Verdict, Wanted, object::Known, purge::Purges, slab::Slab, ssd::SliceName};

/// One fill under way, or just ended.
pub(crate) struct Flight {
    pub(crate) key: Arc<str>,
    pub(crate) index: u64,
    /// The purge number that it began at.
    number: AtomicU64,
    /// The version that it is bound to from the beginning, if any.
    bound: Option<Known>,
    pub(crate) progress: watch::Sender<Progress>,
    waiters: AtomicUsize,
    /// Somebody wants it who has no plan.
    is_viewed: AtomicBool,
    /// The attempt under way has brought some.
    has_bytes: AtomicBool,
    /// Told to whoever flies it: someone came or left, or the first byte is here.
    pub(crate) turned: Notify,
    ended: Arc<OnceLock<Ended>>,
}

/// What waiters see.
#[derive(Default)]
pub(crate) struct Progress {
    /// The version, once it is known.
    pub(crate) known: Option<Known>,
    /// The bytes; absent before the version is known, and in a revalidation that changed nothing.
    pub(crate) slab: Option<Arc<Slab>>,
    /// Where the bytes come from.
    pub(crate) from: CameFrom,
    /// The source vouched for a version that was known before.
    pub(crate) is_unchanged: bool,
    pub(crate) ended: Option<Result<(), FillError>>,
}

/// Where a flight's bytes come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum CameFrom {
    #[default]
    Source,
    Ssd,
    Ram,
}

/// A flight that landed.
#[derive(Clone, Copy)]
pub(crate) struct Ended {
    pub(crate) at: Instant,
    pub(crate) from: CameFrom,
}

impl Flight {
    fn new(key: Arc<str>, index: u64, wanted: &Wanted, number: u64) -> Arc<Self> {
        let bound = match wanted {
            Wanted::Any { .. } => None,
            Wanted::Exactly(known) => Some(known.clone()),
        };
        Arc::new(Self {
            key,
            index,
            number: AtomicU64::new(number),
            bound,
            progress: watch::Sender::default(),
            waiters: AtomicUsize::new(0),
            is_viewed: AtomicBool::new(false),
            has_bytes: AtomicBool::new(false),
            turned: Notify::new(),
            ended: Arc::default(),
        })
    }

    pub(crate) fn slice(&self) -> SliceName<'_> {
        SliceName { key: &self.key, index: self.index }
    }

    pub(crate) fn number(&self) -> u64 {
        self.number.load(Ordering::Acquire)
    }

    /// Waits until the version is known. What came before a failure is still good.
    pub(crate) async fn known(&self) -> Result<Known, FillError> {
        self.wait_for(|progress| match (&progress.known, &progress.ended) {
            (Some(known), _) => Some(Ok(known.clone())),
            (None, Some(Err(error))) => Some(Err(error.clone())),
            (None, _) => None,
        })
        .await
    }

    /// Whether it brings bytes, asked once the version is known.
    pub(crate) fn carries_bytes(&self) -> bool {
        self.progress.borrow().slab.is_some()
    }

    /// Whether the source only vouched for what was known, asked once the version is known.
    pub(crate) fn is_unchanged(&self) -> bool {
        self.progress.borrow().is_unchanged
    }

    /// Waits for the end.
    pub(crate) async fn end(&self) -> Result<(), FillError> {
        self.wait_for(|progress| progress.ended.clone()).await
    }

    /// Waits for bytes of the slice from `from` on, and gives what is there of them up to `to`.
    pub(crate) async fn bytes(&self, from: usize, to: usize) -> Result<Bytes, FillError> {
        self.wait_for(|progress| {
            if let Some(slab) = &progress.slab
                && slab.filled() > from
            {
                return Some(Ok(slab.view(from, to.min(slab.filled()))));
            }
            // An end without an error and without these bytes is a range beyond the slice, which no reader asks for.
            let ended = progress.ended.clone()?;
            Some(ended.and(Err(FillError::OutOfRange)))
        })
        .await
    }

    async fn wait_for<T>(&self, look: impl Fn(&Progress) -> Option<T>) -> T {
        let mut progress = self.progress.subscribe();
        loop {
            if let Some(found) = look(&progress.borrow_and_update()) {
                return found;
            }
            progress.changed().await.expect("the sender lives as long as the flight");
        }
    }

    /// Bytes that are here.
    pub(crate) fn filled(&self) -> usize {
        self.progress.borrow().slab.as_ref().map_or(0, |slab| slab.filled())
    }

    /// Bytes that there will be, once that is known.
    pub(crate) fn length(&self) -> Option<usize> {
        self.progress.borrow().slab.as_ref().map(|slab| slab.length())
    }

    /// What there is to keep, once all of it is here.
    pub(crate) fn brought(&self) -> Option<(Known, Arc<Slab>, CameFrom)> {
        let progress = self.progress.borrow();
        Some((progress.known.clone()?, progress.slab.clone()?, progress.from))
    }

    /// Whether all is here that waiters were promised.
    pub(crate) fn check_whole(&self) -> Result<(), FillError> {
        let progress = self.progress.borrow();
        match &progress.slab {
            None if progress.known.is_none() => Err(FillError::Refused("the source ended without naming a version".into())),
            Some(slab) if slab.filled() < slab.length() => {
                Err(FillError::Short { expected: slab.length(), received: slab.filled() })
            }
            _ => Ok(()),
        }
    }

    /// Shows the version, and its bytes as they come.
    pub(crate) fn show(&self, known: Known, slab: Option<Arc<Slab>>, from: CameFrom) {
        self.number.store(known.number, Ordering::Release);
        self.progress.send_modify(|progress| {
            progress.known = Some(known);
            progress.slab = slab;
            progress.from = from;
        });
    }

    /// Shows that the version is what it was; its bytes, if they were read from SSD to be ready.
    pub(crate) fn show_unchanged(&self, known: Known, loaded: Option<Arc<Slab>>) {
        self.number.store(known.number, Ordering::Release);
        self.progress.send_modify(|progress| {
            progress.known = Some(known);
            progress.slab = loaded;
            progress.from = CameFrom::Ssd;
            progress.is_unchanged = true;
        });
    }

    /// Another attempt begins.
    pub(crate) fn begins_anew(&self) {
        self.has_bytes.store(false, Ordering::Release);
    }

    /// More bytes are here.
    pub(crate) fn show_bytes(&self) {
        self.progress.send_modify(|_| ());
        if !self.has_bytes.swap(true, Ordering::AcqRel) {
            self.turned.notify_one();
        }
    }

    /// Tells all who wait how it ended.
    pub(crate) fn tell_end(&self, result: Result<(), FillError>) {
        if result.is_ok() {
            let from = self.progress.borrow().from;
            // It ends once.
            let _ = self.ended.set(Ended { at: Instant::now(), from });
        }
        self.progress.send_modify(|progress| progress.ended = Some(result));
    }

    pub(crate) fn waiters(&self) -> usize {
        self.waiters.load(Ordering::Acquire)
    }

    pub(crate) fn is_viewed(&self) -> bool {
        self.is_viewed.load(Ordering::Acquire)
    }

    fn enter(&self, errand: Errand) {
        let is_first = self.waiters.fetch_add(1, Ordering::AcqRel) == 0;
        let is_news = errand != Errand::Plan && !self.is_viewed.swap(true, Ordering::AcqRel);
        if is_first || is_news {
            self.turned.notify_one();
        }
    }

    fn leave(&self) {
        if self.waiters.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.turned.notify_one();
        }
    }

    /// Whether who asked at `number` for `wanted` may wait for it.
    fn is_for(&self, wanted: &Wanted, number: u64, purges: &Purges) -> bool {
        if let (Wanted::Exactly(known), Some(bound)) = (wanted, &self.bound)
            && !known.generation.same_bytes(&bound.generation)
        {
            return false;
        }
        let began = self.number();
        began >= number || !purges.covers(&self.key, &self.tags(), began)
    }

    fn tags(&self) -> Vec<String> {
        let progress = self.progress.borrow();
        progress.known.as_ref().or(self.bound.as_ref()).map_or_else(Vec::new, |known| known.generation.tags.clone())
    }
}

/// A waiter's hold on a flight.
pub(crate) struct Handle {
    pub(crate) flight: Arc<Flight>,
    leads: bool,
}

impl Handle {
    fn new(flight: Arc<Flight>, leads: bool, errand: Errand) -> Self {
        flight.enter(errand);
        Self { flight, leads }
    }

    /// Whether it was this waiter who started the flight.
    pub(crate) fn leads(&self) -> bool {
        self.leads
    }

    /// Where the waiter's bytes come from, asked once the version is known.
    pub(crate) fn verdict(&self) -> Verdict {
        verdict(self.flight.progress.borrow().from, self.leads)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.flight.leave();
    }
}

fn verdict(from: CameFrom, leads: bool) -> Verdict {
    match from {
        CameFrom::Source if leads => Verdict::Filled,
        CameFrom::Source => Verdict::Collapsed,
        CameFrom::Ssd => Verdict::Ssd,
        CameFrom::Ram => Verdict::Ram,
    }
}

/// A hold on a flight that brings what will be wanted soon. Once it has landed its bytes are RAM's alone, and may be evicted.
pub(crate) struct Ahead {
    pub(crate) index: u64,
    flight: Weak<Flight>,
    ended: Arc<OnceLock<Ended>>,
    leads: bool,
}

impl Ahead {
    /// The waiter's hold, if the flight is still there.
    pub(crate) fn handle(&self) -> Option<Handle> {
        Some(Handle::new(self.flight.upgrade()?, self.leads, Errand::Viewer))
    }

    /// Whether it was begun for this reader.
    pub(crate) fn leads(&self) -> bool {
        self.leads
    }

    /// How it landed, if it has.
    pub(crate) fn ended(&self) -> Option<Ended> {
        self.ended.get().copied()
    }

    /// Where its bytes came from, if it landed.
    pub(crate) fn verdict(&self) -> Option<Verdict> {
        Some(verdict(self.ended()?.from, self.leads))
    }
}

impl From<Handle> for Ahead {
    fn from(handle: Handle) -> Self {
        handle.flight.enter(Errand::Ahead);
        let (index, leads) = (handle.flight.index, handle.leads);
        Self { index, flight: Arc::downgrade(&handle.flight), ended: handle.flight.ended.clone(), leads }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        if let Some(flight) = self.flight.upgrade() {
            flight.leave();
        }
    }
}

/// The flights under way, by slice.
pub(crate) struct Flights {
    hasher: RandomState,
    shards: [Shard; 16],
    purges: Arc<Purges>,
}

type Shard = Mutex<HashMap<(Arc<str>, u64), Arc<Flight>>>;

impl Flights {
    pub(crate) fn new(purges: Arc<Purges>) -> Self {
        Self { hasher: RandomState::new(), shards: Default::default(), purges }
    }

    /// A hold on the flight that is under way, or on a new one: that one the caller must see fly, or end. One that is under way and is not for this
    /// waiter, because a purge covers it or it brings another version, flies on for its own.
    pub(crate) fn join(&self, key: &Arc<str>, index: u64, wanted: &Wanted, number: u64, errand: Errand) -> Handle {
        let mut shard = self.shard(key, index).lock();
        match shard.entry((key.clone(), index)) {
            Entry::Occupied(entry) if entry.get().is_for(wanted, number, &self.purges) => {
                Handle::new(entry.get().clone(), false, errand)
            }
            Entry::Occupied(mut entry) => {
                entry.insert(Flight::new(key.clone(), index, wanted, number));
                Handle::new(entry.get().clone(), true, errand)
            }
            Entry::Vacant(entry) => {
                let flight = entry.insert(Flight::new(key.clone(), index, wanted, number));
                Handle::new(flight.clone(), true, errand)
            }
        }
    }

    /// Whether a flight is under way that [`Self::join`] would give.
    pub(crate) fn would_join(&self, key: &Arc<str>, index: u64, wanted: &Wanted, number: u64) -> bool {
        let shard = self.shard(key, index).lock();
        shard.get(&(key.clone(), index)).is_some_and(|flight| flight.is_for(wanted, number, &self.purges))
    }

    /// Takes this one out, and no other of the same slice.
    pub(crate) fn remove(&self, flight: &Arc<Flight>) {
        self.remove_if(flight, || true);
    }

    /// Takes this one out if nobody waits for it; from then on nobody can.
    pub(crate) fn remove_abandoned(&self, flight: &Arc<Flight>) -> bool {
        self.remove_if(flight, || flight.waiters() == 0)
    }

    fn remove_if(&self, flight: &Arc<Flight>, condition: impl Fn() -> bool) -> bool {
        let mut shard = self.shard(&flight.key, flight.index).lock();
        if !condition() {
            return false;
        }
        if let Entry::Occupied(entry) = shard.entry((flight.key.clone(), flight.index))
            && Arc::ptr_eq(entry.get(), flight)
        {
            entry.remove();
        }
        true
    }

    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    fn shard(&self, key: &Arc<str>, index: u64) -> &Shard {
        &self.shards[(self.hasher.hash_one((key, index)) % 16) as usize]
    }
}
