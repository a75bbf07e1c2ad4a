//! What a request depends on, and how long and by how many it is waited for: a deadline, a bound on calls at the same time (a bulkhead,
//! so that what hangs does not take every request with it), and a breaker. What is answered instead is the caller's matter.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::{
    sync::Semaphore,
    time::{error::Elapsed, timeout},
};

use super::breaker::{Breaker, Change, Pass};

/// One dependency.
pub(crate) struct Dependency {
    name: &'static str,
    deadline: Duration,
    room: Semaphore,
    breaker: Mutex<Breaker>,
    counts: [AtomicU64; Outcome::ALL.len()],
}

/// Why there is no answer from a dependency.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unavailable<E> {
    /// It failed lately; it was not asked.
    #[error("{0} fails; it is left alone for a moment")]
    Broken(&'static str),
    /// Too many ask; it was not asked.
    #[error("too many wait for {0}")]
    Full(&'static str),
    /// No answer came in time. Of what is to be done in turn: its turn did not come, and it will not be done.
    #[error("{0} takes longer than {1:?}")]
    Late(&'static str, Duration),
    /// It was asked and says no.
    #[error(transparent)]
    Failed(E),
}

/// What came of a call, for the metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Answered,
    Failed,
    Late,
    Full,
    Broken,
}

impl Outcome {
    pub(crate) const ALL: [Self; 5] = [Self::Answered, Self::Failed, Self::Late, Self::Full, Self::Broken];
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Answered => "answered",
            Self::Failed => "failed",
            Self::Late => "late",
            Self::Full => "full",
            Self::Broken => "broken",
        })
    }
}

impl Dependency {
    /// `name` as metrics and logs have it; `calls_max` at the same time, those that wait for their turn included.
    pub(crate) fn new(name: &'static str, deadline: Duration, calls_max: usize) -> Self {
        Self {
            name,
            deadline,
            room: Semaphore::new(calls_max),
            breaker: Mutex::new(Breaker::closed(Instant::now())),
            counts: Default::default(),
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Waits for `work`, unless it is not worth it. Work that is late is dropped.
    pub(crate) async fn call<T, E>(&self, work: impl Future<Output = Result<T, E>>) -> Result<T, Unavailable<E>> {
        self.guard(timeout(self.deadline, work)).await
    }

    /// Waits for a turn until the deadline, and then for `work` until it ends: whether it was done is always known.
    pub(crate) async fn call_in_turn<T, E, Turn, Work>(
        &self,
        turn: impl Future<Output = Turn>,
        work: impl FnOnce(Turn) -> Work,
    ) -> Result<T, Unavailable<E>>
    where
        Work: Future<Output = Result<T, E>>,
    {
        self.guard(async {
            let turn = timeout(self.deadline, turn).await?;
            Ok(work(turn).await)
        })
        .await
    }

    async fn guard<T, E>(&self, work: impl Future<Output = Result<Result<T, E>, Elapsed>>) -> Result<T, Unavailable<E>> {
        let Ok(_room) = self.room.try_acquire() else {
            self.count(Outcome::Full);
            return Err(Unavailable::Full(self.name));
        };
        let Some(pass) = self.breaker.lock().admit(Instant::now()) else {
            self.count(Outcome::Broken);
            return Err(Unavailable::Broken(self.name));
        };
        match work.await {
            Ok(Ok(answer)) => {
                self.ended(pass, Outcome::Answered);
                Ok(answer)
            }
            Ok(Err(error)) => {
                self.ended(pass, Outcome::Failed);
                Err(Unavailable::Failed(error))
            }
            Err(_) => {
                self.ended(pass, Outcome::Late);
                Err(Unavailable::Late(self.name, self.deadline))
            }
        }
    }

    /// Calls so far, by what came of them.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (Outcome, u64)> {
        Outcome::ALL.into_iter().map(|outcome| (outcome, self.counts[outcome as usize].load(Ordering::Relaxed)))
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.breaker.lock().is_open()
    }

    fn ended(&self, pass: Pass, outcome: Outcome) {
        self.count(outcome);
        let change = self.breaker.lock().ended(pass, outcome == Outcome::Answered, Instant::now());
        match change {
            Some(Change::Opened) => tracing::error!(dependency = self.name, "it fails; requests go on without it"),
            Some(Change::Closed) => tracing::info!(dependency = self.name, "it answers again"),
            None => {}
        }
    }

    fn count(&self, outcome: Outcome) {
        self.counts[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;
    use crate::db::DbError;

    const LONG: Duration = Duration::from_secs(3600);

    fn counts(dependency: &Dependency) -> Vec<u64> {
        dependency.counts().map(|(_, count)| count).collect()
    }

    #[tokio::test]
    async fn what_is_answered_comes_through_and_what_fails_says_why() {
        let dependency = Dependency::new("search", LONG, 1);
        assert!(matches!(dependency.call(ready(Ok::<_, ()>(7))).await, Ok(7)));
        assert!(matches!(dependency.call(ready(Err::<(), _>("no"))).await, Err(Unavailable::Failed("no"))));
        assert_eq!(counts(&dependency), [1, 1, 0, 0, 0]);
    }

    #[tokio::test]
    async fn what_hangs_is_given_up_and_soon_not_asked_at_all() {
        let dependency = Dependency::new("search", Duration::from_millis(1), 1);
        let mut asked = 0;
        let mut last = None;
        for _ in 0..1000 {
            let work = async {
                asked += 1;
                pending::<Result<(), DbError>>().await
            };
            last = dependency.call(work).await.err();
        }
        assert_eq!(last.unwrap().to_string(), "search fails; it is left alone for a moment");
        assert!(dependency.is_broken());
        // Twenty before it opens; then few trials fit in the time that the other calls take.
        assert!(asked < 100, "{asked}");
    }

    #[tokio::test]
    async fn what_begins_in_time_is_waited_for_however_long_it_takes() {
        let dependency = Dependency::new("db", Duration::from_millis(1), 1);
        let long = async |turn| {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Ok::<_, ()>(turn)
        };
        assert!(matches!(dependency.call_in_turn(ready(7), long).await, Ok(7)));
        let mut begun = false;
        let late = dependency.call_in_turn(pending::<()>(), |()| {
            begun = true;
            ready(Ok::<_, ()>(()))
        });
        assert!(matches!(late.await, Err(Unavailable::Late("db", _))));
        assert!(!begun);
        assert_eq!(counts(&dependency), [1, 0, 1, 0, 0]);
    }

    #[tokio::test]
    async fn a_call_too_many_is_refused_at_once() {
        let dependency = Dependency::new("db", LONG, 2);
        let mut waiting: Vec<_> = (0..2).map(|_| Box::pin(dependency.call(pending::<Result<(), ()>>()))).collect();
        for call in &mut waiting {
            assert!(futures_poll(call).is_none());
        }
        assert!(matches!(dependency.call(ready(Ok::<_, ()>(()))).await, Err(Unavailable::Full("db"))));
        waiting.pop();
        assert!(dependency.call(ready(Ok::<_, ()>(()))).await.is_ok(), "one that is given up makes room");
    }

    fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::Pin::new(future).poll(&mut context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        }
    }
}
