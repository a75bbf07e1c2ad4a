//! What holds for both drivers.

use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::*;

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

pub(super) async fn what_is_written_is_read_at_any_place_and_length(bench: Bench) {
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
