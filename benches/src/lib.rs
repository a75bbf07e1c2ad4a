//! Benchmarks. Each module answers one question; `src/bin/<question>.rs` runs it. `--small` does the same work once, in less than
//! a second, and asserts every outcome: that is what the tests run.
//!
//! Figures are nanoseconds of one thread unless they say otherwise: the best of several rounds, as everything that disturbs a
//! round only makes it longer.

use std::{
    fmt::{self, Write as _},
    hint::black_box,
    time::{Duration, Instant},
};

use wire::object::{Digest, Hasher};

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
    const fn rounds(self) -> u32 {
        match self {
            Self::Small => 1,
            Self::Full => 7,
        }
    }

    const fn round_time(self) -> Duration {
        match self {
            Self::Small => Duration::ZERO,
            Self::Full => Duration::from_millis(100),
        }
    }
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

    /// Measures `work` by repeating it.
    pub fn measure<T>(&mut self, name: impl Into<String>, mut work: impl FnMut() -> T) {
        let mut best_ns = f64::INFINITY;
        for _ in 0..self.size.rounds() {
            let (start, mut times, mut batch) = (Instant::now(), 0_u64, 1_u64);
            let elapsed = loop {
                for _ in 0..batch {
                    black_box(work());
                }
                times += batch;
                let elapsed = start.elapsed();
                if elapsed >= self.size.round_time() {
                    break elapsed;
                }
                batch = (batch * 2).min(1024);
            };
            best_ns = best_ns.min(elapsed.as_nanos() as f64 / times as f64);
        }
        self.figure(name, best_ns, "ns");
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
