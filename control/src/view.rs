//! The fleet as answers need it: the snapshot that decisions are taken in, and of each of its edges where it is and what it holds. Made
//! anew when the fleet changed, shared by all who answer.

use std::{sync::Arc, time::Instant};

use parking_lot::{Mutex, RwLock};

use crate::{
    fleet::{Contents, EdgeId, Fleet},
    steering::{Steering, fleet::Snapshot},
};

/// One edge, at the same place as in the snapshot.
pub(crate) struct Seen {
    pub(crate) id: EdgeId,
    pub(crate) site: String,
    /// Where players reach it.
    pub(crate) url: String,
    pub(crate) contents: Option<Arc<Contents>>,
}

/// The fleet at one moment.
pub(crate) struct View {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) edges: Vec<Seen>,
}

/// The last one.
#[derive(Default)]
pub(crate) struct Views(Mutex<Option<Arc<View>>>);

impl Views {
    /// The fleet as it is now.
    pub(crate) fn now(&self, steering: &Steering, fleet: &RwLock<Fleet>) -> Arc<View> {
        let fleet = fleet.read();
        let snapshot = steering.snapshot(&fleet, Instant::now());
        let mut last = self.0.lock();
        if let Some(view) = last.as_ref().filter(|view| Arc::ptr_eq(&view.snapshot, &snapshot)) {
            return Arc::clone(view);
        }
        // A snapshot that was made before may name edges that are gone by now: those keep their last address.
        let seen = |edge: &crate::steering::fleet::Edge| {
            let known = fleet.edge(&edge.id);
            Seen {
                id: edge.id.parse().expect("edges of the fleet have good ids"),
                site: edge.site.to_string(),
                url: known.map_or_else(String::new, |known| known.registration.url.clone()),
                contents: known.and_then(|known| known.contents.clone()),
            }
        };
        let view = Arc::new(View { edges: snapshot.edges().iter().map(seen).collect(), snapshot });
        *last = Some(Arc::clone(&view));
        view
    }
}

impl View {
    /// The edge with this id.
    pub(crate) fn edge(&self, id: &str) -> Option<&Seen> {
        self.snapshot.edge(id).map(|at| &self.edges[at])
    }
}
