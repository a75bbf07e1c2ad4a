//! Recorded decisions, taken again in a fleet with a difference: what if a site fails? Pure: lines in, sums out.
//!
//! Each decision is taken twice, in the fleet as it was and in the changed one, so that what differs is the change and not the record's gaps.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use serde::Serialize;

use super::{
    decide::{Miss, Question, Ranking, Rules, decide},
    fleet::{Edge, FleetError, Site, Snapshot},
    geo::OnSphere,
    record::{Decision, Fleet, Line, NoSuchPlace, VERSION},
};

/// What is different in the fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// These sites are gone.
    pub without_sites: BTreeSet<String>,
    /// These edges are gone.
    pub without_edges: BTreeSet<String>,
    /// Every edge bears this many hundredths of what it bore.
    pub load_percent: u32,
}

impl Default for Change {
    fn default() -> Self {
        Self { without_sites: BTreeSet::new(), without_edges: BTreeSet::new(), load_percent: 100 }
    }
}

impl Change {
    fn removes(&self, site: &str, edge: &str) -> bool {
        self.without_sites.contains(site) || self.without_edges.contains(edge)
    }

    /// The edge as it would be, if it is still there.
    fn applied(&self, edge: &Edge) -> Option<Edge> {
        let load = u64::from(edge.load_permille) * u64::from(self.load_percent) / 100;
        let load_permille = u16::try_from(load).unwrap_or(u16::MAX);
        (!self.removes(&edge.site, &edge.id)).then(|| Edge { load_permille, ..edge.clone() })
    }
}

/// Takes recorded decisions again, as they were and with a change, and adds up what is different.
#[derive(Debug)]
pub struct Replay {
    change: Change,
    now: Instant,
    current: Option<Current>,
    sum: Sum,
}

/// The fleet of the last line of its kind, and the decisions in it.
#[derive(Debug)]
struct Current {
    now: Instant,
    rules: Rules,
    before: Snapshot,
    after: Snapshot,
    /// The place in `before` of each edge of `after`.
    places: Vec<usize>,
    decisions: u64,
    /// Decisions that name an edge first, by its place in `before`.
    firsts: Vec<Pair>,
}

#[derive(Debug, Default)]
struct Sum {
    fleets: u64,
    decisions: u64,
    at_ms: Option<(u64, u64)>,
    reproduced: u64,
    moved: u64,
    unserved: Pair,
    missed_for_content: Pair,
    missed_for_health: Pair,
    missed_for_rules: Pair,
    /// To the sites that serve, and of how many decisions that is known.
    km: PairOf<f64>,
    located: Pair,
    edges: BTreeMap<Arc<str>, EdgeSum>,
}

#[derive(Debug, Default)]
struct EdgeSum {
    site: Arc<str>,
    first: Pair,
    /// Its load and throughput, each times the decisions that were taken while it had them.
    load: f64,
    throughput: f64,
    decisions: u64,
}

/// Something without the change and with it.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct PairOf<T> {
    pub before: T,
    pub after: T,
}

/// Sessions without the change and with it.
pub type Pair = PairOf<u64>;

impl Pair {
    fn count(&mut self, before: bool, after: bool) {
        self.before += u64::from(before);
        self.after += u64::from(after);
    }
}

impl Replay {
    /// Nothing yet. `now` is when all of it happens: any time.
    pub fn new(change: Change, now: Instant) -> Self {
        Self { change, now, current: None, sum: Sum::default() }
    }

    /// Takes the next line. After an error, those that follow may be taken: decisions count again from the next fleet on.
    pub fn line(&mut self, line: &Line) -> Result<(), ReplayError> {
        match line {
            Line::Fleet(fleet) => self.fleet(fleet),
            Line::Decision(decision) => self.decision(decision),
        }
    }

    fn fleet(&mut self, fleet: &Fleet) -> Result<(), ReplayError> {
        if let Some(current) = self.current.take() {
            self.sum.close(&current);
        }
        if fleet.version != VERSION {
            return Err(ReplayError::Version(fleet.version));
        }
        let now = self.now + fleet.age_max();
        let (sites, edges) = fleet.parts(now)?;
        let after = Snapshot::new(sites.iter().cloned(), edges.iter().filter_map(|edge| self.change.applied(edge)))?;
        let before = Snapshot::new(sites, edges)?;
        let places = after.edges().iter().map(|edge| before.edge(&edge.id).expect("it was there before")).collect();
        let firsts = vec![Pair::default(); before.edges().len()];
        self.current = Some(Current { now, rules: fleet.rules(), before, after, places, decisions: 0, firsts });
        self.sum.fleets += 1;
        Ok(())
    }

    fn decision(&mut self, decision: &Decision) -> Result<(), ReplayError> {
        let current = self.current.as_mut().ok_or(ReplayError::NoFleet)?;
        let content = decision.content(current.before.edges().len())?;
        let announced = decision.announced();
        let question = decision.question(&announced);
        let Current { now, rules, before, after, places, .. } = &*current;
        let again = decide(&question, before, rules, *now, |edge| content[edge]);
        let then = decide(&question, after, rules, *now, |edge| content[places[edge]]);
        let (is, would_be) = (first(&again), first(&then).map(|edge| places[edge]));
        self.sum.add(decision, is, would_be);
        self.sum.add_misses(&again, &then);
        self.sum.add_distances(&question, before, is, would_be);
        current.decisions += 1;
        if let Some(is) = is {
            current.firsts[is].before += 1;
        }
        if let Some(would_be) = would_be {
            current.firsts[would_be].after += 1;
        }
        Ok(())
    }

    /// What came of all lines.
    pub fn outcome(mut self) -> Outcome {
        if let Some(current) = self.current.take() {
            self.sum.close(&current);
        }
        self.sum.outcome(&self.change)
    }
}

fn first(ranking: &Ranking) -> Option<usize> {
    ranking.edges.first().copied()
}

impl Sum {
    fn add(&mut self, decision: &Decision, is: Option<usize>, would_be: Option<usize>) {
        self.decisions += 1;
        let (first_ms, last_ms) = self.at_ms.unwrap_or((decision.at_ms, decision.at_ms));
        self.at_ms = Some((first_ms.min(decision.at_ms), last_ms.max(decision.at_ms)));
        self.reproduced += u64::from(decision.first() == is);
        self.moved += u64::from(is != would_be);
        self.unserved.count(is.is_none(), would_be.is_none());
    }

    fn add_misses(&mut self, again: &Ranking, then: &Ranking) {
        for (miss, sum) in [
            (Miss::Content, &mut self.missed_for_content),
            (Miss::Health, &mut self.missed_for_health),
            (Miss::Rules, &mut self.missed_for_rules),
        ] {
            sum.count(again.miss == Some(miss), then.miss == Some(miss));
        }
    }

    fn add_distances(&mut self, question: &Question<'_>, fleet: &Snapshot, is: Option<usize>, would_be: Option<usize>) {
        let Some(client) = question.place.map(OnSphere::from) else {
            return;
        };
        let km = |edge: Option<usize>| {
            let site: &Site = fleet.sites().nth(fleet.site_of(edge?))?;
            Some(client.half_chord(site.place?.into()).as_km())
        };
        let (before, after) = (km(is), km(would_be));
        self.km.before += before.unwrap_or(0.0);
        self.km.after += after.unwrap_or(0.0);
        self.located.count(before.is_some(), after.is_some());
    }

    /// Adds what was counted in one fleet.
    fn close(&mut self, current: &Current) {
        let decisions = current.decisions as f64;
        for (edge, firsts) in current.before.edges().iter().zip(&current.firsts) {
            let sum = self.edges.entry(Arc::clone(&edge.id)).or_default();
            sum.site = Arc::clone(&edge.site);
            sum.first.before += firsts.before;
            sum.first.after += firsts.after;
            sum.load += f64::from(edge.load_permille) / 1000.0 * decisions;
            sum.throughput += f64::from(edge.weights.throughput) * decisions;
            sum.decisions += current.decisions;
        }
    }

    fn outcome(self, change: &Change) -> Outcome {
        // What one recorded session stands for: its part of all that edges send.
        let sent: f64 = self.edges.values().map(|edge| edge.mean(edge.load) * edge.mean(edge.throughput)).sum();
        let sessions: u64 = self.edges.values().map(|edge| edge.first.before).sum();
        let of_session = if sessions == 0 { 0.0 } else { sent / sessions as f64 };
        let edges: Vec<_> = self.edges.iter().map(|(id, edge)| edge.outcome(id, of_session, change)).collect();
        let mut sites = BTreeMap::<&str, Pair>::new();
        for edge in &edges {
            let sum = sites.entry(&edge.site).or_default();
            sum.before += edge.sessions.before;
            sum.after += edge.sessions.after;
        }
        let sites = sites.into_iter().map(|(site, sessions)| SiteOutcome { site: site.to_owned(), sessions }).collect::<Vec<_>>();
        let is_site = |name: &str| sites.iter().any(|outcome| outcome.site == name);
        let unheard_of_sites = change.without_sites.iter().filter(|site| !is_site(site));
        let unheard_of_edges = change.without_edges.iter().filter(|edge| !self.edges.contains_key(edge.as_str()));
        let mean_km = |km: f64, count: u64| (count > 0).then(|| km / count as f64);
        Outcome {
            decisions: self.decisions,
            fleets: self.fleets,
            from_ms: self.at_ms.map(|(first, _)| first),
            to_ms: self.at_ms.map(|(_, last)| last),
            reproduced: self.reproduced,
            moved: self.moved,
            unserved: self.unserved,
            missed_for_content: self.missed_for_content,
            missed_for_health: self.missed_for_health,
            missed_for_rules: self.missed_for_rules,
            mean_km: PairOf {
                before: mean_km(self.km.before, self.located.before),
                after: mean_km(self.km.after, self.located.after),
            },
            unheard_of: unheard_of_sites.chain(unheard_of_edges).cloned().collect(),
            sites,
            edges,
        }
    }
}

impl EdgeSum {
    fn mean(&self, sum: f64) -> f64 {
        if self.decisions == 0 { 0.0 } else { sum / self.decisions as f64 }
    }

    fn outcome(&self, id: &str, of_session: f64, change: &Change) -> EdgeOutcome {
        let (before, throughput) = (self.mean(self.load), self.mean(self.throughput));
        let sessions_more = self.first.after as f64 - self.first.before as f64;
        let more = if throughput > 0.0 { sessions_more * of_session / throughput } else { 0.0 };
        let after = ((before + more) * f64::from(change.load_percent) / 100.0).max(0.0);
        EdgeOutcome {
            edge: id.to_owned(),
            site: self.site.to_string(),
            sessions: self.first,
            load: Load { before, after: (!change.removes(&self.site, id)).then_some(after) },
        }
    }
}

/// What a change does to recorded sessions. Before: without it. After: with it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// Decisions that were taken again, and fleets in which they were taken.
    pub decisions: u64,
    pub fleets: u64,
    /// The first and the last of them, in milliseconds since 1970.
    pub from_ms: Option<u64>,
    pub to_ms: Option<u64>,
    /// Decisions that, without the change, have the first edge that is recorded. The others were taken when the fleet was between two lines.
    pub reproduced: u64,
    /// Sessions that begin at another edge.
    pub moved: u64,
    /// Sessions that no edge takes.
    pub unserved: Pair,
    /// Sessions that are not served by the nearest site, and why.
    pub missed_for_content: Pair,
    pub missed_for_health: Pair,
    pub missed_for_rules: Pair,
    /// From clients to the sites that serve them, as far as both are known.
    pub mean_km: PairOf<Option<f64>>,
    pub sites: Vec<SiteOutcome>,
    pub edges: Vec<EdgeOutcome>,
    /// What the change names and no fleet had.
    pub unheard_of: Vec<String>,
}

/// A site's sessions.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SiteOutcome {
    pub site: String,
    pub sessions: Pair,
}

/// An edge's sessions, and its load as a share of what it bears: as reported before, reckoned after from the sessions that come and go.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EdgeOutcome {
    pub edge: String,
    pub site: String,
    pub sessions: Pair,
    pub load: Load,
}

/// The mean load of an edge without the change, and with it, unless the change removes it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Load {
    pub before: f64,
    pub after: Option<f64>,
}

/// Why a line cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    #[error("the record is of version {0}, and this program reads version {VERSION}")]
    Version(u32),
    #[error("a decision stands before any fleet that it was taken in")]
    NoFleet,
    #[error(transparent)]
    NoSuchPlace(#[from] NoSuchPlace),
    #[error("the fleet cannot be: {0}")]
    Fleet(#[from] FleetError),
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use wire::placement::{Key, Popularity, Weights};

    use super::*;
    use crate::steering::{
        decide::{Announced, Content, survey},
        fleet::State,
        geo::Coordinates,
    };

    const SESSIONS: u32 = 1000;

    fn place(latitude: f64, longitude: f64) -> Option<Coordinates> {
        Coordinates::new(latitude, longitude)
    }

    /// Three sites of two edges, each a third full; everybody is near the first.
    fn fleet(now: Instant) -> Snapshot {
        let places = [("berlin", place(52.5, 13.4)), ("leipzig", place(51.3, 12.4)), ("munich", place(48.1, 11.6))];
        let sites = places.map(|(name, place)| Site { place, ..Site::named(name) });
        let edges = places.iter().flat_map(|(site, _)| [0, 1].map(|n| (site, n))).map(|(site, n)| Edge {
            id: format!("{site}-{n}").into(),
            site: (*site).into(),
            state: State::Ready,
            reported: Some(now),
            load_permille: 300,
            weights: Weights { throughput: 100, storage: 100 },
        });
        Snapshot::new(sites, edges).unwrap()
    }

    /// A record of `SESSIONS` decisions about as many titles.
    fn record(content: impl Fn(u32, usize) -> Content) -> Vec<Line> {
        let now = Instant::now() + Duration::from_secs(60);
        let (snapshot, rules) = (fleet(now), Rules::default());
        let mut lines = vec![Line::Fleet(Fleet::of(&snapshot, &rules, now, 0))];
        for n in 0..SESSIONS {
            let announced = [Announced { site: "berlin", prefix: "192.0.2.0/24".parse().unwrap() }];
            let question = Question {
                announced: if n % 2 == 0 { &announced } else { &[] },
                place: place(52.4, 13.1),
                title: Key::of(format!("/titles/{n}").as_bytes()),
                popularity: Popularity::NONE,
                session: Key::of(&n.to_le_bytes()),
            };
            let (ranking, known) = survey(&question, &snapshot, &rules, now, |edge| content(n, edge));
            lines.push(Line::Decision(Decision::of(&question, &known, &ranking, u64::from(n))));
        }
        lines
    }

    fn replayed(lines: &[Line], change: Change) -> Outcome {
        let mut replay = Replay::new(change, Instant::now());
        lines.iter().for_each(|line| replay.line(line).unwrap());
        replay.outcome()
    }

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn without_a_change_nothing_is_different() {
        let lines = record(|n, edge| [Content::Holds, Content::Lacks, Content::Unknown][(n as usize + edge) % 3]);
        let outcome = replayed(&lines, Change::default());
        assert_eq!((outcome.decisions, outcome.fleets, outcome.reproduced, outcome.moved), (1000, 1, 1000, 0));
        assert_eq!((outcome.from_ms, outcome.to_ms, outcome.unserved), (Some(0), Some(999), Pair::default()));
        for edge in &outcome.edges {
            assert_eq!(edge.sessions.before, edge.sessions.after);
            assert!((edge.load.before - 0.3).abs() < 1e-9 && (edge.load.after.unwrap() - 0.3).abs() < 1e-9);
        }
        assert_eq!(outcome.mean_km.before, outcome.mean_km.after);
    }

    #[test]
    fn a_site_that_fails_leaves_its_sessions_and_their_load_to_the_next() {
        let lines = record(|_, _| Content::Unknown);
        let outcome = replayed(&lines, Change { without_sites: names(&["berlin"]), ..Change::default() });
        let sites: Vec<_> =
            outcome.sites.iter().map(|site| (site.site.as_str(), site.sessions.before, site.sessions.after)).collect();
        assert_eq!(sites, [("berlin", 1000, 0), ("leipzig", 0, 1000), ("munich", 0, 0)]);
        assert_eq!((outcome.moved, outcome.unserved.after), (1000, 0));
        assert_eq!(
            (outcome.missed_for_health, outcome.unheard_of.len()),
            (Pair::default(), 0),
            "a site that is gone is nobody's home"
        );
        let (before, after) = (outcome.mean_km.before.unwrap(), outcome.mean_km.after.unwrap());
        assert!(before < 30.0 && (100.0..150.0).contains(&after), "{before} and {after} km");
        let load = |edge: &str| outcome.edges.iter().find(|outcome| outcome.edge == edge).unwrap().load;
        assert_eq!(load("berlin-0").after, None);
        // All that six edges send, 600 of 2000, was Berlin's: it is reckoned to Leipzig besides what Leipzig reported.
        let leipzig = load("leipzig-0").after.unwrap() + load("leipzig-1").after.unwrap();
        assert!((leipzig - (0.6 + 1.8)).abs() < 1e-6, "{leipzig}");
        assert!((load("munich-0").after.unwrap() - 0.3).abs() < 1e-9);
    }

    #[test]
    fn content_comes_along_when_places_shift() {
        // Only leipzig-1 holds anything; without berlin it has another place.
        let lines = record(|_, edge| if edge == 3 { Content::Holds } else { Content::Lacks });
        for without in ["berlin", "munich"] {
            let outcome = replayed(&lines, Change { without_sites: names(&[without]), ..Change::default() });
            let sessions: Vec<_> = outcome.edges.iter().filter(|edge| edge.sessions.after > 0).map(|edge| &edge.edge).collect();
            assert_eq!(sessions, ["leipzig-1"], "without {without}");
            assert_eq!(outcome.missed_for_content.before, 1000);
        }
    }

    #[test]
    fn more_load_sheds_sessions_and_too_much_serves_nobody() {
        let lines = record(|_, _| Content::Unknown);
        let busy = replayed(&lines, Change { load_percent: 290, ..Change::default() });
        assert_eq!((busy.moved, busy.unserved.after), (0, 0), "all shed alike, so all stay");
        let full = replayed(&lines, Change { load_percent: 320, without_edges: names(&["munich-0"]), ..Change::default() });
        assert_eq!((full.unserved, full.missed_for_health.after), (Pair { before: 0, after: 1000 }, 1000));
    }

    #[test]
    fn names_that_no_fleet_has_are_told() {
        let change = Change { without_sites: names(&["bonn", "berlin"]), without_edges: names(&["b9"]), ..Change::default() };
        assert_eq!(replayed(&record(|_, _| Content::Unknown)[..2], change).unheard_of, ["bonn", "b9"]);
    }

    #[test]
    fn lines_that_make_no_sense_are_refused_and_the_rest_counts() {
        let lines = record(|_, _| Content::Holds);
        let mut replay = Replay::new(Change::default(), Instant::now());
        assert_eq!(replay.line(&lines[1]), Err(ReplayError::NoFleet));
        let Line::Fleet(mut fleet) = lines[0].clone() else { unreachable!("the first line is a fleet") };
        fleet.version = 2;
        assert_eq!(replay.line(&Line::Fleet(fleet)), Err(ReplayError::Version(2)));
        assert_eq!(
            replay.line(&lines[1]),
            Err(ReplayError::NoFleet),
            "decisions in a fleet that is not understood are not either"
        );
        let empty = Snapshot::new([], []).unwrap();
        replay.line(&Line::Fleet(Fleet::of(&empty, &Rules::default(), Instant::now(), 0))).unwrap();
        assert_eq!(replay.line(&lines[1]), Err(ReplayError::NoSuchPlace(NoSuchPlace)));
        replay.line(&lines[0]).unwrap();
        replay.line(&lines[1]).unwrap();
        assert_eq!(replay.outcome().decisions, 1);
    }
}
