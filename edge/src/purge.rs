//! What operators purge, whether they tell the edge itself or control.

use cache::{Cache, Purge};
use wire::operate::What;

/// Why a purge was not done, or not for good.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotPurged {
    /// The operator's mistake; nothing was purged.
    #[error("{0}")]
    Flawed(String),
    /// The disk's fault.
    #[error("{what} is purged until this edge is restarted, but that cannot be written down: {reason}")]
    NotLasting { what: String, reason: String },
}

/// Purges all of them or, where one names nothing, none.
pub(crate) async fn purge(cache: &Cache, wanted: &[What]) -> Result<(), NotPurged> {
    if wanted.is_empty() {
        return Err(NotPurged::Flawed("there is nothing to purge in it".into()));
    }
    wanted.iter().try_for_each(What::check).map_err(|error| NotPurged::Flawed(error.to_string()))?;
    for what in wanted.iter().cloned() {
        let purge = match what {
            What::All => Purge::All,
            What::Object(path) => Purge::Object(path),
            What::Prefix(prefix) => Purge::Prefix(prefix),
            What::Tag(tag) => Purge::Tag(tag),
        };
        tracing::info!(%purge, "an operator purges");
        let what = purge.to_string();
        cache.purge(purge).await.map_err(|error| NotPurged::NotLasting { what, reason: error.to_string() })?;
    }
    Ok(())
}
