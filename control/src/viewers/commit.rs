//! Group commit: many writes wait together for one sync.
//!
//! A thread of its own has the journal. It takes whoever waits, writes one frame, syncs it, adds the records to memory, and answers all of
//! them: what is acknowledged is on disk and can be read. Meanwhile the next ones gather. A lone write goes at once; under load, syncs
//! begin no more often than the configured time, so that a device is not worn and a core not spent on them.
//! At most [`WAITING_MAX`] writes wait; more are refused at once, by name.

use std::{
    io, mem,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::{
    journal::{FRAME_RECORDS_MAX, Journal, Sealed},
    memory::{Memory, Table},
    record::Record,
};
use crate::metrics::viewers::Counters;

/// How many writes may wait: what twenty thousand a second bring while a device hangs for most of one.
pub(crate) const WAITING_MAX: usize = 16_384;

/// Takes writes for the journal. Dropping it ends the thread, after what already waits.
pub(crate) struct Committer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    waiting: Mutex<Waiting>,
    /// Someone waits who is to be served before the next sync is due anyway.
    work: Condvar,
}

#[derive(Default)]
struct Waiting {
    records: Vec<Record>,
    answers: Vec<oneshot::Sender<Result<(), NotKept>>>,
    /// Who wants all that was committed to be sealed.
    seals: Vec<oneshot::Sender<Result<Option<Handover>, NotKept>>>,
    is_closing: bool,
}

/// What is to go to the database: the table, and the segments that can go when it is there.
pub(crate) struct Handover {
    pub(crate) table: Arc<Table>,
    pub(crate) sealed: Sealed,
}

/// Why something is not kept. Nobody knows whether a write that failed is there after a restart; it can be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotKept {
    #[error("more than {WAITING_MAX} writes wait for the journal")]
    QueueFull,
    #[error("the database is behind and memory is full")]
    MemoryFull,
    #[error("the journal's disk failed: {0}")]
    Disk(io::ErrorKind),
    #[error("control is stopping")]
    Stopping,
}

impl NotKept {
    /// As metrics have it.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::QueueFull => "queue-full",
            Self::MemoryFull => "memory-full",
            Self::Disk(_) => "disk",
            Self::Stopping => "stopping",
        }
    }
}

impl Committer {
    /// Starts the thread. Syncs begin at most once in `every`.
    pub(crate) fn start(journal: Journal, memory: Arc<Memory>, every: Duration, counters: Counters) -> io::Result<Self> {
        let shared = Arc::new(Shared { waiting: Mutex::default(), work: Condvar::new() });
        let worker = Worker { shared: Arc::clone(&shared), journal, memory, every, counters };
        let thread = thread::Builder::new().name("journal".into()).spawn(move || worker.run())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Returns once `record` is on disk and in memory, or says why not.
    pub(crate) async fn keep(&self, record: Record) -> Result<(), NotKept> {
        let (answer, answered) = oneshot::channel();
        {
            let mut waiting = self.shared.waiting.lock();
            if waiting.is_closing {
                return Err(NotKept::Stopping);
            }
            if waiting.records.len() >= WAITING_MAX {
                return Err(NotKept::QueueFull);
            }
            waiting.records.push(record);
            waiting.answers.push(answer);
            // The thread knows of the others, and a full frame does not wait.
            if matches!(waiting.records.len(), 1 | FRAME_RECORDS_MAX) {
                self.shared.work.notify_one();
            }
        }
        answered.await.unwrap_or(Err(NotKept::Stopping))
    }

    /// Seals what was committed so far. None while what was sealed before is still there.
    pub(crate) async fn seal(&self) -> Result<Option<Handover>, NotKept> {
        let (answer, answered) = oneshot::channel();
        {
            let mut waiting = self.shared.waiting.lock();
            if waiting.is_closing {
                return Err(NotKept::Stopping);
            }
            waiting.seals.push(answer);
            self.shared.work.notify_one();
        }
        answered.await.unwrap_or(Err(NotKept::Stopping))
    }

    /// How many writes wait.
    pub(crate) fn waiting(&self) -> usize {
        self.shared.waiting.lock().records.len()
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.shared.waiting.lock().is_closing = true;
        self.shared.work.notify_one();
        // It ends once the one sync is done that may be under way. If it panicked, that was told on its own thread.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

struct Worker {
    shared: Arc<Shared>,
    journal: Journal,
    memory: Arc<Memory>,
    every: Duration,
    counters: Counters,
}

impl Worker {
    fn run(mut self) {
        let mut next = Instant::now();
        let mut is_failing = false;
        loop {
            let (batch, seals) = {
                let mut waiting = self.shared.waiting.lock();
                while waiting.records.is_empty() && waiting.seals.is_empty() && !waiting.is_closing {
                    self.shared.work.wait(&mut waiting);
                }
                while waiting.may_gather() {
                    if self.shared.work.wait_until(&mut waiting, next).timed_out() {
                        break;
                    }
                }
                if waiting.is_closing && waiting.records.is_empty() && waiting.seals.is_empty() {
                    return;
                }
                (waiting.take(), mem::take(&mut waiting.seals))
            };
            next = Instant::now() + self.every;
            let (records, answers) = batch;
            if !records.is_empty() {
                let outcome = self.commit(records);
                if outcome.is_err() != is_failing {
                    is_failing = outcome.is_err();
                    match outcome {
                        Err(reason) => tracing::error!(%reason, "what viewers do is not kept"),
                        Ok(()) => tracing::info!("what viewers do is kept again"),
                    }
                }
                for answer in answers {
                    // Whoever has left does not care.
                    let _ = answer.send(outcome);
                }
            }
            for answer in seals {
                let _ = answer.send(self.seal());
            }
        }
    }

    fn commit(&mut self, records: Vec<Record>) -> Result<(), NotKept> {
        let begun = Instant::now();
        let committed = self.journal.commit(&records);
        self.counters.committed(records.len(), begun.elapsed(), committed.as_ref().ok().copied());
        let bytes = committed.map_err(|error| NotKept::Disk(error.kind()))?;
        self.memory.add_journal_bytes(bytes);
        let coalesced = records.into_iter().map(|record| self.memory.add(record)).filter(|joined| *joined).count();
        self.counters.coalesced(coalesced);
        Ok(())
    }

    fn seal(&mut self) -> Result<Option<Handover>, NotKept> {
        if self.memory.has_sealed() {
            return Ok(None);
        }
        let sealed = self.journal.rotate().map_err(|error| NotKept::Disk(error.kind()))?;
        Ok(Some(Handover { table: self.memory.seal(), sealed }))
    }
}

impl Drop for Worker {
    /// Nobody waits for a thread that is gone.
    fn drop(&mut self) {
        let mut waiting = self.shared.waiting.lock();
        *waiting = Waiting { is_closing: true, ..Waiting::default() };
    }
}

impl Waiting {
    /// Whether those who wait may wait for more.
    fn may_gather(&self) -> bool {
        self.seals.is_empty() && !self.is_closing && self.records.len() < FRAME_RECORDS_MAX
    }

    /// The next frame's records, in the order in which they came, and who waits for them.
    fn take(&mut self) -> (Vec<Record>, Vec<oneshot::Sender<Result<(), NotKept>>>) {
        if self.records.len() <= FRAME_RECORDS_MAX {
            return (mem::take(&mut self.records), mem::take(&mut self.answers));
        }
        (self.records.drain(..FRAME_RECORDS_MAX).collect(), self.answers.drain(..FRAME_RECORDS_MAX).collect())
    }
}
