//! How a flight is flown: memory, the SSD, then attempts at the source, and the landing.
//!
//! What always holds: a flight ends, also when its task panics or its runtime goes away; what a purge covers by the time it lands is kept for nobody
//! else; all who wait are told the same end.

use std::{pin::pin, sync::Arc, time::Instant};

use tokio::time::sleep_until;

use crate::{
    Errand, FillError, Shared, Source, Wanted,
    disk::{Loaded, Offer},
    filler::Work,
    flight::{CameFrom, Flight},
    object::Known,
    slab::{Permit, Priority, Slab},
    ssd::Place,
};

/// Whoever flies a flight.
pub(crate) struct Pilot<S> {
    pub(crate) shared: Arc<Shared>,
    pub(crate) flight: Arc<Flight>,
    pub(crate) source: Arc<S>,
    pub(crate) errand: Errand,
    /// Where on SSD the slice may be.
    pub(crate) place: Option<Place>,
    /// Memory for it, if it was found at once.
    pub(crate) permit: Option<Permit>,
}

/// Why a flight ended without its bytes.
enum Broken {
    Failed(FillError),
    /// Nobody waits any more.
    Abandoned,
}

impl From<FillError> for Broken {
    fn from(error: FillError) -> Self {
        Self::Failed(error)
    }
}

impl<S: Source> Pilot<S> {
    pub(crate) async fn fly(mut self, wanted: Wanted) {
        let work = Work::new(self.shared.clone(), self.flight.clone(), wanted);
        let landing = Landing::new(self.shared.clone(), work.clone(), self.flight.clone(), self.errand);
        landing.land(self.bring(&work).await);
    }

    async fn bring(&mut self, work: &Arc<Work>) -> Result<(), Broken> {
        if let Some(place) = self.place
            && self.load(work, place).await?
        {
            return Ok(());
        }
        let permit = self.memory(work.length_max()).await?;
        work.gets_memory(permit);
        self.shared.counters.fills.add(1);
        self.ask(work).await
    }

    /// Whether the slice was on SSD and is what was wanted. If a source must vouch for it first, it is ready for that.
    async fn load(&mut self, work: &Work, place: Place) -> Result<bool, Broken> {
        let permit = self.memory(self.shared.config.slice_bytes).await?;
        let Some(ssd) = self.shared.ssd.get() else { return Ok(false) };
        let bound = work.bound_to();
        let expected = bound.as_ref().map(|known| &*known.generation);
        let Some(loaded) = ssd.load(self.flight.slice(), place, expected, permit).await else { return Ok(false) };
        let Loaded { generation, vouched_at, number, slab } = loaded;
        let known = match bound {
            Some(known) => known,
            None => match self.shared.objects.recall(&self.flight.key, generation, number, vouched_at) {
                Some(known) => known,
                None => return Ok(false),
            },
        };
        if work.bound_to().is_some() || known.is_fresh(Instant::now()) {
            self.flight.show(known, Some(slab), CameFrom::Ssd);
            return Ok(true);
        }
        // Should the source have another version, its bytes need memory, and cannot wait for it then.
        self.permit = self.shared.budget.try_acquire(self.shared.config.slice_bytes, Priority::Viewer);
        work.is_to_vouch_for(known, self.permit.is_some().then_some(slab));
        Ok(false)
    }

    /// Waits for memory, as long as it may. A plan's flight that a viewer wants meanwhile waits as a viewer's.
    async fn memory(&mut self, length: usize) -> Result<Permit, Broken> {
        if let Some(permit) = self.permit.take() {
            return Ok(permit);
        }
        loop {
            let priority = self.priority();
            let mut acquiring = pin!(self.shared.budget.acquire(length, priority, self.shared.config.memory_wait_max));
            while self.priority() == priority {
                tokio::select! {
                    biased;
                    permit = &mut acquiring => return permit.ok_or_else(|| self.refused(priority)),
                    () = self.flight.turned.notified() => if self.is_abandoned() {
                        return Err(Broken::Abandoned);
                    },
                }
            }
        }
    }

    fn priority(&self) -> Priority {
        if self.errand == Errand::Plan && !self.flight.is_viewed() { Priority::Plan } else { Priority::Viewer }
    }

    fn refused(&self, priority: Priority) -> Broken {
        match priority {
            Priority::Plan => self.shared.counters.refused_plans.add(1),
            Priority::Viewer | Priority::Speculation => self.shared.counters.refused_busy.add(1),
        }
        Broken::Failed(FillError::Busy)
    }

    /// Asks the source until the slice is whole, or there is no use in asking again ([`Source`] says when that is).
    async fn ask(&self, work: &Arc<Work>) -> Result<(), Broken> {
        let mut attempt = 0;
        loop {
            let is_last = attempt + 1 >= self.source.attempts_max();
            let error = match self.attempt(work, attempt, is_last).await.and_then(|()| Ok(self.flight.check_whole()?)) {
                Ok(()) => return Ok(()),
                Err(Broken::Abandoned) => return Err(Broken::Abandoned),
                Err(Broken::Failed(error)) => error,
            };
            let is_passing = matches!(error, FillError::Unavailable(_) | FillError::Short { .. });
            if self.flight.check_whole().is_ok() {
                // What broke after the last byte broke nothing; what the source said of itself counts.
                return if is_passing { Ok(()) } else { Err(error.into()) };
            }
            attempt += 1;
            if is_last || !(is_passing || self.source.is_elsewhere(attempt)) {
                return Err(error.into());
            }
            tracing::debug!(key = %self.flight.key, index = self.flight.index, attempt, %error, "another attempt");
        }
    }

    /// One attempt, which is cut when it stalls while somebody waits, unless it is the last.
    async fn attempt(&self, work: &Arc<Work>, attempt: u32, is_last: bool) -> Result<(), Broken> {
        let (want, filler) = work.begin(attempt);
        self.shared.counters.attempts.add(1);
        let before = self.flight.filled();
        let mut filling = pin!(self.source.clone().fill(want, filler));
        let mut window = None;
        loop {
            if self.is_abandoned() {
                return Err(Broken::Abandoned);
            }
            let filled = self.flight.filled();
            let is_watched = !is_last && filled > before && self.flight.waiters() > 0;
            window = is_watched.then(|| window.unwrap_or_else(|| self.window(filled)));
            tokio::select! {
                biased;
                result = &mut filling => return Ok(result?),
                () = self.flight.turned.notified() => {}
                () = sleep_until(window.map_or_else(tokio::time::Instant::now, |window| window.until)), if window.is_some() => {
                    let filled = self.flight.filled();
                    if window.is_some_and(|window| filled < window.filled_min) {
                        return Err(self.stalled());
                    }
                    window = Some(self.window(filled));
                }
            }
        }
    }

    fn window(&self, filled: usize) -> Window {
        let rules = &self.shared.config.rules;
        Window { until: tokio::time::Instant::now() + rules.progress_window, filled_min: filled + rules.progress_bytes_min }
    }

    fn stalled(&self) -> Broken {
        self.shared.counters.stalls.add(1);
        let rules = &self.shared.config.rules;
        let (bytes, window) = (rules.progress_bytes_min, rules.progress_window.as_millis());
        Broken::Failed(FillError::Unavailable(format!("it brought less than {bytes} bytes in {window} ms").into()))
    }

    /// Whether nobody waits and too little has come to go on for its own sake. Then nobody can join any more.
    fn is_abandoned(&self) -> bool {
        let share = self.shared.config.rules.abandoned_share;
        if share <= 0.0 || self.errand == Errand::Plan || self.flight.waiters() > 0 {
            return false;
        }
        let bytes = self.flight.length().unwrap_or(self.shared.config.slice_bytes);
        (self.flight.filled() as f64) < share * bytes as f64 && self.shared.flights.remove_abandoned(&self.flight)
    }
}

/// What an attempt must have brought by when.
#[derive(Clone, Copy)]
struct Window {
    until: tokio::time::Instant,
    filled_min: usize,
}

/// Sees to it that a flight ends.
struct Landing {
    shared: Arc<Shared>,
    work: Arc<Work>,
    flight: Arc<Flight>,
    errand: Errand,
    landed: bool,
}

impl Landing {
    fn new(shared: Arc<Shared>, work: Arc<Work>, flight: Arc<Flight>, errand: Errand) -> Self {
        Self { shared, work, flight, errand, landed: false }
    }

    fn land(mut self, result: Result<(), Broken>) {
        self.end(result);
        self.landed = true;
    }

    fn end(&self, result: Result<(), Broken>) {
        self.work.is_over();
        let result = match result {
            Ok(()) => {
                self.keep();
                Ok(())
            }
            Err(Broken::Abandoned) => {
                self.shared.counters.abandoned.add(1);
                Err(FillError::Unavailable("nobody waited for the fill any more".into()))
            }
            Err(Broken::Failed(error)) => {
                self.shared.counters.fill_failures.add(1);
                if matches!(error, FillError::Changed | FillError::NotFound) {
                    self.shared.forget(&self.flight, self.work.version().as_ref());
                }
                Err(error)
            }
        };
        self.flight.tell_end(result);
        // Only now: whoever finds no flight finds the slice in RAM, or the error told.
        self.shared.flights.remove(&self.flight);
    }

    /// Files a slice where others find it, unless it was purged since its flight began.
    fn keep(&self) {
        let Some((known, slab, from)) = self.flight.brought() else { return };
        if self.shared.objects.is_purged(&self.flight.key, &known) {
            return;
        }
        // What was replaced meanwhile must not come back.
        if self.shared.objects.known(&self.flight.key).is_some_and(|current| current.id != known.id) {
            return;
        }
        let is_planned = self.errand == Errand::Plan;
        if !is_planned || self.flight.is_viewed() {
            let hash = self.shared.slice_hash(self.flight.slice());
            self.shared.memory.keep(known.id, self.flight.index, hash, slab.clone());
        }
        if from == CameFrom::Source
            && let Some(ssd) = self.shared.ssd.get()
        {
            ssd.offer(self.offer(known, slab, is_planned));
        }
    }

    fn offer(&self, known: Known, slab: Arc<Slab>, is_planned: bool) -> Offer {
        let (key, index) = (self.flight.key.clone(), self.flight.index);
        let Known { generation, number, vouched, .. } = known;
        Offer { key, index, generation, vouched_at: vouched.at, number, slab, is_planned }
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        if !self.landed {
            self.end(Err(Broken::Failed(FillError::Unavailable("the fill was broken off".into()))));
        }
    }
}
