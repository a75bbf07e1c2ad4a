//! The second level: in what order the edges of one site stand for a title and a session. Pure; the first level is in [`super::near`].

use wire::placement::{BOUND, Draw};

use super::{
    decide::Question,
    fleet::{Edge, Standing},
    reasons::Won,
};

/// Below this load an edge is within the bound whatever the others bear: an idle site needs no balance.
const BOUND_FROM_PERMILLE: u64 = 100;

/// The edges of a site in order. Used for one site after the other, so that its memory is taken once.
#[derive(Debug, Default)]
pub(super) struct Arrangement {
    /// Which edges could serve, by their places in the site: given.
    pub(super) usable: Vec<bool>,
    /// Those edges: first the ones to which the title belongs now, with the reason, in the order of this session's turns; then the others in the order
    /// in which they would take a place.
    pub(super) order: Vec<(usize, Option<Won>)>,
    draws: Vec<Draw>,
    belonging: Vec<(Option<Draw>, usize, Won)>,
}

impl Arrangement {
    /// Finds the order of the edges that are usable.
    ///
    /// An edge that cannot serve, or bears more than its bound, gives its place to one that can, and its turns with it: what belonged to the others
    /// stays theirs, also where they stand in themselves.
    pub(super) fn arrange(&mut self, standing: &Standing, edges: &[Edge], question: &Question<'_>) {
        let Self { usable, order, draws, belonging } = self;
        let roster = &standing.roster;
        draws.clear();
        draws.extend((0..edges.len()).filter_map(|at| roster.draw(at, question.title, question.popularity)));
        draws.sort_unstable();
        let (owners, next) = draws.split_at(roster.replicas(question.popularity).min(draws.len()));
        let bound = Bound::of(edges, usable);
        let takes = |at: usize| usable[at] && bound.has_room(&edges[at]);
        // Every place begins to look for its stand-in at another edge and asks no other place, so that whatever becomes of one place moves no other.
        let stand_in = |place: usize| {
            let from = place % next.len().max(1);
            next[from..].iter().chain(&next[..from]).map(Draw::edge).find(|at| takes(*at))
        };
        belonging.clear();
        for (place, owner) in owners.iter().map(Draw::edge).enumerate() {
            let turn = if owners.len() > 1 { roster.turn(owner, question.session) } else { None };
            if takes(owner) {
                belonging.push((turn, owner, Won::Belongs));
            } else if let Some(stand_in) = stand_in(place) {
                belonging.push((turn, stand_in, Won::InPlace));
            } else if usable[owner] {
                belonging.push((turn, owner, Won::Belongs));
            }
        }
        // An edge that serves nothing popular has no turn: it comes last.
        belonging.sort_unstable_by_key(|(turn, at, _)| (turn.is_none(), *turn, *at));

        order.clear();
        for (_, at, why) in &*belonging {
            // Where few are left an edge stands in for two, and is named for the turn that comes first.
            if std::mem::take(&mut usable[*at]) {
                order.push((*at, Some(*why)));
            }
        }
        for at in draws.iter().map(Draw::edge).chain(0..edges.len()) {
            if std::mem::take(&mut usable[at]) {
                order.push((at, None));
            }
        }
    }
}

/// What the edges of a site that could serve bear together, and what they can.
struct Bound {
    load: u64,
    throughput: u64,
}

impl Bound {
    fn of(edges: &[Edge], usable: &[bool]) -> Self {
        let usable = edges.iter().zip(usable).filter(|(_, usable)| **usable).map(|(edge, _)| edge);
        usable.fold(Self { load: 0, throughput: 0 }, |Self { load, throughput }, edge| Self {
            load: load + u64::from(edge.weights.throughput) * u64::from(edge.load_permille),
            throughput: throughput + u64::from(edge.weights.throughput),
        })
    }

    /// Whether an edge bears at most [`BOUND`] times the weighted mean.
    fn has_room(&self, edge: &Edge) -> bool {
        let load = u64::from(edge.load_permille);
        let (numerator, denominator) = BOUND;
        load < BOUND_FROM_PERMILLE
            || u128::from(load) * u128::from(self.throughput) * u128::from(denominator)
                <= u128::from(self.load) * u128::from(numerator)
    }
}
