//! How an edge stands: as far as its own life goes, and as far as operators let it take viewers.

use tokio::sync::watch;

/// How an edge stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is up and takes viewers.
    Ready,
    /// Operators want it to take nobody new. It serves all who come nevertheless.
    Drained,
    /// It is about to end, and finishes what it has.
    Draining,
    /// It serves nobody any more.
    Ended,
}

/// Whoever runs the edge keeps the first, and control's word comes by the second.
#[derive(Clone)]
pub(crate) struct Outlook {
    life: watch::Receiver<Standing>,
    drained: watch::Receiver<bool>,
}

impl Outlook {
    pub(crate) fn new(life: watch::Receiver<Standing>, drained: watch::Receiver<bool>) -> Self {
        Self { life, drained }
    }

    /// How it stands now, which is seen from now on.
    pub(crate) fn now(&mut self) -> Standing {
        match (*self.life.borrow_and_update(), *self.drained.borrow_and_update()) {
            (Standing::Ready, true) => Standing::Drained,
            (standing, _) => standing,
        }
    }

    /// Returns once it may stand otherwise than was seen; at once for ever, if nobody runs the edge any more.
    pub(crate) async fn changed(&mut self) {
        // An error means that nobody can change it any more. Of what operators want that is so while no control is configured.
        let drained = async {
            if self.drained.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            _ = self.life.changed() => {}
            () = drained => {}
        }
    }

    /// Returns once it has ended, or nobody runs it any more.
    pub(crate) async fn ended(&mut self) {
        // An error is the latter.
        let _ = self.life.wait_for(|standing| *standing == Standing::Ended).await;
    }

    /// Whether nobody runs it any more.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.life.has_changed().is_err()
    }
}
