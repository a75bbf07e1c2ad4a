//! How even is placement, what does a change of edges move, and what does a look-up cost?
//!
//! Five edges of three sizes hold 100,000 objects, of 0.5 to 3.5 GB each, whose popularity is that of real titles: `title-hours.csv.gz` in the
//! folder that LARDER_TRACES names (title, flag, date, hours viewed; of 18,214 titles in half a year), each title's hours shared by its
//! five or six objects. Where there is no such file, a Zipf's law of the same shape stands in, and the bench says so. The bound beside what a change moves is what
//! no scheme avoids: an edge that comes or goes has its share to bring or to leave.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    path::Path,
};

use flate2::read::GzDecoder;
use wire::placement::{Key, Line, Loads, Popularity, Roster, Weights};

use crate::{Report, Size};

/// Titles of the real file, and of what stands in for it.
const TITLES: u32 = 18_214;
/// The line is at this many times the mean popularity.
const LINE_TIMES_MEAN: u64 = 2;
/// What placement promises: the most that an edge bears beside the weighted mean, and the most that a change of one of N edges moves
/// beyond 1/N of all bytes.
const IMBALANCE_MAX: f64 = 1.15;
const MOVED_BEYOND_MAX: f64 = 0.05;

/// An edge: id, throughput (Mbit/s), storage (GB).
type Edge = (&'static str, Weights);

const fn edge(id: &'static str, throughput: u32, storage: u32) -> Edge {
    (id, Weights { throughput, storage })
}

/// Two fast ones with little storage, one in between, two slow ones with much.
const MIXED: [Edge; 5] = [
    edge("flash-1", 100_000, 80_000),
    edge("flash-2", 100_000, 80_000),
    edge("middle-1", 80_000, 100_000),
    edge("store-1", 60_000, 120_000),
    edge("store-2", 60_000, 120_000),
];
/// The same with four times as much of everything on the largest as on the smallest.
const STEEP: [Edge; 5] = [
    edge("large-1", 100_000, 160_000),
    edge("large-2", 100_000, 160_000),
    edge("middle-1", 50_000, 80_000),
    edge("small-1", 25_000, 40_000),
    edge("small-2", 25_000, 40_000),
];
/// Fast and small against slow and large, as far apart as can be bought.
const CROSSED: [Edge; 5] = [
    edge("flash-1", 100_000, 30_000),
    edge("flash-2", 100_000, 30_000),
    edge("middle-1", 60_000, 60_000),
    edge("store-1", 40_000, 90_000),
    edge("store-2", 40_000, 90_000),
];

struct Object {
    key: Key,
    bytes: u64,
    popularity: Popularity,
    /// Expected bytes to viewers, in any unit.
    load: u64,
}

/// Most popular first: the order of the walk.
struct Catalogue {
    objects: Vec<Object>,
    load: u64,
    line: Line,
}

impl Catalogue {
    fn of(hours: &[f64], count: u64) -> Self {
        let titles = hours.len() as u64;
        let all: f64 = hours.iter().sum();
        let mut objects = Vec::new();
        for (title, hours) in (0..).zip(hours) {
            let pieces = count / titles + u64::from(title < count % titles);
            for piece in 0..pieces {
                let key = Key::of(format!("/titles/{title:064x}/v{piece}").as_bytes());
                let load = (hours / pieces as f64 / all * 1e15) as u64;
                let bytes = 500_000_000 + key.as_u64() % 3_000_000_000;
                objects.push(Object { key, bytes, popularity: Popularity::NONE, load });
            }
        }
        let load = objects.iter().map(|object| object.load).sum();
        objects.iter_mut().for_each(|object| object.popularity = Popularity::of(object.load, load));
        objects.sort_by_key(|object| (std::cmp::Reverse(object.load), object.key));
        let popularity = Popularity::of(LINE_TIMES_MEAN, count);
        let tail = objects.iter().filter(|object| object.popularity < popularity).map(|object| object.load).sum();
        Self { load, line: Line { popularity, tail: Popularity::of(tail, load) }, objects }
    }

    fn roster(&self, edges: &[Edge]) -> Roster {
        Roster::new(self.line, edges.iter().copied()).expect("a few edges with ids of their own")
    }

    fn place(&self, edges: &[Edge]) -> Placed {
        let roster = self.roster(edges);
        let mut loads = Loads::expecting(&roster, self.load);
        let holders = self.objects.iter().map(|object| loads.place(object.key, object.popularity, object.load)).collect();
        Placed { edges: edges.to_vec(), holders, loads: loads.loads().to_vec() }
    }
}

/// Who holds what.
struct Placed {
    edges: Vec<Edge>,
    /// Of each object of the catalogue.
    holders: Vec<Vec<usize>>,
    loads: Vec<u64>,
}

impl Placed {
    /// The load of the edge that bears most for its throughput, beside the mean.
    fn imbalance(&self) -> f64 {
        let throughput: f64 = self.edges.iter().map(|(_, weights)| f64::from(weights.throughput)).sum();
        let load: f64 = self.loads.iter().map(|load| *load as f64).sum();
        let beside_mean =
            |(load_of, (_, weights)): (&u64, &Edge)| *load_of as f64 / load * throughput / f64::from(weights.throughput);
        self.loads.iter().zip(&self.edges).map(beside_mean).fold(0.0, f64::max)
    }

    /// The same for bytes held and storage.
    fn unevenness(&self, catalogue: &Catalogue) -> f64 {
        let mut held = vec![0.0; self.edges.len()];
        for (object, holders) in catalogue.objects.iter().zip(&self.holders) {
            holders.iter().for_each(|edge| held[*edge] += object.bytes as f64);
        }
        let storage: f64 = self.edges.iter().map(|(_, weights)| f64::from(weights.storage)).sum();
        let all: f64 = held.iter().sum();
        let beside_mean = |(held, (_, weights)): (&f64, &Edge)| held / all * storage / f64::from(weights.storage);
        held.iter().zip(&self.edges).map(beside_mean).fold(0.0, f64::max)
    }

    fn bytes(&self, catalogue: &Catalogue) -> f64 {
        catalogue.objects.iter().zip(&self.holders).map(|(object, holders)| object.bytes as f64 * holders.len() as f64).sum()
    }

    fn copies(&self) -> f64 {
        self.holders.iter().map(Vec::len).sum::<usize>() as f64 / self.holders.len() as f64
    }

    /// The bytes that an edge has to fetch in `after` because it did not hold them here, beside all bytes held here.
    fn moved(&self, after: &Self, catalogue: &Catalogue) -> f64 {
        let held = |placed: &Self, of: usize, id: &str| placed.holders[of].iter().any(|edge| placed.edges[*edge].0 == id);
        let new = catalogue.objects.iter().enumerate().map(|(of, object)| {
            let fetched = after.holders[of].iter().filter(|edge| !held(self, of, after.edges[**edge].0));
            object.bytes as f64 * fetched.count() as f64
        });
        new.sum::<f64>() / self.bytes(catalogue)
    }
}

/// Runs the benchmark.
///
/// # Panics
/// If placement is less even than it promises, or moves more.
pub fn run(size: Size) -> Report {
    let mut report = Report::new("How even is placement, what does a change move, what does a look-up cost?", size);
    let hours = real_hours().unwrap_or_else(stand_in);
    let catalogue = Catalogue::of(&hours, size.of(10_000, 100_000));
    report.figure("of the demand in the tail", percent(f64::from(catalogue.line.tail.as_billionths()) / 1e9), "%");
    for (name, edges) in [("mixed", MIXED), ("steep", STEEP), ("crossed", CROSSED)] {
        evenness(&mut report, name, &edges, &catalogue);
    }
    cost(&mut report);
    report
}

fn evenness(report: &mut Report, name: &str, edges: &[Edge; 5], catalogue: &Catalogue) {
    let placed = catalogue.place(edges);
    let (imbalance, copies) = (placed.imbalance(), placed.copies());
    report.figure(format!("{name}: most loaded edge beside the weighted mean (100 is even)"), percent(imbalance), "%");
    report.expect(&format!("{name}: max/mean weighted load is at most 1.15"), imbalance <= IMBALANCE_MAX, true);
    report.figure(format!("{name}: fullest edge beside the mean of storage"), percent(placed.unevenness(catalogue)), "%");
    report.figure(format!("{name}: copies of a hundred objects"), percent(copies), "");
    let hottest = placed.holders.first().map_or(0, Vec::len);
    report.expect(&format!("{name}: the most popular object is on every edge"), hottest, edges.len());
    let coldest = placed.holders.last().map_or(0, Vec::len);
    report.expect(&format!("{name}: the least popular one is on one"), coldest, 1);

    let storage: u32 = edges.iter().map(|(_, weights)| weights.storage).sum();
    for at in [0, 2, 4] {
        let (id, weights) = edges[at];
        let without: Vec<_> = edges.iter().copied().filter(|(other, _)| *other != id).collect();
        let share = f64::from(weights.storage) / f64::from(storage);
        let moved = placed.moved(&catalogue.place(&without), catalogue);
        change(report, &format!("{name}: without {id}"), moved, share, 1.0 / edges.len() as f64);

        let more: Vec<_> = edges.iter().copied().chain([("another", weights)]).collect();
        let share = f64::from(weights.storage) / f64::from(storage + weights.storage);
        let moved = placed.moved(&catalogue.place(&more), catalogue);
        change(report, &format!("{name}: with another like {id}"), moved, share, 1.0 / more.len() as f64);
    }
}

/// An edge that is larger than others has more than 1/N, and no scheme leaves that where it is.
fn change(report: &mut Report, what: &str, moved: f64, share: f64, fair: f64) {
    report.figure(format!("{what} moves, of {:.0} % that are its share", percent(share)), percent(moved), "%");
    let limit = fair.max(share) + MOVED_BEYOND_MAX;
    report.expect(&format!("{what} moves at most 1/N (or its share, if larger) and 5 %"), moved <= limit, true);
    if share <= fair + MOVED_BEYOND_MAX {
        report.expect(&format!("{what} moves at most 1/N and 5 %"), moved <= fair + MOVED_BEYOND_MAX, true);
    }
}

fn cost(report: &mut Report) {
    let path = format!("/titles/{:064x}/v720/00042.m4s", 17);
    report.measure("the key of a path of 87 bytes", || Key::of(path.as_bytes()));
    let line = Line { popularity: Popularity::billionths(20_000), tail: Popularity::of(3, 10) };
    for count in [5, 20, 100, 1000] {
        let ids: Vec<String> = (0..count).map(|n| format!("edge-{n}")).collect();
        let weights = |n: u32| Weights { throughput: 10 + n % 3, storage: 30 - n % 3 };
        let roster = Roster::new(line, ids.iter().zip(0..).map(|(id, n)| (id.as_str(), weights(n)))).expect("ids of their own");
        let mut key = Key::of(path.as_bytes());
        // Each look-up is of another object, and waits for the one before it.
        let mut next = |edge: usize| {
            key = Key::of(&(key.as_u64() ^ edge as u64).to_le_bytes());
            key
        };
        let mut last = 0;
        report.measure(format!("the owner among {count} edges"), || {
            last = roster.owner(next(last), Popularity::NONE).expect("there are edges");
            last
        });
        report.measure(format!("the whole order of {count} edges"), || {
            last = roster.candidates(next(last), Popularity::NONE)[0];
            last
        });
    }
}

fn percent(ratio: f64) -> f64 {
    ratio * 100.0
}

/// Hours viewed by title, most popular first.
fn real_hours() -> Option<Vec<f64>> {
    let Some(folder) = std::env::var_os("LARDER_TRACES") else {
        eprintln!("LARDER_TRACES names no folder: a Zipf's law of the same shape stands in for real titles");
        return None;
    };
    let path = Path::new(&folder).join("title-hours.csv.gz");
    match hours_in(&path) {
        Ok(hours) => Some(hours),
        Err(error) => {
            eprintln!("{}: {error}: a Zipf's law of the same shape stands in for real titles", path.display());
            None
        }
    }
}

fn hours_in(path: &Path) -> std::io::Result<Vec<f64>> {
    let mut hours = Vec::new();
    for line in BufReader::new(GzDecoder::new(File::open(path)?)).lines().skip(1) {
        // The title may have commas and quotes; the hours are last.
        let line = line?;
        let last = line.rsplit(',').next().and_then(|hours| hours.trim().parse().ok());
        hours.push(last.ok_or_else(|| std::io::Error::other(format!("no hours in {line:?}")))?);
    }
    hours.sort_by(|a, b| f64::total_cmp(b, a));
    Ok(hours)
}

/// Zipf's law with the end cut off, as it was fitted to the real file: the first 1, 10, 20, 30 and 50 % of titles have 26.8, 70.7, 85.5, 92.2 and
/// 97.6 % of the hours, there 26.7, 71.1, 85.6, 92.3 and 97.6.
fn stand_in() -> Vec<f64> {
    (1..=TITLES).map(f64::from).map(|rank| (rank + 5.0).powf(-0.6) * (-rank / 4000.0).exp()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_small_run_is_as_even_as_promised() {
        let printed = run(Size::Small).print(true);
        let json: serde_json::Value = serde_json::from_str(&printed).expect("JSON");
        assert!(json["outcomes"].as_u64().is_some_and(|outcomes| outcomes > 27), "{printed}");
    }

    #[test]
    fn what_stands_in_has_the_shape_of_real_titles() {
        let hours = stand_in();
        let all: f64 = hours.iter().sum();
        for (part, share) in [(0.1, 0.71), (0.2, 0.86), (0.3, 0.92), (0.5, 0.98)] {
            let first: f64 = hours[..(hours.len() as f64 * part) as usize].iter().sum();
            assert!((first / all - share).abs() < 0.01, "{part}: {}", first / all);
        }
    }
}
