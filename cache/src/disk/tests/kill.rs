//! `kill -9` at random instants, under load, again and again on the same volume: no wrong byte, and all that was sealed is there.

use std::path::Path;

use rand::rngs::StdRng;
use victim::{Victim, say};

use super::*;

const SEGMENTS: u64 = 64;
/// Slices between two early seals, at least: a segment and a part of one.
const GAP: u64 = SLICES_PER_SEGMENT;
/// So many of the latest sealed slices cannot have been reclaimed: in the worst case each gap was a round of its own, and a round takes two
/// segments for what is sealed, one for what is not, and one more at the next start.
const LATEST: u64 = (SEGMENTS / 4 - 2) * GAP;

#[tokio::test]
async fn kill_9_at_any_instant_costs_no_sealed_slice_and_no_right_byte() {
    let (rounds, mut random) = victim::rounds(10);
    let folder = tempfile::tempdir().expect("a directory");
    let (mut first, mut found, mut unsealed) = (0, 0, 0);
    for round in 0..rounds {
        let sealed_to = kill_one(folder.path(), first, &mut random);
        let mut rig = Rig::at(folder.path(), &[SEGMENTS]);
        rig.open().await.expect("opens");
        let oldest = sealed_to.saturating_sub(LATEST);
        for n in oldest..sealed_to + 100 {
            let is_there = rig.looks_up(&format!("/{n}"), 0, ONE).await;
            found += u64::from(is_there);
            unsealed += u64::from(is_there && n >= sealed_to);
            assert!(is_there || n >= sealed_to || n < oldest, "round {round}: {n} of {sealed_to} was sealed and is gone");
        }
        assert_eq!(rig.disk().stats().rejected, 0, "round {round}: all that is found is right");
        // Some of these were written by the one that was killed; they are written again.
        first = sealed_to;
    }
    println!("{rounds} rounds, {first} slices sealed, {found} looked at, {unsealed} of unsealed segments");
    assert!(first > 0);
}

/// Runs a writer and kills it. Says how many slices it has sealed at least.
fn kill_one(folder: &Path, first: u64, random: &mut StdRng) -> u64 {
    let mut sealed_to = first;
    Victim::start("disk::tests::kill::writes_until_it_is_killed", folder, first).kill("sealed", random, |line| {
        sealed_to = line.strip_prefix("sealed ").map_or(sealed_to, |n| n.parse().expect("a number"));
    });
    sealed_to
}

/// The process that is killed: run by the test above.
#[tokio::test]
#[ignore = "the other half of kill_9_at_any_instant"]
async fn writes_until_it_is_killed() {
    let (folder, first) = victim::orders();
    let mut rig = Rig::at(&folder, &[SEGMENTS]);
    rig.open().await.expect("opens");
    say("open");
    for n in first..u64::MAX {
        while !rig.offer(&format!("/{n}"), 0, ONE, false).await {
            rig.written().await;
        }
        // Now and then early, so that segments of all lengths are sealed.
        if n % (GAP + n / 100 % 20) == 0 {
            rig.disk().seal().await;
            say(format_args!("sealed {}", n + 1));
        }
    }
}
