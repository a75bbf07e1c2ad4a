//! Folds: what is known from the log, in bounded memory, a pure function of the events in their order.
//!
//! No fold looks at a clock: the time is the log's. So a recount of the log comes to the very same, which is what tests hold them to.

mod bounded;
mod decay;
pub(crate) mod hours;
pub(crate) mod popularity;
pub(crate) mod quality;
mod sketch;
pub(crate) mod together;
pub(crate) mod trending;

pub use sketch::Sketch;

use crate::{
    event::Event,
    pack::{Damaged, Unpack},
};

/// Something that is summed up from events.
pub(crate) trait Fold: Default + Send + Sync + 'static {
    /// The name of its files.
    const NAME: &'static str;
    /// Of what it saves, and of what it computes: with another one it begins anew.
    const VERSION: u32;

    /// Takes an event. The log wrote it at `written_ms`, which never goes back.
    fn fold(&mut self, event: &Event<'_>, written_ms: u64);

    /// Writes all of it. The same events make the same bytes.
    fn save(&self, out: &mut Vec<u8>);

    /// Reads what was saved.
    fn load(unpack: &mut Unpack<'_>) -> Result<Self, Damaged>;

    /// How many events came too late for it.
    fn late(&self) -> u64 {
        0
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const NOW_MS: u64 = 1_795_254_355_700;

    pub(crate) fn saved<F: Fold>(fold: &F) -> Vec<u8> {
        let mut bytes = Vec::new();
        fold.save(&mut bytes);
        bytes
    }

    /// A fold that was saved and loaded, and saves as the same again.
    pub(crate) fn reloaded<F: Fold>(fold: &F) -> F {
        let bytes = saved(fold);
        let mut unpack = Unpack::new(&bytes, F::NAME);
        let loaded = F::load(&mut unpack).unwrap();
        assert!(unpack.is_empty());
        assert!(saved(&loaded) == bytes, "{} is saved as it was", F::NAME);
        loaded
    }
}
