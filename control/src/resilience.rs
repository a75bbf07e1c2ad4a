//! What keeps playback going while something else does not: requests are shed by priority when control is behind, and what a request
//! depends on is called with a deadline, a bound on calls at the same time, and a breaker. Nothing here repeats a call.

pub(crate) mod admission;
pub(crate) mod breaker;
pub(crate) mod dependency;

use std::time::Duration;

use self::dependency::Dependency;

/// What an answer is better with, and is given without when it does not come soon.
pub(crate) struct Needs {
    /// Where a viewer stopped, for playback; without it she begins at the beginning.
    pub(crate) resume: Dependency,
}

impl Default for Needs {
    fn default() -> Self {
        Self { resume: Dependency::new("resume positions", Duration::from_millis(500), 256) }
    }
}

impl Needs {
    pub(crate) fn all(&self) -> [&Dependency; 1] {
        [&self.resume]
    }
}
