//! The edges: who registered, what each reported last, and how it stands now.
//!
//! Pure: callers hand in `now` and keep registrations in the database. An edge that was known before a restart stands
//! as silent until it reports again.

use std::{
    borrow::Borrow,
    collections::BTreeMap,
    fmt,
    str::FromStr,
    time::{Duration, Instant},
};

use wire::{
    placement::Weights,
    report::{Health, Registration, Report},
};

use crate::steering::fleet::{self as steered, FleetError, Site, Snapshot};

/// The most edges that one control keeps.
pub(crate) const EDGES_MAX: usize = 10_000;
/// The longest edge id or site name, in characters.
pub(crate) const NAME_CHARS_MAX: usize = 64;
/// The longest URL of an edge, and the longest version it may claim, in bytes.
const URL_BYTES_MAX: usize = 300;
const VERSION_BYTES_MAX: usize = 64;

/// Names an edge: 1 to 64 of `A-Z a-z 0-9 . _ -`, beginning with a letter or digit.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
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
    /// Its last report and when it came; none since this process started, or since it registered something else.
    pub(crate) last: Option<(Instant, Report)>,
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
    /// How the edge stands at `now`, when reports older than `timeout` do not count.
    pub(crate) fn standing(&self, now: Instant, timeout: Duration) -> Standing {
        match &self.last {
            Some((at, report)) if now.saturating_duration_since(*at) <= timeout => match report.health {
                Health::Ready => Standing::Ready,
                Health::Draining => Standing::Draining,
            },
            _ => Standing::Silent,
        }
    }

    /// As steering sees it. Nothing is known of its load yet, and all edges of a site are alike.
    fn steered(&self) -> steered::Edge {
        steered::Edge {
            id: self.id.as_str().into(),
            site: self.registration.site.as_str().into(),
            state: match &self.last {
                Some((_, Report { health: Health::Draining, .. })) => steered::State::Draining,
                _ => steered::State::Ready,
            },
            reported: self.last.as_ref().map(|(at, _)| *at),
            load_permille: 0,
            weights: Weights { throughput: 1, storage: 1 },
        }
    }
}

/// All registered edges, by id.
#[derive(Debug, Default)]
pub(crate) struct Fleet {
    edges: BTreeMap<EdgeId, Edge>,
    /// How often anything changed.
    changes: u64,
}

impl Fleet {
    /// The edges that were registered before.
    pub(crate) fn known(edges: impl IntoIterator<Item = (EdgeId, Registration)>) -> Self {
        let edges = edges.into_iter().map(|(id, registration)| (id.clone(), Edge { id, registration, last: None }));
        Self { edges: edges.collect(), changes: 0 }
    }

    /// Registers a checked edge, or registers it anew. True when its id is new.
    pub(crate) fn register(&mut self, id: EdgeId, registration: Registration) -> Result<bool, FleetFull> {
        let known = self.edges.get(&id);
        if known.is_none() && self.edges.len() >= EDGES_MAX {
            return Err(FleetFull);
        }
        let is_new = known.is_none();
        self.changes += 1;
        if known.is_none_or(|edge| edge.registration != registration) {
            self.edges.insert(id.clone(), Edge { id, registration, last: None });
        }
        Ok(is_new)
    }

    /// Takes an edge's report. False when the edge is not registered.
    pub(crate) fn report(&mut self, id: &EdgeId, report: Report, now: Instant) -> bool {
        let Some(edge) = self.edges.get_mut(id) else {
            return false;
        };
        edge.last = Some((now, report));
        self.changes += 1;
        true
    }

    /// Forgets an edge. False when it is not registered.
    pub(crate) fn remove(&mut self, id: &EdgeId) -> bool {
        self.changes += 1;
        self.edges.remove(id).is_some()
    }

    /// A number that is another one after every change.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// The fleet as steering sees it, with what is known of its sites.
    pub(crate) fn snapshot(&self, sites: impl IntoIterator<Item = Site>) -> Result<Snapshot, FleetError> {
        Snapshot::new(sites, self.edges.values().map(Edge::steered))
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
    use super::*;

    pub(crate) fn registration(url: &str) -> Registration {
        Registration { site: "site-1".into(), url: url.into(), version: "0.1.0".into() }
    }

    pub(crate) fn report(health: Health) -> Report {
        Report {
            health,
            connections: 0,
            requests: 0,
            bytes_sent: 0,
            bytes_ram: 0,
            bytes_filled: 0,
            ram_bytes_max: 0,
            ram_bytes: 0,
        }
    }

    fn id(text: &str) -> EdgeId {
        text.parse().unwrap()
    }

    #[test]
    fn an_edge_stands_as_its_last_report_says_until_that_is_too_old() {
        let (start, timeout) = (Instant::now(), Duration::from_secs(10));
        let mut fleet = Fleet::known([(id("a"), registration("https://a"))]);
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
        assert!(fleet.edges().all(|edge| edge.last.is_some()));
        assert_eq!(fleet.register(id("a"), registration("https://elsewhere")), Ok(false));
        assert!(fleet.edges().all(|edge| edge.last.is_none()));
    }

    #[test]
    fn the_fleet_is_bounded_and_a_deleted_edge_makes_room() {
        let mut fleet = Fleet::known((0..EDGES_MAX).map(|n| (id(&format!("e{n}")), registration("https://a"))));
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
