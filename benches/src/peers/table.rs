//! What was found: as Markdown tables for people, as JSON for `benches/serve_hot.py`.

use std::{collections::BTreeMap, fmt::Write as _};

use serde_json::{Value, json};
use wire::object::Digest;

use super::{
    Round,
    case::{Case, ObjectSize},
    place::Place,
    process::{Failure, Program},
    server::{Peer, Server},
};

/// One server's rounds in one case.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) name: &'static str,
    cipher: String,
    size: ObjectSize,
    rounds: Vec<Round>,
    pub(super) memory_bytes: u64,
}

impl Row {
    pub(super) fn new(server: &Server, case: Case) -> Self {
        let known = server.ciphers.iter().find(|(via, cipher, _)| (*via, *cipher) == (case.via, case.cipher));
        let cipher = known.map_or_else(String::new, |(_, _, suite)| suite.clone());
        Self { name: server.name, cipher, size: case.size, rounds: Vec::new(), memory_bytes: 0 }
    }

    pub(super) fn push(&mut self, round: Round) {
        self.rounds.push(round);
    }

    /// One line for whoever waits.
    pub(super) fn summary(&self) -> String {
        format!("{} {} {}", self.name, Spread::of(self.cost()).text(self.unit().1), self.unit().0)
    }

    /// What a round cost: seconds for a gigabyte, or milliseconds for a thousand requests of little.
    fn cost(&self) -> Vec<f64> {
        let cost = |round: &Round| match self.size {
            ObjectSize::K4 => round.cpu.as_secs_f64() * 1e6 / round.requests as f64,
            _ => round.cpu.as_secs_f64() * 1e9 / round.bytes as f64,
        };
        self.rounds.iter().map(cost).collect()
    }

    /// The unit of [`Row::cost`], and its digits.
    const fn unit(&self) -> (&'static str, usize) {
        match self.size {
            ObjectSize::K4 => ("CPU ms per 1000", 1),
            _ => ("CPU s per GB", 3),
        }
    }

    fn per_request_us(&self) -> Vec<f64> {
        self.rounds.iter().map(|round| round.cpu.as_secs_f64() * 1e6 / round.requests as f64).collect()
    }

    fn softirq_share(&self) -> Vec<f64> {
        self.rounds.iter().map(|round| round.softirq.as_secs_f64() / round.cpu.as_secs_f64()).collect()
    }

    fn gbit_per_s(&self) -> Vec<f64> {
        self.rounds.iter().map(|round| round.bytes as f64 * 8e-9 / round.took.as_secs_f64()).collect()
    }

    /// Of all rounds together.
    fn ttfb_ms(&self, percent: usize) -> f64 {
        let mut all: Vec<f64> = self.rounds.iter().flat_map(|round| round.ttfb_ms.iter().copied()).collect();
        all.sort_by(f64::total_cmp);
        all.get((all.len() * percent / 100).min(all.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
    }

    fn absorb(&mut self, other: Self) {
        self.rounds.extend(other.rounds);
        self.memory_bytes = self.memory_bytes.max(other.memory_bytes);
    }
}

/// The least, the middle and the most of some figures.
#[derive(Debug, Clone, Copy)]
struct Spread {
    min: f64,
    median: f64,
    max: f64,
}

impl Spread {
    fn of(mut figures: Vec<f64>) -> Self {
        figures.sort_by(f64::total_cmp);
        let at = |index: usize| figures.get(index).copied().unwrap_or(f64::NAN);
        let (half, last) = (figures.len() / 2, figures.len().saturating_sub(1));
        // Of an even number of rounds the mean of the two in the middle.
        let median = if figures.len().is_multiple_of(2) { f64::midpoint(at(half.saturating_sub(1)), at(half)) } else { at(half) };
        Self { min: at(0), median, max: at(last) }
    }

    fn text(self, digits: usize) -> String {
        format!("{:.digits$} – {:.digits$} – {:.digits$}", self.min, self.median, self.max)
    }

    fn json(self) -> Value {
        json!({ "min": self.min, "median": self.median, "max": self.max })
    }
}

/// All cases, each with Larder and its peers.
#[derive(Debug)]
pub(super) struct Table {
    rounds: u32,
    cases: BTreeMap<Case, Compared>,
    versions: BTreeMap<&'static str, String>,
    left_out: Vec<(String, String)>,
}

#[derive(Debug, Default)]
struct Compared {
    larder: Option<Row>,
    /// Each with the ratios, Larder to it, of the rounds side by side.
    peers: Vec<(Row, Vec<f64>)>,
}

impl Table {
    pub(super) const fn new(rounds: u32) -> Self {
        Self { rounds, cases: BTreeMap::new(), versions: BTreeMap::new(), left_out: Vec::new() }
    }

    /// Adds what was measured in turns.
    pub(super) fn add(&mut self, case: Case, rows: Vec<Row>) {
        let compared = self.cases.entry(case).or_default();
        let (larder, peers): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.name == "larder");
        for peer in peers {
            let ours = larder.first().map(Row::cost).unwrap_or_default();
            let ratios = ours.iter().zip(peer.cost()).map(|(ours, theirs)| ours / theirs).collect();
            compared.peers.push((peer, ratios));
        }
        for row in larder {
            match &mut compared.larder {
                Some(known) => known.absorb(row),
                none => *none = Some(row),
            }
        }
    }

    /// Notes what could not be measured.
    pub(super) fn leave_out(&mut self, what: &str, failure: &Failure) {
        super::say(&format!("{what} is left out: {failure}"));
        self.left_out.push((what.to_owned(), failure.to_string()));
    }

    /// Notes which version of a peer was measured.
    pub(super) fn version(&mut self, place: &Place, peer: &Peer) {
        let ask = ["--show", "--showformat=${Package} ${Version}, "];
        let query = Program::new("dpkg-query").args(ask).args(peer.packages).root(place.root(peer.release));
        let said = query.command().output().map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        self.versions.insert(peer.name, said.unwrap_or_default().trim_end_matches(", ").to_owned());
    }

    /// Markdown.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for (case, Compared { larder, peers }) in &self.cases {
            let rows = || larder.iter().map(|row| (row, None)).chain(peers.iter().map(|(row, ratios)| (row, Some(ratios))));
            let Some((unit, digits)) = rows().next().map(|(row, _)| row.unit()) else { continue };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "\n{case}\n");
            let _ = writeln!(text, "| | {unit} | Gbit/s | first byte p50 ms | p99 ms | memory MiB | larder : it | cipher |");
            let _ = writeln!(text, "|---|---|---|---|---|---|---|---|");
            for (row, ratios) in rows() {
                let ratio = ratios
                    .filter(|ratios| !ratios.is_empty())
                    .map_or_else(String::new, |ratios| Spread::of(ratios.clone()).text(2));
                let _ = writeln!(
                    text,
                    "| {} | {} | {:.2} | {:.2} | {:.2} | {} | {ratio} | {} |",
                    row.name,
                    Spread::of(row.cost()).text(digits),
                    Spread::of(row.gbit_per_s()).median,
                    row.ttfb_ms(50),
                    row.ttfb_ms(99),
                    row.memory_bytes >> 20,
                    row.cipher,
                );
            }
        }
        let _ =
            writeln!(text, "\nleast – median – most of {} rounds a pair, in turns; memory without the page cache", self.rounds);
        for (name, version) in &self.versions {
            let _ = writeln!(text, "{name}: {version}");
        }
        for (what, why) in &self.left_out {
            let _ = writeln!(text, "left out: {what}: {why}");
        }
        text
    }

    /// One JSON object.
    pub(super) fn json(&self, outcomes: u64, digest: &Digest) -> String {
        let row = |row: &Row, ratios: Option<&Vec<f64>>| {
            json!({
                "name": row.name,
                "cipher": row.cipher,
                "cost": Spread::of(row.cost()).json(),
                "unit": row.unit().0,
                "cpuUsPerRequest": Spread::of(row.per_request_us()).json(),
                "softirqShare": Spread::of(row.softirq_share()).json(),
                "gbitPerS": Spread::of(row.gbit_per_s()).json(),
                "ttfbMs": { "p50": row.ttfb_ms(50), "p99": row.ttfb_ms(99) },
                "memoryBytes": row.memory_bytes,
                "rounds": row.cost(),
                "larderRatio": ratios.filter(|ratios| !ratios.is_empty()).map(|ratios| Spread::of(ratios.clone()).json()),
            })
        };
        let case = |(case, compared): (&Case, &Compared)| {
            let servers = compared.larder.iter().map(|larder| row(larder, None));
            let servers: Vec<Value> =
                servers.chain(compared.peers.iter().map(|(peer, ratios)| row(peer, Some(ratios)))).collect();
            json!({ "path": case.via.name(), "size": case.size.name(), "cipher": case.cipher.name(), "servers": servers })
        };
        let cases: Vec<Value> = self.cases.iter().map(case).collect();
        let left_out: Vec<Value> = self.left_out.iter().map(|(what, why)| json!({ "what": what, "why": why })).collect();
        let all = json!({
            "question": "serve_hot", "rounds": self.rounds, "versions": self.versions, "cases": cases, "leftOut": left_out,
            "outcomes": outcomes, "digest": digest,
        });
        format!("{all}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_an_even_number_is_between_the_two_in_the_middle() {
        let Spread { min, median, max } = Spread::of(vec![4.0, 1.0, 3.0, 2.0]);
        assert_eq!((min, median, max), (1.0, 2.5, 4.0));
        let Spread { min, median, max } = Spread::of(vec![3.0, 1.0, 2.0]);
        assert_eq!((min, median, max), (1.0, 2.0, 3.0));
    }
}
