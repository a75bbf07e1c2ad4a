//! What stood on a device once: what of it must not come back, and what may.

use std::{fs, os::unix::fs::FileExt};

use super::{device::Fault, layout::SUPERBLOCK_AT, *};

/// Records that can be made out on a device, whatever they are worth.
fn records_on(path: &Path) -> usize {
    fs::read(path).expect("a device").chunks(layout::PAGE).filter(|page| page.starts_with(b"LARDERRC")).count()
}

by_both_drivers! {
    another_size_of_slices_begins_a_device_anew
    a_formatting_that_was_broken_off_does_not_bring_the_one_before_back
    what_another_set_left_on_a_device_does_not_come_back
    what_was_purged_while_a_device_was_away_stays_purged
    what_a_device_held_while_it_was_away_is_asked_about
    what_was_purged_while_the_journal_could_not_be_written_stays_purged_until_the_end
}

async fn another_size_of_slices_begins_a_device_anew(io: IoChoice) {
    let mut rig = Rig::new(io, &[8]).await;
    let old: Vec<String> = (0..20).map(|n| format!("/{n}")).collect();
    for key in &old {
        rig.store(key, ONE, false).await;
    }
    rig.close().await;
    // And back again.
    for slice_bytes in [2 * SLICE, SLICE] {
        rig.slices_have(slice_bytes);
        rig.open().await.expect("opens");
        assert!(records_on(&rig.path(0)) > 10, "for anybody to read");
        assert_eq!(rig.disk().stats().slices, 0);
        let new = format!("/of {slice_bytes}");
        rig.store(&new, ONE, false).await;
        // With and without a footer.
        for is_sealed in [false, true] {
            assert!(rig.has(&new, 0, ONE).await);
            for key in &old {
                assert!(!rig.disk().contains(key, 0) && rig.load(key, 0, None).await.is_none(), "{key}");
            }
            assert_eq!(rig.disk().stats().slices, 1);
            if is_sealed {
                rig.close().await;
            } else {
                rig.restart().await;
                rig.close().await;
                rig.open().await.expect("opens");
            }
        }
    }
}

async fn a_formatting_that_was_broken_off_does_not_bring_the_one_before_back(io: IoChoice) {
    let mut rig = Rig::new(io, &[8]).await;
    rig.store("/old", ONE, false).await;
    rig.close().await;
    let [first, second] = SUPERBLOCK_AT;
    let device = fs::File::options().read(true).write(true).open(rig.path(0)).expect("a device");
    let mut former = [0; layout::PAGE];
    device.read_exact_at(&mut former, second).expect("read");
    rig.slices_have(2 * SLICE);
    rig.open().await.expect("begins anew");
    rig.store("/new", ONE, false).await;
    rig.close().await;
    // As if the machine had stopped between the two copies.
    device.write_all_at(&former, second).expect("written");
    rig.open().await.expect("opens");
    assert!(rig.has("/new", 0, ONE).await);
    rig.close().await;
    // The first copy rots: the second is as good now.
    device.write_all_at(&[0xee; layout::PAGE], first).expect("written");
    rig.open().await.expect("opens");
    assert!(rig.has("/new", 0, ONE).await);
    rig.close().await;
    // Back to what the former copy was for.
    rig.slices_have(SLICE);
    rig.open().await.expect("begins anew");
    assert_eq!(rig.disk().stats().slices, 0);
}

async fn what_another_set_left_on_a_device_does_not_come_back(io: IoChoice) {
    let mut rig = Rig::new(io, &[8]).await;
    for n in 0..20 {
        rig.store(&format!("/old/{n}"), ONE, n % 3 == 0).await;
    }
    rig.close().await;
    fs::remove_dir_all(&rig.config.state_dir).expect("removed");
    rig.open().await.expect("begins anew");
    for n in 0..2 {
        rig.store(&format!("/new/{n}"), ONE, false).await;
    }
    for _ in 0..3 {
        // Behind the two in their segment stand old ones.
        rig.restart().await;
        assert!(records_on(&rig.path(0)) > 10, "for anybody to read");
        assert_eq!(rig.disk().stats().slices, 2);
        for n in 0..20 {
            assert!(!rig.disk().contains(&format!("/old/{n}"), 0), "{n}");
        }
        assert!(rig.has("/new/0", 0, ONE).await && rig.has("/new/1", 0, ONE).await);
        assert_eq!(rig.disk().stats().rejected, 0);
    }
}

/// How a device is away for a time.
#[derive(Debug, Clone, Copy)]
enum Away {
    GivenUp,
    GoneAtStart,
    NotConfigured,
}

impl Away {
    const ALL: [Self; 3] = [Self::GivenUp, Self::GoneAtStart, Self::NotConfigured];

    /// Takes the second device away.
    async fn begin(self, rig: &mut Rig) {
        let path = rig.path(1);
        match self {
            Self::GivenUp => rig.disk().engine.give_up(1, None, &Fault::Unusable("for this test".into())),
            Self::GoneAtStart => {
                rig.close().await;
                fs::rename(&path, path.with_extension("away")).expect("moved");
                rig.restart().await;
            }
            Self::NotConfigured => {
                rig.close().await;
                rig.config.devices.truncate(1);
                rig.restart().await;
            }
        }
    }

    async fn end(self, rig: &mut Rig, device: &DeviceConfig) {
        let path = &device.path;
        match self {
            Self::GivenUp => rig.disk().restore(path).await.expect("taken back"),
            Self::GoneAtStart => {
                fs::rename(path.with_extension("away"), path).expect("moved back");
                rig.disk().restore(path).await.expect("taken back");
            }
            Self::NotConfigured => {
                rig.close().await;
                rig.config.devices.push(device.clone());
                rig.restart().await;
            }
        }
    }
}

/// Objects in two folders on two devices. Gives those that are on the second.
async fn two_devices(io: IoChoice) -> (Rig, Vec<String>) {
    let rig = Rig::new(io, &[8, 8]).await;
    let engine = &rig.disk().engine;
    let some_on = |device: usize, folder: u32| {
        let keys = (0..).map(move |n| format!("/{folder}/{n}"));
        keys.filter(move |key| engine.device_for(key) == Some(device)).take(4)
    };
    let second: Vec<String> = some_on(1, 0).chain(some_on(1, 1)).collect();
    for key in some_on(0, 0).chain(some_on(0, 1)).chain(second.iter().cloned()) {
        rig.store(&key, ONE, false).await;
    }
    assert!(second.iter().all(|key| rig.disk().find(key, 0).is_some_and(|place| place.device() == 1)));
    (rig, second)
}

async fn what_was_purged_while_a_device_was_away_stays_purged(io: IoChoice) {
    for away in Away::ALL {
        for purge in [Purge::Object(String::new()), Purge::Prefix("/0/".into()), Purge::Tag("film".into()), Purge::All] {
            let (mut rig, keys) = two_devices(io).await;
            let device = rig.config.devices[1].clone();
            let purge = if let Purge::Object(_) = purge { Purge::Object(keys[0].clone()) } else { purge };
            let is_purged = |key: &String| match &purge {
                Purge::Object(object) => key == object,
                Purge::Prefix(prefix) => key.starts_with(prefix),
                Purge::Tag(_) | Purge::All => true,
            };
            away.begin(&mut rig).await;
            rig.purge(purge.clone());
            // Time goes by: what is filled later is learnt later, and purges that cover nothing any more are forgotten.
            for n in 0..3 {
                rig.store(&format!("/later/{n}"), ONE, false).await;
                rig.close().await;
                rig.restart().await;
            }
            away.end(&mut rig, &device).await;
            for round in 0..2 {
                for key in &keys {
                    let is_there = rig.has(key, 0, ONE).await;
                    assert_eq!(is_there, !is_purged(key), "{key}, round {round}: {away:?}, {purge}");
                }
                assert!(rig.has("/later/0", 0, ONE).await);
                rig.restart().await;
            }
            assert_eq!(rig.is_given_up(1), None);
        }
    }
}

async fn what_a_device_held_while_it_was_away_is_asked_about(io: IoChoice) {
    for away in Away::ALL {
        let (mut rig, keys) = two_devices(io).await;
        let device = rig.config.devices[1].clone();
        assert!(rig.load(&keys[0], 0, None).await.is_some_and(|loaded| loaded.vouched_at.is_some()));
        away.begin(&mut rig).await;
        rig.store("/meanwhile", ONE, false).await;
        away.end(&mut rig, &device).await;
        for round in 0..3 {
            for key in &keys {
                let loaded = rig.load(key, 0, None).await.expect("there");
                assert_eq!(loaded.vouched_at, None, "{key}, round {round}, {away:?}: it may have been replaced meanwhile");
            }
            let other = rig.load("/meanwhile", 0, None).await.expect("there");
            assert!(other.vouched_at.is_some(), "{away:?}: the first device was there all the time");
            match round {
                0 => rig.restart().await,
                _ => {
                    rig.close().await;
                    rig.restart().await;
                }
            }
        }
        let new = (0..).map(|n| format!("/new/{n}")).find(|key| rig.disk().engine.device_for(key) == Some(1)).expect("one");
        rig.store(&new, ONE, false).await;
        for _ in 0..2 {
            let loaded = rig.load(&new, 0, None).await.expect("there");
            assert!(loaded.vouched_at.is_some(), "{away:?}: what came after it was back is believed");
            rig.restart().await;
        }
    }
}

async fn what_was_purged_while_the_journal_could_not_be_written_stays_purged_until_the_end(io: IoChoice) {
    let mut rig = Rig::new(io, &[8]).await;
    for key in ["/a", "/b", "/c"] {
        rig.store(key, ONE, false).await;
    }
    // No file can take the journal's place, and the journal has broken off.
    let in_the_way = rig.config.state_dir.join("purges.new");
    fs::create_dir(&in_the_way).expect("a directory");
    rig.disk().engine.state.break_journal();
    for key in ["/a", "/b"] {
        let purge = Purge::Object(key.into());
        let number = rig.purges.add(purge.clone());
        let error = rig.disk().note(&Note::Purge(purge), number, true).expect_err("refused").to_string();
        assert!(error.contains("cannot write") && error.contains("state/purges"), "{error}");
        assert!(!rig.has(key, 0, ONE).await, "it holds all the same");
    }
    fs::remove_dir(&in_the_way).expect("removed");
    rig.purge(Purge::Object("/c".into()));
    rig.restart().await;
    for key in ["/a", "/b", "/c"] {
        assert!(!rig.has(key, 0, ONE).await, "what could not be written came with what could");
    }
}
