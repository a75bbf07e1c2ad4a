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
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use parking_lot::Mutex;
use wire::placement::{Key, Popularity};

use self::{
    decide::{Content, Question, Ranking, Rules, decide},
    fleet::Snapshot,
};
use crate::fleet::Fleet;

/// What steering decides by. Nothing is known of sites and their networks yet, so all are equally near to everybody.
pub(crate) struct Steering {
    rules: Rules,
    /// Of the fleet at this count of its changes.
    snapshot: Mutex<(Option<u64>, Arc<Snapshot>)>,
    sessions: AtomicU64,
}

/// Whom and what a decision is about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) title: Key,
    pub(crate) popularity: Popularity,
    pub(crate) session: Key,
}

impl Steering {
    pub(crate) fn new(rules: Rules) -> Self {
        Self { rules, snapshot: Mutex::new((None, Arc::default())), sessions: AtomicU64::new(0) }
    }

    /// A session for a request that belongs to none: another one each time, so that they spread.
    pub(crate) fn new_session(&self) -> Key {
        Key::of(&self.sessions.fetch_add(1, Ordering::Relaxed).to_le_bytes())
    }

    /// The fleet as decisions see it, made anew if it changed.
    pub(crate) fn snapshot(&self, fleet: &Fleet) -> Arc<Snapshot> {
        let mut last = self.snapshot.lock();
        if last.0 != Some(fleet.changes()) {
            match fleet.snapshot([]) {
                Ok(snapshot) => last.1 = Arc::new(snapshot),
                Err(error) => {
                    tracing::error!(%error, "the fleet cannot be steered to as it is now; decisions use what it was before")
                }
            }
            last.0 = Some(fleet.changes());
        }
        Arc::clone(&last.1)
    }

    /// Ranks the edges of a snapshot.
    pub(crate) fn decide(
        &self,
        wanted: &Wanted,
        fleet: &Snapshot,
        now: Instant,
        content: impl FnMut(usize) -> Content,
    ) -> Ranking {
        let Wanted { title, popularity, session } = *wanted;
        let question = Question { announced: &[], place: None, title, popularity, session };
        decide(&question, fleet, &self.rules, now, content)
    }
}
