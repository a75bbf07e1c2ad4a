//! How handles reach the driver: a list of connections that have something to do, and a waker.

use std::task::Waker;

use parking_lot::Mutex;
use quinn_proto::ConnectionHandle;

/// Shared by the driver and all handles of a worker. Its lock is taken last, and held for a few instructions.
#[derive(Debug, Default)]
pub(super) struct Hub(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Each connection at most once: it knows that it is listed.
    listed: Vec<ConnectionHandle>,
    driver: Option<Waker>,
    /// The driver has been woken and has not looked since.
    woken: bool,
    /// The endpoint was dropped.
    abandoned: bool,
}

impl Hub {
    /// Has the driver look after a connection.
    pub(super) fn list(&self, handle: ConnectionHandle) {
        self.tell(|state| state.listed.push(handle));
    }

    /// Has the driver look around.
    pub(super) fn wake(&self) {
        self.tell(|_| ());
    }

    /// Lets the driver end once its last connection has.
    pub(super) fn abandon(&self) {
        self.tell(|state| state.abandoned = true);
    }

    fn tell(&self, what: impl FnOnce(&mut State)) {
        let waker = {
            let mut state = self.0.lock();
            what(&mut state);
            if std::mem::replace(&mut state.woken, true) { None } else { state.driver.clone() }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The driver looks: `listed`, which must be empty, gets what is listed. Says whether the endpoint was dropped.
    pub(super) fn look(&self, driver: &Waker, listed: &mut Vec<ConnectionHandle>) -> bool {
        let mut state = self.0.lock();
        std::mem::swap(&mut state.listed, listed);
        state.woken = false;
        if !state.driver.as_ref().is_some_and(|known| known.will_wake(driver)) {
            state.driver = Some(driver.clone());
        }
        state.abandoned
    }
}
