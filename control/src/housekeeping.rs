//! What is done once in a while: the audit log and the kept answers are pruned. Begins at once, so that a restart is no way around it.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{api::App, db::DbError};

/// How often.
const EVERY: Duration = Duration::from_secs(3600);

/// Keeps house until `stop`. What fails is tried again the next time.
pub(crate) async fn run(app: Arc<App>, audit_keep: Duration, stop: CancellationToken) {
    loop {
        let round = async {
            if let Err(error) = prune(&app, audit_keep).await {
                tracing::error!(%error, "the audit log and kept answers cannot be pruned");
            }
            sleep(EVERY).await;
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = round => {}
        }
    }
}

async fn prune(app: &App, audit_keep: Duration) -> Result<(), DbError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let forgotten = app.db.prune_audit(ms(now.saturating_sub(audit_keep))).await?;
    let kept = app.db.prune_answers(ms(now)).await?;
    app.once.recount(kept);
    tracing::debug!(forgotten, kept, "audit log and kept answers pruned");
    Ok(())
}
