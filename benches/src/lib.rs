//! Benchmarks. Each module answers one question; `src/bin/<question>.rs` runs it. `--small` does the same work once, in less than
//! a second, and asserts every outcome: that is what the tests run.
//!
//! Figures are nanoseconds of one thread's CPU time: the best of several rounds, as everything that disturbs a round only makes
//! it longer.

use std::{
    fmt::{self, Write as _},
    fs,
    hint::black_box,
    sync::LazyLock,
    time::{Duration, Instant},
};

use wire::object::{Digest, Hasher};

pub mod activity;
pub mod control;
mod instance;
pub mod peers;
pub mod placement;
pub mod search;
pub mod serve_ssd;
pub mod steering;
pub mod token;

/// How much to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// Enough to assert every outcome.
    Small,
    /// Enough to measure.
    Full,
}

impl Size {
    /// One number for each size.
    pub const fn of(self, small: u64, full: u64) -> u64 {
        match self {
            Self::Small => small,
            Self::Full => full,
        }
    }
}

/// How often a figure is taken; the best is kept.
const ROUNDS: u32 = 7;
/// How long each time.
const ROUND_TIME: Duration = Duration::from_millis(100);
/// How seldom the clock is read: that takes microseconds, and it is exact to about 100 of them.
const CLOCK_EVERY: Duration = Duration::from_millis(5);

/// The CPU time of this thread by the kernel's accounts, or where there are none the time since some moment.
pub(crate) fn cpu_time() -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let accounts = fs::read_to_string("/proc/thread-self/schedstat").ok();
    let running_ns = accounts.and_then(|accounts| accounts.split_whitespace().next()?.parse().ok());
    running_ns.map_or_else(|| START.elapsed(), Duration::from_nanos)
}

/// The CPU time of this process, user and system, the kernel's threads that work for it included.
pub(crate) fn process_cpu_time() -> Duration {
    // SAFETY: `usage` is plain numbers, for which zeroes are a value, and the call fills it.
    let usage = unsafe {
        let mut usage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    let time = |time: libc::timeval| Duration::from_secs(time.tv_sec as u64) + Duration::from_micros(time.tv_usec as u64);
    time(usage.ru_utime) + time(usage.ru_stime)
}

/// What a benchmark found.
pub struct Report {
    question: &'static str,
    size: Size,
    figures: Vec<Figure>,
    outcomes: Hasher,
    outcomes_count: u64,
}

struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
}

impl Report {
    /// An empty report.
    pub fn new(question: &'static str, size: Size) -> Self {
        Self { question, size, figures: Vec::new(), outcomes: Hasher::new(), outcomes_count: 0 }
    }

    /// How much is to be done.
    pub const fn size(&self) -> Size {
        self.size
    }

    /// Measures `work` by repeating it, and tells how many nanoseconds it took. The small size does it once and measures nothing.
    pub fn measure<T>(&mut self, name: impl Into<String>, mut work: impl FnMut() -> T) -> Option<f64> {
        if self.size == Size::Small {
            work();
            return None;
        }
        let mut best_ns = f64::INFINITY;
        for _ in 0..ROUNDS {
            let start = cpu_time();
            let (mut elapsed, mut times, mut batch) = (Duration::ZERO, 0_u64, 1_u64);
            while elapsed < ROUND_TIME {
                for _ in 0..batch {
                    black_box(work());
                }
                times += batch;
                let before = elapsed;
                elapsed = cpu_time().saturating_sub(start);
                if elapsed - before < CLOCK_EVERY {
                    batch *= 2;
                }
            }
            best_ns = best_ns.min(elapsed.as_nanos() as f64 / times as f64);
        }
        self.figure(name, best_ns, "ns");
        Some(best_ns)
    }

    /// Notes a figure that was found otherwise.
    pub fn figure(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        self.figures.push(Figure { name: name.into(), value, unit });
    }

    /// Asserts an outcome, and adds it to the digest.
    ///
    /// # Panics
    /// If the outcome is not the expected one: the figures beside it would be of something else.
    pub fn expect<T: fmt::Debug + PartialEq>(&mut self, what: &str, outcome: T, expected: T) {
        assert_eq!(outcome, expected, "{what}");
        self.outcomes.update(format!("{what}: {outcome:?}\n").as_bytes());
        self.outcomes_count += 1;
    }

    /// How many outcomes were asserted, and their digest.
    pub(crate) fn finish(self) -> (u64, Digest) {
        (self.outcomes_count, self.outcomes.finish())
    }

    /// As a table, or as one JSON object.
    pub fn print(self, as_json: bool) -> String {
        let digest: Digest = self.outcomes.finish();
        if as_json {
            let rounded = |figure: &Figure| (figure.value * 10.0).round() / 10.0;
            let figure =
                |figure: &Figure| serde_json::json!({ "name": figure.name, "value": rounded(figure), "unit": figure.unit });
            let figures: Vec<_> = self.figures.iter().map(figure).collect();
            let report = serde_json::json!({
                "question": self.question, "small": self.size == Size::Small, "figures": figures,
                "outcomes": self.outcomes_count, "digest": digest,
            });
            return format!("{report}\n");
        }
        let mut text = format!("{}\n", self.question);
        for Figure { name, value, unit } in &self.figures {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{value:>12.0} {unit:<3} {name}");
        }
        let _ = writeln!(text, "{} outcomes as expected, digest {digest}", self.outcomes_count);
        text
    }
}

/// How many outcomes the small run has; the same ones when it runs again.
#[cfg(test)]
fn small_twice(run: fn(Size) -> Report) -> u64 {
    let printed = || serde_json::from_str::<serde_json::Value>(&run(Size::Small).print(true)).expect("JSON");
    let (one, other) = (printed(), printed());
    assert_eq!(one["digest"], other["digest"]);
    one["outcomes"].as_u64().expect("a number")
}

/// Runs a benchmark as its command line says: `[--small] [--json]`.
pub fn main(run: fn(Size) -> Report) {
    let (mut size, mut as_json) = (Size::Full, false);
    for arg in std::env::args().skip(1) {
        match arg.as_str() {
            "--small" => size = Size::Small,
            "--json" => as_json = true,
            other => {
                eprintln!("{other:?} is not known; --small asserts and does not measure, --json prints one JSON object");
                std::process::exit(2);
            }
        }
    }
    print!("{}", run(size).print(as_json));
}
