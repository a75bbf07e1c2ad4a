//! Decisions as they are kept, to be explained later or taken again in another fleet ([`super::replay`]). Pure.
//!
//! A record is a sequence of lines, each one JSON object: a fleet, then decisions in it, then the fleet as it was later, and so on. Edges and
//! sites are named by their places in the fleet before. No client's address is kept: what a decision needs of it is
//! which sites announce its network and where it is, to a tenth of a degree.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use wire::placement::{Key, Line as PopularityLine, Popularity, Weights};

use super::{
    decide::{Announced, Content, Question, Ranking, Rules},
    fleet::{Edge, Site, Snapshot, State},
    geo::Coordinates,
};

/// The version of the lines; another one is not understood.
pub const VERSION: u32 = 1;
/// The longest line that is read, in bytes: a fleet of ten thousand edges has some 1.5 MB.
pub const LINE_BYTES_MAX: usize = 16 << 20;
/// The longest time since a report that is told apart from longer ones, in milliseconds: a day, of which any edge is silent.
const AGE_MS_MAX: u64 = 86_400_000;
/// Parts of a degree that are kept of a client's place: about 11 km.
const PLACE_PARTS: f64 = 10.0;

/// One line of a record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Line {
    Fleet(Fleet),
    Decision(Decision),
}

/// The fleet that the decisions after it were taken in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fleet {
    pub version: u32,
    /// Milliseconds since 1970.
    pub at_ms: u64,
    silent_after_ms: u64,
    shed_from_permille: u16,
    full_at_permille: u16,
    reach_km: u32,
    cost_max: u32,
    sites: Vec<SiteLine>,
    edges: Vec<EdgeLine>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SiteLine {
    name: Arc<str>,
    /// Degrees north and east.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    place: Option<(f64, f64)>,
    cost: u32,
    open: bool,
    /// Billionths of the demand: where the head begins, and how much is below.
    line: (u32, u32),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct EdgeLine {
    id: Arc<str>,
    /// Of `sites`.
    site: usize,
    state: StateWord,
    /// Of its last report, then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    age_ms: Option<u64>,
    load_permille: u16,
    /// Throughput and storage.
    weights: (u32, u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum StateWord {
    Ready,
    Draining,
    Unwell,
}

/// A decision. One letter a member, as there are many of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// When, in milliseconds since 1970.
    #[serde(rename = "t")]
    pub at_ms: u64,
    /// The title's key and the session's, in hexadecimal digits: JSON's numbers are exact to 53 bits only (RFC 8259 §6).
    #[serde(rename = "v", with = "hexadecimal")]
    title: u64,
    #[serde(rename = "s", with = "hexadecimal")]
    session: u64,
    /// In billionths.
    #[serde(rename = "p")]
    popularity: u32,
    /// The client's degrees north and east.
    #[serde(rename = "g", default, skip_serializing_if = "Option::is_none")]
    place: Option<(f64, f64)>,
    /// Sites that announce its network.
    #[serde(rename = "a", default, skip_serializing_if = "Vec::is_empty")]
    announced: Vec<(Arc<str>, IpNet)>,
    /// Edges that held the title and edges that lacked it; of others it is not known.
    #[serde(rename = "h", default, skip_serializing_if = "Vec::is_empty")]
    holds: Vec<usize>,
    #[serde(rename = "l", default, skip_serializing_if = "Vec::is_empty")]
    lacks: Vec<usize>,
    /// The answer.
    #[serde(rename = "r")]
    ranked: Vec<usize>,
}

mod hexadecimal {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{number:016x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        u64::from_str_radix(&String::deserialize(deserializer)?, 16).map_err(D::Error::custom)
    }
}

impl Fleet {
    /// The fleet of a snapshot at `now`, which is `at_ms`.
    pub fn of(snapshot: &Snapshot, rules: &Rules, now: Instant, at_ms: u64) -> Self {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let sites = snapshot.sites().map(|site| SiteLine {
            name: Arc::clone(&site.name),
            place: site.place.map(|place| (place.latitude(), place.longitude())),
            cost: site.cost,
            open: site.open,
            line: (site.line.popularity.as_billionths(), site.line.tail.as_billionths()),
        });
        let edges = snapshot.edges().iter().enumerate().map(|(at, edge)| EdgeLine {
            id: Arc::clone(&edge.id),
            site: snapshot.site_of(at),
            state: match edge.state {
                State::Ready => StateWord::Ready,
                State::Draining => StateWord::Draining,
                State::Unwell => StateWord::Unwell,
            },
            age_ms: edge.reported.map(|reported| ms(now.saturating_duration_since(reported))),
            load_permille: edge.load_permille,
            weights: (edge.weights.throughput, edge.weights.storage),
        });
        let Rules { silent_after, shed_from_permille, full_at_permille, reach_km, cost_max } = *rules;
        let silent_after_ms = ms(silent_after);
        let (sites, edges) = (sites.collect(), edges.collect());
        Self { version: VERSION, at_ms, silent_after_ms, shed_from_permille, full_at_permille, reach_km, cost_max, sites, edges }
    }

    /// The rules of its decisions.
    pub(super) fn rules(&self) -> Rules {
        Rules {
            silent_after: Duration::from_millis(self.silent_after_ms),
            shed_from_permille: self.shed_from_permille,
            full_at_permille: self.full_at_permille,
            reach_km: self.reach_km,
            cost_max: self.cost_max,
        }
    }

    /// Its sites and edges as they were at `now`, each edge's last report so much before it.
    pub(super) fn parts(&self, now: Instant) -> Result<(Vec<Site>, Vec<Edge>), NoSuchPlace> {
        let sites = self.sites.iter().map(|site| Site {
            name: Arc::clone(&site.name),
            place: site.place.and_then(coordinates),
            cost: site.cost,
            open: site.open,
            line: PopularityLine { popularity: Popularity::billionths(site.line.0), tail: Popularity::billionths(site.line.1) },
        });
        let edge = |edge: &EdgeLine| {
            let site = self.sites.get(edge.site).ok_or(NoSuchPlace)?;
            Ok(Edge {
                id: Arc::clone(&edge.id),
                site: Arc::clone(&site.name),
                state: match edge.state {
                    StateWord::Ready => State::Ready,
                    StateWord::Draining => State::Draining,
                    StateWord::Unwell => State::Unwell,
                },
                reported: edge.age_ms.and_then(|age| now.checked_sub(Duration::from_millis(age.min(AGE_MS_MAX)))),
                load_permille: edge.load_permille,
                weights: Weights { throughput: edge.weights.0, storage: edge.weights.1 },
            })
        };
        Ok((sites.collect(), self.edges.iter().map(edge).collect::<Result<_, _>>()?))
    }

    /// The longest time since a report.
    pub(super) fn age_max(&self) -> Duration {
        Duration::from_millis(self.edges.iter().filter_map(|edge| edge.age_ms).max().unwrap_or(0).min(AGE_MS_MAX))
    }
}

impl Decision {
    /// The decision about a question, with what was known of edges' content.
    pub fn of(question: &Question<'_>, content: &[(usize, Content)], ranking: &Ranking, at_ms: u64) -> Self {
        let rounded = |degrees: f64| (degrees * PLACE_PARTS).round() / PLACE_PARTS;
        let with =
            |wanted: Content| content.iter().filter(move |(_, content)| *content == wanted).map(|(edge, _)| *edge).collect();
        Self {
            at_ms,
            title: question.title.as_u64(),
            session: question.session.as_u64(),
            popularity: question.popularity.as_billionths(),
            place: question.place.map(|place| (rounded(place.latitude()), rounded(place.longitude()))),
            announced: question.announced.iter().map(|announced| (announced.site.into(), announced.prefix)).collect(),
            holds: with(Content::Holds),
            lacks: with(Content::Lacks),
            ranked: ranking.edges.clone(),
        }
    }

    /// The edge that came first, by its place in the fleet before.
    pub(super) fn first(&self) -> Option<usize> {
        self.ranked.first().copied()
    }

    /// The sites that announced the client's network.
    pub(super) fn announced(&self) -> Vec<Announced<'_>> {
        self.announced.iter().map(|(site, prefix)| Announced { site, prefix: *prefix }).collect()
    }

    /// The question, with the sites that [`announced`](Self::announced) tells.
    pub(super) fn question<'a>(&self, announced: &'a [Announced<'a>]) -> Question<'a> {
        Question {
            announced,
            place: self.place.and_then(coordinates),
            title: Key::from_u64(self.title),
            popularity: Popularity::billionths(self.popularity),
            session: Key::from_u64(self.session),
        }
    }

    /// What was known of the content of each edge of a fleet with so many.
    pub(super) fn content(&self, edges: usize) -> Result<Vec<Content>, NoSuchPlace> {
        let mut content = vec![Content::Unknown; edges];
        for (places, what) in [(&self.holds, Content::Holds), (&self.lacks, Content::Lacks)] {
            for place in places {
                *content.get_mut(*place).ok_or(NoSuchPlace)? = what;
            }
        }
        Ok(content)
    }
}

/// A line names an edge or a site by a place that its fleet does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a place stands in the line that its fleet does not have")]
pub struct NoSuchPlace;

fn coordinates((latitude, longitude): (f64, f64)) -> Option<Coordinates> {
    Coordinates::new(latitude, longitude)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::steering::decide::survey;

    #[test]
    fn lines_are_as_they_were_when_the_version_was_made() {
        let now = Instant::now() + Duration::from_secs(60);
        let edge = |site: &str, id: &str, state, age: Option<u64>| Edge {
            id: id.into(),
            site: site.into(),
            state,
            reported: age.map(|s| now - Duration::from_secs(s)),
            load_permille: 310,
            weights: Weights { throughput: 40_000, storage: 90_000 },
        };
        let berlin = Site {
            place: Coordinates::new(52.52, 13.4),
            cost: 2,
            open: false,
            line: PopularityLine { popularity: Popularity::billionths(20_000), tail: Popularity::billionths(300_000_000) },
            ..Site::named("berlin")
        };
        let edges = [
            edge("berlin", "b1", State::Ready, Some(3)),
            edge("berlin", "b2", State::Draining, Some(0)),
            edge("paris", "p1", State::Unwell, None),
            edge("paris", "p2", State::Ready, Some(1)),
        ];
        let snapshot = Snapshot::new([berlin], edges).unwrap();
        let rules = Rules::default();
        let fleet = Line::Fleet(Fleet::of(&snapshot, &rules, now, 1_790_000_000_000));
        let expected = json!({ "fleet": {
            "version": 1, "atMs": 1_790_000_000_000_u64, "silentAfterMs": 10_000, "shedFromPermille": 800, "fullAtPermille": 950,
            "reachKm": 2500, "costMax": u32::MAX,
            "sites": [
                { "name": "berlin", "place": [52.52, 13.4], "cost": 2, "open": false, "line": [20_000, 300_000_000] },
                { "name": "paris", "cost": 0, "open": true, "line": [u32::MAX, 1_000_000_000] },
            ],
            "edges": [
                { "id": "b1", "site": 0, "state": "ready", "ageMs": 3000, "loadPermille": 310, "weights": [40_000, 90_000] },
                { "id": "b2", "site": 0, "state": "draining", "ageMs": 0, "loadPermille": 310, "weights": [40_000, 90_000] },
                { "id": "p1", "site": 1, "state": "unwell", "loadPermille": 310, "weights": [40_000, 90_000] },
                { "id": "p2", "site": 1, "state": "ready", "ageMs": 1000, "loadPermille": 310, "weights": [40_000, 90_000] },
            ],
        } });
        assert_eq!(serde_json::to_value(&fleet).unwrap(), expected);
        assert_eq!(serde_json::from_value::<Line>(expected).unwrap(), fleet);

        let announced = [Announced { site: "berlin", prefix: "192.0.2.0/24".parse().unwrap() }];
        let question = Question {
            announced: &announced,
            place: Coordinates::new(52.449, 13.051),
            title: Key::of(b"/titles/1"),
            popularity: Popularity::billionths(7),
            session: Key::of(b"session"),
        };
        let content = |edge| if edge == 0 { Content::Lacks } else { Content::Holds };
        let (ranking, content) = survey(&question, &snapshot, &rules, now, content);
        let decision = Line::Decision(Decision::of(&question, &content, &ranking, 1_790_000_000_001));
        let hexadecimal = |key: Key| format!("{:016x}", key.as_u64());
        let expected = json!({ "decision": {
            "t": 1_790_000_000_001_u64, "v": hexadecimal(question.title), "s": hexadecimal(question.session), "p": 7, "g": [52.4, 13.1],
            "a": [["berlin", "192.0.2.0/24"]], "h": [3], "l": [0], "r": [3, 0],
        } });
        assert_eq!(serde_json::to_value(&decision).unwrap(), expected);
        let text = serde_json::to_string(&decision).unwrap();
        assert_eq!(serde_json::from_str::<Line>(&text).unwrap(), decision);
        assert!(text.len() < 200, "{text}");
    }

    #[test]
    fn what_is_no_line_is_refused() {
        for text in ["", "{}", r#"{"fleet":{}}"#, r#"{"decision":{"t":1,"v":"x","s":"1","p":1,"r":[]}}"#, r#"{"other":1}"#] {
            assert!(serde_json::from_str::<Line>(text).is_err(), "{text}");
        }
    }
}
