//! `larder steer`: why a viewer is sent where he is, and what recorded decisions would be in another fleet.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{BufRead, BufReader, Read as _},
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context as _, bail, ensure};
use control::steering::{
    record::{LINE_BYTES_MAX, Line},
    replay::{Change, EdgeOutcome, Outcome, Pair, Replay},
};
use indicatif::HumanCount;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::print_json;
use crate::{
    api::Api,
    cli::{SteerArgs, SteerCommand, SteerExplainArgs, SteerReplayArgs},
};

/// Edges that a replay shows, those with the highest load; the JSON has all.
const EDGES_SHOWN_MAX: usize = 40;
/// Lines that are not understood and told one by one.
const FAULTS_TOLD_MAX: usize = 5;

pub(super) async fn run(args: SteerArgs) -> anyhow::Result<()> {
    match args.command {
        SteerCommand::Explain(args) => explain(&args).await,
        SteerCommand::Replay(args) => tokio::task::spawn_blocking(move || replay(&args)).await?,
    }
}

/// `GET /steering/explain`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Explained {
    region: Option<String>,
    home: Option<String>,
    miss: Option<String>,
    candidates: Vec<Candidate>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Candidate {
    edge: String,
    site: String,
    place: Option<usize>,
    reason: String,
    prefix: Option<String>,
    distance_km: Option<u32>,
    content: Option<String>,
    load_permille: u16,
}

async fn explain(args: &SteerExplainArgs) -> anyhow::Result<()> {
    let SteerExplainArgs { operator, client, video, session, json } = args;
    let path = format!("/steering/explain?client={client}&video={video}&session={session}");
    let explained: Explained = Api::of(operator)?.get(&path).await?;
    if *json {
        return print_json(&explained);
    }
    for line in told(&explained, &client.to_string()) {
        say!("{line}");
    }
    Ok(())
}

/// An explanation as operators read it.
fn told(explained: &Explained, client: &str) -> Vec<String> {
    let Explained { region, home, miss, candidates } = explained;
    let home = home.as_deref().map_or_else(|| "no site".to_owned(), |home| format!("site {home}"));
    let region = region.as_deref().map_or_else(String::new, |region| format!(" ({region})"));
    let why = match miss.as_deref() {
        None => String::new(),
        Some("content") => ", which does not have the title".into(),
        Some("health") => ", which cannot take this viewer now".into(),
        Some("rules") => ", which is further away or dearer than the rules like".into(),
        Some(other) => format!(", which is missed for its {other}"),
    };
    let mut lines = vec![format!("{client}{region} is nearest to {home}{why}")];
    let names: Vec<_> = candidates.iter().map(|candidate| format!("{} at {}", candidate.edge, candidate.site)).collect();
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    for (candidate, name) in candidates.iter().zip(names) {
        let place = candidate.place.map_or_else(|| " -".to_owned(), |place| format!("{place:>2}"));
        let facts = [
            candidate.prefix.clone(),
            candidate.distance_km.map(|km| format!("{} km", HumanCount(km.into()))),
            candidate.content.as_ref().map(|content| format!("content {content}")),
            Some(format!("load {}", percent(f64::from(candidate.load_permille) / 1000.0))),
        ];
        let facts = facts.into_iter().flatten().collect::<Vec<_>>().join(", ");
        lines.push(format!("{place}  {name:width$}  {} ({facts})", candidate.reason));
    }
    if candidates.is_empty() {
        lines.push("no edge is registered".into());
    }
    lines
}

fn replay(args: &SteerReplayArgs) -> anyhow::Result<()> {
    let change = Change {
        without_sites: args.without_site.iter().cloned().collect::<BTreeSet<_>>(),
        without_edges: args.without_edge.iter().cloned().collect(),
        load_percent: args.load,
    };
    let mut replay = Replay::new(change, Instant::now());
    let mut faults = Vec::new();
    for file in files(&args.decisions)? {
        read(&file, &mut replay, &mut faults).with_context(|| format!("cannot read {}", file.display()))?;
    }
    for fault in faults.iter().take(FAULTS_TOLD_MAX) {
        eprintln!("left out: {fault}");
    }
    if faults.len() > FAULTS_TOLD_MAX {
        eprintln!("left out: {} more lines", faults.len() - FAULTS_TOLD_MAX);
    }
    let outcome = replay.outcome();
    if args.json {
        let mut value = serde_json::to_value(&outcome)?;
        value["linesLeftOut"] = json!(faults.len());
        return print_json(&value);
    }
    ensure!(outcome.decisions > 0, "there is no decision in {}", shown(&args.decisions));
    for line in lines(&outcome) {
        say!("{line}");
    }
    if !outcome.unheard_of.is_empty() {
        bail!("in these fleets there was no {}: nothing was taken away for it", outcome.unheard_of.join(", no "));
    }
    Ok(())
}

fn shown(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// The files that are meant; those of a folder by name, which is the order in which they were written.
fn files(paths: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let mut inside = Vec::new();
        for entry in path.read_dir().with_context(|| format!("cannot read {}", path.display()))? {
            inside.push(entry?.path());
        }
        inside.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
        inside.sort();
        ensure!(!inside.is_empty(), "{} has no files of decisions (*.jsonl)", path.display());
        files.append(&mut inside);
    }
    Ok(files)
}

/// Takes every line of a file; those that are not understood are told and left out. The last one may have been cut off by a crash.
fn read(file: &Path, replay: &mut Replay, faults: &mut Vec<String>) -> anyhow::Result<()> {
    let mut reader = BufReader::new(File::open(file)?);
    for number in 1_u64.. {
        let mut line = Vec::new();
        let bytes = reader.by_ref().take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut line)?;
        if bytes == 0 {
            break;
        }
        ensure!(bytes < LINE_BYTES_MAX, "line {number} is longer than any decision");
        let taken = match serde_json::from_slice::<Line>(&line) {
            Ok(line) => replay.line(&line).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(why) = taken {
            faults.push(format!("{} line {number}: {why}", file.display()));
        }
    }
    Ok(())
}

/// An outcome as operators read it.
fn lines(outcome: &Outcome) -> Vec<String> {
    let part = |count: u64| percent(count as f64 / outcome.decisions.max(1) as f64);
    let pair =
        |pair: Pair| format!("{} -> {} ({} -> {})", count(pair.before), count(pair.after), part(pair.before), part(pair.after));
    let mut lines = vec![
        format!("decisions    {}, taken in {} states of the fleet", count(outcome.decisions), count(outcome.fleets)),
        format!("reproduced   {}, when nothing is different", part(outcome.reproduced)),
        format!("moved        {} ({}) begin at another edge", count(outcome.moved), part(outcome.moved)),
        format!("unserved     {}", pair(outcome.unserved)),
        format!("not nearest  for content {}", pair(outcome.missed_for_content)),
        format!("             for health  {}", pair(outcome.missed_for_health)),
        format!("             for rules   {}", pair(outcome.missed_for_rules)),
    ];
    if let (Some(before), after) = (outcome.mean_km.before, outcome.mean_km.after) {
        let after = after.map_or_else(|| "unknown".to_owned(), |km| format!("{km:.0} km"));
        lines.push(format!("distance     {before:.0} km -> {after}, in the mean"));
    }
    for site in &outcome.sites {
        lines.push(format!("site {}: sessions {}", site.site, pair(site.sessions)));
    }
    let mut edges: Vec<&EdgeOutcome> = outcome.edges.iter().collect();
    edges.sort_by(|a, b| f64::total_cmp(&b.load.after.unwrap_or(-1.0), &a.load.after.unwrap_or(-1.0)));
    for edge in edges.iter().take(EDGES_SHOWN_MAX) {
        let after = match edge.load.after {
            Some(load) if load > 1.0 => format!("{} MORE THAN IT BEARS", percent(load)),
            Some(load) => percent(load),
            None => "gone".into(),
        };
        lines.push(format!(
            "edge {} at {}: sessions {} -> {}, load {} -> {after}",
            edge.edge,
            edge.site,
            count(edge.sessions.before),
            count(edge.sessions.after),
            percent(edge.load.before)
        ));
    }
    if edges.len() > EDGES_SHOWN_MAX {
        lines.push(format!("and {} edges with less load; --json has all", edges.len() - EDGES_SHOWN_MAX));
    }
    lines
}

fn count(count: u64) -> String {
    HumanCount(count).to_string()
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// Two sites of an edge each; two sessions near the first, and a line that a crash cut off.
    const RECORD: &str = concat!(
        r#"{"fleet":{"version":1,"atMs":1000,"silentAfterMs":10000,"shedFromPermille":800,"fullAtPermille":950,"reachKm":2500,"costMax":9,"#,
        r#""sites":[{"name":"berlin","place":[52.5,13.4],"cost":0,"open":true,"line":[4294967295,1000000000]},"#,
        r#"{"name":"paris","place":[48.9,2.4],"cost":0,"open":true,"line":[4294967295,1000000000]}],"#,
        r#""edges":[{"id":"b1","site":0,"state":"ready","ageMs":5,"loadPermille":600,"weights":[10,10]},"#,
        r#"{"id":"p1","site":1,"state":"ready","ageMs":5,"loadPermille":500,"weights":[10,10]}]}}"#,
        "\n",
        r#"{"decision":{"t":1001,"v":"00000000000000a1","s":"00000000000000b1","p":0,"g":[52.4,13.1],"h":[0],"r":[0,1]}}"#,
        "\n",
        r#"{"decision":{"t":1002,"v":"00000000000000a2","s":"00000000000000b2","p":0,"g":[52.4,13.1],"r":[0,1]}}"#,
        "\n",
        r#"{"decision":{"t":1003,"v":"#,
    );

    fn replayed(record: &[u8], without: &[&str]) -> (Outcome, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        File::create(folder.path().join("0000000001.jsonl")).unwrap().write_all(record).unwrap();
        let without_sites = without.iter().map(|site| (*site).to_owned()).collect();
        let mut replay = Replay::new(Change { without_sites, ..Change::default() }, Instant::now());
        let mut faults = Vec::new();
        for file in files(&[folder.path().to_owned()]).unwrap() {
            read(&file, &mut replay, &mut faults).unwrap();
        }
        (replay.outcome(), faults)
    }

    #[test]
    fn a_replay_is_told_in_lines_that_say_what_is_different() {
        let (outcome, faults) = replayed(RECORD.as_bytes(), &["berlin"]);
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].contains("0000000001.jsonl line 4: EOF while parsing"), "{faults:?}");
        assert_eq!(
            lines(&outcome),
            [
                "decisions    2, taken in 1 states of the fleet",
                "reproduced   100.0 %, when nothing is different",
                "moved        2 (100.0 %) begin at another edge",
                "unserved     0 -> 0 (0.0 % -> 0.0 %)",
                "not nearest  for content 0 -> 0 (0.0 % -> 0.0 %)",
                "             for health  0 -> 0 (0.0 % -> 0.0 %)",
                "             for rules   0 -> 0 (0.0 % -> 0.0 %)",
                "distance     23 km -> 848 km, in the mean",
                "site berlin: sessions 2 -> 0 (100.0 % -> 0.0 %)",
                "site paris: sessions 0 -> 2 (0.0 % -> 100.0 %)",
                "edge p1 at paris: sessions 0 -> 2, load 50.0 % -> 160.0 % MORE THAN IT BEARS",
                "edge b1 at berlin: sessions 2 -> 0, load 60.0 % -> gone",
            ]
        );
    }

    #[test]
    fn a_folder_without_decisions_is_no_record() {
        let folder = tempfile::tempdir().unwrap();
        let error = files(&[folder.path().to_owned()]).unwrap_err();
        assert!(error.to_string().ends_with("has no files of decisions (*.jsonl)"), "{error}");
        let missing = folder.path().join("missing");
        assert_eq!(files(std::slice::from_ref(&missing)).unwrap(), [missing]);
    }

    #[test]
    fn an_explanation_is_told_edge_by_edge() {
        let explained = json!({
            "region": "DE-BE", "home": "berlin", "miss": "content",
            "candidates": [
                { "edge": "p1", "site": "paris", "place": 1, "reason": "it holds the title", "prefix": null, "distanceKm": 1855,
                  "content": "holds", "loadPermille": 305 },
                { "edge": "berlin-1", "site": "berlin", "place": null, "reason": "it drains", "prefix": "203.0.113.0/24",
                  "distanceKm": null, "content": null, "loadPermille": 0 },
            ],
        });
        let explained: Explained = serde_json::from_value(explained).unwrap();
        assert_eq!(
            told(&explained, "203.0.113.7"),
            [
                "203.0.113.7 (DE-BE) is nearest to site berlin, which does not have the title",
                " 1  p1 at paris         it holds the title (1,855 km, content holds, load 30.5 %)",
                " -  berlin-1 at berlin  it drains (203.0.113.0/24, load 0.0 %)",
            ]
        );
        let nobody = Explained { region: None, home: None, miss: None, candidates: Vec::new() };
        assert_eq!(told(&nobody, "::1"), ["::1 is nearest to no site", "no edge is registered"]);
    }
}
