//! The edges: who registered, what each reported last and says that it holds, and how it stands now.
//!
//! Pure: callers hand in `now` and keep registrations in the database. An edge that was known before a restart stands
//! as silent until it reports again.

mod contents;
pub(crate) mod files;
pub(crate) mod streams;

use std::{
    borrow::Borrow,
    collections::{BTreeMap, HashMap},
    fmt,
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use wire::{
    content::Digest,
    placement::Weights,
    report::{Health, PREFIXES_MAX, Registration, Report},
};

pub(crate) use contents::Contents;

use crate::steering::fleet::{self as steered, FleetError, Site, Snapshot};

/// The most edges that one control keeps.
pub(crate) const EDGES_MAX: usize = 10_000;
/// The longest edge id or site name, in characters.
pub(crate) const NAME_CHARS_MAX: usize = 64;
/// The longest URL of an edge, and the longest version it may claim, in bytes.
const URL_BYTES_MAX: usize = 300;
const VERSION_BYTES_MAX: usize = 64;

/// What an edge weighs that does not know what it can send, in Mbit/s.
const THROUGHPUT_UNKNOWN: u32 = 1024;

/// A load that differs by so much from the last one is news, in thousandths.
const LOAD_NEWS_PERMILLE: u16 = 50;

/// Names an edge: 1 to 64 of `A-Z a-z 0-9 . _ -`, beginning with a letter or digit.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct EdgeId(String);

impl EdgeId {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for EdgeId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl FromStr for EdgeId {
    type Err = EdgeError;

    fn from_str(id: &str) -> Result<Self, EdgeError> {
        if is_name(id) { Ok(Self(id.to_owned())) } else { Err(EdgeError::Id) }
    }
}

impl fmt::Display for EdgeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for EdgeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether an edge or a site may be named so.
pub(crate) fn is_name(name: &str) -> bool {
    name.len() <= NAME_CHARS_MAX
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// What is wrong with an edge's registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EdgeError {
    #[error("an edge's id is 1 to {NAME_CHARS_MAX} of A-Z, a-z, 0-9, '.', '_' and '-', and begins with a letter or digit")]
    Id,
    #[error("a site's name is 1 to {NAME_CHARS_MAX} of A-Z, a-z, 0-9, '.', '_' and '-', and begins with a letter or digit")]
    Site,
    #[error(
        "an edge's url is http or https with a host and perhaps a port, at most {URL_BYTES_MAX} bytes, and nothing else: \"https://edge1.example:443\""
    )]
    Url,
    #[error("a version is 1 to {VERSION_BYTES_MAX} visible ASCII characters")]
    Version,
    #[error("an edge announces at most {PREFIXES_MAX} prefixes")]
    Prefixes,
}

/// Checks a registration and brings its URL into the one form that is kept.
pub(crate) fn checked(registration: Registration) -> Result<Registration, EdgeError> {
    if !is_name(&registration.site) {
        return Err(EdgeError::Site);
    }
    let version = &registration.version;
    if version.is_empty() || version.len() > VERSION_BYTES_MAX || !version.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(EdgeError::Version);
    }
    if registration.prefixes.len() > PREFIXES_MAX {
        return Err(EdgeError::Prefixes);
    }
    Ok(Registration { url: base_url(&registration.url)?, ..registration })
}

/// `text` as scheme, host and port, without a slash at the end.
pub(crate) fn base_url(text: &str) -> Result<String, EdgeError> {
    if text.len() > URL_BYTES_MAX {
        return Err(EdgeError::Url);
    }
    let uri: http::Uri = text.parse().map_err(|_| EdgeError::Url)?;
    let (Some(scheme @ ("http" | "https")), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(EdgeError::Url);
    };
    // The authority is rebuilt of host and port, so user information, an empty port or a bad one does not slip through.
    let host = authority.host().to_ascii_lowercase();
    let base = match authority.port_u16() {
        Some(port) => format!("{scheme}://{host}:{port}"),
        None => format!("{scheme}://{host}"),
    };
    let given = text.strip_suffix('/').unwrap_or(text);
    if host.is_empty() || !given.eq_ignore_ascii_case(&base) {
        return Err(EdgeError::Url);
    }
    Ok(base)
}

/// One registered edge.
#[derive(Debug, Clone)]
pub(crate) struct Edge {
    pub(crate) id: EdgeId,
    pub(crate) registration: Registration,
    /// Its last report and when it came; none since this process started, or since it moved to another site or address.
    pub(crate) last: Option<(Instant, Report)>,
    /// Operators want nobody sent there.
    pub(crate) is_drained: bool,
    /// What it holds, since it said so.
    pub(crate) contents: Option<Arc<Contents>>,
}

/// How an edge stands at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Reports, and takes viewers.
    Ready,
    /// Reports, and takes nobody new.
    Draining,
    /// Has not reported in time.
    Silent,
}

impl Edge {
    fn new(id: EdgeId, registration: Registration, is_drained: bool) -> Self {
        Self { id, registration, last: None, is_drained, contents: None }
    }

    /// How the edge stands at `now`, when reports older than `timeout` do not count.
    pub(crate) fn standing(&self, now: Instant, timeout: Duration) -> Standing {
        match &self.last {
            Some((at, report)) if now.saturating_duration_since(*at) <= timeout => match report.health {
                Health::Ready if !self.is_drained => Standing::Ready,
                Health::Ready | Health::Draining | Health::Unknown => Standing::Draining,
            },
            _ => Standing::Silent,
        }
    }

    /// How full it is, in thousandths of what it can do.
    pub(crate) fn load_permille(&self) -> u16 {
        permille(self.last.as_ref().map_or(0.0, |(_, report)| report.busy()))
    }

    /// Bits that it sends each second.
    fn bits_per_second(&self) -> u64 {
        self.last.as_ref().map_or(0, |(_, report)| report.load.bits_per_second)
    }

    /// As steering sees it, at a site that is so full.
    fn steered(&self, site_permille: u16) -> steered::Edge {
        steered::Edge {
            id: self.id.as_str().into(),
            site: self.registration.site.as_str().into(),
            state: match &self.last {
                _ if self.is_drained => steered::State::Draining,
                Some((_, Report { health: Health::Draining, .. })) => steered::State::Draining,
                Some((_, Report { health: Health::Unknown, .. })) => steered::State::Unwell,
                _ => steered::State::Ready,
            },
            reported: self.last.as_ref().map(|(at, _)| *at),
            load_permille: self.load_permille().max(site_permille),
            weights: self
                .last
                .as_ref()
                .map_or(Weights { throughput: THROUGHPUT_UNKNOWN, storage: 1 }, |(_, report)| weights(report)),
        }
    }
}

/// What an edge can do beside others: Mbit/s, and GiB. In powers of two, so that a measurement that wavers moves no titles.
fn weights(report: &Report) -> Weights {
    let rounded = |number: u64| u32::try_from(number.clamp(1, 1 << 30).next_power_of_two()).unwrap_or(u32::MAX);
    Weights {
        throughput: report.load.bits_per_second_max.map_or(THROUGHPUT_UNKNOWN, |bits| rounded(bits / 1_000_000)),
        storage: rounded(report.ram_bytes_max.saturating_add(report.ssd_bytes_max) >> 30),
    }
}

fn permille(share: f64) -> u16 {
    (share * 1000.0).clamp(0.0, f64::from(u16::MAX)) as u16
}

/// All registered edges, by id.
#[derive(Debug, Default)]
pub(crate) struct Fleet {
    edges: BTreeMap<EdgeId, Edge>,
    /// Bits per second that sites can send, those of which that is known.
    capacities: HashMap<String, u64>,
    changes: Changes,
}

/// Numbers that are others after a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Changes {
    /// After every change.
    pub(crate) all: u64,
    /// After one that decisions must know at once. Most reports say little that is new.
    pub(crate) urgent: u64,
}

impl Changes {
    fn count(&mut self, is_urgent: bool) {
        self.all += 1;
        self.urgent += u64::from(is_urgent);
    }
}

impl Fleet {
    /// The edges that were registered before, and whether they were drained.
    pub(crate) fn known(edges: impl IntoIterator<Item = (EdgeId, Registration, bool)>) -> Self {
        let edges = edges.into_iter().map(|(id, registration, drained)| (id.clone(), Edge::new(id, registration, drained)));
        Self { edges: edges.collect(), ..Self::default() }
    }

    /// Registers a checked edge, or registers it anew. True when its id is new.
    pub(crate) fn register(&mut self, id: EdgeId, registration: Registration) -> Result<bool, FleetFull> {
        let known = self.edges.get(&id);
        if known.is_none() && self.edges.len() >= EDGES_MAX {
            return Err(FleetFull);
        }
        let Some(edge) = self.edges.get_mut(&id) else {
            self.changes.count(true);
            self.edges.insert(id.clone(), Edge::new(id, registration, false));
            return Ok(true);
        };
        let moved = edge.registration.site != registration.site || edge.registration.url != registration.url;
        if moved {
            (edge.last, edge.contents) = (None, None);
        }
        self.changes.count(moved);
        edge.registration = registration;
        Ok(false)
    }

    /// Takes an edge's report. False when the edge is not registered.
    pub(crate) fn report(&mut self, id: &EdgeId, report: Report, now: Instant) -> bool {
        let Some(edge) = self.edges.get_mut(id) else {
            return false;
        };
        let before = edge.steered(0);
        edge.last = Some((now, report));
        let after = edge.steered(0);
        let is_news = before.reported.is_none()
            || before.state != after.state
            || before.weights != after.weights
            || before.load_permille.abs_diff(after.load_permille) >= LOAD_NEWS_PERMILLE;
        self.changes.count(is_news);
        true
    }

    /// Takes what an edge says that it holds. False when the edge is not registered.
    pub(crate) fn holds(&mut self, id: &EdgeId, digest: Digest) -> bool {
        let Some(edge) = self.edges.get_mut(id) else {
            return false;
        };
        self.changes.count(edge.contents.is_none());
        edge.contents = Some(Arc::new(Contents::new(digest)));
        true
    }

    /// From now on operators want nobody sent there, or want it again. False when the edge is not registered.
    pub(crate) fn drain(&mut self, id: &EdgeId, is_drained: bool) -> bool {
        let Some(edge) = self.edges.get_mut(id) else {
            return false;
        };
        edge.is_drained = is_drained;
        self.changes.count(true);
        true
    }

    /// From now on sites can send so many bits per second, each all of its edges together.
    pub(crate) fn limit_sites(&mut self, capacities: HashMap<String, u64>) {
        self.capacities = capacities;
        self.changes.count(true);
    }

    /// Forgets an edge. False when it is not registered.
    pub(crate) fn remove(&mut self, id: &EdgeId) -> bool {
        self.changes.count(true);
        self.edges.remove(id).is_some()
    }

    /// How often it changed.
    pub(crate) fn changes(&self) -> Changes {
        self.changes
    }

    /// The fleet as steering sees it, with what is known of its sites.
    pub(crate) fn snapshot(&self, sites: impl IntoIterator<Item = Site>) -> Result<Snapshot, FleetError> {
        let mut sent = HashMap::<&str, u64>::new();
        for edge in self.edges.values() {
            *sent.entry(&edge.registration.site).or_default() += edge.bits_per_second();
        }
        let permille_of = |site: &str| match (self.capacities.get(site), sent.get(site)) {
            (Some(capacity), Some(sent)) => permille(*sent as f64 / *capacity as f64),
            _ => 0,
        };
        Snapshot::new(sites, self.edges.values().map(|edge| edge.steered(permille_of(&edge.registration.site))))
    }

    /// The edge with this id.
    pub(crate) fn edge(&self, id: &str) -> Option<&Edge> {
        self.edges.get(id)
    }

    /// All edges, by id.
    pub(crate) fn edges(&self) -> impl Iterator<Item = &Edge> {
        self.edges.values()
    }
}

/// [`EDGES_MAX`] edges are registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{EDGES_MAX} edges are registered, which is the most; delete some that are gone")]
pub(crate) struct FleetFull;

#[cfg(test)]
pub(crate) mod tests {
    use wire::report::{HitRatios, Load};

    use super::*;

    pub(crate) fn registration(url: &str) -> Registration {
        Registration { site: "site-1".into(), url: url.into(), version: "0.1.0".into(), prefixes: Vec::new() }
    }

    pub(crate) fn report(health: Health) -> Report {
        Report {
            health,
            connections: 0,
            connections_max: None,
            load: Load::default(),
            requests: 0,
            bytes_sent: 0,
            bytes_ram: 0,
            bytes_ssd: 0,
            bytes_filled: 0,
            ram_bytes_max: 0,
            ram_bytes: 0,
            ssd_bytes_max: 0,
            hit_ratios: HitRatios::default(),
            devices: 0,
            devices_off: 0,
        }
    }

    fn id(text: &str) -> EdgeId {
        text.parse().unwrap()
    }

    #[test]
    fn an_edge_stands_as_its_last_report_says_until_that_is_too_old() {
        let (start, timeout) = (Instant::now(), Duration::from_secs(10));
        let mut fleet = Fleet::known([(id("a"), registration("https://a"), false)]);
        let standing = |fleet: &Fleet, after_s| {
            fleet.edges().next().map(|edge| edge.standing(start + Duration::from_secs(after_s), timeout)).unwrap()
        };
        assert_eq!(standing(&fleet, 0), Standing::Silent, "known from before, not heard of yet");
        assert!(fleet.report(&id("a"), report(Health::Ready), start));
        assert_eq!(standing(&fleet, 10), Standing::Ready);
        assert_eq!(standing(&fleet, 11), Standing::Silent);
        assert!(fleet.report(&id("a"), report(Health::Draining), start + Duration::from_secs(11)));
        assert_eq!(standing(&fleet, 12), Standing::Draining);
        assert!(!fleet.report(&id("b"), report(Health::Ready), start), "never registered");
    }

    #[test]
    fn registering_again_keeps_the_last_report_unless_something_changed() {
        let mut fleet = Fleet::default();
        assert_eq!(fleet.register(id("a"), registration("https://a")), Ok(true));
        fleet.report(&id("a"), report(Health::Ready), Instant::now());
        assert_eq!(fleet.register(id("a"), registration("https://a")), Ok(false));
        let more =
            Registration { prefixes: vec!["10.0.0.0/8".parse().unwrap()], version: "0.2.0".into(), ..registration("https://a") };
        assert_eq!(fleet.register(id("a"), more), Ok(false));
        assert!(fleet.edges().all(|edge| edge.last.is_some() && edge.registration.version == "0.2.0"));
        assert_eq!(fleet.register(id("a"), registration("https://elsewhere")), Ok(false));
        assert!(fleet.edges().all(|edge| edge.last.is_none()));
    }

    #[test]
    fn an_edge_that_operators_drain_takes_nobody_whatever_it_says() {
        let (now, timeout) = (Instant::now(), Duration::from_secs(10));
        let mut fleet = Fleet::known([(id("a"), registration("https://a"), true)]);
        let standing = |fleet: &Fleet| fleet.edge("a").unwrap().standing(now, timeout);
        fleet.report(&id("a"), report(Health::Ready), now);
        assert_eq!(standing(&fleet), Standing::Draining);
        fleet.register(id("a"), registration("https://b")).unwrap();
        fleet.report(&id("a"), report(Health::Ready), now);
        assert_eq!(standing(&fleet), Standing::Draining, "also where it registers anew");
        assert!(fleet.drain(&id("a"), false) && !fleet.drain(&id("b"), true));
        assert_eq!(standing(&fleet), Standing::Ready);
        fleet.report(&id("a"), report(Health::Unknown), now);
        assert_eq!(standing(&fleet), Standing::Draining);
    }

    #[test]
    fn an_edge_is_as_full_as_it_says_and_as_its_site_is() {
        let now = Instant::now();
        let mut fleet = Fleet::known(["a", "b", "c"].map(|edge| (id(edge), registration("https://a"), false)));
        fleet.register(id("c"), Registration { site: "site-2".into(), ..registration("https://a") }).unwrap();
        let sending = |mbit: u64, cpu: f64| Report {
            load: Load { bits_per_second: mbit * 1_000_000, bits_per_second_max: Some(1_000_000_000), cpu_share: Some(cpu) },
            ..report(Health::Ready)
        };
        for (edge, mbit, cpu) in [("a", 500, 0.25), ("b", 100, 0.9), ("c", 100, 0.1)] {
            fleet.report(&id(edge), sending(mbit, cpu), now);
        }
        let loads =
            |fleet: &Fleet| -> Vec<_> { fleet.snapshot([]).unwrap().edges().iter().map(|edge| edge.load_permille).collect() };
        assert_eq!(loads(&fleet), [500, 900, 100]);
        fleet.limit_sites([("site-1".to_owned(), 800_000_000), ("site-3".to_owned(), 1)].into());
        assert_eq!(loads(&fleet), [750, 900, 100], "600 of 800 Mbit/s");
    }

    #[test]
    fn weights_are_what_edges_can_do_in_powers_of_two() {
        let able = |mbit: Option<u64>, gib: u64| {
            let load = Load { bits_per_second_max: mbit.map(|mbit| mbit * 1_000_000), ..Load::default() };
            weights(&Report { load, ram_bytes_max: 1 << 30, ssd_bytes_max: gib << 30, ..report(Health::Ready) })
        };
        assert_eq!(able(Some(10_000), 400), Weights { throughput: 16_384, storage: 512 });
        assert_eq!(able(None, 0), Weights { throughput: THROUGHPUT_UNKNOWN, storage: 1 });
        assert_eq!(able(Some(0), u64::from(u32::MAX)).throughput, 1);
    }

    #[test]
    fn the_fleet_is_bounded_and_a_deleted_edge_makes_room() {
        let mut fleet = Fleet::known((0..EDGES_MAX).map(|n| (id(&format!("e{n}")), registration("https://a"), false)));
        assert_eq!(fleet.register(id("one-more"), registration("https://a")), Err(FleetFull));
        assert_eq!(fleet.register(id("e0"), registration("https://b")), Ok(false), "known edges are not kept out");
        assert!(fleet.remove(&id("e1")) && !fleet.remove(&id("e1")));
        assert_eq!(fleet.register(id("one-more"), registration("https://a")), Ok(true));
    }

    #[test]
    fn urls_are_scheme_host_and_port_and_nothing_else() {
        for (given, kept) in [
            ("https://edge1.example:443", "https://edge1.example:443"),
            ("https://Edge1.example/", "https://edge1.example"),
            ("http://127.0.0.1:8443", "http://127.0.0.1:8443"),
            ("https://[::1]:443", "https://[::1]:443"),
        ] {
            assert_eq!(base_url(given).as_deref(), Ok(kept));
        }
        for bad in [
            "",
            "edge1.example",
            "edge1.example:443",
            "ftp://edge1",
            "https://",
            "https:///x",
            "https://edge1/path",
            "https://edge1//",
            "https://edge1/?q",
            "https://edge1?q",
            "https://edge1#f",
            "https://u@edge1",
            "https://u:p@edge1",
            "https://edge1:99999",
            "https://edge1:",
            "https://edge 1",
            "javascript:alert(1)",
        ] {
            assert_eq!(base_url(bad), Err(EdgeError::Url), "{bad}");
        }
        assert_eq!(base_url(&format!("https://{}", "a".repeat(300))), Err(EdgeError::Url));
    }

    #[test]
    fn names_are_short_and_safe() {
        assert!(["a", "edge-1", "Edge_1.lab", "9"].into_iter().all(|name| name.parse::<EdgeId>().is_ok()));
        for bad in ["", "-a", ".a", "a/b", "a b", "ä", &"a".repeat(65)] {
            assert_eq!(bad.parse::<EdgeId>(), Err(EdgeError::Id), "{bad}");
            assert_eq!(checked(Registration { site: bad.into(), ..registration("https://a") }), Err(EdgeError::Site), "{bad}");
        }
        assert_eq!(checked(Registration { version: "a\nb".into(), ..registration("https://a") }), Err(EdgeError::Version));
    }
}
