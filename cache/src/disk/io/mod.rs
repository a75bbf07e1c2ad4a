//! How devices are read and written: by one io_uring per serving thread, or by threads where the system refuses that.
//!
//! Knows bytes, positions and memory; not what they mean. What always holds: an operation owns its memory until the device is done with it,
//! whoever stops waiting for it; it ends, at the latest with its runtime, and what failed is said.

mod device;
mod latency;
mod operation;
mod probe;
mod registered;
mod ring;
mod rings;
mod threads;

#[cfg(test)]
mod tests;

use std::{
    io,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;

pub(crate) use device::DeviceFile;
#[cfg(test)]
pub(crate) use device::Medium;

use super::IoChoice;
use crate::slab::{IoBuf, Slots};
use operation::{Kind, Operation};
use probe::Setup;
use ring::Ring;

/// Reads and writes devices. One per cache; cloning it is cheap.
///
/// An error of kind [`io::ErrorKind::Other`] is ours (a ring ended under the operation) and says nothing of the device; all others are the
/// device's. An operation has no time limit: whoever sets one drops the future, and the operation goes on without them.
#[derive(Clone)]
pub(crate) struct Io(Arc<Open>);

impl Io {
    /// Finds out whether io_uring works here, and says in the log what drives the devices.
    pub(crate) fn new(choice: IoChoice, slots: Arc<Slots>) -> Self {
        Self::with(choice, slots, true)
    }

    /// `registers_buffers` says whether rings may register blocks.
    fn with(choice: IoChoice, slots: Arc<Slots>, registers_buffers: bool) -> Self {
        static OPENED: AtomicU64 = AtomicU64::new(0);
        let number = OPENED.fetch_add(1, Ordering::Relaxed);
        let setup = setup(choice);
        let (is_refused, is_told, is_closing) = Default::default();
        let rings = Mutex::default();
        let shared = Shared { number, setup, is_refused, is_told, is_closing, slots, registers_buffers, rings };
        Self(Arc::new(Open(Arc::new(shared))))
    }

    /// What drives devices: "io_uring" or "threads".
    pub(crate) fn name(&self) -> &'static str {
        if self.shared().setup().is_some() { "io_uring" } else { "threads" }
    }

    /// Fills `buf` with what is at `at`, a multiple of 4 KiB. [`io::ErrorKind::UnexpectedEof`] where the device ends before. An error loses the
    /// buffer.
    pub(crate) async fn read(&self, device: &Arc<DeviceFile>, at: u64, buf: IoBuf) -> io::Result<IoBuf> {
        self.run(Kind::Read, device, at, buf).await
    }

    /// Writes `buf` to `at`, a multiple of 4 KiB.
    pub(crate) async fn write(&self, device: &Arc<DeviceFile>, at: u64, buf: IoBuf) -> io::Result<IoBuf> {
        self.run(Kind::Write, device, at, buf).await
    }

    /// Waits until what was written is on the medium (fdatasync). Says nothing of writes that are under way.
    pub(crate) async fn sync(&self, device: &Arc<DeviceFile>) -> io::Result<()> {
        self.run(Kind::Sync, device, 0, IoBuf::zeroed(0)).await.map(drop)
    }

    async fn run(&self, kind: Kind, device: &Arc<DeviceFile>, at: u64, buf: IoBuf) -> io::Result<IoBuf> {
        let (operation, outcome) = Operation::new(kind, device, at, buf);
        let ring = if operation.device().fd().is_some() { rings::ring(self.shared()).await } else { None };
        let left = match ring {
            Some(ring) => ring.start(operation).await,
            None => Some(operation),
        };
        if let Some(operation) = left {
            threads::start(operation).await;
        }
        outcome.await.unwrap_or_else(|_| Err(io::Error::other("the operation was lost")))
    }

    fn shared(&self) -> &Arc<Shared> {
        let Open(shared) = &*self.0;
        shared
    }
}

/// The last one closes the rings.
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.is_closing.store(true, Ordering::Release);
        self.0.rings.lock().iter().filter_map(Weak::upgrade).for_each(|ring| ring.kick.notify_one());
    }
}

/// What all rings of a cache know.
struct Shared {
    /// Of all that this process has made.
    number: u64,
    /// `None` where io_uring is not wanted or does not work.
    setup: Option<Setup>,
    /// One of them failed, so none is used any more.
    is_refused: AtomicBool,
    /// That one could not be had was said.
    is_told: AtomicBool,
    is_closing: AtomicBool,
    slots: Arc<Slots>,
    registers_buffers: bool,
    rings: Mutex<Vec<Weak<Ring>>>,
}

impl Shared {
    fn setup(&self) -> Option<Setup> {
        self.setup.filter(|_| !self.is_refused.load(Ordering::Relaxed))
    }

    /// A ring for this thread. `None`, and said once in the log, if the system gives none.
    fn make(&self, setup: Setup) -> Option<Arc<Ring>> {
        match Ring::new(setup, &self.slots, self.registers_buffers) {
            Ok(ring) => {
                let ring = Arc::new(ring);
                let mut rings = self.rings.lock();
                rings.retain(|ring| ring.strong_count() > 0);
                rings.push(Arc::downgrade(&ring));
                Some(ring)
            }
            Err(error) => {
                if !self.is_told.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "no io_uring for one more thread; other threads do what it asks of devices");
                }
                None
            }
        }
    }

    /// No ring is made from now on, and none gets anything more to do.
    fn refuse(&self) {
        self.is_refused.store(true, Ordering::Relaxed);
    }

    fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::Acquire)
    }
}

fn setup(choice: IoChoice) -> Option<Setup> {
    let probed = match choice {
        IoChoice::Auto => Setup::probe(),
        IoChoice::Threads => {
            tracing::info!(io = "threads", "devices are driven by threads, as configured");
            return None;
        }
    };
    match &probed {
        Ok(setup) => tracing::info!(io = "io_uring", ?setup, "devices are driven by io_uring"),
        Err(error) => tracing::warn!(io = "threads", %error, "io_uring does not work here, so threads drive the devices"),
    }
    probed.ok()
}
