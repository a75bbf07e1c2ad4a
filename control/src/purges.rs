//! How far edges are with what operators had purged, as this process knows it. What must last is in the database.

use std::collections::HashMap;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::fleet::EdgeId;

/// Edges' progress.
pub(crate) struct Purges {
    /// The last number that each edge has carried out, with all before it.
    done: Mutex<HashMap<EdgeId, u64>>,
    /// Changes with each step of any edge.
    steps: watch::Sender<u64>,
}

impl Purges {
    /// What was known before a restart.
    pub(crate) fn new(done: impl IntoIterator<Item = (EdgeId, u64)>) -> Self {
        Self { done: Mutex::new(done.into_iter().collect()), steps: watch::Sender::new(0) }
    }

    /// The edge has carried out all up to this number.
    pub(crate) fn done(&self, edge: EdgeId, number: u64) {
        self.done.lock().insert(edge, number);
        self.steps.send_modify(|steps| *steps = steps.wrapping_add(1));
    }

    /// How far the edge is.
    pub(crate) fn of(&self, edge: &EdgeId) -> u64 {
        self.done.lock().get(edge).copied().unwrap_or(0)
    }

    /// The edge is gone.
    pub(crate) fn forget(&self, edge: &EdgeId) {
        self.done.lock().remove(edge);
        self.steps.send_modify(|steps| *steps = steps.wrapping_add(1));
    }

    /// Tells when an edge has come further.
    pub(crate) fn steps(&self) -> watch::Receiver<u64> {
        self.steps.subscribe()
    }
}
