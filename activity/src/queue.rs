//! The queue between requests and the log: bounded in bytes, never waited for by who offers.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::codec::Chunk;

/// What an event costs in the queue besides its bytes.
const EVENT_BYTES: usize = size_of::<crate::codec::Span>();

/// Events that wait, and who waits for them to be kept.
pub(crate) struct Pending {
    pub(crate) chunk: Chunk,
    pub(crate) done: oneshot::Sender<Result<u64, NotKept>>,
}

impl Pending {
    fn bytes(&self) -> usize {
        self.chunk.bytes() + self.chunk.spans.len() * EVENT_BYTES
    }
}

/// Why events that were good were not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotKept {
    /// The log could not be written.
    #[error("the log of activity cannot be written; control's log says why")]
    Failed,
    /// The log has as many bytes as it may have, and somebody still needs all of them.
    #[error("the log of activity is full")]
    Full,
    /// Control stops.
    #[error("control is stopping")]
    Stopping,
    /// It took too long.
    #[error("the log of activity is behind")]
    TooSlow,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Pending>,
    bytes: usize,
    closed: bool,
}

pub(crate) struct Queue {
    state: Mutex<State>,
    arrived: Condvar,
    bytes_max: usize,
}

/// What the writer got.
pub(crate) enum Taken {
    /// These, in the order in which they came.
    Group(Vec<Pending>),
    /// Nothing came in time.
    Nothing,
    /// The queue is closed and empty.
    Closed,
}

impl Queue {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { state: Mutex::default(), arrived: Condvar::new(), bytes_max }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.state.lock().bytes
    }

    /// From 0, empty, to 1.
    pub(crate) fn full(&self) -> f64 {
        self.bytes() as f64 / self.bytes_max as f64
    }

    /// Takes what is offered, or gives it back when there is no room.
    pub(crate) fn offer(&self, pending: Pending) -> Result<(), Pending> {
        let mut state = self.state.lock();
        if state.closed || state.bytes >= self.bytes_max {
            return Err(pending);
        }
        state.bytes += pending.bytes();
        state.waiting.push_back(pending);
        drop(state);
        self.arrived.notify_one();
        Ok(())
    }

    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.arrived.notify_one();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Waits for something, then until `gather` for more of it, and takes at most `bytes_max`, one chunk at least.
    pub(crate) fn take(&self, patience: Duration, gather: Instant, bytes_max: usize) -> Taken {
        let mut state = self.state.lock();
        self.arrived.wait_while_for(&mut state, |state| state.waiting.is_empty() && !state.closed, patience);
        self.arrived.wait_while_until(
            &mut state,
            |state| !state.waiting.is_empty() && state.bytes < bytes_max && !state.closed,
            gather,
        );
        if state.waiting.is_empty() {
            return if state.closed { Taken::Closed } else { Taken::Nothing };
        }
        let (mut group, mut bytes) = (Vec::new(), 0);
        while let Some(next) = state.waiting.front()
            && (group.is_empty() || bytes + next.bytes() <= bytes_max)
        {
            bytes += next.bytes();
            group.extend(state.waiting.pop_front());
        }
        state.bytes -= bytes;
        Taken::Group(group)
    }
}
