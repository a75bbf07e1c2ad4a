//! Tasks that wait for something to happen.

use std::task::{Context, Waker};

/// Tasks that wait for the same thing, each once.
#[derive(Debug, Default)]
pub(super) struct Waiters(Vec<Waker>);

impl Waiters {
    /// The task of `cx` waits too.
    pub(super) fn add(&mut self, cx: &Context<'_>) {
        if !self.0.iter().any(|waiter| waiter.will_wake(cx.waker())) {
            self.0.push(cx.waker().clone());
        }
    }

    /// It happened: moves all to those who are woken once no lock is held.
    pub(super) fn release(&mut self, woken: &mut Vec<Waker>) {
        woken.append(&mut self.0);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
