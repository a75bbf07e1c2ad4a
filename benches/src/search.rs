//! Does search find what was meant, and how fast? Beside SQLite's FTS5, by words and by trigrams, on the same titles.
//!
//! Parameters: the 18,214 titles of `title-hours.csv.gz` (or without `LARDER_TRACES` the selection that the tests of `search` use),
//! popularity by hours, queries by [`typist`] with one mistake each; for the load, one typo each, 500 a second on two threads,
//! each timed from when it was due. A result counts when the meant title is among the first three.

pub mod fts5;
pub mod titles;
pub mod typist;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs, io,
    path::Path,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use search::{Change, Document, Filters, Index, Opened, Query, Sort};

use crate::{Report, Size, process_cpu_time};
use fts5::{Fts5, Tokenizer};
use titles::Watched;
use typist::{Mistake, Typed, Typist};

/// Draws the committed list.
const LIST_SEED: u64 = 2026;
/// Queries of the committed list.
const LIST_COUNT: usize = 200;
/// Draws the queries of the load, and the many that tell how good the list is as a sample.
const OTHER_SEED: u64 = 42;
/// Queries a second, and threads that answer them.
const RATE: u64 = 500;
const THREADS: usize = 2;
/// Rounds in which the contenders take turns.
const TURNS: usize = 3;
/// Results that are asked for when quality counts, and when time does.
const FIRST: usize = 3;
const PAGE: usize = 20;
/// The most watched titles, in the selection beside those that queries mean.
const MOST_WATCHED: usize = 400;
/// Titles that could be taken for a meant one: those that the query finds first.
const TAKEN_FOR: usize = 12;

/// Runs the benchmark.
///
/// # Panics
/// If what is measured does not work at all.
pub fn run(size: Size) -> Report {
    let mut report = Report::new("Does search find what was meant, and how fast?", size);
    let all = titles::traces().filter(|_| size == Size::Full).map(|traces| titles::all(&traces).expect("the list of titles"));
    if all.is_none() && size == Size::Full {
        eprintln!("LARDER_TRACES names no directory with title-hours.csv.gz: only the selection of titles is looked at");
    }
    let titles = all.unwrap_or_else(|| titles::selection().expect("the selection of titles"));
    let library = Library::new(titles, &mut report);

    let mut lists =
        vec![("list by seed", list("derived.tsv", &library.titles)), ("list by hand", list("by_hand.tsv", &library.titles))];
    if size == Size::Full {
        let mut typist = Typist::new(&library.titles, OTHER_SEED);
        let queries = (0..1000).map(|n| typist.next_of(&[Mistake::ALL[n % Mistake::ALL.len()]])).collect();
        lists.push(("1000 of another seed", queries));
    }
    for (name, queries) in &lists {
        quality(&mut report, &library, name, queries);
    }
    let mut typist = Typist::new(&library.titles, OTHER_SEED);
    let typos: Vec<String> = (0..size.of(20, 1000)).map(|_| typist.next_of(&Mistake::TYPOS).text).collect();
    speed(&mut report, &library, &typos);
    following(&mut report, &library);
    report
}

/// The titles, and everyone who can be asked for them.
struct Library {
    titles: Vec<Watched>,
    index: Index,
    words: Fts5,
    trigrams: Fts5,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Contender {
    Larder,
    Fts5Words,
    Fts5Trigrams,
}

impl Contender {
    const ALL: [Self; 3] = [Self::Larder, Self::Fts5Words, Self::Fts5Trigrams];

    const fn name(self) -> &'static str {
        match self {
            Self::Larder => "larder",
            Self::Fts5Words => "FTS5, words as prefixes",
            Self::Fts5Trigrams => "FTS5, trigrams",
        }
    }
}

impl Library {
    fn new(titles: Vec<Watched>, report: &mut Report) -> Self {
        let ids: Vec<String> = (0..titles.len()).map(|n| format!("t{n}")).collect();
        let index = Index::in_memory().expect("an index");
        let (begun, begun_cpu) = (Instant::now(), process_cpu_time());
        index.apply(changes(&titles)).expect("an index of titles");
        index.compact().expect("one segment");
        if report.size() == Size::Full {
            report.figure("titles", titles.len() as f64, "");
            report.figure("indexing all of them, wall time", begun.elapsed().as_secs_f64() * 1e3, "ms");
            report.figure("indexing all of them, CPU time", (process_cpu_time() - begun_cpu).as_secs_f64() * 1e3, "ms");
            report.figure("the index, for each title", index.bytes() as f64 / titles.len() as f64, "B");
        }
        index.set_popularity(ids.iter().zip(&titles).map(|(id, title)| (id.as_str(), title.hours as f32)));
        let words = Fts5::new(&titles, Tokenizer::Words).expect("FTS5 by words");
        let trigrams = Fts5::new(&titles, Tokenizer::Trigrams).expect("FTS5 by trigrams");
        Self { titles, index, words, trigrams }
    }

    /// The numbers of the first `limit` titles that `contender` finds.
    fn ask(&self, contender: Contender, text: &str, limit: usize) -> Vec<usize> {
        match contender {
            Contender::Larder => {
                let until = Instant::now() + Duration::from_secs(60);
                let query = Query {
                    text: text.to_owned(),
                    filters: Filters::default(),
                    sort: Sort::Relevance,
                    after: None,
                    limit,
                    facets: false,
                    until,
                };
                let answer = self.index.search(&query).expect("an answer");
                answer.ids.iter().map(|id| id[1..].parse().expect("an id of ours")).collect()
            }
            Contender::Fts5Words => self.words.ask(text, limit).expect("an answer"),
            Contender::Fts5Trigrams => self.trigrams.ask(text, limit).expect("an answer"),
        }
    }
}

/// A committed list: what is typed, and which title it means.
fn list(name: &str, titles: &[Watched]) -> Vec<Typed> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../search/tests/quality").join(name);
    let numbers: BTreeMap<&str, usize> = titles.iter().enumerate().map(|(n, title)| (title.title.as_str(), n)).collect();
    let row = |line: &str| {
        let mut fields = line.split('\t');
        let (text, meant) = (fields.next()?, fields.next()?);
        Some(Typed { text: text.to_owned(), meant: *numbers.get(meant)?, mistake: Mistake::Drop })
    };
    let text = fs::read_to_string(path).expect("a committed list");
    text.lines().map(|line| row(line).expect("a query and a title of the list")).collect()
}

fn quality(report: &mut Report, library: &Library, name: &str, queries: &[Typed]) {
    for contender in Contender::ALL {
        let is_found = |typed: &&Typed| library.ask(contender, &typed.text, FIRST).contains(&typed.meant);
        let found = queries.iter().filter(is_found).count();
        let share = 100.0 * found as f64 / queries.len() as f64;
        report.figure(format!("{name}: found by {}", contender.name()), share, "%");
        if contender == Contender::Larder {
            report.expect(&format!("{name}: 95 of 100 are found"), share >= 95.0, true);
        }
    }
}

fn speed(report: &mut Report, library: &Library, queries: &[String]) {
    for contender in Contender::ALL {
        let is_found = |n: &usize| library.ask(contender, &library.titles[*n].title, PAGE).contains(n);
        report.expect(
            &format!("{}: titles are found as they are written", contender.name()),
            (0..20).any(|n| is_found(&n)),
            true,
        );
    }
    if report.size() == Size::Small {
        return;
    }
    let mut figures: BTreeMap<(usize, &str), Vec<f64>> = BTreeMap::new();
    for _ in 0..TURNS {
        for (n, contender) in Contender::ALL.into_iter().enumerate() {
            let mut took = |what: &'static str, value: f64| figures.entry((n, what)).or_default().push(value);
            let mut latencies = at_rate(library, contender, queries);
            latencies.sort();
            for (what, share) in [("p50 at 500/s", 50), ("p99 at 500/s", 99)] {
                took(what, latencies[latencies.len() * share / 100].as_secs_f64() * 1e6);
            }
            let (each_cpu, rate) = flat_out(library, contender, queries);
            took("CPU for each, flat out", each_cpu.as_secs_f64() * 1e6);
            took("a second on two threads, flat out", rate);
        }
    }
    for ((n, what), mut values) in figures {
        values.sort_by(f64::total_cmp);
        let unit = if what.starts_with("a second") { "" } else { "µs" };
        report.figure(format!("{}: {what}", Contender::ALL[n].name()), values[values.len() / 2], unit);
    }
}

fn changes(titles: &[Watched]) -> impl Iterator<Item = Change> {
    titles.iter().enumerate().map(|(n, title)| {
        let (id, title) = (format!("t{n}"), title.title.clone());
        Change::Put(Box::new(Document { id, stamp: 1, title, created_at_ms: n as u64, ..Document::default() }))
    })
}

/// How soon a title that is published is found, and how soon an index is there after a restart.
fn following(report: &mut Report, library: &Library) {
    let dir = tempfile::tempdir().expect("a directory");
    let (index, _) = Index::open(dir.path()).expect("an index");
    index.apply(changes(&library.titles)).expect("an index of titles");
    index.compact().expect("one segment");
    let mut took: Vec<Duration> = (0..report.size().of(2, 100))
        .map(|n| {
            let begun = Instant::now();
            let title = Document { id: format!("new{n}"), stamp: 1, title: format!("Brand New {n}"), ..Document::default() };
            index.apply([Change::Put(Box::new(title))]).expect("applied");
            begun.elapsed()
        })
        .collect();
    took.sort();
    let all = index.titles();
    drop(index);
    let begun = Instant::now();
    let (index, opened) = Index::open(dir.path()).expect("an index");
    let opening = begun.elapsed();
    report.expect("what was applied is there after a restart", (index.titles() == all, opened == Opened::Kept), (true, true));
    if report.size() == Size::Full {
        report.figure("one title more is applied and seen, p50", took[took.len() / 2].as_secs_f64() * 1e3, "ms");
        report.figure("one title more is applied and seen, longest", took[took.len() - 1].as_secs_f64() * 1e3, "ms");
        report.figure("the index is opened and its checksums are verified", opening.as_secs_f64() * 1e3, "ms");
    }
}

/// Asks at [`RATE`], each from when it was due until it was answered.
fn at_rate(library: &Library, contender: Contender, queries: &[String]) -> Vec<Duration> {
    let (next, begun) = (AtomicUsize::new(0), Instant::now());
    let ask = || {
        let mut latencies = Vec::new();
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            let Some(query) = queries.get(n) else {
                return latencies;
            };
            let due = begun + Duration::from_micros(1_000_000 * n as u64 / RATE);
            while let Some(early) = due.checked_duration_since(Instant::now()).filter(|early| !early.is_zero()) {
                thread::park_timeout(early);
            }
            library.ask(contender, query, PAGE);
            latencies.push(due.elapsed());
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    })
}

/// CPU time of each query, and how many are answered in a second.
fn flat_out(library: &Library, contender: Contender, queries: &[String]) -> (Duration, f64) {
    const TIME: Duration = Duration::from_secs(3);
    let (asked, begun, begun_cpu) = (AtomicU64::new(0), Instant::now(), process_cpu_time());
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while begun.elapsed() < TIME {
                    let n = asked.fetch_add(1, Ordering::Relaxed);
                    library.ask(contender, &queries[n as usize % queries.len()], PAGE);
                }
            });
        }
    });
    let asked = asked.into_inner();
    ((process_cpu_time() - begun_cpu) / u32::try_from(asked).unwrap_or(u32::MAX), asked as f64 / begun.elapsed().as_secs_f64())
}

/// Draws the list anew and selects its titles, into `dir`: what was committed, as long as neither traces nor the typist change.
pub fn write_lists(dir: &Path) -> io::Result<()> {
    let traces =
        titles::traces().ok_or_else(|| io::Error::other("LARDER_TRACES must name the directory of title-hours.csv.gz"))?;
    let all = titles::all(&traces)?;
    let mut typist = Typist::new(&all, LIST_SEED);
    let derived: Vec<Typed> = (0..LIST_COUNT).map(|n| typist.next_of(&[Mistake::ALL[n % Mistake::ALL.len()]])).collect();
    let mut text = String::new();
    for typed in &derived {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}\t{}\t{}", typed.text, all[typed.meant].title, typed.mistake.name());
    }
    fs::write(dir.join("derived.tsv"), text)?;

    let mut kept = vec![false; all.len()];
    let mut by_hours: Vec<usize> = (0..all.len()).collect();
    by_hours.sort_by_key(|n| (std::cmp::Reverse(all[*n].hours), *n));
    by_hours.truncate(MOST_WATCHED);
    by_hours.into_iter().for_each(|n| kept[n] = true);
    let library = Library::new(all, &mut Report::new("", Size::Small));
    for typed in derived.iter().chain(&list("by_hand.tsv", &library.titles)) {
        kept[typed.meant] = true;
        library.ask(Contender::Larder, &typed.text, TAKEN_FOR).into_iter().for_each(|n| kept[n] = true);
        library.ask(Contender::Fts5Trigrams, &typed.text, FIRST).into_iter().for_each(|n| kept[n] = true);
    }
    let selected = library.titles.iter().zip(kept).filter(|(_, kept)| *kept);
    let text: String = selected.map(|(title, _)| format!("{}\t{}\n", title.title, title.hours)).collect();
    fs::write(dir.join("titles.tsv"), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_small_run_has_every_outcome_as_expected_twice() {
        assert_eq!(crate::small_twice(run), 6);
    }
}
