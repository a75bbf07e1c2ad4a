//! Rings, and the threads and runtimes that they belong to: which code has one, and what becomes of it.

use std::{
    task::{Context, Waker},
    thread,
};

use super::*;

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
