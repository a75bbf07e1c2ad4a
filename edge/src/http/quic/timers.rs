//! When connections want to be looked after. Pure.
//!
//! A connection's deadline moves with nearly every acknowledgement, mostly to later. It is filed anew only when it moves to earlier; one
//! that comes up too early is looked after for nothing, once, and then filed rightly. One entry a connection, whatever it does.

use std::{collections::BTreeSet, time::Instant};

use quinn_proto::ConnectionHandle;

/// Deadlines of connections.
#[derive(Debug, Default)]
pub(super) struct Timers {
    order: BTreeSet<(Instant, usize)>,
    /// Under which time each connection is filed.
    filed: Vec<Option<Instant>>,
}

impl Timers {
    /// `handle` wants to be looked after at `deadline`, if at all.
    pub(super) fn want(&mut self, handle: ConnectionHandle, deadline: Option<Instant>) {
        let Some(deadline) = deadline else { return };
        if handle.0 >= self.filed.len() {
            self.filed.resize(handle.0 + 1, None);
        }
        let filed = &mut self.filed[handle.0];
        if filed.is_some_and(|filed| filed <= deadline) {
            return;
        }
        if let Some(later) = filed.replace(deadline) {
            self.order.remove(&(later, handle.0));
        }
        self.order.insert((deadline, handle.0));
    }

    /// Takes one that is due.
    pub(super) fn due(&mut self, now: Instant) -> Option<ConnectionHandle> {
        let (deadline, handle) = *self.order.first()?;
        if deadline > now {
            return None;
        }
        self.order.pop_first();
        self.filed[handle] = None;
        Some(ConnectionHandle(handle))
    }

    /// `handle` is no more.
    pub(super) fn forget(&mut self, handle: ConnectionHandle) {
        if let Some(filed) = self.filed.get_mut(handle.0).and_then(Option::take) {
            self.order.remove(&(filed, handle.0));
        }
    }

    /// When to look next.
    pub(super) fn next(&self) -> Option<Instant> {
        self.order.first().map(|(deadline, _)| *deadline)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const ONE: ConnectionHandle = ConnectionHandle(1);
    const TWO: ConnectionHandle = ConnectionHandle(2);

    #[test]
    fn deadlines_come_up_in_order_and_once() {
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let mut timers = Timers::default();
        timers.want(TWO, Some(after(20)));
        timers.want(ONE, Some(after(10)));
        assert_eq!((timers.due(after(9)), timers.next()), (None, Some(after(10))));
        assert_eq!((timers.due(after(30)), timers.due(after(30)), timers.due(after(30))), (Some(ONE), Some(TWO), None));
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn a_connection_has_one_entry_however_often_its_deadline_moves() {
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let mut timers = Timers::default();
        for ms in [500, 400, 900, 300, 800] {
            timers.want(ONE, Some(after(ms)));
            timers.want(TWO, Some(after(1000 + ms)));
            assert_eq!(timers.len(), 2);
        }
        timers.want(ONE, None);
        assert_eq!(timers.next(), Some(after(300)), "the earliest it ever was");
        timers.forget(ONE);
        timers.forget(ConnectionHandle(9));
        assert_eq!((timers.len(), timers.next()), (1, Some(after(1300))));
    }
}
