//! What is written, read, kept, purged and given up.

use std::{fs, os::unix::fs::FileExt};

use super::*;

by_both_drivers! {
    what_was_written_is_read_whole_and_in_parts
    a_clean_stop_loses_nothing_and_an_unclean_one_nothing_that_was_written
    what_is_still_wanted_outlasts_a_flood_and_writes_stay_bounded
    other_versions_and_purged_content_are_misses_also_after_a_restart
    planned_content_is_kept_apart_and_has_its_share
    what_was_purged_of_planned_content_makes_room_though_nobody_asks_for_it
    a_device_that_rots_is_given_up_until_an_operator_takes_it_back
    verifying_finds_what_rotted_and_forgets_it
    a_device_that_is_gone_at_start_is_given_up_and_the_other_serves
    what_cannot_be_a_device_is_refused_in_words
    a_device_that_is_cut_to_its_end_is_known_again
    another_caches_device_begins_anew
    what_does_not_fit_is_counted_by_reason
    a_purge_that_was_never_written_down_does_not_take_the_next_ones_number
    what_was_closed_can_be_opened_at_once_and_does_nothing_any_more
    what_cannot_be_opened_holds_nothing
}

async fn what_was_written_is_read_whole_and_in_parts(io: IoChoice) {
    let rig = Rig::new(io, &[8]).await;
    let length = 2 * ONE + 70_001;
    rig.store("/a", length, false).await;
    for index in 0..3 {
        assert!(rig.has("/a", index, length).await);
        let bytes = slice("/a", index, length, 1);
        for (from, to) in [(0, 1), (65_535, 65_537), (65_536, 70_001), (1, 70_001), (70_000, 70_001)] {
            let place = rig.disk().find("/a", index).expect("there");
            let permit = rig.budget.try_acquire(Disk::part_bytes(&(from..to)), Priority::Viewer).expect("memory");
            let part = rig.disk().load_part("/a", index, place, &generation(length, 1), from..to, permit).await;
            let (slab, start) = part.expect("right");
            assert!(slab.view(start, start + to - from) == bytes[from..to], "{from}..{to} of slice {index}");
        }
    }
    assert!(!rig.has("/a", 3, length).await && !rig.has("/b", 0, length).await);
    let cold = rig.load("/a", 2, None).await.expect("any version");
    assert_eq!((cold.generation, cold.slab.length()), (generation(length, 1), 70_001));
    assert_eq!(rig.disk().stats().bytes_admitted, length);
}

async fn a_clean_stop_loses_nothing_and_an_unclean_one_nothing_that_was_written(io: IoChoice) {
    let mut rig = Rig::new(io, &[16, 16]).await;
    let keys: Vec<String> = (0..100).map(|n| format!("/{n}")).collect();
    for key in &keys {
        rig.store(key, ONE, false).await;
    }
    rig.close().await;
    rig.restart().await;
    for key in &keys {
        assert!(rig.has(key, 0, ONE).await, "{key}");
    }
    let devices = rig.disk().stats().devices;
    assert!(devices.iter().all(|device| device.bytes_used >= 5 * SEGMENT), "both hold some");
    rig.store("/late", ONE, true).await;
    rig.restart().await;
    assert!(rig.has("/late", 0, ONE).await, "its segment had no footer");
    rig.restart().await;
    assert!(rig.has("/late", 0, ONE).await, "it was given one");
    assert_eq!(rig.disk().stats().slices, 101);
}

async fn what_is_still_wanted_outlasts_a_flood_and_writes_stay_bounded(io: IoChoice) {
    let rig = Rig::new(io, &[16]).await;
    for n in 0..3 {
        rig.store(&format!("/wanted/{n}"), ONE, false).await;
    }
    for n in 0..60 * SLICES_PER_SEGMENT {
        rig.store(&format!("/flood/{n}"), ONE, false).await;
        for n in 0..3 {
            assert!(rig.has(&format!("/wanted/{n}"), 0, ONE).await, "{n}");
        }
    }
    let stats = rig.disk().stats();
    assert!(stats.evictions > 40 * SLICES_PER_SEGMENT && stats.reinsertions >= 3, "{stats:?}");
    let amplification = stats.write_amplification().expect("something was written");
    assert!((1.0..1.5).contains(&amplification), "{amplification}");
    // What is leaving is there until it is written over, so only the segment that is being written is not full.
    assert!(stats.slices <= 16 * SLICES_PER_SEGMENT && stats.slices >= 14 * SLICES_PER_SEGMENT, "{}", stats.slices);
    assert_eq!(stats.rejected, 0);
}

async fn other_versions_and_purged_content_are_misses_also_after_a_restart(io: IoChoice) {
    let mut rig = Rig::new(io, &[8]).await;
    for key in ["/a/1", "/a/2", "/b/1"] {
        rig.store(key, ONE, false).await;
    }
    assert!(rig.load("/a/1", 0, Some(&generation(ONE, 2))).await.is_none(), "version 2 is wanted");
    assert!(rig.has("/a/1", 0, ONE).await, "the one that is there stays until another is written");
    assert!(rig.offer_version("/a/1", 0, ONE, 2, false).await);
    rig.written().await;
    assert!(rig.load("/a/1", 0, Some(&generation(ONE, 2))).await.is_some());
    rig.purge(Purge::Prefix("/a/".into()));
    for _ in 0..2 {
        assert!(rig.load("/a/1", 0, None).await.is_none() && !rig.has("/a/2", 0, ONE).await);
        assert!(rig.has("/b/1", 0, ONE).await);
        rig.restart().await;
    }
    rig.store("/a/1", ONE, false).await;
    assert!(rig.has("/a/1", 0, ONE).await, "what came after the purge stays");
    rig.restart().await;
    assert!(rig.has("/a/1", 0, ONE).await);
    let number = rig.purges.add(Purge::Tag("film".into()));
    assert!(number > 1, "numbers go on after a restart");
    assert!(rig.load("/a/1", 0, None).await.is_none() && rig.load("/b/1", 0, None).await.is_none());
}

async fn planned_content_is_kept_apart_and_has_its_share(io: IoChoice) {
    let rig = Rig::new(io, &[16]).await;
    let planned_max = 10 * SLICES_PER_SEGMENT;
    for n in 0..planned_max {
        rig.store(&format!("/planned/{n}"), ONE, true).await;
    }
    for n in 0..10 * SLICES_PER_SEGMENT {
        rig.store(&format!("/once/{n}"), ONE, false).await;
    }
    for n in 0..planned_max {
        assert!(rig.has(&format!("/planned/{n}"), 0, ONE).await, "{n}");
    }
    rig.store("/planned/too many", ONE, true).await;
    assert_eq!((rig.refused("planned_full"), rig.has("/planned/too many", 0, ONE).await), (1, false));
    for n in 0..2 * SLICES_PER_SEGMENT {
        rig.purges.add(Purge::Object(format!("/planned/{n}")));
        assert!(!rig.has(&format!("/planned/{n}"), 0, ONE).await, "purged");
    }
    rig.store("/planned/instead", ONE, true).await;
    assert!(rig.has("/planned/instead", 0, ONE).await, "what was purged makes room");
    assert!(rig.has(&format!("/planned/{}", planned_max - 1), 0, ONE).await);
    assert_eq!(rig.disk().stats().devices[0].bytes_planned, 10 * SEGMENT);
}

async fn what_was_purged_of_planned_content_makes_room_though_nobody_asks_for_it(io: IoChoice) {
    let mut rig = Rig::new(io, &[16]).await;
    let all = 10 * SLICES_PER_SEGMENT;
    for n in 0..all {
        // Each segment has some of both.
        rig.store(&format!("/{}/{n}", n % 2), ONE, true).await;
    }
    rig.restart().await;
    rig.store("/new/0", ONE, true).await;
    assert_eq!((rig.refused("planned_full"), rig.has("/new/0", 0, ONE).await), (1, false));
    rig.purge(Purge::Prefix("/0/".into()));
    // Half of it is purged, and survivors fill segments that were half empty.
    for n in 0..all / 2 - SLICES_PER_SEGMENT {
        rig.store(&format!("/new/{n}"), ONE, true).await;
        assert!(rig.has(&format!("/new/{n}"), 0, ONE).await, "{n}: {:?}", rig.disk().stats().refused);
    }
    for n in 0..all {
        let key = format!("/{}/{n}", n % 2);
        assert_eq!(rig.has(&key, 0, ONE).await, n % 2 == 1, "{key}");
    }
    assert_eq!(rig.disk().stats().devices[0].bytes_planned, 10 * SEGMENT);
}

async fn a_device_that_rots_is_given_up_until_an_operator_takes_it_back(io: IoChoice) {
    let mut rig = Rig::new(io, &[8, 8]).await;
    let keys: Vec<String> = (0..40).map(|n| format!("/{n}")).collect();
    for key in &keys {
        rig.store(key, ONE, false).await;
    }
    let is_there = |at: usize, key: &str| rig.disk().find(key, 0).is_some_and(|place| place.device() == at);
    let first: Vec<&String> = keys.iter().filter(|key| is_there(0, key)).collect();
    let file = fs::File::options().write(true).open(rig.path(0)).expect("opens");
    for page in (3..8 * 256).step_by(8) {
        file.write_all_at(&[0xee; 64], (1 << 20) + page * 4096).expect("written");
    }
    for key in &first {
        assert!(!rig.has(key, 0, ONE).await, "never a wrong byte");
    }
    assert_eq!(rig.disk().stats().devices[0].corrupt, 4);
    let reason = rig.is_given_up(0).expect("given up");
    assert_eq!((reason.as_str(), rig.is_given_up(1)), ("4 records were not what had been written", None));
    for key in &first {
        assert!(!rig.disk().contains(key, 0));
        rig.store(key, ONE, false).await;
    }
    rig.restart().await;
    assert_eq!(rig.is_given_up(0), Some(reason), "the verdict outlasts a restart");
    for key in &keys {
        assert!(rig.has(key, 0, ONE).await, "what was on it was filled anew on the other");
    }
    let path = rig.path(0);
    rig.disk().restore(&path).await.expect("it can be read again");
    assert!(rig.disk().restore(&path).await.is_err_and(|reason| reason.contains("serves")));
    assert_eq!(rig.is_given_up(0), None);
    assert!(rig.has(&keys[0], 0, ONE).await);
}

async fn verifying_finds_what_rotted_and_forgets_it(io: IoChoice) {
    let mut rig = Rig::new(io, &[8]).await;
    for n in 0..20 {
        rig.store(&format!("/{n}"), ONE, false).await;
    }
    rig.disk().seal().await;
    let file = fs::File::options().write(true).open(rig.path(0)).expect("opens");
    let place = rig.disk().find("/7", 0).expect("there");
    let volume = rig.disk().engine.devices[0].volume().expect("serves");
    file.write_all_at(b"rot", volume.at(place.segment(), usize::from(place.page()) + 5)).expect("written");
    let mut told = Vec::new();
    let verified = rig.disk().verify(|read, total| told.push((read, total))).await;
    assert_eq!((verified.slices, verified.segments, verified.fault_count), (19, 3, 1), "{verified:?}");
    assert!(verified.faults[0].contains("slice 0 of /7"), "{verified:?}");
    assert_eq!((told[0], told.last()), ((0, 3 * SEGMENT), Some(&(3 * SEGMENT, 3 * SEGMENT))));
    assert!(!rig.disk().contains("/7", 0));
    assert_eq!(rig.disk().verify(|_, _| ()).await.fault_count, 0);
    rig.close().await;
}

async fn a_device_that_is_gone_at_start_is_given_up_and_the_other_serves(io: IoChoice) {
    let mut rig = Rig::new(io, &[8, 8]).await;
    rig.store("/a", ONE, false).await;
    rig.close().await;
    fs::remove_file(rig.path(1)).expect("removed");
    rig.config.devices[1].bytes = None;
    rig.restart().await;
    let reason = rig.is_given_up(1).expect("given up");
    assert!(reason.contains("not there"), "{reason}");
    rig.store("/b", ONE, false).await;
    assert!(rig.has("/b", 0, ONE).await);
}

async fn what_cannot_be_a_device_is_refused_in_words(io: IoChoice) {
    for (content, size, words) in [
        (Some(vec![7_u8; 20 << 20]), None, "something that is not Larder's"),
        (None, None, "without a size it cannot be made"),
        (None, Some(4 << 20), "at least 9437184 are needed"),
    ] {
        let mut rig = Rig::closed(io, &[8]);
        rig.config.devices[0].bytes = size;
        if let Some(content) = content {
            fs::write(rig.path(0), content).expect("written");
        }
        let error = rig.open().await.expect_err("refused").to_string();
        assert!(error.contains(words) && error.contains("device0"), "{error}");
    }
    let mut rig = Rig::closed(io, &[8]);
    rig.config.planned_share = 0.99;
    assert!(rig.open().await.is_err_and(|error| error.to_string().contains("planned share")));
    let mut rig = Rig::closed(io, &[]);
    assert!(rig.open().await.is_err_and(|error| error.to_string().contains("0 devices")));
    let mut rig = Rig::closed(io, &[8, 8]);
    rig.config.devices[1].path = rig.path(0);
    assert!(rig.open().await.is_err_and(|error| error.to_string().contains("twice")));
}

async fn a_device_that_is_cut_to_its_end_is_known_again(io: IoChoice) {
    let mut rig = Rig::closed(io, &[8]);
    for bytes in [Cut::bytes_min(SEGMENT) + 1, Cut::bytes_min(SEGMENT) + SEGMENT / 2] {
        rig.config.devices[0].bytes = Some(bytes);
        rig.open().await.expect("opens");
        rig.store("/a", ONE, false).await;
        rig.restart().await;
        assert!(rig.has("/a", 0, ONE).await, "{bytes}");
    }
}

async fn another_caches_device_begins_anew(io: IoChoice) {
    let mut rig = Rig::new(io, &[8]).await;
    rig.store("/a", ONE, false).await;
    rig.close().await;
    fs::remove_dir_all(&rig.config.state_dir).expect("removed");
    rig.restart().await;
    assert_eq!(rig.disk().stats().slices, 0, "without its purges nothing on it may be believed");
    rig.store("/b", ONE, false).await;
    assert!(rig.has("/b", 0, ONE).await && !rig.has("/a", 0, ONE).await);
}

async fn what_does_not_fit_is_counted_by_reason(io: IoChoice) {
    let rig = Rig::new(io, &[8]).await;
    let mut generation = generation(ONE, 1);
    generation.headers = vec![("x".into(), "y".repeat(4000))];
    let permit = rig.budget.try_acquire(SLICE, Priority::Viewer).expect("memory");
    let (slab, mut writer) = Slab::new(permit, SLICE);
    assert!(writer.append(&[1; SLICE]));
    drop(writer);
    let generation = Arc::new(generation);
    let (vouched_at, number) = (SystemTime::now(), 0);
    rig.disk().offer(Offer { key: "/a".into(), index: 0, generation, vouched_at, number, slab, is_planned: false });
    rig.written().await;
    assert_eq!(rig.refused("head_too_large"), 1);
}

/// A purge holds in memory before it is written down; what is learnt in between has its number.
async fn a_purge_that_was_never_written_down_does_not_take_the_next_ones_number(io: IoChoice) {
    let mut rig = Rig::new(io, &[8]).await;
    rig.purges.add(Purge::Object("/lost".into()));
    rig.store("/a", ONE, false).await;
    rig.restart().await;
    assert!(rig.has("/a", 0, ONE).await);
    rig.purges.add(Purge::Object("/a".into()));
    assert!(!rig.has("/a", 0, ONE).await, "learnt at 1, purged at 2");
}

async fn what_was_closed_can_be_opened_at_once_and_does_nothing_any_more(io: IoChoice) {
    let mut rig = Rig::new(io, &[8]).await;
    for n in 0..20 {
        rig.offer(&format!("/{n}"), 0, ONE, false).await;
    }
    let former = rig.disk.take().expect("open");
    let place = former.find("/0", 0);
    former.close().await;
    former.close().await;
    rig.open().await.expect("nobody has it");
    for n in 0..20 {
        assert!(rig.has(&format!("/{n}"), 0, ONE).await, "closing waits for what was offered");
    }
    assert!(former.find("/0", 0).is_none() && !former.contains("/0", 0));
    if let Some(place) = place {
        let permit = rig.budget.try_acquire(SLICE, Priority::Viewer).expect("memory");
        assert!(former.load("/0", 0, place, None, permit).await.is_none());
    }
    let late = former.note(&Note::Purge(Purge::All), 1, true).expect_err("the journal is another's");
    assert!(late.to_string().contains("closed"), "{late}");
    assert!(former.restore(&rig.path(0)).await.is_err_and(|error| error.contains("closed")));
    let (slab, number) = (rig.full("/late", 0, ONE, 1).await, rig.purges.now());
    let (generation, vouched_at) = (Arc::new(generation(ONE, 1)), SystemTime::now());
    assert!(!former.offer(Offer { key: "/late".into(), index: 0, generation, vouched_at, number, slab, is_planned: false }));
    former.close().await;
    drop(former);
    assert!(rig.has("/0", 0, ONE).await && rig.is_given_up(0).is_none());
}

async fn what_cannot_be_opened_holds_nothing(io: IoChoice) {
    let mut rig = Rig::closed(io, &[8, 8]);
    rig.config.devices[1].bytes = None;
    assert!(rig.open().await.is_err_and(|error| error.to_string().contains("cannot be made")));
    fs::write(rig.path(1), vec![0; 9 << 20]).expect("made");
    rig.open().await.expect("opens at once");
    rig.store("/a", ONE, false).await;
    assert!(rig.has("/a", 0, ONE).await);
}
