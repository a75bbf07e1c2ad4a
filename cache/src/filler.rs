//! What sources write into: one slice's bytes, shown to all who wait as they come.
//!
//! Attempts at a slice come one after the other and go on where the one before ended, so what is written stays. Only the attempt whose turn it
//! is may write: a source that keeps its filler for longer is told so.

use std::{ops::Range, sync::Arc};

use parking_lot::{Mutex, MutexGuard};

use crate::{
    FillError, Generation, Shared, Want, Wanted,
    flight::{CameFrom, Flight},
    object::Known,
    slab::{Permit, Slab, Writer},
};

/// What all attempts at one slice share.
pub(crate) struct Work {
    shared: Arc<Shared>,
    flight: Arc<Flight>,
    /// Where in the object the slice begins.
    start: u64,
    state: Mutex<State>,
}

struct State {
    /// The attempt that may write; `None` when the flight is over.
    turn: Option<u32>,
    /// This attempt has said which version it brings.
    is_named: bool,
    wanted: Wanted,
    /// The slice as it was on SSD, if the source is only to vouch for it.
    loaded: Option<Arc<Slab>>,
    /// Memory for the slice until its bytes begin.
    permit: Option<Permit>,
    writer: Option<Writer>,
}

impl Work {
    pub(crate) fn new(shared: Arc<Shared>, flight: Arc<Flight>, wanted: Wanted) -> Arc<Self> {
        let start = flight.index * shared.config.slice_bytes as u64;
        let state = State { turn: None, is_named: false, wanted, loaded: None, permit: None, writer: None };
        Arc::new(Self { shared, flight, start, state: Mutex::new(state) })
    }

    /// What the flight is bound to, or may find unchanged.
    pub(crate) fn version(&self) -> Option<Known> {
        match &self.state.lock().wanted {
            Wanted::Any { stale } => stale.clone(),
            Wanted::Exactly(known) => Some(known.clone()),
        }
    }

    /// The version that must be brought, if it may not be any.
    pub(crate) fn bound_to(&self) -> Option<Known> {
        match &self.state.lock().wanted {
            Wanted::Any { .. } => None,
            Wanted::Exactly(known) => Some(known.clone()),
        }
    }

    /// `known` was on SSD, and its bytes are in `loaded` if there is memory for them beside what a new version needs. The source is to say whether it is
    /// still the current one.
    pub(crate) fn is_to_vouch_for(&self, known: Known, loaded: Option<Arc<Slab>>) {
        let mut state = self.state.lock();
        state.wanted = Wanted::Any { stale: Some(known) };
        state.loaded = loaded;
    }

    pub(crate) fn gets_memory(&self, permit: Permit) {
        self.state.lock().permit = Some(permit);
    }

    /// Bytes of the slice at most: all of them where the version is known.
    pub(crate) fn length_max(&self) -> usize {
        self.length_in(&self.state.lock().wanted)
    }

    /// Makes it the turn of `attempt`, and says what is missing.
    pub(crate) fn begin(self: &Arc<Self>, attempt: u32) -> (Want, Filler) {
        let mut state = self.state.lock();
        state.turn = Some(attempt);
        state.is_named = false;
        self.flight.begins_anew();
        let (generation, revalidate) = match &state.wanted {
            Wanted::Any { stale } => (stale.as_ref().map(|stale| stale.generation.clone()), stale.is_some()),
            Wanted::Exactly(known) => (Some(known.generation.clone()), false),
        };
        let range = self.missing(&state.wanted);
        let want = Want { key: self.flight.key.clone(), range, generation, revalidate, attempt };
        (want, Filler { work: self.clone(), attempt })
    }

    /// From now on nobody writes.
    pub(crate) fn is_over(&self) {
        self.state.lock().turn = None;
    }

    fn missing(&self, wanted: &Wanted) -> Range<u64> {
        let filled = self.flight.progress.borrow().slab.as_ref().map_or(0, |slab| slab.filled());
        self.start + filled as u64..self.start + self.length_in(wanted) as u64
    }

    fn length_in(&self, wanted: &Wanted) -> usize {
        match wanted {
            Wanted::Any { .. } => self.shared.config.slice_bytes,
            Wanted::Exactly(known) => self.shared.slice_length(&known.generation, self.flight.index),
        }
    }

    fn turn_of(&self, attempt: u32) -> Result<MutexGuard<'_, State>, FillError> {
        let state = self.state.lock();
        if state.turn == Some(attempt) {
            return Ok(state);
        }
        Err(FillError::Unavailable("this attempt is over".into()))
    }
}

/// Takes a fill's bytes and shows them to all who wait.
pub struct Filler {
    work: Arc<Work>,
    attempt: u32,
}

impl Filler {
    /// Names the version whose bytes follow. Once, before the first byte.
    ///
    /// # Errors
    /// [`FillError::Changed`] when another version is wanted; [`FillError::OutOfRange`] when the object ends before the slice.
    pub fn head(&mut self, generation: Generation) -> Result<(), FillError> {
        let Work { shared, flight, start, .. } = &*self.work;
        let mut state = self.work.turn_of(self.attempt)?;
        if state.is_named {
            return Err(FillError::Refused("the source named a version twice".into()));
        }
        // The first byte of an empty object is its end, and no error.
        if *start > 0 && *start >= generation.length {
            return Err(FillError::OutOfRange);
        }
        let known = match &state.wanted {
            Wanted::Exactly(known) if known.generation.same_bytes(&generation) => known.clone(),
            Wanted::Exactly(_) => return Err(FillError::Changed),
            Wanted::Any { stale } => shared.learn(&flight.key, Arc::new(generation), flight.number(), stale.as_ref()),
        };
        state.is_named = true;
        if state.writer.is_some() {
            return Ok(());
        }
        // Another version than the one on SSD: its memory goes back.
        state.loaded = None;
        let permit = state.permit.take().expect("held until the bytes begin");
        let (slab, writer) = Slab::new(permit, shared.slice_length(&known.generation, flight.index));
        state.writer = Some(writer);
        state.wanted = Wanted::Exactly(known.clone());
        flight.show(known, Some(slab), CameFrom::Source);
        Ok(())
    }

    /// Answers a revalidation: the version is still the current one, and its bytes need not come again.
    ///
    /// # Errors
    /// [`FillError::Refused`] when no revalidation was asked for.
    pub fn unchanged(&mut self) -> Result<(), FillError> {
        let Work { shared, flight, .. } = &*self.work;
        let mut state = self.work.turn_of(self.attempt)?;
        let Wanted::Any { stale: Some(stale) } = &state.wanted else {
            return Err(FillError::Refused("the source says that nothing changed, but was not asked".into()));
        };
        let known = shared.learn(&flight.key, stale.generation.clone(), flight.number(), Some(stale));
        state.is_named = true;
        state.permit = None;
        state.wanted = Wanted::Exactly(known.clone());
        flight.show_unchanged(known, state.loaded.take());
        Ok(())
    }

    /// Appends the next bytes and wakes who waits for them.
    ///
    /// # Errors
    /// [`FillError::TooLong`] beyond the slice's end, with nothing written; [`FillError::Refused`] before the head.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), FillError> {
        let Work { shared, flight, .. } = &*self.work;
        let mut state = self.work.turn_of(self.attempt)?;
        let is_named = state.is_named;
        let Some(writer) = state.writer.as_mut().filter(|_| is_named) else {
            return Err(FillError::Refused("the source sent bytes before naming a version".into()));
        };
        if !writer.append(bytes) {
            return Err(FillError::TooLong { expected: self.work.length_in(&state.wanted) });
        }
        drop(state);
        shared.counters.bytes_filled.add(bytes.len() as u64);
        flight.show_bytes();
        Ok(())
    }
}
