//! The decision: which edges a viewer is sent to, best first, and why each of the others is not. Pure.
//!
//! Sites stand in the order of `near`. Their edges are looked at in that order, and each either cannot serve (silent, draining, unwell, full) or stands on a level: what
//! the rules like comes first, all of it, and what they do not like is kept to fall back on. Inside a site edges stand as
//! [`wire::placement`] has them. [`decide`] and [`explain`] are one walk, so that an explanation is of the decision itself.

use std::time::{Duration, Instant};

use ipnet::IpNet;
use wire::placement::{Key, Popularity};

use super::{
    fleet::{Edge, Snapshot, Standing, State},
    geo::{Coordinates, HalfChord, OnSphere},
    near::{Near, Sites},
    reasons::{Lost, Outcome, Won},
    site::Arrangement,
};

/// The most edges that an answer names: enough to fail over, little enough to read.
pub const RANKED_MAX: usize = 8;
/// The most edges of one site in an answer, while another site has some to name.
pub const RANKED_OF_SITE_MAX: usize = 4;
/// The most sites with edges to name that are looked at for one answer, nearest first.
pub const SITES_REACHED_MAX: usize = 16;
/// What is decided by, the same for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// An edge whose last report is older is silent.
    pub silent_after: Duration,
    /// From this load on an edge begins to lose sessions, in thousandths of what it bears.
    pub shed_from_permille: u16,
    /// At this load it has lost all of them.
    pub full_at_permille: u16,
    /// A site further away than this is not near, unless it announces the client's prefix.
    pub reach_km: u32,
    /// A site that costs more than this is dear.
    pub cost_max: u32,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            silent_after: Duration::from_secs(10),
            shed_from_permille: 800,
            full_at_permille: 950,
            reach_km: 2500,
            cost_max: u32::MAX,
        }
    }
}

impl Rules {
    /// Whether an edge with this load is spared this session: none below `shed_from_permille`, all at `full_at_permille`, in between
    /// evenly more, and always the same sessions first, so that one that was spared stays spared while the load grows.
    fn sheds(&self, load_permille: u16, session: Key) -> bool {
        let over = u64::from(load_permille.saturating_sub(self.shed_from_permille));
        let room = u64::from(self.full_at_permille.saturating_sub(self.shed_from_permille)).max(1);
        over > 0 && session.as_u64() % room < over
    }
}

/// Who asks for what.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The sites that announce a prefix with the client in it, longest first; none where the client's address is not known.
    pub announced: &'a [Announced<'a>],
    /// Where the client is, if known.
    pub place: Option<Coordinates>,
    /// The title's root.
    pub title: Key,
    pub popularity: Popularity,
    /// Whose turn it is among equals: the same for all requests of one session.
    pub session: Key,
}

/// A site and the prefix by which it serves a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announced<'a> {
    pub site: &'a str,
    pub prefix: IpNet,
}

/// Whether an edge has a title, as its content digest says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    Holds,
    Lacks,
    /// It sent no digest.
    Unknown,
}

/// The answer: edges by their place in the [`Snapshot`], best first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ranking {
    /// At most [`RANKED_MAX`], of two sites at least where there are.
    pub edges: Vec<usize>,
    /// The nearest site of all that serve this client, by its place in the snapshot, whether or not it can serve it now.
    pub home: Option<usize>,
    /// Why the first edge is not one of `home`; none if it is.
    pub miss: Option<Miss>,
}

/// Why a viewer is not served by the nearest site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Miss {
    /// The title is not there.
    Content,
    /// The title may be there, and no edge takes this viewer: full, shedding, draining, unwell or silent.
    Health,
    /// The site is further away or dearer than the rules like.
    Rules,
}

/// Every edge of the fleet and what became of it, ranked ones first.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    pub ranking: Ranking,
    pub candidates: Vec<Candidate>,
}

/// One edge in an [`Explanation`].
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// By its place in the snapshot.
    pub edge: usize,
    /// The longest of its site's prefixes with the client in it.
    pub prefix: Option<IpNet>,
    /// From the client to its site, along a great circle, where both are known.
    pub distance_km: Option<u32>,
    /// None where nobody asked, because it was out of the question before.
    pub content: Option<Content>,
    pub outcome: Outcome,
}

/// Ranks edges for a question. `content` tells whether an edge, by its place in the snapshot, holds the title; it is asked for edges
/// that could serve, at most once for each.
pub fn decide(
    question: &Question<'_>,
    snapshot: &Snapshot,
    rules: &Rules,
    now: Instant,
    content: impl FnMut(usize) -> Content,
) -> Ranking {
    Walk::<_, false>::new(question, snapshot, rules, now, content).run().ranking
}

/// The same, and the content of every edge that could serve at the sites that the walk comes to or might come to if others failed: what it takes to
/// decide again in another fleet.
pub fn survey(
    question: &Question<'_>,
    snapshot: &Snapshot,
    rules: &Rules,
    now: Instant,
    mut content: impl FnMut(usize) -> Content,
) -> (Ranking, Vec<(usize, Content)>) {
    let mut known = Vec::new();
    let mut walk = Walk::<_, false>::new(question, snapshot, rules, now, |edge| {
        let content = content(edge);
        known.push((edge, content));
        content
    });
    walk.surveys = true;
    let ranking = walk.run().ranking;
    (ranking, known)
}

/// The same, and what became of every edge of the fleet.
pub fn explain(
    question: &Question<'_>,
    snapshot: &Snapshot,
    rules: &Rules,
    now: Instant,
    content: impl FnMut(usize) -> Content,
) -> Explanation {
    Walk::<_, true>::new(question, snapshot, rules, now, content).run()
}

/// What the rules think of an edge that could serve. Earlier ones are ranked before later ones, wherever they stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Liked,
    MustFill,
    Sheds,
    Remote,
}

/// An edge that could serve.
#[derive(Debug)]
struct Entry {
    level: Level,
    /// Of its site, by nearness.
    rank: usize,
    class: Class,
    edge: usize,
    content: Content,
    why: Won,
}

/// What places an edge before others of its site on the same level; those of one class stand as the site has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    /// The title belongs to it now.
    Belongs,
    Holds,
    MayHold,
    Lacks,
}

/// One question on its way through the fleet.
struct Walk<'a, C, const EXPLAINS: bool> {
    question: &'a Question<'a>,
    snapshot: &'a Snapshot,
    rules: &'a Rules,
    now: Instant,
    /// The oldest report that counts; none where all do, since the clock began later.
    heard_since: Option<Instant>,
    content: C,
    half_chord_max: HalfChord,
    /// Asks for the content of edges at so many sites, also where fewer are enough.
    surveys: bool,
    /// Sites that were looked at, and the first one.
    seen: usize,
    home: Option<usize>,
    /// By site, nearest first; those of one site by class and turn.
    entries: Vec<Entry>,
    arrangement: Arrangement,
    /// Only where it is to be explained.
    lost: Vec<(usize, Lost)>,
}

impl<'a, C: FnMut(usize) -> Content, const EXPLAINS: bool> Walk<'a, C, EXPLAINS> {
    fn new(question: &'a Question<'a>, snapshot: &'a Snapshot, rules: &'a Rules, now: Instant, content: C) -> Self {
        Self {
            question,
            snapshot,
            rules,
            now,
            heard_since: now.checked_sub(rules.silent_after),
            content,
            half_chord_max: HalfChord::of_km(f64::from(rules.reach_km)),
            surveys: false,
            seen: 0,
            home: None,
            entries: Vec::with_capacity(8 * RANKED_MAX),
            arrangement: Arrangement::default(),
            lost: Vec::new(),
        }
    }

    fn run(mut self) -> Explanation {
        let mut sites = Sites::of(self.question, self.snapshot);
        let (mut named, mut reached) = (0, 0);
        for near in sites.by_ref() {
            let before = self.entries.len();
            self.look_at(&near);
            let new = &self.entries[before..];
            named += new.iter().filter(|entry| entry.level == Level::Liked).count().min(RANKED_OF_SITE_MAX);
            reached += usize::from(!new.is_empty());
            if reached >= SITES_REACHED_MAX || (reached >= 2 && named >= RANKED_MAX) {
                break;
            }
        }
        if self.surveys {
            while reached < SITES_REACHED_MAX
                && let Some(near) = sites.next()
            {
                reached += usize::from(self.survey(&near));
            }
        }
        if EXPLAINS {
            let edges = |site: usize| self.snapshot.sites[site].edges();
            self.lost.extend(sites.closed().flat_map(edges).map(|edge| (edge, Lost::NotItsClient)));
            self.lost.extend(sites.flat_map(|near| edges(near.site)).map(|edge| (edge, Lost::NotReached)));
        }
        self.answer()
    }

    /// Asks for the content of a site's edges that could serve. False if there are none.
    fn survey(&mut self, near: &Near) -> bool {
        let edges = self.snapshot.sites[near.site].edges();
        let able: Vec<_> = edges.filter(|edge| self.incapacity(&self.snapshot.edges[*edge]).is_none()).collect();
        for edge in &able {
            let _ = (self.content)(*edge);
        }
        !able.is_empty()
    }

    /// Files each edge of a site as one that could serve, or as lost.
    fn look_at(&mut self, near: &Near) {
        let standing = &self.snapshot.sites[near.site];
        let edges = &self.snapshot.edges[standing.edges()];
        let mut arrangement = std::mem::take(&mut self.arrangement);
        arrangement.usable.clear();
        for (at, edge) in edges.iter().enumerate() {
            let lost = self.incapacity(edge);
            arrangement.usable.push(lost.is_none());
            if EXPLAINS && let Some(lost) = lost {
                self.lost.push((standing.first + at, lost));
            }
        }
        if arrangement.usable.contains(&true) {
            let remote = self.remote(near, standing);
            arrangement.arrange(standing, edges, self.question);
            let before = self.entries.len();
            for (at, belongs) in &arrangement.order {
                self.enter(standing, *at, *belongs, remote);
            }
            self.entries[before..].sort_by_key(|entry| entry.class);
        }
        self.arrangement = arrangement;
        self.home = self.home.or(Some(near.site));
        self.seen += 1;
    }

    /// Why an edge cannot serve anybody.
    fn incapacity(&self, edge: &Edge) -> Option<Lost> {
        let Some(reported) = edge.reported else {
            return Some(Lost::Silent { age: None });
        };
        if self.heard_since.is_some_and(|since| reported < since) {
            return Some(Lost::Silent { age: Some(self.now.saturating_duration_since(reported)) });
        }
        match edge.state {
            State::Draining => Some(Lost::Draining),
            State::Unwell => Some(Lost::Unwell),
            State::Ready if edge.load_permille >= self.rules.full_at_permille => {
                Some(Lost::Full { load_permille: edge.load_permille })
            }
            State::Ready => None,
        }
    }

    /// Why a site is not liked, wherever its edges stand.
    fn remote(&self, near: &Near, standing: &Standing) -> Option<Won> {
        if standing.site.cost > self.rules.cost_max {
            return Some(Won::Dear { cost: standing.site.cost });
        }
        let half_chord = near.half_chord.filter(|half_chord| near.prefix.is_none() && *half_chord > self.half_chord_max)?;
        Some(Won::Far { distance_km: km(half_chord) })
    }

    fn enter(&mut self, standing: &Standing, at: usize, belongs: Option<Won>, remote: Option<Won>) {
        let edge = standing.first + at;
        let content = (self.content)(edge);
        let is_popular = self.question.popularity >= standing.site.line.popularity;
        let (class, level, why) = match (belongs, content) {
            // What is popular and belongs there is fetched once, for many.
            (Some(why), Content::Lacks) if is_popular => (Class::Belongs, Level::Liked, why),
            (Some(_), Content::Lacks) => (Class::Belongs, Level::MustFill, Won::MustFill),
            (Some(why), _) => (Class::Belongs, Level::Liked, why),
            (None, Content::Holds) => (Class::Holds, Level::Liked, Won::Holds),
            (None, Content::Unknown) => (Class::MayHold, Level::Liked, Won::MayHold),
            (None, Content::Lacks) => (Class::Lacks, Level::MustFill, Won::MustFill),
        };
        let load_permille = self.snapshot.edges[edge].load_permille;
        let (level, why) = match remote {
            Some(why) => (Level::Remote, why),
            None if self.rules.sheds(load_permille, self.question.session) => (Level::Sheds, Won::Sheds { load_permille }),
            None => (level, why),
        };
        self.entries.push(Entry { level, rank: self.seen, class, edge, content, why });
    }

    /// Names the first entries, level by level, of one site only so many while there are others.
    fn answer(self) -> Explanation {
        let mut of_site = vec![0; self.seen];
        let (mut named, mut spared) = (Vec::with_capacity(RANKED_MAX), Vec::new());
        for level in [Level::Liked, Level::MustFill, Level::Sheds, Level::Remote] {
            for (at, entry) in self.entries.iter().enumerate().filter(|(_, entry)| entry.level == level) {
                if named.len() >= RANKED_MAX {
                    break;
                }
                if of_site[entry.rank] < RANKED_OF_SITE_MAX {
                    of_site[entry.rank] += 1;
                    named.push(at);
                } else {
                    spared.push(at);
                }
            }
        }
        let room = (RANKED_MAX - named.len()).min(spared.len());
        named.extend(spared.drain(..room));
        let edges = named.iter().map(|at| self.entries[*at].edge).collect();
        let ranking = Ranking { edges, home: self.home, miss: self.miss(&named) };
        let candidates = if EXPLAINS { self.candidates(&named, &spared) } else { Vec::new() };
        Explanation { ranking, candidates }
    }

    /// Why the first of those who are named is not of the nearest site, which has rank 0.
    fn miss(&self, named: &[usize]) -> Option<Miss> {
        if self.home.is_none() || named.first().is_some_and(|at| self.entries[*at].rank == 0) {
            return None;
        }
        let at_home = self.entries.iter().take_while(|entry| entry.rank == 0);
        Some(match at_home.map(|entry| entry.level).min() {
            Some(Level::MustFill) => Miss::Content,
            Some(Level::Remote) => Miss::Rules,
            Some(Level::Liked | Level::Sheds) | None => Miss::Health,
        })
    }

    fn candidates(&self, named: &[usize], spared: &[usize]) -> Vec<Candidate> {
        let tell = |edge, content, outcome| candidate(self.question, self.snapshot, edge, content, outcome);
        let of_entry = |at: &usize, outcome| tell(self.entries[*at].edge, Some(self.entries[*at].content), outcome);
        let won = |(at, place): (&usize, usize)| of_entry(at, Outcome::Won { place, why: self.entries[*at].why });
        let mut candidates: Vec<_> = named.iter().zip(1..).map(won).collect();
        candidates.extend(spared.iter().map(|at| of_entry(at, Outcome::Lost(Lost::Diversity))));
        let outranked = (0..self.entries.len()).filter(|at| !named.contains(at) && !spared.contains(at));
        candidates.extend(outranked.map(|at| of_entry(&at, Outcome::Lost(Lost::Outranked))));
        candidates.extend(self.lost.iter().map(|(edge, why)| tell(*edge, None, Outcome::Lost(*why))));
        candidates
    }
}

fn candidate(question: &Question<'_>, snapshot: &Snapshot, edge: usize, content: Option<Content>, outcome: Outcome) -> Candidate {
    let standing = &snapshot.sites[snapshot.site_of(edge)];
    let announced = question.announced.iter().filter(|announced| *announced.site == *standing.site.name);
    let half_chord = snapshot.points.half_chord(snapshot.site_of(edge), question.place.map(OnSphere::from));
    Candidate {
        edge,
        prefix: announced.map(|announced| announced.prefix).max_by_key(IpNet::prefix_len),
        distance_km: half_chord.map(km),
        content,
        outcome,
    }
}

fn km(half_chord: HalfChord) -> u32 {
    half_chord.as_km().round() as u32
}

#[cfg(test)]
mod tests;
