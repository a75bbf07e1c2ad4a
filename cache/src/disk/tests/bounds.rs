//! What is bounded, and what is refused: reads of a device that hangs, a writer that breaks, and each reason why a slice is not written.

use std::{
    pin::{Pin, pin},
    task::Poll,
};

use futures_util::future::join_all;

use super::{
    engine::bytes_reading_max,
    faults::{Failing, Fault},
    recover::Recovered,
    *,
};

const RECORD: u64 = (SLICE + 4096) as u64;

/// Polls it this once.
async fn is_pending<F: Future>(mut future: Pin<&mut F>) -> bool {
    std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_pending())).await
}

#[test]
fn reads_of_a_device_may_have_a_quarter_of_the_memory_or_eight_slices() {
    let (mib, gib) = (1 << 20, 1 << 30);
    assert_eq!(bytes_reading_max(64 * gib, mib), 16 * gib);
    assert_eq!(bytes_reading_max(256 * mib as u64, mib), 64 * mib as u64);
    assert_eq!(bytes_reading_max(16 * mib as u64, mib), 8 * (mib as u64 + 4096));
    assert_eq!(bytes_reading_max(0, SLICE), 8 * RECORD);
}

#[tokio::test]
async fn a_device_that_hangs_holds_a_quarter_of_the_memory_until_its_reads_end() {
    const COUNT: usize = 200;
    let mut rig = Rig::closed(IoChoice::Auto, &[40]);
    rig.config.device_timeout = Duration::from_secs(5);
    let failing = Failing::stands_in(&rig, 0);
    rig.open().await.expect("opens");
    let keys: Vec<String> = (0..COUNT).map(|n| format!("/{n}")).collect();
    for key in &keys {
        rig.store(key, ONE, false).await;
    }
    let (quarter, before) = (MEMORY / 4, rig.budget.bytes_used());
    assert_eq!(before, 0);
    failing.begin(Fault::Hangs);
    let mut reads = pin!(join_all(keys.iter().map(|key| rig.load(key, 0, None))));
    let begun = quarter / RECORD;
    let busy = COUNT as u64 - begun;
    // A task does not get to do all of it at once.
    while rig.disk().stats().busy < busy {
        assert!(is_pending(reads.as_mut()).await);
        tokio::task::yield_now().await;
    }
    assert_eq!((rig.disk().stats().busy, rig.budget.bytes_used()), (busy, begun * RECORD));
    assert!(reads.await.iter().all(Option::is_none));
    let reason = rig.is_given_up(0).expect("given up");
    assert!(reason.contains("took longer than 5 s"), "{reason}");
    let held = rig.budget.bytes_used();
    assert!(held > 0 && held <= quarter, "{held}: what the device may still write to is nobody else's");
    assert!(rig.load(&keys[0], 0, None).await.is_none());
    assert_eq!(rig.budget.bytes_used(), held, "and nothing more is asked of it");
    failing.begin(Fault::None);
    failing.let_go();
    while rig.budget.bytes_used() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn pieces_are_bounded_by_what_they_hold_and_by_their_number() {
    let mut rig = Rig::closed(IoChoice::Auto, &[8]);
    let failing = Failing::stands_in(&rig, 0);
    rig.open().await.expect("opens");
    rig.store("/a", ONE, false).await;
    failing.begin(Fault::Hangs);
    let (rig, generation) = (&rig, &generation(ONE, 1));
    let mut reads = pin!(join_all((0..130).map(|_| async move {
        let place = rig.disk().find("/a", 0).expect("there");
        let permit = rig.budget.try_acquire(Disk::part_bytes(&(0..1)), Priority::Viewer).expect("memory");
        rig.disk().load_part("/a", 0, place, generation, 0..1, permit).await
    })));
    while rig.disk().stats().busy < 2 {
        assert!(is_pending(reads.as_mut()).await);
        tokio::task::yield_now().await;
    }
    // Each is a head and a piece.
    let stats = rig.disk().stats();
    assert_eq!((stats.devices[0].depth, stats.busy), (256, 2));
    failing.begin(Fault::None);
    failing.let_go();
    let read = reads.await;
    assert!(read[..128].iter().all(Option::is_some) && read[128..].iter().all(Option::is_none));
    assert_eq!((rig.disk().stats().devices[0].depth, rig.is_given_up(0)), (0, None));
}

#[tokio::test]
async fn a_writer_that_breaks_costs_its_device_and_nothing_else() {
    let mut rig = Rig::new(IoChoice::Auto, &[8, 8]).await;
    let keys: Vec<String> = (0..20).map(|n| format!("/{n}")).collect();
    for key in &keys {
        rig.store(key, ONE, false).await;
    }
    let device = rig.disk().engine.device_for("/broken").expect("they serve");
    // Nobody offers a slice that is not full; a writer that is handed one breaks.
    let (slab, _writer) = Slab::new(rig.budget.try_acquire(SLICE, Priority::Viewer).expect("memory"), SLICE);
    assert!(rig.offer_slab("/broken", slab, 0, false));
    // What stands behind it in line is not lost from sight, either.
    for n in 0..20 {
        rig.offer(&format!("/behind/{n}"), 0, ONE, false).await;
    }
    while rig.is_given_up(device).is_none() {
        tokio::task::yield_now().await;
    }
    rig.written().await;
    let reason = rig.is_given_up(device).expect("given up");
    assert_eq!(reason, "what writes to it broke: the slice is full");
    assert_eq!((rig.is_given_up(1 - device), rig.disk().stats().bytes_queued), (None, 0));
    assert!(rig.refused("no_device") > 0, "{:?}", rig.disk().stats().refused);
    rig.store("/broken", ONE, false).await;
    assert!(rig.has("/broken", 0, ONE).await, "it goes to the other");
    rig.restart().await;
    assert_eq!(rig.is_given_up(device), Some(reason), "the verdict outlasts a restart");
    let path = rig.config.devices[device].path.clone();
    rig.disk().restore(&path).await.expect("there is nothing wrong with it");
    for key in &keys {
        assert!(rig.has(key, 0, ONE).await, "{key}");
    }
    rig.disk().engine.give_up(1 - device, None, &device::Fault::Unusable("for this test".into()));
    rig.store("/after", ONE, false).await;
    assert!(rig.has("/after", 0, ONE).await, "it is written to again");
}

#[tokio::test]
async fn a_writer_that_broke_writes_again_when_its_device_is_taken_back() {
    let rig = Rig::new(IoChoice::Auto, &[8]).await;
    for round in 0..3 {
        let (slab, _writer) = Slab::new(rig.budget.try_acquire(SLICE, Priority::Viewer).expect("memory"), SLICE);
        assert!(rig.offer_slab("/broken", slab, 0, false));
        while rig.is_given_up(0).is_none() {
            tokio::task::yield_now().await;
        }
        rig.disk().restore(&rig.config.devices[0].path).await.expect("taken back");
        rig.store(&format!("/{round}"), ONE, false).await;
        assert!(rig.has(&format!("/{round}"), 0, ONE).await);
    }
}

#[tokio::test]
async fn a_slice_is_refused_where_no_device_serves() {
    let mut rig = Rig::closed(IoChoice::Auto, &[8]);
    let failing = Failing::stands_in(&rig, 0);
    rig.open().await.expect("opens");
    failing.begin(Fault::Broken);
    assert!(rig.offer("/a", 0, ONE, false).await, "that it fails is not known yet");
    rig.written().await;
    assert!(!rig.offer("/b", 0, ONE, false).await);
    assert_eq!(rig.refused("no_device"), 2);
}

#[tokio::test]
async fn a_slice_is_refused_that_was_written_or_purged_before() {
    let rig = Rig::new(IoChoice::Auto, &[8]).await;
    let slab = rig.full("/a", 0, ONE, 1).await;
    for key in ["/a", "/again"] {
        assert!(rig.offer_slab(key, slab.clone(), 0, false));
    }
    rig.written().await;
    assert_eq!((rig.refused("written_already"), rig.has("/a", 0, ONE).await), (1, true));
    rig.purges.add(Purge::Object("/b".into()));
    assert!(rig.offer_slab("/b", rig.full("/b", 0, ONE, 1).await, 0, false), "it was learnt before");
    rig.written().await;
    assert_eq!((rig.refused("purged"), rig.disk().contains("/b", 0)), (1, false));
}

#[tokio::test]
async fn a_slice_is_refused_that_the_policy_lets_pass_by() {
    let rig = Rig::new(IoChoice::Auto, &[8]).await;
    let engine = &rig.disk().engine;
    // A loop that is a few times larger than the device, of which any queue would keep nothing.
    for _ in 0..300 {
        for n in 0..200 {
            engine.devices[0].policy().with(|policy| policy.asked(engine.hash("/loop", n), RECORD)).expect("it serves");
        }
    }
    for n in 0..40 {
        rig.offer(&format!("/{n}"), 0, ONE, false).await;
        rig.written().await;
    }
    let refused = rig.refused("policy");
    assert!(refused > 0 && rig.disk().stats().slices == 40 - refused, "{refused}");
}

#[tokio::test]
async fn a_slice_is_refused_where_nothing_can_be_reclaimed() {
    let rig = Rig::new(IoChoice::Auto, &[8]).await;
    let volume = rig.disk().engine.devices[0].volume().expect("it serves");
    // As if no segment were free and none sealed, which no device comes to.
    assert!(rig.disk().writers[0].send(Job::TakeUp(volume, Recovered::default())).is_ok());
    for is_planned in [false, true] {
        assert!(rig.offer("/a", 0, ONE, is_planned).await);
    }
    rig.written().await;
    assert_eq!((rig.refused("no_room"), rig.disk().stats().slices, rig.is_given_up(0)), (2, 0, None));
}
