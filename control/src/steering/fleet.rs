//! The fleet as decisions see it: sites, their edges, and how each stands. Made anew whenever something changes, shared by
//! everybody who decides, never altered.
//!
//! Knows no reports and no database: whoever has those makes a [`Snapshot`] of them.

use std::{collections::HashMap, ops::Range, sync::Arc, time::Instant};

use wire::placement::{Draw, Key, Line, Roster, RosterError, Weights};

use super::{geo::Coordinates, near::Points};

/// The most sites of one fleet.
pub const SITES_MAX: usize = 4096;

/// A site as it is configured.
#[derive(Debug, Clone, PartialEq)]
pub struct Site {
    /// Its name.
    pub name: Arc<str>,
    /// Where it stands, if known.
    pub place: Option<Coordinates>,
    /// What a gigabyte from there costs beside the others, in any unit.
    pub cost: u32,
    /// Whether it serves clients in none of its prefixes too. A site inside an ISP does not.
    pub open: bool,
    /// Which objects are its head, placed by throughput, and which its tail, placed by storage.
    pub line: Line,
}

impl Site {
    /// A site of which nothing is known but its name: anywhere, free, for everybody, with everything on one edge.
    pub fn named(name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), place: None, cost: 0, open: true, line: Line::NO_HEAD }
    }
}

/// What an edge said of itself last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It takes viewers.
    Ready,
    /// It finishes what it has and takes nobody new.
    Draining,
    /// It is there and cannot serve: it says so itself, or a check of its site did.
    Unwell,
}

/// An edge as it reported last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// Its id.
    pub id: Arc<str>,
    /// The name of its site.
    pub site: Arc<str>,
    pub state: State,
    /// When its last report came; none since control started.
    pub reported: Option<Instant>,
    /// How full it is, in thousandths of what it was measured to bear: the fullest of its resources (network, CPU, disk,
    /// connections). Above 1000 it bears more than it should.
    pub load_permille: u16,
    /// What it can do beside the others of its site. Throughput in Mbit/s and storage in GiB, say; the same for all.
    pub weights: Weights,
}

/// The fleet at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    pub(super) sites: Vec<Standing>,
    pub(super) points: Points,
    /// Those of one site side by side.
    pub(super) edges: Vec<Edge>,
    /// All sites, each with the throughput of its edges.
    among_sites: Roster,
    by_name: HashMap<Arc<str>, usize>,
    by_id: HashMap<Arc<str>, usize>,
}

/// A site with what decisions need of it.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) site: Site,
    pub(super) roster: Roster,
    /// Of its first edge, in the snapshot; the others follow, in the roster's order.
    pub(super) first: usize,
}

impl Standing {
    /// Its edges, by their places in the snapshot.
    pub(super) fn edges(&self) -> Range<usize> {
        self.first..self.first + self.roster.len()
    }
}

impl Snapshot {
    /// The fleet of these sites and edges. A site that is not among `sites` is one of which nothing is known but its name; a
    /// site without edges is left out.
    pub fn new(sites: impl IntoIterator<Item = Site>, edges: impl IntoIterator<Item = Edge>) -> Result<Self, FleetError> {
        let mut sites: HashMap<_, _> = sites.into_iter().map(|site| (Arc::clone(&site.name), site)).collect();
        let mut edges: Vec<_> = edges.into_iter().collect();
        edges.sort_by(|a, b| (&a.site, &a.id).cmp(&(&b.site, &b.id)));
        let mut snapshot = Self::default();
        let mut first = 0;
        for of_site in edges.chunk_by(|a, b| a.site == b.site) {
            let name = &of_site[0].site;
            let site = sites.remove(name).unwrap_or_else(|| Site::named(Arc::clone(name)));
            let members = of_site.iter().map(|edge| (edge.id.as_ref(), edge.weights));
            let roster = Roster::new(site.line, members).map_err(|why| FleetError::Site { site: Arc::clone(name), why })?;
            if snapshot.sites.len() >= SITES_MAX {
                return Err(FleetError::TooManySites);
            }
            snapshot.by_name.insert(Arc::clone(name), snapshot.sites.len());
            snapshot.points.push(&site);
            snapshot.sites.push(Standing { site, roster, first });
            first += of_site.len();
        }
        for (at, edge) in edges.iter().enumerate() {
            if snapshot.by_id.insert(Arc::clone(&edge.id), at).is_some() {
                return Err(FleetError::Twice { edge: Arc::clone(&edge.id) });
            }
        }
        snapshot.edges = edges;
        snapshot.among_sites = snapshot.roster_of_sites()?;
        Ok(snapshot)
    }

    fn roster_of_sites(&self) -> Result<Roster, FleetError> {
        let throughput = |standing: &Standing| {
            let of_edges = self.edges[standing.edges()].iter().map(|edge| u64::from(edge.weights.throughput));
            u32::try_from(of_edges.sum::<u64>().max(1)).unwrap_or(u32::MAX)
        };
        let weights = |standing| Weights { throughput: throughput(standing), storage: 0 };
        let sites = self.sites.iter().map(|standing| (standing.site.name.as_ref(), weights(standing)));
        Roster::new(Line::NO_HEAD, sites).map_err(FleetError::Sites)
    }

    /// Which of several sites is asked for a title, where nothing else makes a difference: the one with the smallest draw.
    pub(super) fn site_draw(&self, site: usize, title: Key) -> Draw {
        self.among_sites.turn(site, title).expect("a site weighs at least 1")
    }

    /// The sites that have edges, by name.
    pub fn sites(&self) -> impl ExactSizeIterator<Item = &Site> {
        self.sites.iter().map(|standing| &standing.site)
    }

    /// All edges, by site and id.
    pub fn edges(&self) -> &[Edge] {
        &self.edges
    }

    /// The edge with this id, by its place among [`edges`](Self::edges).
    pub fn edge(&self, id: &str) -> Option<usize> {
        self.by_id.get(id).copied()
    }

    /// The site of an edge, both by their places.
    ///
    /// # Panics
    /// If there is no such edge.
    pub fn site_of(&self, edge: usize) -> usize {
        assert!(edge < self.edges.len(), "edge {edge} of {}", self.edges.len());
        self.sites.partition_point(|standing| standing.first <= edge) - 1
    }

    /// The site with this name, by its place among [`sites`](Self::sites).
    pub fn site(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }
}

/// Why there is no such fleet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FleetError {
    /// Its edges are too many or named alike.
    #[error("site {site}: {why}")]
    Site { site: Arc<str>, why: RosterError },
    /// Their names hash alike.
    #[error("the sites: {0}")]
    Sites(RosterError),
    /// An id stands at two sites.
    #[error("edge {edge} stands at two sites: an id belongs to one edge")]
    Twice { edge: Arc<str> },
    /// More than [`SITES_MAX`].
    #[error("a fleet has at most {SITES_MAX} sites")]
    TooManySites,
}
