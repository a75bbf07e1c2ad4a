//! Where bytes come from: handed in by whoever has a network.

use std::{ops::Range, sync::Arc};

use crate::{FillError, Filler, Generation};

/// Brings slices. One call is one attempt at what is missing of one slice; whether there is another is decided here, by one rule:
///
/// - [`FillError::Unavailable`] and [`FillError::Short`], and a fill that stalls, are worth another attempt, wherever it goes.
/// - All others are what a place *says* ([`FillError::NotFound`], [`FillError::Changed`], [`FillError::OutOfRange`], [`FillError::Refused`],
///   [`FillError::TooLong`]): it would say the same again, so they are worth another attempt only if that goes elsewhere.
///
/// After the last attempt all who wait are told the last error.
pub trait Source: Send + Sync + 'static {
    /// How many attempts there are at one slice. At least one is made.
    fn attempts_max(&self) -> u32 {
        2
    }

    /// Whether `attempt`, counted from 0, goes to another place than the one before it.
    fn is_elsewhere(&self, attempt: u32) -> bool {
        let _ = attempt;
        false
    }

    /// Brings what `want` says into `filler`: [`Filler::head`] once, then the bytes in order, then `Ok`.
    ///
    /// Runs in a task of its own on the runtime of the reader that asked first, and is not cancelled when that reader leaves. It is dropped when
    /// it stalls after its first byte and there is another attempt ([`crate::Rules`]), or when nobody waits any more; else it must end by
    /// itself: that nothing comes is the source's to notice.
    fn fill(self: Arc<Self>, want: Want, filler: Filler) -> impl Future<Output = Result<(), FillError>> + Send;
}

/// What a fill is to bring.
#[derive(Debug, Clone)]
pub struct Want {
    /// The object.
    pub key: Arc<str>,
    /// Its bytes: one slice, or what is missing of it. Where the length is not known yet, the end may lie beyond the object's.
    pub range: Range<u64>,
    /// The version. Unless `revalidate`, no other will do ([`FillError::Changed`]).
    pub generation: Option<Arc<Generation>>,
    /// `generation` may be out of date: if it is still the current one [`Filler::unchanged`] is answer enough, and else the new one's
    /// bytes are wanted.
    pub revalidate: bool,
    /// How many attempts at this slice failed before.
    pub attempt: u32,
}
