//! `kill -9` at random instants, under load, again and again on the same volume: no wrong byte, and all that was sealed is there.

use std::{
    env,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::*;

const SEGMENTS: u64 = 64;
/// Slices between two early seals, at least: a segment and a part of one.
const GAP: u64 = SLICES_PER_SEGMENT;
/// So many of the latest sealed slices cannot have been reclaimed: in the worst case each gap was a round of its own, and a round takes two
/// segments for what is sealed, one for what is not, and one more at the next start.
const LATEST: u64 = (SEGMENTS / 4 - 2) * GAP;
const FOLDER: &str = "LARDER_KILL_FOLDER";
const FIRST: &str = "LARDER_KILL_FIRST";

#[tokio::test]
async fn kill_9_at_any_instant_costs_no_sealed_slice_and_no_right_byte() {
    let rounds: u64 = env::var("LARDER_KILL_ROUNDS").map_or(10, |rounds| rounds.parse().expect("a number of rounds"));
    let seed: u64 = env::var("LARDER_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().expect("a seed"));
    println!("LARDER_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
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
    let mut writer = Writer::start(folder, first);
    let mut lines = BufReader::new(writer.0.stdout.take().expect("piped")).lines();
    let mut sealed_to = first;
    let mut hear = |line: String| sealed_to = line.strip_prefix("sealed ").map_or(sealed_to, |n| n.parse().expect("a number"));
    for line in lines.by_ref().map_while(Result::ok) {
        hear(line.clone());
        if line.starts_with("sealed") {
            break;
        }
    }
    // The instant is what is tested.
    let (until_us, start) = (random.random_range(0..150_000), std::time::Instant::now());
    while start.elapsed() < Duration::from_micros(until_us) {
        std::thread::yield_now();
    }
    writer.0.kill().expect("it runs");
    writer.0.wait().expect("it is dead");
    lines.map_while(Result::ok).for_each(hear);
    sealed_to
}

struct Writer(Child);

impl Writer {
    fn start(folder: &Path, first: u64) -> Self {
        let child = Command::new(env::current_exe().expect("this test"))
            .args(["--ignored", "--exact", "--nocapture", "disk::tests::kill::writes_until_it_is_killed"])
            .env(FOLDER, folder)
            .env(FIRST, first.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this test can be run");
        Self(child)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The process that is killed: run by the test above.
#[tokio::test]
#[ignore = "the other half of kill_9_at_any_instant"]
async fn writes_until_it_is_killed() {
    let folder = env::var_os(FOLDER).expect("run by its other half");
    let first: u64 = env::var(FIRST).expect("run by its other half").parse().expect("a number");
    let mut rig = Rig::at(Path::new(&folder), &[SEGMENTS]);
    rig.open().await.expect("opens");
    let say = |line: String| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{line}").and_then(|()| out.flush()).expect("someone listens");
    };
    say("open".into());
    for n in first..u64::MAX {
        while !rig.offer(&format!("/{n}"), 0, ONE, false).await {
            rig.written().await;
        }
        // Now and then early, so that segments of all lengths are sealed.
        if n % (GAP + n / 100 % 20) == 0 {
            rig.disk().seal().await;
            say(format!("sealed {}", n + 1));
        }
    }
}
