//! Why bytes did not come. Cloned to every waiter of a fill.

use std::sync::Arc;

/// A fill that failed, said once for all who waited.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FillError {
    /// The source says that there is no such object.
    #[error("the source has no such object")]
    NotFound,
    /// The source says that the object ends before the wanted range.
    #[error("the object ends before the wanted range")]
    OutOfRange,
    /// The source has another version than the one being read.
    #[error("the object changed at its source")]
    Changed,
    /// The source ended early.
    #[error("the source sent {received} of {expected} bytes")]
    Short {
        /// Bytes of the slice.
        expected: usize,
        /// Bytes that came.
        received: usize,
    },
    /// The source went on after the slice's end.
    #[error("the source sent more than the {expected} bytes of the slice")]
    TooLong {
        /// Bytes of the slice.
        expected: usize,
    },
    /// No source answered; trying later may help.
    #[error("no source answered: {0}")]
    Unavailable(Arc<str>),
    /// The source answered, but not with what can be served.
    #[error("the source's answer cannot be served: {0}")]
    Refused(Arc<str>),
    /// No memory under the budget in time; trying later may help.
    #[error("no memory for the slice under the budget")]
    Busy,
}
