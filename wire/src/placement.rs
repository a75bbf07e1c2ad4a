//! Placement: which edges of a site an object belongs to, in what order, and how many copies of it there are.
//!
//! Weighted rendezvous hashing: each edge draws a number for each object, the smallest draw in proportion to its weight comes
//! first, and who asks whom does not matter, since everybody with the same [`Roster`] finds the same order. Hash, logarithm and
//! comparison are integers and stand here to the last bit: they are a protocol between tiers, of which `docs/placement.md` has
//! the definition and test vectors. Pure, and of the standard library alone; knows no network, no clock and no health.
//!
//! Sources: D. Thaler and C. Ravishankar, "Using name-based mappings to increase hit rates" (rendezvous); C. Schindelhauer and
//! G. Schomaker, "Weighted distributed hash tables" (the logarithmic method); V. Mirrokni, M. Thorup and M. Zadimoghaddam,
//! "Consistent hashing with bounded loads".

#![forbid(unsafe_code)]

mod hash;
mod logarithm;

use std::{cmp::Ordering, error::Error, fmt};

use hash::{begin, finish, lane, xxh64};
use logarithm::cost;

/// The version of the protocol, which is also the seed of every draw: another definition must have another number.
pub const VERSION: u64 = 1;
/// The most edges of one site.
pub const EDGES_MAX: usize = 4096;
/// No edge takes more than this times the weighted mean while another has room: 5/4.
pub const BOUND: (u64, u64) = (5, 4);

/// What a share is counted in: this is all of it.
const WHOLE: u64 = 1_000_000_000;
/// However much the tail takes of an edge, it keeps this part of its throughput's weight in the head: 1/16.
const HEAD_PART_MIN: u128 = 16;

/// What is placed, an object or a title with all its objects; or whose turn it is, a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(u64);

impl Key {
    /// The key of what has this name: an object's path, its leading slash included.
    pub const fn of(name: &[u8]) -> Self {
        Self(xxh64(name, 0))
    }

    /// The hash itself.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The key that was this hash.
    pub const fn from_u64(hash: u64) -> Self {
        Self(hash)
    }
}

/// The share of its site's demand, in bytes, that an object is expected to have; in billionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Popularity(u32);

impl Popularity {
    /// Nobody is expected to ask.
    pub const NONE: Self = Self(0);

    /// `share` billionths of the demand. No object has more than a billion, so a [`Line`] beyond has nothing above it.
    pub const fn billionths(share: u32) -> Self {
        Self(share)
    }

    /// `part` of a `whole`, rounded down; at most all of it.
    pub const fn of(part: u64, whole: u64) -> Self {
        if whole == 0 {
            return Self::NONE;
        }
        let share = part as u128 * WHOLE as u128 / whole as u128;
        Self(if share < WHOLE as u128 { share as u32 } else { WHOLE as u32 })
    }

    /// In billionths.
    pub const fn as_billionths(self) -> u32 {
        self.0
    }
}

/// The popularity at which an object begins to belong to the head, and how much of the demand the rest makes together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// Objects of this popularity and above are the head, and are placed by throughput; those below are the tail, and are placed
    /// by storage. An object has one more copy for each time its popularity reaches the line.
    pub popularity: Popularity,
    /// The share of the demand that is below the line: what the tail takes of an edge, the head leaves to it.
    pub tail: Popularity,
}

impl Line {
    /// Everything is the tail: one copy of each, by storage.
    pub const NO_HEAD: Self = Self { popularity: Popularity(u32::MAX), tail: Popularity(WHOLE as u32) };
}

/// What an edge can do beside the others of its site. Any unit, the same for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weights {
    /// How fast it serves. 0: it is given no part of the head.
    pub throughput: u32,
    /// How much it holds. 0: it is given no part of the tail.
    pub storage: u32,
}

/// The edges of one site and its line: what everybody who places its objects must know alike.
///
/// Edges are named by their place in the order in which they were given; that order decides nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Roster {
    line: Popularity,
    seats: Vec<Seat>,
    throughput: u64,
}

/// One edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seat {
    /// The hash of its id, and the part of all its draws that comes of it.
    id: u64,
    lane: u64,
    throughput: u32,
    /// Its weight for objects of the head: its throughput, less what the tail takes of it.
    head: u64,
    /// Its weight for objects of the tail.
    tail: u32,
}

impl Roster {
    /// The roster of `edges`, each with its id.
    pub fn new<'a>(line: Line, edges: impl IntoIterator<Item = (&'a str, Weights)>) -> Result<Self, RosterError> {
        let mut seats = Vec::new();
        for (id, Weights { throughput, storage }) in edges {
            if seats.len() >= EDGES_MAX {
                return Err(RosterError::TooMany);
            }
            let id = xxh64(id.as_bytes(), 0);
            seats.push(Seat { id, lane: lane(id), throughput, head: 0, tail: storage });
        }
        let mut ids: Vec<_> = seats.iter().map(|seat| seat.id).collect();
        ids.sort_unstable();
        if ids.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(RosterError::SameId);
        }
        let throughput = seats.iter().map(|seat| u64::from(seat.throughput)).sum();
        let mut roster = Self { line: line.popularity, seats, throughput };
        roster.weigh_head(line.tail);
        Ok(roster)
    }

    /// Takes from each edge's weight in the head what the tail, placed by storage, takes of its throughput: so a large and slow
    /// edge, which has much of the tail, has less of the head, and both together are in proportion to throughput.
    fn weigh_head(&mut self, tail: Popularity) {
        let storage: u64 = self.seats.iter().map(|seat| u64::from(seat.tail)).sum();
        let (all, tail, storage, throughput) = (
            u128::from(WHOLE),
            u128::from(tail.0).min(u128::from(WHOLE)),
            u128::from(storage.max(1)),
            u128::from(self.throughput),
        );
        let weight = |seat: &Seat| {
            let full = u128::from(seat.throughput) * storage * all;
            full.saturating_sub(u128::from(seat.tail) * throughput * tail).max(full / HEAD_PART_MIN)
        };
        // As many bits as fit.
        let largest = self.seats.iter().map(weight).max().unwrap_or(0);
        let shift = (u128::BITS - largest.leading_zeros()).saturating_sub(u64::BITS);
        for seat in &mut self.seats {
            let head = u64::try_from(weight(seat) >> shift).expect("shifted to 64 bits");
            seat.head = head.max(u64::from(seat.throughput > 0));
        }
    }

    /// How many edges there are.
    pub fn len(&self) -> usize {
        self.seats.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.seats.is_empty()
    }

    /// On how many edges an object of this popularity belongs: on one, and on one more for each time that `popularity` reaches
    /// the line, until it is on all. Never fewer for a more popular one.
    pub fn replicas(&self, popularity: Popularity) -> usize {
        let more = popularity.0 / self.line.0.max(1);
        (1 + usize::try_from(more).unwrap_or(usize::MAX - 1)).min(self.seats.len())
    }

    /// The draw of one edge for an object; none for an edge that is given nothing of that kind. The smallest comes first.
    ///
    /// # Panics
    /// If the roster has no such edge.
    pub fn draw(&self, edge: usize, key: Key, popularity: Popularity) -> Option<Draw> {
        let seat = &self.seats[edge];
        let weight = if popularity < self.line { u64::from(seat.tail) } else { seat.head };
        Draw::new(key, seat, weight, edge)
    }

    /// The draw of one edge for a session: who is asked first of those that all have a part of the head, in proportion to what the tail leaves of
    /// their throughput.
    ///
    /// # Panics
    /// If the roster has no such edge.
    pub fn turn(&self, edge: usize, session: Key) -> Option<Draw> {
        let seat = &self.seats[edge];
        Draw::new(session, seat, seat.head, edge)
    }

    /// Every edge that may have the object, in the order in which it belongs to them: the first [`replicas`](Self::replicas) hold
    /// it, the next one takes the place of one that is lost.
    pub fn candidates(&self, key: Key, popularity: Popularity) -> Vec<usize> {
        let mut draws: Vec<_> = (0..self.len()).filter_map(|edge| self.draw(edge, key, popularity)).collect();
        draws.sort_unstable();
        draws.into_iter().map(|draw| draw.edge).collect()
    }

    /// The first of the candidates.
    pub fn owner(&self, key: Key, popularity: Popularity) -> Option<usize> {
        (0..self.len()).filter_map(|edge| self.draw(edge, key, popularity)).min().map(|draw| draw.edge)
    }
}

/// What an edge drew for a key. Less is better, and no two edges of a roster draw the same.
#[derive(Debug, Clone, Copy)]
pub struct Draw {
    /// About `cost / weight`: what tells most draws apart.
    quotient: f64,
    /// Exponentially distributed with mean 1 (over ln 2): `cost / weight` is then least for an edge in proportion to its weight.
    cost: u64,
    weight: u64,
    hash: u64,
    id: u64,
    edge: usize,
}

/// Quotients that differ by less than this part of their sum are compared exactly. Their own error is a fourth of it: three roundings of at
/// most 2⁻⁵³ each.
const QUOTIENT_ERROR: f64 = 1.0 / (1_u64 << 49) as f64;

impl Draw {
    fn new(key: Key, seat: &Seat, weight: u64, edge: usize) -> Option<Self> {
        if weight == 0 {
            return None;
        }
        let hash = finish(begin(key.0, VERSION), seat.lane);
        let cost = cost(hash);
        Some(Self { quotient: cost as f64 / weight as f64, cost, weight, hash, id: seat.id, edge })
    }

    /// Whose it is.
    pub const fn edge(&self) -> usize {
        self.edge
    }

    /// By `cost / weight`, exactly: as fractions are compared, by multiplying crosswise. Then the larger hash, then the smaller id.
    fn exactly(&self, other: &Self) -> Ordering {
        let ours = u128::from(self.cost) * u128::from(other.weight);
        let theirs = u128::from(other.cost) * u128::from(self.weight);
        ours.cmp(&theirs).then(other.hash.cmp(&self.hash)).then(self.id.cmp(&other.id))
    }
}

impl Ord for Draw {
    /// The order is exact: where floating point cannot tell for sure it does not decide.
    fn cmp(&self, other: &Self) -> Ordering {
        let (difference, sum) = (self.quotient - other.quotient, self.quotient + other.quotient);
        if difference > sum * QUOTIENT_ERROR {
            Ordering::Greater
        } else if -difference > sum * QUOTIENT_ERROR {
            Ordering::Less
        } else {
            self.exactly(other)
        }
    }
}

impl PartialOrd for Draw {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Draw {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Draw {}

/// What each edge of a site has to serve, and the bound that none goes beyond while another has room.
#[derive(Debug, Clone)]
pub struct Loads<'a> {
    roster: &'a Roster,
    expected: u64,
    loads: Vec<u64>,
}

impl<'a> Loads<'a> {
    /// Nothing is placed yet; `expected` is what all objects come to together, in the unit of [`place`](Self::place).
    pub fn expecting(roster: &'a Roster, expected: u64) -> Self {
        Self { roster, expected, loads: vec![0; roster.len()] }
    }

    /// Each edge's load as it is now.
    ///
    /// # Panics
    /// If there is not one load for each edge.
    pub fn measured(roster: &'a Roster, loads: Vec<u64>) -> Self {
        assert_eq!(loads.len(), roster.len(), "a load for each edge");
        Self { roster, expected: loads.iter().fold(0, |sum, load| sum.saturating_add(*load)), loads }
    }

    /// What each edge has to serve.
    pub fn loads(&self) -> &[u64] {
        &self.loads
    }

    /// Whether the edge, with `more`, is still within the bound: 5/4 of the part of all load that is due to its throughput.
    ///
    /// # Panics
    /// If the roster has no such edge.
    pub fn has_room(&self, edge: usize, more: u64) -> bool {
        let load = u128::from(self.loads[edge]) + u128::from(more);
        let due = u128::from(self.expected) * u128::from(self.roster.seats[edge].throughput);
        load * u128::from(self.roster.throughput) * u128::from(BOUND.1) <= due * u128::from(BOUND.0)
    }

    /// Places an object that brings `load`, and tells on which edges: its first candidates, without those that have no room for
    /// their part while others have. Sessions share a copied object by their turns, so its load is shared so too.
    ///
    /// The outcome depends on what was placed before: to find the same, all must place in the same order, the most popular first.
    pub fn place(&mut self, key: Key, popularity: Popularity, load: u64) -> Vec<usize> {
        let replicas = self.roster.replicas(popularity);
        let candidates = self.roster.candidates(key, popularity);
        let mut open = candidates.clone();
        let chosen = loop {
            let first = &open[..replicas.min(open.len())];
            match first.iter().position(|edge| !self.has_room(*edge, self.part(*edge, first, load))) {
                None => break first.to_vec(),
                Some(full) if open.len() > replicas => drop(open.remove(full)),
                // Nobody else has room: as if there were no bound.
                Some(_) => break candidates[..replicas.min(candidates.len())].to_vec(),
            }
        };
        for edge in &chosen {
            self.loads[*edge] = self.loads[*edge].saturating_add(self.part(*edge, &chosen, load));
        }
        chosen
    }

    /// What of `load` falls to one of those who share it.
    fn part(&self, edge: usize, sharing: &[usize], load: u64) -> u64 {
        let weight = |edge: usize| u128::from(self.roster.seats[edge].head);
        let all: u128 = sharing.iter().map(|edge| weight(*edge)).sum();
        let part = match all {
            0 => u128::from(load) / sharing.len() as u128,
            all => u128::from(load) * weight(edge) / all,
        };
        u64::try_from(part).expect("a part is not more than the whole")
    }
}

/// Why a roster cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RosterError {
    /// More than [`EDGES_MAX`].
    TooMany,
    /// Two edges with one id, or with two that hash alike.
    SameId,
}

impl fmt::Display for RosterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany => write!(f, "a site has at most {EDGES_MAX} edges: make two sites of it"),
            Self::SameId => f.write_str("two edges of a site have the same id, or ids with the same hash: rename one"),
        }
    }
}

impl Error for RosterError {}

#[cfg(test)]
mod tests;
