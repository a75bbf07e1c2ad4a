//! Why a client gets nothing, said for the operator. What the client is told of it is decided in [`crate::respond`].

use ::http::Method;
use cache::{FillError, Verdict};
use wire::{object::PathError, token::Refusal};

/// A request that is not served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// The client's fault.
    #[error("method {0} is not for objects")]
    Method(Method),
    /// The client's fault: no object has such a path.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The client's, or that of who signed.
    #[error(transparent)]
    Token(#[from] Refusal),
    /// Nobody's fault.
    #[error("the version that the client wants is not the current one")]
    PreconditionFailed {
        /// Where the current one is known from.
        verdict: Verdict,
    },
    /// The client's fault.
    #[error("the range is beyond the end of {length} bytes")]
    Unsatisfiable {
        /// Bytes of the object.
        length: u64,
        /// Where that is known from.
        verdict: Verdict,
    },
    /// The origin's fault or ours, by the error.
    #[error(transparent)]
    Fill(#[from] FillError),
}
