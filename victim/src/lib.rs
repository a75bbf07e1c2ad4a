//! `kill -9` at random instants, for tests: one test runs another of its binary as a process, hears what that says it has done, and kills it.
//!
//! Only tests depend on this, and it knows nothing of what is killed. The half that is killed is an ignored test, which takes its
//! [`orders`] and [`say`]s what is kept. Whatever was said before the end is heard.

use std::{
    env,
    fmt::Display,
    io::{self, BufRead as _, BufReader, Lines, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

const FOLDER: &str = "LARDER_KILL_FOLDER";
const FIRST: &str = "LARDER_KILL_FIRST";
/// How long it lives at most after the first thing that it has done.
const LIFE_MAX: Duration = Duration::from_millis(200);

/// How often to kill, as `LARDER_KILL_ROUNDS` says or else `default`, and what instants are drawn from: `LARDER_SEED`, or a new one, which is printed.
pub fn rounds(default: u64) -> (u64, StdRng) {
    let rounds = env::var("LARDER_KILL_ROUNDS").map_or(default, |rounds| rounds.parse().expect("a number of rounds"));
    let seed = env::var("LARDER_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().expect("a seed"));
    println!("LARDER_SEED={seed}");
    (rounds, StdRng::seed_from_u64(seed))
}

/// A while that is random.
pub fn life(random: &mut StdRng) -> Duration {
    random.random_range(Duration::ZERO..LIFE_MAX)
}

/// For the half that is killed: the folder to work on, and the number to begin with.
pub fn orders() -> (PathBuf, u64) {
    let folder = env::var_os(FOLDER).expect("run by its other half");
    (folder.into(), env::var(FIRST).expect("run by its other half").parse().expect("a number"))
}

/// For the half that is killed: says what it has done.
pub fn say(what: impl Display) {
    let mut out = io::stdout().lock();
    writeln!(out, "{what}").and_then(|()| out.flush()).expect("someone listens");
}

/// A process that is killed, at the latest when it is dropped. As an iterator, what it says.
pub struct Victim {
    process: Child,
    said: Lines<BufReader<ChildStdout>>,
}

impl Victim {
    /// Runs an ignored test of this binary.
    pub fn start(test: &str, folder: &Path, first: u64) -> Self {
        let mut process = Command::new(env::current_exe().expect("this test"))
            .args(["--ignored", "--exact", "--nocapture", test])
            .env(FOLDER, folder)
            .env(FIRST, first.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this test can be run");
        let said = BufReader::new(process.stdout.take().expect("piped")).lines();
        Self { process, said }
    }

    /// Waits for a line that begins with `done`, and kills it a random while later. Hears all that it says.
    pub fn kill(mut self, done: &str, random: &mut StdRng, mut hear: impl FnMut(&str)) {
        for line in self.by_ref() {
            hear(&line);
            if line.starts_with(done) {
                break;
            }
        }
        // The instant is what is tested.
        let (life, start) = (life(random), Instant::now());
        while start.elapsed() < life {
            thread::yield_now();
        }
        self.process.kill().expect("it runs");
        self.process.wait().expect("it is dead");
        self.for_each(|line| hear(&line));
    }
}

impl Iterator for Victim {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        self.said.next()?.ok()
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
