//! Devices driven by threads that call pread, pwrite and fdatasync: where io_uring is refused, and on threads that have no ring.
//!
//! Each device has its own few, so one that hangs stops no other. They start when there is work for them and end with their device.

use std::{collections::VecDeque, io, sync::Arc, thread};

use parking_lot::{Condvar, Mutex};
use tokio::sync::Semaphore;

use super::operation::{Kind, Operation, Step};

/// Of one device. What does not fit into them waits in line.
const THREADS_MAX: usize = 4;
/// Operations that a device's threads have taken on; more callers wait, in order.
pub(super) const QUEUED_MAX: usize = 128;

/// The threads of one device.
pub(super) struct Threads {
    places: Arc<Semaphore>,
    queue: Arc<Queue>,
}

impl Default for Threads {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(QUEUED_MAX)), queue: Arc::default() }
    }
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Operation>,
    /// Threads that wait for work.
    idle: usize,
    threads: usize,
    is_closed: bool,
}

/// Hands the operation to its device's threads when they have room for it.
pub(super) async fn start(mut operation: Operation) {
    let device = operation.device().clone();
    let place = device.threads.places.clone().acquire_owned().await.expect("never closed");
    operation.take_place(place);
    device.threads.queue.push(operation);
}

impl Threads {
    /// The threads end; nothing is queued, since what is queued holds its device.
    pub(super) fn close(&self) {
        self.queue.state.lock().is_closed = true;
        self.queue.changed.notify_all();
    }
}

impl Queue {
    fn push(self: &Arc<Self>, operation: Operation) {
        let mut state = self.state.lock();
        state.waiting.push_back(operation);
        if state.waiting.len() <= state.idle {
            drop(state);
            self.changed.notify_one();
        } else if state.threads < THREADS_MAX {
            state.threads += 1;
            drop(state);
            self.spawn();
        }
    }

    fn spawn(self: &Arc<Self>) {
        let queue = self.clone();
        let spawned = thread::Builder::new().name("device".into()).spawn(move || queue.work());
        let Err(error) = spawned else { return };
        let mut state = self.state.lock();
        state.threads -= 1;
        if state.threads == 0 {
            // Nobody is there to do it.
            let stranded = std::mem::take(&mut state.waiting);
            drop(state);
            stranded.into_iter().for_each(|operation| operation.finish(Err(io::Error::new(error.kind(), error.to_string()))));
        }
    }

    fn work(&self) {
        while let Some(operation) = self.next() {
            perform(operation);
        }
    }

    fn next(&self) -> Option<Operation> {
        let mut state = self.state.lock();
        loop {
            if let Some(operation) = state.waiting.pop_front() {
                return Some(operation);
            }
            if state.is_closed {
                return None;
            }
            state.idle += 1;
            self.changed.wait(&mut state);
            state.idle -= 1;
        }
    }
}

fn perform(mut operation: Operation) {
    if operation.kind() == Kind::Read && !operation.is_awaited() {
        return;
    }
    operation.begin();
    loop {
        let did = attempt(&mut operation);
        if let Step::Over(outcome) = operation.advance(did) {
            return operation.finish(outcome);
        }
    }
}

fn attempt(operation: &mut Operation) -> io::Result<usize> {
    let device = operation.device().clone();
    let (at, rest) = (operation.at(), operation.rest());
    match operation.kind() {
        Kind::Read => device.medium().read_at(at, &mut operation.buf_mut().as_mut_slice()[rest]),
        Kind::Write => device.medium().write_at(at, &operation.buf().as_slice()[rest]),
        Kind::Sync => device.medium().sync().map(|()| 0),
    }
}
