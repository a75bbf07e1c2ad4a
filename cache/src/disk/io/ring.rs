//! One io_uring, which one thread makes, enters and ends.
//!
//! The ring owns an operation, and with it its memory, from submission to completion. Who awaits an operation may leave; whatever
//! the kernel may still write to is never freed, at worst leaked.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    sync::Arc,
    thread::{self, ThreadId},
    time::{Duration, Instant},
};

use io_uring::{EnterFlags, IoUring, opcode, squeue, types};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{
    operation::{Kind, Operation, Step},
    probe::Setup,
    registered::{Buffers, Files},
};
use crate::slab::Slots;

/// How often the kernel is asked again at once when it is short of something.
const ENTER_TRIES_MAX: u32 = 16;
/// As much as one submission asks for; the rest follows.
const SUBMISSION_BYTES_MAX: usize = 1 << 30;

/// `file` is a descriptor or an index, which are two types.
macro_rules! entry {
    ($file:expr, $operation:expr, $block:expr) => {{
        let (at, rest) = ($operation.at(), $operation.rest());
        let length = rest.len().min(SUBMISSION_BYTES_MAX) as u32;
        // SAFETY: the rest lies within the buffer.
        let start = unsafe { $operation.buf().start().add(rest.start) }.as_ptr();
        match ($operation.kind(), $block) {
            (Kind::Read, Some(block)) => opcode::ReadFixed::new($file, start, length, block).offset(at).build(),
            (Kind::Read, None) => opcode::Read::new($file, start, length).offset(at).build(),
            (Kind::Write, Some(block)) => opcode::WriteFixed::new($file, start, length, block).offset(at).build(),
            (Kind::Write, None) => opcode::Write::new($file, start, length).offset(at).build(),
            (Kind::Sync, _) => opcode::Fsync::new($file).flags(types::FsyncFlags::DATASYNC).build(),
        }
    }};
}

/// An operation that is over, and how.
pub(super) type Finished = (Operation, io::Result<()>);

pub(super) struct Ring {
    owner: ThreadId,
    /// Signalled when there may be something to take.
    event: OwnedFd,
    /// There is something to submit, or the cache is closing.
    pub(super) kick: Notify,
    inner: Mutex<Inner>,
}

struct Inner {
    ring: IoUring,
    table: Table,
    files: Files,
    buffers: Buffers,
    is_ended: bool,
    is_drained: bool,
}

impl Ring {
    /// A ring for this thread.
    pub(super) fn new(setup: Setup, slots: &Arc<Slots>, registers_buffers: bool) -> io::Result<Self> {
        let (ring, event) = setup.build()?;
        let files = Files::new(&ring.submitter());
        let buffers = Buffers::new(&ring.submitter(), slots, registers_buffers);
        Ok(Self {
            owner: thread::current().id(),
            event,
            kick: Notify::new(),
            inner: Mutex::new(Inner { ring, table: Table::default(), files, buffers, is_ended: false, is_drained: false }),
        })
    }

    pub(super) fn is_here(&self) -> bool {
        thread::current().id() == self.owner
    }

    pub(super) fn is_ended(&self) -> bool {
        self.inner.lock().is_ended
    }

    pub(super) fn is_idle(&self) -> bool {
        self.inner.lock().table.is_empty()
    }

    /// Takes the operation on when its device has a place for it here. Gives it back if the ring ended or is another thread's.
    pub(super) async fn start(&self, mut operation: Operation) -> Option<Operation> {
        let places = {
            let mut inner = self.inner.lock();
            if inner.is_ended || !self.is_here() {
                return Some(operation);
            }
            let Inner { ring, files, .. } = &mut *inner;
            files.places(&ring.submitter(), operation.device())
        };
        let Ok(place) = places.acquire_owned().await else { return Some(operation) };
        let mut inner = self.inner.lock();
        if inner.is_ended || !self.is_here() {
            return Some(operation);
        }
        operation.take_place(place);
        inner.take_on(operation);
        drop(inner);
        self.kick.notify_one();
        None
    }

    /// Submits what there is to submit and takes what is over.
    pub(super) fn turn(&self, finished: &mut Vec<Finished>) -> io::Result<()> {
        let mut inner = self.inner.lock();
        let Inner { ring, buffers, .. } = &mut *inner;
        buffers.let_go(&ring.submitter());
        // The kernel signals also what it was just asked for.
        while inner.has_work() {
            inner.enter(None)?;
            inner.reap(finished);
        }
        if inner.is_ended { Err(io::Error::other("the ring has ended")) } else { Ok(()) }
    }

    /// Nothing is taken on any more, and whoever waits is told. What the kernel still has to do is waited for at most `wait_max`, on the
    /// ring's own thread only; on another nothing is waited for, and the ring's own thread calls this again.
    pub(super) fn end(&self, wait_max: Duration) {
        let mut finished = Vec::new();
        let mut inner = self.inner.lock();
        inner.is_ended = true;
        inner.files.close();
        if self.is_here() && !inner.is_drained {
            inner.is_drained = true;
            inner.drain(wait_max, &mut finished);
        }
        inner.table.abandon();
        drop(inner);
        finished.into_iter().for_each(|(operation, outcome)| operation.finish(outcome));
    }

    #[cfg(test)]
    pub(super) fn registered(&self) -> usize {
        self.inner.lock().buffers.len()
    }
}

/// For epoll.
impl AsRawFd for Ring {
    fn as_raw_fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }
}

impl Inner {
    fn take_on(&mut self, mut operation: Operation) {
        operation.begin();
        let index = self.table.insert(operation);
        self.push(index);
    }

    /// Puts what is left of the operation where the kernel sees it with the next [`Self::enter`].
    fn push(&mut self, index: usize) {
        let entry = self.entry(index);
        // SAFETY: the memory belongs to the operation, which stays in the table until the kernel is done with it and is leaked
        // otherwise; so does the device, whose descriptor stays open.
        while unsafe { self.ring.submission().push(&entry) }.is_err() {
            // Full: the kernel takes what is there.
            if let Err(error) = self.enter(None) {
                tracing::error!(%error, "io_uring takes nothing");
                // The next turn ends it.
                self.is_ended = true;
                return;
            }
        }
    }

    fn entry(&mut self, index: usize) -> squeue::Entry {
        let operation = self.table.at(index);
        let submitter = self.ring.submitter();
        let block = self.buffers.index(&submitter, operation.buf().region()).unwrap_or_else(|error| {
            tracing::warn!(%error, "memory cannot be registered with io_uring, which costs CPU; see RLIMIT_MEMLOCK");
            None
        });
        let entry = match self.files.index(operation.device()) {
            Some(index) => entry!(types::Fixed(index), operation, block),
            None => entry!(types::Fd(operation.device().fd().expect("doubles are driven by threads")), operation, block),
        };
        entry.user_data(index as u64)
    }

    /// Whether there is something to submit or to take.
    fn has_work(&mut self) -> bool {
        let submission = self.ring.submission();
        let has_work = !submission.is_empty() || submission.taskrun() || submission.cq_overflow();
        drop(submission);
        has_work || !self.ring.completion().is_empty()
    }

    /// Submits all that there is and has the kernel post what is over; waits for at most `wait` until something is.
    fn enter(&mut self, wait: Option<Duration>) -> io::Result<()> {
        let mut tries_left = ENTER_TRIES_MAX;
        loop {
            let entered = match wait {
                None => self.enter_now(),
                Some(wait) => self.enter_and_wait(wait),
            };
            match entered {
                Err(error) if is_shortage(&error) && tries_left > 0 => tries_left -= 1,
                Err(error) => return Err(error),
                Ok(()) if self.ring.submission().is_empty() => return Ok(()),
                // It stopped short; each time it takes one at least.
                Ok(()) => {}
            }
        }
    }

    fn enter_now(&mut self) -> io::Result<()> {
        let count = self.ring.submission().len();
        let count = u32::try_from(count).expect("at most SUBMISSIONS_MAX");
        // SAFETY: without an argument nothing is pointed to.
        unsafe { self.ring.submitter().enter::<libc::sigset_t>(count, 0, EnterFlags::GETEVENTS.bits(), None) }?;
        Ok(())
    }

    fn enter_and_wait(&self, wait: Duration) -> io::Result<()> {
        let wait = types::Timespec::from(wait);
        match self.ring.submitter().submit_with_args(1, &types::SubmitArgs::new().timespec(&wait)) {
            Err(error) if error.raw_os_error() != Some(libc::ETIME) => Err(error),
            _ => Ok(()),
        }
    }

    /// Takes what is over. What was short is put up to be submitted again.
    fn reap(&mut self, finished: &mut Vec<Finished>) {
        loop {
            let Some(completion) = self.ring.completion().next() else { return };
            let index = completion.user_data() as usize;
            let did = match completion.result() {
                did if did < 0 => Err(io::Error::from_raw_os_error(-did)),
                did => Ok(did as usize),
            };
            match self.table.at_mut(index).advance(did) {
                Step::Over(outcome) => finished.push((self.table.remove(index), outcome)),
                Step::Again => self.push(index),
            }
        }
    }

    fn drain(&mut self, wait_max: Duration, finished: &mut Vec<Finished>) {
        let deadline = Instant::now() + wait_max;
        while !self.table.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            let entered = if left.is_zero() { self.enter(None) } else { self.enter(Some(left)) };
            self.reap(finished);
            if left.is_zero() || entered.is_err() {
                break;
            }
        }
        if !self.table.is_empty() {
            tracing::error!(
                operations = self.table.len(),
                "devices did not answer in time; the memory of these operations is lost"
            );
        }
    }
}

fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY))
}

/// Operations that the kernel has, by the number that it gives back with each. What is left at the end is leaked: the kernel may still use it.
#[derive(Default)]
struct Table {
    operations: Vec<Option<Operation>>,
    free: Vec<usize>,
}

impl Table {
    fn insert(&mut self, operation: Operation) -> usize {
        let index = self.free.pop().unwrap_or_else(|| {
            self.operations.push(None);
            self.operations.len() - 1
        });
        self.operations[index] = Some(operation);
        index
    }

    fn at(&self, index: usize) -> &Operation {
        self.operations[index].as_ref().expect("each operation completes once")
    }

    fn at_mut(&mut self, index: usize) -> &mut Operation {
        self.operations[index].as_mut().expect("each operation completes once")
    }

    fn remove(&mut self, index: usize) -> Operation {
        self.free.push(index);
        self.operations[index].take().expect("each operation completes once")
    }

    fn len(&self) -> usize {
        self.operations.len() - self.free.len()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn abandon(&mut self) {
        let ended = || io::Error::other("the ring ended before the device answered");
        self.operations.iter_mut().flatten().for_each(|operation| operation.abandon(ended()));
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        self.operations.drain(..).flatten().for_each(std::mem::forget);
    }
}
