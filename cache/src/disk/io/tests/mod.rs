//! The driver as a whole: what holds for both ways to drive devices, and what holds for one.

mod both;
mod hanging;
mod refused;
mod runtimes;

use std::{
    fs::{File, OpenOptions},
    future::Future,
    io::{ErrorKind, Write as _},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    pin::pin,
    task::Poll,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio::{runtime, task::JoinSet};

use super::*;
use crate::slab::{Budget, HEAD_BYTES, Priority, Slab, UNIT_BYTES};

const SLICE: usize = 256 << 10;
const RECORD: usize = HEAD_BYTES + SLICE;
/// What a test waits at most for what must happen.
const LONG: Duration = Duration::from_secs(20);

/// A driver and a directory for its devices.
struct Bench {
    io: Io,
    budget: Arc<Budget>,
    dir: TempDir,
}

impl Bench {
    fn by_ring(registers_buffers: bool) -> Self {
        Self::new(IoChoice::Auto, registers_buffers)
    }

    fn by_threads() -> Self {
        Self::new(IoChoice::Threads, false)
    }

    fn new(choice: IoChoice, registers_buffers: bool) -> Self {
        let budget = Arc::new(Budget::new(16 * RECORD as u64, SLICE));
        let io = Io::with(choice, budget.slots().clone(), registers_buffers);
        Self { io, budget, dir: TempDir::new().expect("a directory") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A file of `bytes` in which each 8 bytes say where they are, and in which file.
    fn device(&self, name: &str, bytes: usize) -> Arc<DeviceFile> {
        File::create(self.path(name)).and_then(|file| file.write_all_at(&pattern(name, 0, bytes), 0)).expect("a file");
        DeviceFile::open(&self.path(name)).expect("it was just made")
    }

    async fn writer(&self, length: usize) -> (Arc<Slab>, IoBuf) {
        let permit = self.budget.acquire(length, Priority::Viewer, LONG).await.expect("memory comes back");
        let (slab, writer) = Slab::new(permit, length);
        (slab, writer.into_io())
    }
}

fn pattern(name: &str, at: usize, bytes: usize) -> Vec<u8> {
    let salt = name.bytes().fold(0u64, |salt, byte| salt << 8 | u64::from(byte)).rotate_left(32);
    let mut pattern = vec![0; bytes];
    pattern
        .chunks_exact_mut(8)
        .zip((at as u64..).step_by(8))
        .for_each(|(word, at)| word.copy_from_slice(&(at ^ salt).to_le_bytes()));
    pattern
}

async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(LONG, future).await.expect("it ends")
}

async fn until(holds: impl Fn() -> bool) {
    let deadline = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < deadline, "it comes to hold");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Polls once, which hands the operation to its driver if that is ready.
async fn touch<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    let mut future = Some(future);
    std::future::poll_fn(|cx| match future.take().expect("polled once").poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

fn rings_work() -> bool {
    Setup::probe().is_ok()
}

fn current_thread() -> runtime::Runtime {
    runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// A device that answers when the test says so: a pipe, which a ring can read, too.
struct Pipe {
    device: Arc<DeviceFile>,
    end: File,
}

impl Pipe {
    fn new(bench: &Bench) -> Self {
        let path = bench.path("pipe");
        let name = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).expect("no zero byte");
        // SAFETY: the name ends with a zero byte and outlives the call.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        let device = DeviceFile::opened(OpenOptions::new().read(true).write(true).open(&path).expect("a pipe"));
        let end = OpenOptions::new().write(true).open(&path).expect("a pipe");
        Self { device, end }
    }

    fn answer(&mut self) {
        self.end.write_all(&[5; UNIT_BYTES]).expect("room for one unit");
    }
}
