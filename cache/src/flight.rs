//! Flights: one fill of one slice, and all who wait for it.
//!
//! Whoever finds no flight for a slice starts one; all others join it. The fill runs as a task of its own, so it belongs to no
//! reader. Waiters are woken when bytes arrive, and fail together when it fails.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{
    Cache, FillError, Generation, Shared, Source, Verdict, Want, Wanted,
    object::Known,
    slab::{Permit, Slab, Writer},
};

/// One fill under way, or just ended.
pub(crate) struct Flight {
    key: Arc<str>,
    index: u64,
    progress: watch::Sender<Progress>,
}

#[derive(Default)]
struct Progress {
    /// The version, once the source has named it.
    known: Option<Known>,
    /// The bytes; absent before the head, and in a revalidation that changed nothing.
    slab: Option<Arc<Slab>>,
    ended: Option<Result<(), FillError>>,
}

/// A waiter's hold on a flight.
pub(crate) struct Handle {
    pub(crate) flight: Arc<Flight>,
    pub(crate) verdict: Verdict,
}

impl Flight {
    fn new(key: Arc<str>, index: u64) -> Arc<Self> {
        Arc::new(Self { key, index, progress: watch::Sender::default() })
    }

    pub(crate) fn index(&self) -> u64 {
        self.index
    }

    /// Waits until the source has named the version. What it brought before it failed is still good.
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

    /// Ends it with a slice that was in RAM after all.
    pub(crate) fn land_from_memory(&self, known: Known, slab: Arc<Slab>) {
        self.progress.send_replace(Progress { known: Some(known), slab: Some(slab), ended: Some(Ok(())) });
    }

    fn fail(&self, error: FillError) {
        self.progress.send_modify(|progress| progress.ended = Some(Err(error)));
    }
}

/// The flights under way, by slice.
#[derive(Default)]
pub(crate) struct Flights {
    hasher: RandomState,
    shards: [Shard; 16],
}

type Shard = Mutex<HashMap<(Arc<str>, u64), Arc<Flight>>>;

/// What [`Flights::join`] found.
pub(crate) enum Joined {
    /// There was none; the caller must see that this one flies, or ends.
    Leading(Arc<Flight>),
    /// One that is under way.
    Waiting(Arc<Flight>),
}

impl Flights {
    pub(crate) fn join(&self, key: &Arc<str>, index: u64) -> Joined {
        match self.shard(key, index).lock().entry((key.clone(), index)) {
            Entry::Occupied(entry) => Joined::Waiting(entry.get().clone()),
            Entry::Vacant(entry) => Joined::Leading(entry.insert(Flight::new(key.clone(), index)).clone()),
        }
    }

    pub(crate) fn remove(&self, flight: &Arc<Flight>) {
        self.shard(&flight.key, flight.index).lock().remove(&(flight.key.clone(), flight.index));
    }

    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    fn shard(&self, key: &Arc<str>, index: u64) -> &Shard {
        &self.shards[(self.hasher.hash_one((key, index)) % 16) as usize]
    }
}

/// Flies `flight` to its end: memory, the source's work, and the landing in RAM.
pub(crate) async fn fly<S: Source>(cache: Cache, flight: Arc<Flight>, wanted: Wanted, source: Arc<S>, permit: Option<Permit>) {
    let shared = cache.0;
    let start = flight.index * shared.config.slice_bytes as u64;
    let length_max = wanted.slice_length(start, shared.config.slice_bytes);
    let landing = Landing { shared: shared.clone(), flight: flight.clone(), landed: false };
    let permit = match permit {
        Some(permit) => Some(permit),
        None => shared.budget.acquire(length_max, crate::slab::Priority::Viewer, shared.config.memory_wait_max).await,
    };
    let Some(permit) = permit else {
        shared.counters.refused_busy.add(1);
        return landing.land(Err(FillError::Busy));
    };
    shared.counters.fills.add(1);
    let want = wanted.for_source(flight.key.clone(), start..start + length_max as u64);
    let filler = Filler { shared, flight, wanted, start, permit: Some(permit), writer: None };
    landing.land(source.fill(want, filler).await);
}

impl Wanted {
    fn slice_length(&self, start: u64, slice_bytes: usize) -> usize {
        match self {
            Self::Any { .. } => slice_bytes,
            Self::Exactly(known) => slice_length(known.generation.length, start, slice_bytes),
        }
    }

    fn for_source(&self, key: Arc<str>, range: std::ops::Range<u64>) -> Want {
        match self {
            Self::Any { stale } => {
                let generation = stale.as_ref().map(|known| known.generation.clone());
                Want { key, range, revalidate: generation.is_some(), generation }
            }
            Self::Exactly(known) => Want { key, range, revalidate: false, generation: Some(known.generation.clone()) },
        }
    }
}

fn slice_length(object_length: u64, start: u64, slice_bytes: usize) -> usize {
    usize::try_from(object_length.saturating_sub(start)).unwrap_or(usize::MAX).min(slice_bytes)
}

/// Sees to it that a flight ends, also when its task panics or its runtime goes away.
struct Landing {
    shared: Arc<Shared>,
    flight: Arc<Flight>,
    landed: bool,
}

impl Landing {
    fn land(mut self, result: Result<(), FillError>) {
        self.end(result);
        self.landed = true;
    }

    fn end(&self, result: Result<(), FillError>) {
        match result.and_then(|()| self.keep()) {
            Ok(()) => self.flight.progress.send_modify(|progress| progress.ended = Some(Ok(()))),
            Err(error) => {
                self.shared.counters.fill_failures.add(1);
                if matches!(error, FillError::Changed | FillError::NotFound) {
                    self.shared.objects.forget(&self.flight.key);
                }
                self.flight.fail(error);
            }
        }
        // Only now: whoever finds no flight finds the slice in RAM, or the error told.
        self.shared.flights.remove(&self.flight);
    }

    /// Files the slice, if it is whole.
    fn keep(&self) -> Result<(), FillError> {
        let progress = self.flight.progress.borrow();
        let Some(known) = &progress.known else {
            return Err(FillError::Refused("the source ended without naming a version".into()));
        };
        let Some(slab) = &progress.slab else {
            return Ok(());
        };
        if slab.filled() < slab.length() {
            return Err(FillError::Short { expected: slab.length(), received: slab.filled() });
        }
        self.shared.memory.keep(known.id, self.flight.index, slab.clone());
        Ok(())
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        if !self.landed {
            self.end(Err(FillError::Unavailable("the fill was broken off".into())));
        }
    }
}

/// Takes a fill's bytes and shows them to all who wait.
pub struct Filler {
    shared: Arc<Shared>,
    flight: Arc<Flight>,
    wanted: Wanted,
    start: u64,
    permit: Option<Permit>,
    writer: Option<Writer>,
}

impl Filler {
    /// Names the version whose bytes follow. Once, before the first byte.
    ///
    /// # Errors
    /// [`FillError::Changed`] when another version is wanted; [`FillError::OutOfRange`] when the object ends before the slice.
    pub fn head(&mut self, generation: Generation) -> Result<(), FillError> {
        let Some(permit) = self.permit.take() else {
            return Err(FillError::Refused("the source named a version twice".into()));
        };
        let length = generation.length;
        // The first byte of an empty object is its end, and no error.
        if self.start > 0 && self.start >= length {
            return Err(FillError::OutOfRange);
        }
        let known = match &self.wanted {
            Wanted::Exactly(known) if known.generation.same_bytes(&generation) => known.clone(),
            Wanted::Exactly(known) => {
                self.shared.objects.forget_generation(&self.flight.key, known.id);
                return Err(FillError::Changed);
            }
            Wanted::Any { .. } => self.shared.objects.learn(&self.flight.key, generation, Instant::now()),
        };
        let (slab, writer) = Slab::new(permit, slice_length(length, self.start, self.shared.config.slice_bytes));
        self.writer = Some(writer);
        self.flight.progress.send_modify(|progress| {
            progress.known = Some(known);
            progress.slab = Some(slab);
        });
        Ok(())
    }

    /// Answers a revalidation: the version is still the current one, and its bytes need not come again.
    ///
    /// # Errors
    /// [`FillError::Refused`] when no revalidation was asked for.
    pub fn unchanged(&mut self) -> Result<(), FillError> {
        let Wanted::Any { stale: Some(stale) } = &self.wanted else {
            return Err(FillError::Refused("the source says that nothing changed, but was not asked".into()));
        };
        self.permit = None;
        let known = self.shared.objects.renew(&self.flight.key, stale, Instant::now());
        self.flight.progress.send_modify(|progress| progress.known = Some(known));
        Ok(())
    }

    /// Appends the next bytes and wakes who waits for them.
    ///
    /// # Errors
    /// [`FillError::TooLong`] beyond the slice's end, with nothing written; [`FillError::Refused`] before the head.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), FillError> {
        let Some(writer) = &mut self.writer else {
            return Err(FillError::Refused("the source sent bytes before naming a version".into()));
        };
        if !writer.append(bytes) {
            let expected = self.flight.progress.borrow().slab.as_ref().map_or(0, |slab| slab.length());
            return Err(FillError::TooLong { expected });
        }
        self.shared.counters.bytes_filled.add(bytes.len() as u64);
        self.flight.progress.send_modify(|_| ());
        Ok(())
    }
}
