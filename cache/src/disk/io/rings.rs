//! The rings of this thread: one for each cache and runtime, made on first use and served by a task of that runtime.
//!
//! Only the thread that drives a current-thread runtime gets a ring for it. Code of that runtime which happens to run elsewhere (on a
//! blocking thread, say) is told that there is none.

use std::{
    cell::RefCell,
    io,
    os::fd::{AsRawFd, RawFd},
    sync::{Arc, OnceLock},
    thread::{self, ThreadId},
    time::Duration,
};

use tokio::{
    io::{Interest, unix::AsyncFd},
    runtime::{self, Handle, RuntimeFlavor},
    sync::Notify,
};

use super::{
    Shared,
    probe::Setup,
    ring::{Finished, Ring},
};

/// How long the end of a runtime or thread waits for what devices still have to do. What is under way then is lost, its memory with it.
pub(super) const END_WAIT_MAX: Duration = Duration::from_secs(3);

thread_local! {
    static HERE: RefCell<Here> = RefCell::default();
}

/// The ring of `shared` for the runtime that drives this thread. `None` where threads must do.
pub(super) async fn ring(shared: &Arc<Shared>) -> Option<Arc<Ring>> {
    let setup = shared.setup()?;
    let handle = Handle::try_current().ok()?;
    if handle.runtime_flavor() != RuntimeFlavor::CurrentThread {
        return None;
    }
    match known(shared, &handle)? {
        Ok(start) => start.ring().await,
        Err(ended) => {
            ended.into_iter().for_each(drop);
            begin(shared, setup, &handle)?.ring().await
        }
    }
}

/// What this thread knows for this cache and runtime, or else, to be dropped, all that has ended.
fn known(shared: &Arc<Shared>, handle: &Handle) -> Option<Result<Arc<Start>, Vec<Entry>>> {
    HERE.try_with(|here| {
        let entries = &mut here.borrow_mut().0;
        let is_this = |entry: &&Entry| entry.cache == shared.number && entry.runtime == handle.id() && !entry.start.is_ended();
        match entries.iter().find(is_this) {
            Some(entry) => Ok(entry.start.clone()),
            None => Err(entries.extract_if(.., |entry| entry.start.is_ended()).collect()),
        }
    })
    .ok()
}

fn begin(shared: &Arc<Shared>, setup: Setup, handle: &Handle) -> Option<Arc<Start>> {
    let start = Arc::new(Start { thread: thread::current().id(), made: OnceLock::new(), is_made: Notify::new() });
    let entry = Entry { cache: shared.number, runtime: handle.id(), start: start.clone() };
    HERE.try_with(|here| here.borrow_mut().0.push(entry)).ok()?;
    handle.spawn(serve(Serving(start.clone()), shared.clone(), setup));
    Some(start)
}

/// Rings by cache and runtime.
#[derive(Default)]
struct Here(Vec<Entry>);

struct Entry {
    cache: u64,
    runtime: runtime::Id,
    start: Arc<Start>,
}

impl Drop for Entry {
    /// On the ring's own thread: when the ring has ended elsewhere, or when the thread ends before its runtime.
    fn drop(&mut self) {
        self.start.end();
    }
}

/// A ring that is being made, was made, or cannot be had.
struct Start {
    thread: ThreadId,
    made: OnceLock<Option<Arc<Ring>>>,
    is_made: Notify,
}

impl Start {
    async fn ring(&self) -> Option<Arc<Ring>> {
        loop {
            let is_made = self.is_made.notified();
            if let Some(made) = self.made.get() {
                return made.clone();
            }
            is_made.await;
        }
    }

    fn set(&self, made: Option<Arc<Ring>>) {
        let _ = self.made.set(made);
        self.is_made.notify_waiters();
    }

    fn is_ended(&self) -> bool {
        matches!(self.made.get(), Some(Some(ring)) if ring.is_ended())
    }

    fn end(&self) {
        if let Some(Some(ring)) = self.made.get() {
            ring.end(END_WAIT_MAX);
        }
    }
}

/// What ends with the task that serves a ring, however that ends.
struct Serving(Arc<Start>);

impl Drop for Serving {
    fn drop(&mut self) {
        let Self(start) = self;
        start.set(None);
        start.end();
        if thread::current().id() == start.thread {
            let ended = HERE.try_with(|here| {
                let entries = &mut here.borrow_mut().0;
                entries.extract_if(.., |entry| Arc::ptr_eq(&entry.start, start)).collect::<Vec<_>>()
            });
            drop(ended);
        }
    }
}

async fn serve(serving: Serving, shared: Arc<Shared>, setup: Setup) {
    let Serving(start) = &serving;
    // Only the runtime's own thread may make a ring for it, and this is that thread.
    let made = if thread::current().id() == start.thread { shared.make(setup) } else { None };
    start.set(made.clone());
    if let Some(ring) = made
        && let Err(error) = turns(&ring, &shared).await
    {
        tracing::error!(%error, "io_uring failed, so threads drive the devices from now on");
        shared.refuse();
    }
}

async fn turns(ring: &Arc<Ring>, shared: &Shared) -> io::Result<()> {
    // SAFETY: the descriptor stays open for as long as `Descriptor` holds the ring.
    let descriptor = unsafe { AsyncFd::register_with_interest(Descriptor(ring.clone()), Interest::READABLE) }?;
    let mut finished: Vec<Finished> = Vec::new();
    while !(shared.is_closing() && ring.is_idle()) {
        tokio::select! {
            biased;
            // Cleared before the turn, so that what completes during it wakes this again.
            ready = descriptor.readable() => ready?.clear_ready(),
            () = ring.kick.notified() => {}
        }
        if !ring.is_here() {
            // The runtime went on on another thread, which cannot enter this ring.
            break;
        }
        let turned = ring.turn(&mut finished);
        finished.drain(..).for_each(|(operation, outcome)| operation.finish(outcome));
        turned?;
    }
    Ok(())
}

struct Descriptor(Arc<Ring>);

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
