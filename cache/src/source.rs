//! Where bytes come from: handed in by whoever has a network.

use std::{ops::Range, sync::Arc};

use crate::{FillError, Filler, Generation};

/// Brings slices. One call is one attempt at one slice; trying another place after a failure is the source's own business, as long as
/// nothing was written yet.
pub trait Source: Send + Sync + 'static {
    /// Brings what `want` says into `filler`: [`Filler::head`] once, then the bytes in order, then `Ok`.
    ///
    /// Runs as a task of its own on the runtime of the reader that asked first, and is not cancelled when that reader leaves. It
    /// must end by itself: a stall is the source's to notice.
    fn fill(self: Arc<Self>, want: Want, filler: Filler) -> impl Future<Output = Result<(), FillError>> + Send;
}

/// What a fill is to bring.
#[derive(Debug, Clone)]
pub struct Want {
    /// The object.
    pub key: Arc<str>,
    /// Its bytes: one slice. Where the length is not known yet, the end may lie beyond the object's.
    pub range: Range<u64>,
    /// The version. Unless `revalidate`, no other will do ([`FillError::Changed`]).
    pub generation: Option<Arc<Generation>>,
    /// `generation` may be out of date: if it is still the current one [`Filler::unchanged`] is answer enough, and else the new one's
    /// bytes are wanted.
    pub revalidate: bool,
}
