//! The thread that devices are opened and written on, from its start to its end, when it lets go of the state directory.
//!
//! What always holds: until it has ended, something may still be written; once it has ended, nothing is. So whoever closes or drops a cache waits
//! for it, and the next one finds the devices as they stay.

use std::{
    any::Any,
    io,
    panic::AssertUnwindSafe,
    sync::{Arc, mpsc as blocking},
    thread,
    time::Duration,
};

use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::{
    runtime,
    sync::{mpsc, oneshot},
    task::{JoinSet, spawn_blocking},
};

use super::{
    DiskError,
    device::{Fault, Volume},
    engine::Engine,
    recover::Recovered,
    write::{Job, Writing},
};

/// What was found on a device at the start.
pub(super) struct FoundDevice {
    pub(super) volume: Arc<Volume>,
    pub(super) recovered: Recovered,
}

/// The devices that serve, by their place in the configuration.
pub(super) type Opened = Result<Vec<(usize, FoundDevice)>, DiskError>;

/// The writing thread.
pub(super) struct Thread {
    /// Nothing comes of it; it is closed when the thread has ended.
    ended: Arc<Mutex<blocking::Receiver<()>>>,
}

impl Thread {
    /// Opens the devices, says so, and writes what `jobs` ask until they end.
    pub(super) fn start(
        engine: Arc<Engine>,
        jobs: Vec<mpsc::UnboundedReceiver<Job>>,
        opened: oneshot::Sender<Opened>,
    ) -> io::Result<Self> {
        let (ends, ended) = blocking::channel();
        let run = move || {
            // Dropped last to first, also when it panics: the runtime, which waits for what devices still do; the state directory; and the word
            // that all is over.
            let _ends: blocking::Sender<()> = ends;
            let closing = Closing(engine);
            match runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime.block_on(mind(&closing.0, jobs, opened)),
                // Nobody waits any more if this cannot be said.
                Err(error) => drop(opened.send(Err(DiskError::Thread(error)))),
            }
        };
        thread::Builder::new().name("ssd".into()).spawn(run)?;
        Ok(Self { ended: Arc::new(Mutex::new(ended)) })
    }

    /// Waits until it has ended.
    pub(super) async fn ended(&self) {
        let ended = self.ended.clone();
        // It is cut short only when the runtime ends.
        let _ = spawn_blocking(move || ended.lock().recv()).await;
    }

    /// The same outside of a runtime, for at most so long. Whether it has ended.
    pub(super) fn wait(&self, wait_max: Duration) -> bool {
        let ended = self.ended.try_lock_for(wait_max);
        ended.is_some_and(|ended| ended.recv_timeout(wait_max) == Err(blocking::RecvTimeoutError::Disconnected))
    }
}

/// Closes the engine when the thread ends, however that is.
struct Closing(Arc<Engine>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

async fn mind(engine: &Arc<Engine>, jobs: Vec<mpsc::UnboundedReceiver<Job>>, mut opened: oneshot::Sender<Opened>) {
    let mut verdicts = engine.verdicts.subscribe();
    let found = tokio::select! {
        found = engine.open_devices() => found,
        () = opened.closed() => return,
    };
    let failed = found.is_err();
    if opened.send(found).is_err() || failed {
        return;
    }
    let mut writers = JoinSet::new();
    for (at, jobs) in jobs.into_iter().enumerate() {
        writers.spawn(write(engine.clone(), at, jobs));
    }
    loop {
        tokio::select! {
            ended = writers.join_next() => if ended.is_none() { break },
            // The sender is the engine's, so it is there.
            _ = verdicts.changed() => save_verdicts(engine).await,
        }
    }
    if verdicts.has_changed().unwrap_or(false) {
        save_verdicts(engine).await;
    }
}

/// Writes to a device until nothing more comes. Should that break, which is our own fault, the device is given up; taken back, it is written to again.
async fn write(engine: Arc<Engine>, device: usize, mut jobs: mpsc::UnboundedReceiver<Job>) {
    loop {
        let writing = Writing::new(engine.clone(), device).run(&mut jobs);
        match AssertUnwindSafe(writing).catch_unwind().await {
            Ok(()) => return,
            Err(panic) => engine.give_up(device, None, &Fault::Writer(words_of(&*panic))),
        }
    }
}

fn words_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it did not say why".into())
}

/// Writes down how all devices stand now.
async fn save_verdicts(engine: &Arc<Engine>) {
    let engine = engine.clone();
    let saving = spawn_blocking(move || {
        let saved = engine.state.save(|set| {
            set.purge_number = engine.purges.now();
            set.devices = (0..engine.devices.len()).map(|at| engine.known_device(at)).collect();
        });
        if let Err(error) = saved {
            tracing::error!(%error, "how devices stand cannot be written to the state directory");
        }
    });
    // What it has to say it has said.
    let _ = saving.await;
}
