//! What keeps playback going while something else does not: requests are shed by priority when control is behind, and what a request
//! depends on is called with a deadline, a bound on calls at the same time, and a breaker. Nothing here repeats a call.

pub(crate) mod admission;
pub(crate) mod breaker;
pub(crate) mod dependency;
pub(crate) mod waits;

use std::time::Duration;

use self::dependency::Dependency;

/// What an answer is better with, and is given without when it does not come soon.
pub(crate) struct Needs {
    /// Where a viewer stopped, for playback; without it she begins at the beginning.
    pub(crate) resume: Dependency,
    /// The titles of a row; without them it has what they were a while ago.
    pub(crate) rows: Dependency,
    /// What a viewer can go on with; without it she is shown the other rows.
    pub(crate) unfinished: Dependency,
}

impl Default for Needs {
    fn default() -> Self {
        // All rows of an answer are made at the same time, so it takes no longer than one.
        let row = Duration::from_millis(250);
        Self {
            resume: Dependency::new("resume positions", Duration::from_millis(500), 256),
            rows: Dependency::new("titles of rows", row, 1024),
            unfinished: Dependency::new("unfinished titles", row, 256),
        }
    }
}

impl Needs {
    pub(crate) fn all(&self) -> [&Dependency; 3] {
        [&self.resume, &self.rows, &self.unfinished]
    }
}
