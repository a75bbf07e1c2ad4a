//! `larder replay`: what a cache of some size would have done with a trace of requests, by the policies that an edge runs.

mod trace;

use std::{path::Path, time::Duration};

use cache::{
    Policy,
    replay::{Farthest, Outcome, Replay, Seen, Tiers},
};
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use serde::Serialize;
use wire::config::Bytes;

use super::print_json;
use crate::cli::{Misuse, ReplayArgs};
use trace::{Request, Trace};

/// Requests between two looks at the progress.
const TICK_REQUESTS: u64 = 1024;
/// What stands beside our own: foyer's policies, each in one tier of the whole size.
const OTHERS: [Policy; 5] = [Policy::Lru, Policy::Fifo, Policy::S3Fifo, Policy::Sieve, Policy::Lfu];

pub(super) fn run(args: &ReplayArgs) -> anyhow::Result<()> {
    check(args)?;
    if args.compare { compare(args) } else { replay(args) }
}

fn check(args: &ReplayArgs) -> Result<(), Misuse> {
    let slice = args.slice.0;
    if !slice.is_power_of_two() || !(256 << 10..=4 << 20).contains(&slice) {
        return Err(Misuse("--slice is a power of two from 256KiB to 4MiB".into()));
    }
    if args.segment.0 < 4 * slice || args.segment.0 > 1 << 30 {
        return Err(Misuse(format!("--segment is from four slices ({}) to 1GiB", Bytes(4 * slice))));
    }
    let sizes = args.sizes.iter().copied().chain((!args.compare).then_some(args.ssd));
    let min = tiers(args, 0, 0).ssd_bytes_min();
    match sizes.filter(|size| size.0 > 0).find(|size| size.0 < min) {
        Some(size) => Err(Misuse(format!("an SSD of {size} is less than eight segments ({})", Bytes(min)))),
        None => Ok(()),
    }
}

fn tiers(args: &ReplayArgs, ram_bytes: u64, ssd_bytes: u64) -> Tiers {
    Tiers { ram_bytes, ram_policy: args.policy, ssd_bytes, segment_bytes: args.segment.0, slice_bytes: args.slice.0 }
}

/// Has `each` look at every request, and at last tells which bytes were new.
fn read(args: &ReplayArgs, mut each: impl FnMut(Request) -> anyhow::Result<()>) -> anyhow::Result<Seen> {
    let mut seen = Seen::default();
    let trace = Trace::open(&args.trace)?;
    let progress = trace.progress();
    let bar = bar(progress.bytes)?;
    let requests = trace.take(args.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX)));
    for (at, request) in (0_u64..).zip(requests) {
        let request = request?;
        seen.request(request.object, request.bytes);
        each(request)?;
        if at % TICK_REQUESTS == 0 {
            bar.set_position(progress.read());
            bar.set_message(HumanCount(at).to_string());
        }
    }
    bar.finish_and_clear();
    if seen.objects() == 0 {
        return Err(anyhow::anyhow!("{} holds no requests", args.trace.display()));
    }
    Ok(seen)
}

/// On standard error, where that is a terminal.
fn bar(bytes: u64) -> anyhow::Result<ProgressBar> {
    let style = ProgressStyle::with_template("{msg:>14} requests {bar:40} {percent:>3} %  {elapsed}, {eta} left")?;
    let bar = ProgressBar::new(bytes).with_style(style);
    bar.enable_steady_tick(Duration::from_millis(200));
    Ok(bar)
}

/// The trace itself.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct About<'a> {
    trace: &'a Path,
    requests: u64,
    objects: u64,
    bytes: u64,
    first_requests: u64,
    first_bytes: u64,
}

impl<'a> About<'a> {
    fn new(trace: &'a Path, seen: &Seen, outcome: &Outcome) -> Self {
        let Outcome { requests, bytes, .. } = *outcome;
        let Seen { first_requests, first_bytes, .. } = *seen;
        Self { trace, requests, objects: seen.objects(), bytes, first_requests, first_bytes }
    }

    fn print(&self) -> anyhow::Result<()> {
        let Self { requests, objects, bytes, first_requests, first_bytes, .. } = *self;
        say!("{} requests for {} objects, {}", HumanCount(requests), HumanCount(objects), gigabytes(bytes));
        say!("first requests: {} of all, {} of the bytes", percent(first_requests, requests), percent(first_bytes, bytes));
        say!("so a cache that waits to be asked serves at most {} of the bytes", percent(bytes - first_bytes, bytes));
        say!("");
        Ok(())
    }
}

fn replay(args: &ReplayArgs) -> anyhow::Result<()> {
    let mut cache = Replay::new(tiers(args, args.ram.0, args.ssd.0));
    let seen = read(args, |request| {
        cache.request(request.object, request.bytes);
        Ok(())
    })?;
    let outcome = cache.outcome();
    let about = About::new(&args.trace, &seen, &outcome);
    if args.json { print_json(&Replayed::new(&about, &cache)) } else { print(&about, &cache) }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Replayed<'a> {
    #[serde(flatten)]
    about: &'a About<'a>,
    ram: u64,
    ram_policy: String,
    ssd: u64,
    slice: u64,
    segment: u64,
    byte_hit_ratio: f64,
    byte_hit_ratio_ram: f64,
    byte_hit_ratio_ssd: f64,
    object_hit_ratio: f64,
    object_hit_ratio_ram: f64,
    bytes_origin: u64,
    bytes_ssd_written: u64,
    bytes_ssd_rewritten: u64,
    bytes_ssd_refused: u64,
    write_amplification: Option<f64>,
    ssd_new_share: Option<f64>,
}

impl<'a> Replayed<'a> {
    fn new(about: &'a About<'a>, cache: &Replay) -> Self {
        let (tiers, outcome) = (cache.tiers(), cache.outcome());
        let has_ssd = u64::from(tiers.ssd_bytes > 0);
        Self {
            about,
            ram: tiers.ram_bytes,
            ram_policy: tiers.ram_policy.to_string(),
            ssd: tiers.ssd_bytes,
            slice: tiers.slice_bytes,
            segment: tiers.segment_bytes,
            byte_hit_ratio: share(outcome.bytes - outcome.bytes_origin(), outcome.bytes),
            byte_hit_ratio_ram: share(outcome.bytes_ram, outcome.bytes),
            byte_hit_ratio_ssd: share(outcome.bytes_ssd, outcome.bytes),
            object_hit_ratio: share(outcome.objects_hit, outcome.requests),
            object_hit_ratio_ram: share(outcome.objects_ram, outcome.requests),
            bytes_origin: outcome.bytes_origin(),
            bytes_ssd_written: outcome.bytes_admitted + outcome.bytes_rewritten,
            bytes_ssd_rewritten: outcome.bytes_rewritten,
            bytes_ssd_refused: (outcome.bytes_offered - outcome.bytes_admitted) * has_ssd,
            write_amplification: outcome.write_amplification(),
            ssd_new_share: cache.ssd_new_share(),
        }
    }
}

fn print(about: &About<'_>, cache: &Replay) -> anyhow::Result<()> {
    about.print()?;
    let (tiers, outcome) = (cache.tiers(), cache.outcome());
    let Outcome { requests, bytes, bytes_ram, bytes_ssd, objects_ram, objects_hit, .. } = outcome;
    let line = |name: String, hit, objects| (name, percent(hit, bytes), percent(objects, requests));
    let ram = line(format!("RAM {} {}", Bytes(tiers.ram_bytes), tiers.ram_policy), bytes_ram, objects_ram);
    let ssd = line(format!("SSD {}", Bytes(tiers.ssd_bytes)), bytes_ssd, objects_hit - objects_ram);
    let both = line("together".into(), bytes_ram + bytes_ssd, objects_hit);
    say!("{:24} {:>10} {:>10}", "hit ratio", "bytes", "objects");
    for (name, of_bytes, of_objects) in [ram, ssd, both] {
        say!("{name:24} {of_bytes:>10} {of_objects:>10}");
    }
    say!("");
    say!("{:24} {:>10}", "from the origin", gigabytes(outcome.bytes_origin()));
    if let Some(amplification) = outcome.write_amplification() {
        say!("{:24} {:>10}", "written to SSD", gigabytes(outcome.bytes_admitted + outcome.bytes_rewritten));
        say!("{:24} {amplification:>10.2}", "write amplification");
    }
    Ok(())
}

fn compare(args: &ReplayArgs) -> anyhow::Result<()> {
    let sizes = if args.sizes.is_empty() { vec![if args.ssd.0 > 0 { args.ssd } else { args.ram }] } else { args.sizes.clone() };
    let mut contests: Vec<Contest> = sizes.iter().map(|size| Contest::new(args, size.0)).collect();
    let mut farthest = Farthest::new(args.slice.0);
    let seen = read(args, |request| {
        farthest.learn(request.object, request.bytes)?;
        contests
            .iter_mut()
            .flat_map(|contest| &mut contest.caches)
            .for_each(|(_, cache)| cache.request(request.object, request.bytes));
        Ok(())
    })?;
    let results: Vec<Ranking> = contests.iter().map(|contest| contest.ranking(&farthest)).collect();
    let outcome = contests.first().and_then(|contest| contest.caches.first()).expect("there is one size").1.outcome();
    let about = About::new(&args.trace, &seen, &outcome);
    if args.json {
        return print_json(&Compared { about: &about, slice: args.slice.0, segment: args.segment.0, sizes: results });
    }
    about.print()?;
    for (title, of) in [("bytes", Standing::bytes as fn(&Standing) -> f64), ("objects", Standing::objects)] {
        print_table(title, &results, of)?;
    }
    print_amplification(&results)
}

/// Caches of one size, side by side.
struct Contest {
    bytes: u64,
    caches: Vec<(String, Replay)>,
}

impl Contest {
    fn new(args: &ReplayArgs, bytes: u64) -> Self {
        let others = OTHERS.map(|policy| (policy.to_string(), Replay::of_foyer(policy, bytes, args.slice.0)));
        let ours = [("ram", tiers(args, bytes, 0)), ("ssd", tiers(args, 0, bytes))];
        let ours = ours.map(|(name, tiers)| (name.to_owned(), Replay::new(tiers)));
        Self { bytes, caches: others.into_iter().chain(ours).collect() }
    }

    fn ranking(&self, farthest: &Farthest) -> Ranking {
        let optimum = [("farthest".to_owned(), farthest.replay(self.bytes))];
        let outcomes = self.caches.iter().map(|(name, cache)| (name.clone(), cache.outcome())).chain(optimum);
        Ranking { size: self.bytes, policies: outcomes.map(|(name, outcome)| Standing::new(name, outcome)).collect() }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Compared<'a> {
    #[serde(flatten)]
    about: &'a About<'a>,
    slice: u64,
    segment: u64,
    sizes: Vec<Ranking>,
}

#[derive(Serialize)]
struct Ranking {
    size: u64,
    policies: Vec<Standing>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Standing {
    policy: String,
    byte_hit_ratio: f64,
    object_hit_ratio: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    write_amplification: Option<f64>,
}

impl Standing {
    fn new(policy: String, outcome: Outcome) -> Self {
        Self {
            policy,
            byte_hit_ratio: share(outcome.bytes - outcome.bytes_origin(), outcome.bytes),
            object_hit_ratio: share(outcome.objects_hit, outcome.requests),
            write_amplification: outcome.write_amplification(),
        }
    }

    fn bytes(&self) -> f64 {
        self.byte_hit_ratio
    }

    fn objects(&self) -> f64 {
        self.object_hit_ratio
    }
}

fn print_table(title: &str, results: &[Ranking], of: fn(&Standing) -> f64) -> anyhow::Result<()> {
    let names = results.iter().flat_map(|result| &result.policies).take(OTHERS.len() + 3);
    let heads: String = names.map(|standing| format!("{:>10}", standing.policy)).collect();
    say!("hit ratio of {title:12}{heads}");
    for Ranking { size, policies } in results {
        let cells: String = policies.iter().map(|standing| format!("{:>8.2} %", of(standing) * 100.0)).collect();
        say!("{:>24} {cells}", Bytes(*size).to_string());
    }
    say!("");
    Ok(())
}

fn print_amplification(results: &[Ranking]) -> anyhow::Result<()> {
    let of_size = |Ranking { size, policies }: &Ranking| {
        let amplification = policies.iter().find_map(|standing| standing.write_amplification)?;
        Some(format!("{} {amplification:.2}", Bytes(*size)))
    };
    let amplifications: Vec<String> = results.iter().filter_map(of_size).collect();
    say!("write amplification of ssd: {}", amplifications.join(", "));
    say!("ram and ssd are Larder's tiers as they run, each alone; farthest knows the future; the others are foyer's.");
    Ok(())
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn percent(part: u64, whole: u64) -> String {
    format!("{:.2} %", share(part, whole) * 100.0)
}

fn gigabytes(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}
