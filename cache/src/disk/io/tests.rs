//! What holds for both drivers, and what holds for one.

use std::{
    fs::{File, OpenOptions},
    future::Future,
    io::{ErrorKind, Write as _},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    pin::pin,
    task::{Context, Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use parking_lot::Condvar;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tempfile::TempDir;
use tokio::{runtime, task::JoinSet};

use super::*;
use crate::slab::{Budget, HEAD_BYTES, Priority, Slab, UNIT_BYTES};

const SLICE: usize = 256 << 10;
const RECORD: usize = HEAD_BYTES + SLICE;
/// What a test waits at most for what must happen.
const LONG: Duration = Duration::from_secs(20);

/// A test for each way to drive devices.
macro_rules! with_both {
    ($($name:ident)*) => {
        mod by_ring {
            $(#[tokio::test] async fn $name() { super::$name(super::Bench::by_ring(true)).await })*
        }
        mod by_ring_without_registered_blocks {
            $(#[tokio::test] async fn $name() { super::$name(super::Bench::by_ring(false)).await })*
        }
        mod by_threads {
            $(#[tokio::test] async fn $name() { super::$name(super::Bench::by_threads()).await })*
        }
    };
}

with_both! {
    what_is_written_is_read_at_any_place_and_length
    a_short_file_is_an_unexpected_end
    a_device_that_refuses_says_so
    a_dropped_future_frees_nothing_early
    more_operations_than_places_all_end
    two_devices_do_not_mix
    a_block_and_the_next_of_its_number_get_their_own_bytes
    what_was_done_is_counted
    nothing_to_do_costs_nothing
}

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

async fn what_is_written_is_read_at_any_place_and_length(bench: Bench) {
    const UNITS: usize = 1024;
    let device = bench.device("device", UNITS * UNIT_BYTES);
    let mut expected = pattern("device", 0, UNITS * UNIT_BYTES);
    let mut rng = SmallRng::seed_from_u64(7);
    for round in 0..100_u64 {
        let (at, units) = (rng.random_range(0..UNITS), rng.random_range(1..=96));
        let units = units.min(UNITS - at);
        let range = at * UNIT_BYTES..(at + units) * UNIT_BYTES;
        let mut buf = IoBuf::zeroed(range.len());
        if round.is_multiple_of(2) {
            rng.fill(buf.as_mut_slice());
            expected[range.clone()].copy_from_slice(buf.as_slice());
            soon(bench.io.write(&device, range.start as u64, buf)).await.expect("room");
        } else {
            let buf = soon(bench.io.read(&device, range.start as u64, buf)).await.expect("within");
            assert!(buf.as_slice() == &expected[range], "round {round}");
        }
    }
    soon(bench.io.sync(&device)).await.expect("a file");
    assert!(std::fs::read(bench.path("device")).expect("a file") == expected);
}

async fn a_short_file_is_an_unexpected_end(bench: Bench) {
    // Its last unit is not whole, either.
    let device = bench.device("device", 10_000);
    soon(bench.io.read(&device, 4096, IoBuf::zeroed(4096))).await.expect("within");
    for (at, bytes) in [(0, 12_288), (8192, 4096), (12_288, 4096), (1 << 30, 1 << 20)] {
        let failed = soon(bench.io.read(&device, at, IoBuf::zeroed(bytes))).await.err();
        assert_eq!(failed.map(|error| error.kind()), Some(ErrorKind::UnexpectedEof), "{bytes} at {at}");
    }
    assert_eq!((device.counts().errors, device.counts().depth), (4, 0));
}

async fn a_device_that_refuses_says_so(bench: Bench) {
    let full = DeviceFile::open(Path::new("/dev/full")).expect("it is always there");
    let failed = soon(bench.io.write(&full, 0, IoBuf::zeroed(4096))).await.err();
    assert_eq!(failed.map(|error| error.kind()), Some(ErrorKind::StorageFull));
    bench.device("device", 4096);
    let read_only = DeviceFile::opened(File::open(bench.path("device")).expect("it was just made"));
    let failed = soon(bench.io.write(&read_only, 0, IoBuf::zeroed(4096))).await.err();
    assert_eq!(failed.and_then(|error| error.raw_os_error()), Some(libc::EBADF));
    soon(bench.io.read(&read_only, 0, IoBuf::zeroed(4096))).await.expect("it can be read");
    assert_eq!((full.counts().errors, read_only.counts().errors), (1, 1));
    assert!(DeviceFile::open(&bench.path("gone")).is_err());
}

async fn a_dropped_future_frees_nothing_early(bench: Bench) {
    let device = bench.device("device", 4 * RECORD);
    soon(bench.io.read(&device, 0, IoBuf::zeroed(4096))).await.expect("within");
    let mut under_way = 0;
    for round in 0..400_u64 {
        let (slab, buf) = bench.writer(SLICE).await;
        drop(slab);
        let mut read = pin!(bench.io.read(&device, round % 4 * RECORD as u64, buf));
        if touch(read.as_mut()).await.is_none() {
            under_way += 1;
            assert!(device.counts().depth > 0);
            assert!(bench.budget.bytes_used() > 0, "whoever leaves does not take the memory along");
        }
    }
    assert!(under_way > 0, "some were dropped under way");
    until(|| device.counts().depth == 0 && bench.budget.bytes_used() == 0).await;
    let (_slab, buf) = bench.writer(SLICE).await;
    let buf = soon(bench.io.read(&device, 0, buf)).await.expect("within");
    assert!(buf.as_slice() == pattern("device", 0, RECORD));
}

async fn more_operations_than_places_all_end(bench: Bench) {
    const COUNT: usize = 3 * registered::DEPTH_MAX;
    let device = bench.device("device", COUNT * UNIT_BYTES);
    let mut reads = JoinSet::new();
    for index in 0..COUNT {
        let (io, device) = (bench.io.clone(), device.clone());
        reads.spawn(async move {
            let buf = io.read(&device, (index * UNIT_BYTES) as u64, IoBuf::zeroed(UNIT_BYTES)).await.expect("within");
            assert!(buf.as_slice() == pattern("device", index * UNIT_BYTES, UNIT_BYTES), "read {index}");
        });
    }
    let done = soon(reads.join_all()).await;
    assert_eq!((done.len(), device.counts().depth), (COUNT, 0));
}

async fn two_devices_do_not_mix(bench: Bench) {
    let names = ["one", "two"];
    let devices = names.map(|name| bench.device(name, 8 * RECORD));
    let mut reads = JoinSet::new();
    for round in 0..64 {
        let (io, which, at) = (bench.io.clone(), round % 2, round / 2 % 8 * RECORD);
        let (device, name) = (devices[which].clone(), names[which]);
        let budget = bench.budget.clone();
        reads.spawn(async move {
            let permit = budget.acquire(SLICE, Priority::Viewer, LONG).await.expect("memory comes back");
            let buf = io.read(&device, at as u64, Slab::new(permit, SLICE).1.into_io()).await.expect("within");
            assert!(buf.as_slice() == pattern(name, at, RECORD), "{name} at {at}");
        });
    }
    soon(reads.join_all()).await;
    // One that was closed leaves its place to the next.
    let [one, two] = devices;
    drop(two);
    let three = bench.device("three", RECORD);
    let [first, third] = [(&one, "one"), (&three, "three")];
    for (device, name) in [first, third, first] {
        let buf = soon(bench.io.read(device, 0, IoBuf::zeroed(RECORD))).await.expect("within");
        assert!(buf.as_slice() == pattern(name, 0, RECORD), "{name}");
    }
}

async fn a_block_and_the_next_of_its_number_get_their_own_bytes(bench: Bench) {
    let device = bench.device("device", 16 * RECORD);
    for round in 0..4 {
        let mut held = Vec::new();
        for index in 0..16 {
            let (slab, buf) = bench.writer(SLICE).await;
            let at = (index + round) % 16 * RECORD;
            let buf = soon(bench.io.read(&device, at as u64, buf)).await.expect("within");
            assert!(buf.as_slice() == pattern("device", at, RECORD), "round {round}, block {index}");
            held.push((slab, buf));
        }
        drop(held);
        let before = bench.budget.slots().retired();
        // What is small takes the room of the spare blocks, and something else is put where they were.
        let small: Vec<_> = futures_util::future::join_all((0..500).map(|_| bench.writer(100))).await;
        assert!(bench.budget.slots().retired() > before, "blocks went back to the system");
        drop(small);
    }
    assert_eq!(device.counts().errors, 0);
}

async fn what_was_done_is_counted(bench: Bench) {
    let device = bench.device("device", RECORD);
    for _ in 0..3 {
        let buf = soon(bench.io.read(&device, 0, IoBuf::zeroed(8192))).await.expect("within");
        soon(bench.io.write(&device, 4096, buf)).await.expect("room");
    }
    soon(bench.io.sync(&device)).await.expect("a file");
    let counts = device.counts();
    assert_eq!((counts.bytes_read, counts.bytes_written, counts.errors, counts.depth), (3 * 8192, 3 * 8192, 0, 0));
    assert_eq!((counts.reads.count(), counts.writes.count()), (3, 3));
    assert!(counts.reads.sum_us > 0, "a device takes its time");
}

async fn nothing_to_do_costs_nothing(bench: Bench) {
    let device = bench.device("device", RECORD);
    soon(bench.io.read(&device, 0, IoBuf::zeroed(RECORD))).await.expect("within");
    tokio::time::sleep(Duration::from_millis(20)).await;
    let before = thread_cpu();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let used = thread_cpu() - before;
    assert!(used < Duration::from_millis(5), "{used:?} for nothing");
}

fn thread_cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: there is room for the time.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) }, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[tokio::test]
async fn blocks_are_registered_once_and_let_go_when_they_are_gone() {
    let bench = Bench::by_ring(true);
    if !rings_work() {
        return;
    }
    let device = bench.device("device", RECORD);
    let ring = rings::ring(bench.io.shared()).await.expect("rings work");
    for _ in 0..3 {
        let held: Vec<_> = futures_util::future::join_all((0..8).map(|_| bench.writer(SLICE))).await;
        let (slabs, bufs): (Vec<_>, Vec<_>) = held.into_iter().unzip();
        let reads = bufs.into_iter().map(|buf| bench.io.read(&device, 0, buf));
        assert!(soon(futures_util::future::join_all(reads)).await.iter().all(Result::is_ok));
        drop(slabs);
        assert_eq!(ring.registered(), 8, "the same eight again");
    }
    let small = futures_util::future::join_all((0..500).map(|_| bench.writer(100))).await;
    soon(bench.io.read(&device, 0, IoBuf::zeroed(4096))).await.expect("within");
    assert!(ring.registered() < 8, "what has no block any more is let go");
    drop(small);
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

#[tokio::test]
async fn a_device_that_hangs_takes_no_places_from_others() {
    let bench = Bench::by_ring(true);
    let mut pipe = Pipe::new(&bench);
    let device = bench.device("device", RECORD);
    let mut hanging = JoinSet::new();
    for _ in 0..2 * registered::DEPTH_MAX {
        let (io, device) = (bench.io.clone(), pipe.device.clone());
        hanging.spawn(async move { io.read(&device, 0, IoBuf::zeroed(UNIT_BYTES)).await });
    }
    tokio::task::yield_now().await;
    until(|| pipe.device.counts().depth == 2 * registered::DEPTH_MAX as u64).await;
    for _ in 0..20 {
        soon(bench.io.read(&device, 0, IoBuf::zeroed(RECORD))).await.expect("the other one works");
    }
    for _ in 0..2 * registered::DEPTH_MAX {
        pipe.answer();
        let buf = soon(hanging.join_next()).await.expect("one more").expect("no panic").expect("it was answered");
        assert!(buf.as_slice() == [5; UNIT_BYTES]);
    }
    assert_eq!(pipe.device.counts().depth, 0);
}

/// Hangs until it is let go.
#[derive(Default)]
struct Hanging {
    is_let_go: Mutex<bool>,
    changed: Condvar,
}

impl Hanging {
    fn let_go(&self) {
        *self.is_let_go.lock() = true;
        self.changed.notify_all();
    }

    fn hang(&self) {
        let mut is_let_go = self.is_let_go.lock();
        while !*is_let_go {
            self.changed.wait(&mut is_let_go);
        }
    }
}

impl Medium for Hanging {
    fn read_at(&self, _: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.hang();
        buf.fill(1);
        Ok(buf.len())
    }

    fn write_at(&self, _: u64, buf: &[u8]) -> io::Result<usize> {
        self.hang();
        Ok(buf.len())
    }

    fn sync(&self) -> io::Result<()> {
        self.hang();
        Ok(())
    }
}

#[tokio::test]
async fn a_double_that_hangs_brakes_no_other_device() {
    let bench = Bench::by_threads();
    let medium = Arc::new(Hanging::default());
    let hanging = DeviceFile::double(medium.clone());
    let device = bench.device("device", RECORD);
    let mut under_way = JoinSet::new();
    for _ in 0..2 * threads::QUEUED_MAX {
        let (io, device) = (bench.io.clone(), hanging.clone());
        under_way.spawn(async move { io.read(&device, 0, IoBuf::zeroed(UNIT_BYTES)).await.map(drop) });
    }
    until(|| hanging.counts().depth == 2 * threads::QUEUED_MAX as u64).await;
    for _ in 0..20 {
        soon(bench.io.read(&device, 0, IoBuf::zeroed(RECORD))).await.expect("the other one works");
    }
    assert_eq!(hanging.counts().reads.count(), 0);
    medium.let_go();
    assert!(soon(under_way.join_all()).await.iter().all(Result::is_ok));
    assert_eq!(hanging.counts().depth, 0);
}

/// Does part of what it is asked, and is interrupted in between.
#[derive(Default)]
struct Stuttering {
    bytes: Mutex<Vec<u8>>,
    asked: AtomicU64,
}

impl Stuttering {
    /// How much of `bytes` it does this time.
    fn part(&self, bytes: usize) -> io::Result<usize> {
        match self.asked.fetch_add(1, Ordering::Relaxed) % 4 {
            0 => Err(ErrorKind::Interrupted.into()),
            1 => Err(ErrorKind::WouldBlock.into()),
            // Not a whole number of units: what is beyond them is done again.
            2 => Ok(bytes.min(5000)),
            _ => Ok(bytes.min(2 * UNIT_BYTES)),
        }
    }
}

impl Medium for Stuttering {
    fn read_at(&self, at: u64, buf: &mut [u8]) -> io::Result<usize> {
        let (at, part) = (at as usize, self.part(buf.len())?);
        buf[..part].copy_from_slice(&self.bytes.lock()[at..at + part]);
        Ok(part)
    }

    fn write_at(&self, at: u64, buf: &[u8]) -> io::Result<usize> {
        let (at, part) = (at as usize, self.part(buf.len())?);
        self.bytes.lock()[at..at + part].copy_from_slice(&buf[..part]);
        Ok(part)
    }

    fn sync(&self) -> io::Result<()> {
        Err(ErrorKind::Interrupted.into())
    }
}

#[tokio::test]
async fn what_is_short_or_interrupted_goes_on_but_not_for_ever() {
    let bench = Bench::by_threads();
    let medium = Arc::new(Stuttering { bytes: Mutex::new(vec![0; 65_536]), asked: AtomicU64::new(0) });
    let device = DeviceFile::double(medium.clone());
    let mut buf = IoBuf::zeroed(32_768);
    buf.as_mut_slice().copy_from_slice(&pattern("double", 0, 32_768));
    soon(bench.io.write(&device, 16_384, buf)).await.expect("it goes on");
    assert!(medium.bytes.lock()[16_384..49_152] == pattern("double", 0, 32_768));
    let buf = soon(bench.io.read(&device, 16_384, IoBuf::zeroed(32_768))).await.expect("it goes on");
    assert!(buf.as_slice() == pattern("double", 0, 32_768));
    let failed = soon(bench.io.sync(&device)).await.err();
    assert_eq!(failed.map(|error| error.kind()), Some(ErrorKind::Interrupted), "it was tried often enough");
}

fn current_thread() -> runtime::Runtime {
    runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

#[test]
fn a_runtime_that_ends_waits_for_its_devices() {
    let bench = Bench::by_ring(true);
    let device = bench.device("device", 4 * RECORD);
    for round in 0..20 {
        current_thread().block_on(async {
            for index in 0..8 {
                let (io, device) = (bench.io.clone(), device.clone());
                let (_, buf) = bench.writer(SLICE).await;
                tokio::spawn(async move { io.read(&device, index % 4 * RECORD as u64, buf).await.map(drop) });
            }
            // From before the ring is made until after the first of them is over.
            for _ in 0..round {
                tokio::task::yield_now().await;
            }
        });
        if rings_work() {
            assert_eq!((bench.budget.bytes_used(), device.counts().depth), (0, 0), "round {round}");
        }
    }
}

#[test]
fn who_awaits_a_device_from_elsewhere_is_told_when_its_ring_ends() {
    if !rings_work() {
        return;
    }
    let bench = Bench::by_ring(true);
    let pipe = Pipe::new(&bench);
    let (runtime, elsewhere) = (current_thread(), current_thread());
    let (_slab, buf) = elsewhere.block_on(bench.writer(SLICE));
    let mut read = Box::pin(bench.io.read(&pipe.device, 0, buf));
    runtime.block_on(async {
        until_under_way(&bench, read.as_mut()).await;
    });
    let begun = Instant::now();
    drop(runtime);
    assert!(begun.elapsed() >= rings::END_WAIT_MAX, "the device got its time");
    assert!(elsewhere.block_on(soon(read)).is_err());
    assert!(bench.budget.bytes_used() > 0, "memory that the device may still write to is never free again");
    assert_eq!(pipe.device.counts().depth, 1);
}

/// Polls until the ring has the operation.
async fn until_under_way<F: Future>(bench: &Bench, mut future: std::pin::Pin<&mut F>) {
    let deadline = Instant::now() + LONG;
    while rings::ring(bench.io.shared()).await.expect("rings work").is_idle() {
        assert!(Instant::now() < deadline, "the ring takes it on");
        assert!(touch(future.as_mut()).await.is_none(), "nobody answers");
        tokio::task::yield_now().await;
    }
}

#[test]
fn a_runtime_that_goes_on_elsewhere_gets_another_ring() {
    let bench = Bench::by_ring(true);
    let mut pipe = Pipe::new(&bench);
    let device = bench.device("device", RECORD);
    let read = |runtime: &runtime::Runtime| {
        let buf = runtime.block_on(soon(bench.io.read(&device, 0, IoBuf::zeroed(RECORD)))).expect("within");
        assert!(buf.as_slice() == pattern("device", 0, RECORD));
    };
    let runtime = current_thread();
    read(&runtime);
    let stranded = runtime.spawn({
        let (io, device) = (bench.io.clone(), pipe.device.clone());
        async move { io.read(&device, 0, IoBuf::zeroed(UNIT_BYTES)).await.map(drop) }
    });
    runtime.block_on(until(|| pipe.device.counts().depth == 1));
    thread::scope(|scope| {
        scope.spawn(|| {
            read(&runtime);
            if rings_work() {
                pipe.answer();
                assert!(runtime.block_on(soon(stranded)).expect("no panic").is_err(), "its ring cannot be entered from here");
            }
            read(&runtime);
        });
    });
    read(&runtime);
    runtime.block_on(until(|| pipe.device.counts().depth == 0));
}

#[test]
fn a_thread_that_ends_before_its_runtime_waits_for_its_devices() {
    if !rings_work() {
        return;
    }
    let bench = Bench::by_ring(true);
    let mut pipe = Pipe::new(&bench);
    let runtime = current_thread();
    let read = thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let mut read = Box::pin(bench.io.read(&pipe.device, 0, IoBuf::zeroed(UNIT_BYTES)));
            runtime.block_on(until_under_way(&bench, read.as_mut()));
            read
        });
        thread.join().expect("no panic")
    });
    // The thread waited in vain, so the memory is lost, but nobody hangs.
    assert!(runtime.block_on(soon(read)).is_err());
    pipe.answer();
    let buf = runtime.block_on(soon(bench.io.read(&pipe.device, 0, IoBuf::zeroed(UNIT_BYTES)))).expect("by a new ring");
    assert!(buf.as_slice() == [5; UNIT_BYTES]);
}

#[tokio::test]
async fn code_on_a_blocking_thread_is_served_by_threads() {
    let bench = Bench::by_ring(true);
    let device = bench.device("device", RECORD);
    let (io, handle) = (bench.io.clone(), runtime::Handle::current());
    let read = tokio::task::spawn_blocking({
        let device = device.clone();
        move || handle.block_on(io.read(&device, 0, IoBuf::zeroed(RECORD)))
    });
    let buf = soon(read).await.expect("no panic").expect("within");
    assert!(buf.as_slice() == pattern("device", 0, RECORD));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runtime_of_many_threads_is_served_by_threads() {
    let bench = Bench::by_ring(true);
    let device = bench.device("device", RECORD);
    assert!(rings::ring(bench.io.shared()).await.is_none());
    let buf = tokio::spawn(async move { bench.io.read(&device, 0, IoBuf::zeroed(RECORD)).await });
    assert!(soon(buf).await.expect("no panic").expect("within").as_slice() == pattern("device", 0, RECORD));
}

/// Runs `test` on a thread to which io_uring is forbidden, as containers do it.
fn where_it_is_forbidden(test: impl FnOnce() + Send) {
    let load = |at| libc::sock_filter { code: (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, jt: 0, jf: 0, k: at };
    let unless = |k, jf| libc::sock_filter { code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, jt: 0, jf, k };
    let answer = |k| libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k };
    let setup = u32::try_from(libc::SYS_io_uring_setup).expect("a small number");
    let refusal = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    let mut filter = [load(0), unless(setup, 1), answer(refusal), answer(libc::SECCOMP_RET_ALLOW)];
    thread::scope(|scope| {
        scope.spawn(|| {
            let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
            // SAFETY: the program outlives the call, and the kernel checks it.
            unsafe {
                assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
                assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program), 0);
            }
            test();
        });
    });
}

#[test]
fn where_io_uring_is_refused_threads_do_the_same() {
    let permitted = Bench::by_ring(true);
    where_it_is_forbidden(|| {
        let bench = Bench::by_ring(true);
        assert_eq!(bench.io.name(), "threads");
        current_thread().block_on(what_is_written_is_read_at_any_place_and_length(bench));
        // For this one it was permitted where it was opened, but is not on this thread.
        current_thread().block_on(async {
            assert!(rings::ring(permitted.io.shared()).await.is_none());
            let device = permitted.device("device", RECORD);
            let buf = soon(permitted.io.read(&device, 0, IoBuf::zeroed(RECORD))).await.expect("within");
            assert!(buf.as_slice() == pattern("device", 0, RECORD));
        });
    });
}

/// Takes from this thread what lets it lock more memory than RLIMIT_MEMLOCK says.
fn give_up_privileges() {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    let header = Header { version: 0x2008_0522, pid: 0 };
    let none = [0_u32; 6];
    // SAFETY: the kernel reads a header and, in version 3, two sets of three words.
    assert_eq!(unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) }, 0);
}

fn lockable_bytes() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: there is room for the limit.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) }, 0);
    limit.rlim_cur
}

#[test]
fn memory_that_must_not_be_locked_is_read_into_nevertheless() {
    const BLOCK: usize = 4 << 20;
    const BLOCKS: u64 = 20;
    if !rings_work() || lockable_bytes() >= BLOCKS * BLOCK as u64 {
        return;
    }
    let dir = TempDir::new().expect("a directory");
    let budget = Arc::new(Budget::new(BLOCKS * (BLOCK + HEAD_BYTES) as u64, BLOCK));
    let bench = Bench { io: Io::new(IoChoice::Auto, budget.slots().clone()), budget, dir };
    let device = bench.device("device", BLOCK + 2 * HEAD_BYTES);
    thread::scope(|scope| {
        scope.spawn(|| {
            give_up_privileges();
            current_thread().block_on(async {
                let mut held = Vec::new();
                for _ in 0..BLOCKS {
                    let permit = bench.budget.acquire(BLOCK, Priority::Viewer, LONG).await.expect("there is room for all");
                    let (slab, writer) = Slab::new(permit, BLOCK);
                    let buf = soon(bench.io.read(&device, 4096, writer.into_io())).await.expect("within");
                    assert!(buf.as_slice()[..8192] == pattern("device", 4096, 8192));
                    held.push((slab, buf));
                }
                let ring = rings::ring(bench.io.shared()).await.expect("rings work");
                assert!(ring.registered() < held.len(), "the limit was met");
            });
        });
    });
}

#[tokio::test]
async fn a_cache_that_closes_takes_its_rings_along() {
    if !rings_work() {
        return;
    }
    let bench = Bench::by_ring(true);
    let device = bench.device("device", RECORD);
    soon(bench.io.read(&device, 0, IoBuf::zeroed(RECORD))).await.expect("within");
    let ring = Arc::downgrade(&rings::ring(bench.io.shared()).await.expect("rings work"));
    // What is under way is still done.
    let mut read = Box::pin(bench.io.read(&device, 0, IoBuf::zeroed(RECORD)));
    assert!(touch(read.as_mut()).await.is_none());
    drop(read);
    drop(bench);
    until(|| ring.strong_count() == 0).await;
    assert_eq!(device.counts().depth, 0);
}

#[test]
fn what_drives_the_devices_has_a_name() {
    assert_eq!(Bench::by_threads().io.name(), "threads");
    assert_eq!(Bench::by_ring(true).io.name(), if rings_work() { "io_uring" } else { "threads" });
    let mut cx = Context::from_waker(Waker::noop());
    let bench = Bench::by_ring(true);
    let device = bench.device("device", 4096);
    // Outside of a runtime, too.
    let mut read = pin!(bench.io.read(&device, 0, IoBuf::zeroed(4096)));
    let deadline = Instant::now() + LONG;
    while read.as_mut().poll(&mut cx).is_pending() {
        assert!(Instant::now() < deadline, "threads answer");
        thread::yield_now();
    }
}
