//! Steering: which edges a viewer is sent to. The modules below are pure and each is one step; this one holds what they decide by and
//! is what the API talks to.
//!
//! A client's address gives the sites that announce its network ([`prefixes`]) and the place where it is ([`geo`]); with these, the title, the
//! fleet as it stands ([`fleet`]) and what each edge holds, [`mod@decide`] ranks edges and explains itself in the words of [`reasons`].

pub mod decide;
pub mod fleet;
pub mod geo;
mod near;
pub mod prefixes;
pub mod reasons;
pub mod record;
pub mod replay;
mod site;

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use wire::placement::{Key, Popularity};

use self::{
    decide::{Content, Explanation, Question, Ranking, Rules, decide, explain, survey},
    fleet::{Site, Snapshot},
    geo::{Located, Places},
    prefixes::Prefixes,
};
use crate::fleet::{Changes, Fleet};

/// A snapshot of the fleet serves so long while nothing urgent changed: a thousand edges report hundreds of times a second, and each report is
/// a change.
const SNAPSHOT_EVERY: Duration = Duration::from_millis(250);

/// What steering decides by. Each part is replaced whole, and a decision uses the parts that it finds.
pub(crate) struct Steering {
    rules: Rules,
    prefixes: ArcSwap<Prefixes>,
    places: ArcSwap<Option<Places>>,
    sites: ArcSwap<Vec<Site>>,
    last: Mutex<Last>,
    sessions: AtomicU64,
}

/// The last snapshot, of the fleet at this count of its changes, and when it was made; none where it must be made anew.
#[derive(Default)]
struct Last {
    made: Option<(Changes, Instant)>,
    snapshot: Arc<Snapshot>,
}

impl Last {
    fn serves(&self, changes: Changes, now: Instant) -> bool {
        self.made.is_some_and(|(made_of, at)| {
            made_of == changes || made_of.urgent == changes.urgent && now.saturating_duration_since(at) < SNAPSHOT_EVERY
        })
    }
}

/// Whom and what a decision is about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    /// The client's; without one there is neither a prefix nor a place.
    pub(crate) address: Option<IpAddr>,
    pub(crate) title: Key,
    pub(crate) popularity: Popularity,
    pub(crate) session: Key,
}

impl Steering {
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            rules,
            prefixes: ArcSwap::default(),
            places: ArcSwap::from_pointee(None),
            sites: ArcSwap::default(),
            last: Mutex::default(),
            sessions: AtomicU64::new(0),
        }
    }

    /// What is decided by.
    pub(crate) fn rules(&self) -> &Rules {
        &self.rules
    }

    /// How many prefixes are announced.
    #[cfg(test)]
    pub(crate) fn prefixes(&self) -> usize {
        self.prefixes.load().len()
    }

    /// From now on these sites announce these prefixes.
    pub(crate) fn announce(&self, prefixes: Prefixes) {
        self.prefixes.store(Arc::new(prefixes));
    }

    /// From now on clients are where these say.
    pub(crate) fn place(&self, places: Option<Places>) {
        self.places.store(Arc::new(places));
    }

    /// From now on this is known of sites. A site that is not among them is one of which nothing is known.
    pub(crate) fn describe(&self, sites: Vec<Site>) {
        self.sites.store(Arc::new(sites));
        self.last.lock().made = None;
    }

    /// Where a client is.
    pub(crate) fn locate(&self, address: IpAddr) -> Located {
        self.places.load().as_ref().as_ref().map_or_else(Located::default, |places| places.locate(address))
    }

    /// A session for a request that belongs to none: another one each time, so that they spread.
    pub(crate) fn new_session(&self) -> Key {
        Key::of(&self.sessions.fetch_add(1, Ordering::Relaxed).to_le_bytes())
    }

    /// The fleet as decisions see it, made anew if it changed; small changes may wait for [`SNAPSHOT_EVERY`].
    pub(crate) fn snapshot(&self, fleet: &Fleet, now: Instant) -> Arc<Snapshot> {
        let changes = fleet.changes();
        let mut last = self.last.lock();
        if !last.serves(changes, now) {
            match fleet.snapshot(self.sites.load().iter().cloned()) {
                Ok(snapshot) => last.snapshot = Arc::new(snapshot),
                Err(error) => {
                    tracing::error!(%error, "the fleet cannot be steered to as it is now; decisions use what it was before")
                }
            }
            last.made = Some((changes, now));
        }
        Arc::clone(&last.snapshot)
    }

    /// Ranks the edges of a snapshot.
    pub(crate) fn decide(
        &self,
        wanted: &Wanted,
        fleet: &Snapshot,
        now: Instant,
        content: impl FnMut(usize) -> Content,
    ) -> Ranking {
        self.ask(wanted, |question| decide(question, fleet, &self.rules, now, content))
    }

    /// The same, with what became of every edge.
    pub(crate) fn explain(
        &self,
        wanted: &Wanted,
        fleet: &Snapshot,
        now: Instant,
        content: impl FnMut(usize) -> Content,
    ) -> Explanation {
        self.ask(wanted, |question| explain(question, fleet, &self.rules, now, content))
    }

    /// Ranks the edges of a snapshot, and gives `record` what it takes to decide again.
    pub(crate) fn survey<T>(
        &self,
        wanted: &Wanted,
        fleet: &Snapshot,
        now: Instant,
        content: impl FnMut(usize) -> Content,
        record: impl FnOnce(&Question<'_>, &Ranking, &[(usize, Content)]) -> T,
    ) -> (Ranking, T) {
        self.ask(wanted, |question| {
            let (ranking, known) = survey(question, fleet, &self.rules, now, content);
            let record = record(question, &ranking, &known);
            (ranking, record)
        })
    }

    fn ask<T>(&self, wanted: &Wanted, answer: impl FnOnce(&Question<'_>) -> T) -> T {
        let Wanted { address, title, popularity, session } = *wanted;
        let prefixes = self.prefixes.load();
        let announced = address.map_or_else(Vec::new, |address| prefixes.announced(address));
        let place = address.and_then(|address| self.locate(address).place);
        answer(&Question { announced: &announced, place, title, popularity, session })
    }
}

#[cfg(test)]
mod tests {
    use wire::report::{Health, Load, Report};

    use super::*;
    use crate::fleet::{
        EdgeId,
        tests::{registration, report},
    };

    #[test]
    fn a_thousand_edges_that_report_as_before_share_a_snapshot_and_news_makes_another_at_once() {
        let steering = Steering::new(Rules::default());
        let start = Instant::now();
        let ids: Vec<EdgeId> = (0..1000).map(|n| format!("edge-{n}").parse().unwrap()).collect();
        let mut known = Fleet::default();
        for id in &ids {
            known.register(id.clone(), registration("https://edge")).unwrap();
            known.report(id, report(Health::Ready), start);
        }
        let first = steering.snapshot(&known, start);
        assert_eq!(first.edges().len(), 1000);
        let soon = start + Duration::from_millis(1);
        let busy = |share| Report { load: Load { cpu_share: Some(share), ..Load::default() }, ..report(Health::Ready) };
        for id in &ids {
            known.report(id, busy(0.04), soon);
            assert!(Arc::ptr_eq(&first, &steering.snapshot(&known, soon)), "little is new");
        }
        let later = steering.snapshot(&known, start + SNAPSHOT_EVERY);
        assert!(
            later.edges().iter().all(|edge| edge.load_permille == 40 && edge.reported == Some(soon)),
            "in a while all is known"
        );

        known.report(&ids[0], busy(0.9), soon);
        let loaded = steering.snapshot(&known, start + SNAPSHOT_EVERY);
        assert_eq!(loaded.edges().iter().filter(|edge| edge.load_permille == 900).count(), 1, "a load is known at once");
        known.drain(&ids[1], true);
        let drained = steering.snapshot(&known, start + SNAPSHOT_EVERY);
        let at = drained.edge("edge-1").unwrap();
        assert_eq!(drained.edges()[at].state, fleet::State::Draining, "and so is a drain");
        steering.describe(vec![Site { cost: 7, ..Site::named("site-1") }]);
        assert_eq!(steering.snapshot(&known, start + SNAPSHOT_EVERY).sites().next().unwrap().cost, 7, "and what sites are");
    }
}
