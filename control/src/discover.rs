//! What to watch next: the [`Overview`], the newest titles as they were a while ago, which every row of them can fall back to without asking
//! anybody, and what keeps it fresh. What rows are made of is elsewhere (`activity`: trends and likeness; `catalogue`: what is new, who is in
//! it), as is what a row may cost (`resilience`). Knows no HTTP and no SQL.

mod overview;

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    api::App,
    catalogue::Cursor,
    db::{Db, DbError},
};

pub(crate) use overview::Overview;

/// How often the overview is made anew, though nobody said that the catalogue changed: another control may have.
const REFRESH_EVERY: Duration = Duration::from_secs(300);
/// Changes that come together make one refresh.
const GATHER: Duration = Duration::from_millis(500);
/// How soon it is tried again when it could not be made.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// How often search is told what is popular.
const RANK_EVERY: Duration = Duration::from_secs(60);
/// Titles that are read at once.
const PAGE: u32 = 500;

/// The latest overview.
#[derive(Default)]
pub(crate) struct Discover {
    overview: ArcSwap<Overview>,
    changed: Notify,
}

impl Discover {
    pub(crate) fn overview(&self) -> Arc<Overview> {
        self.overview.load_full()
    }

    /// The catalogue is not as it was.
    pub(crate) fn changed(&self) {
        self.changed.notify_one();
    }

    /// Makes the overview anew.
    async fn refresh(&self, db: &Db) -> Result<(), DbError> {
        let mut titles = Vec::new();
        let mut cursor: Option<Cursor> = None;
        while titles.len() < Overview::TITLES_MAX {
            let page = db.newest(cursor, PAGE).await?;
            let is_last = page.len() < PAGE as usize;
            cursor = page.last().map(Cursor::after);
            titles.extend(page);
            if is_last {
                break;
            }
        }
        self.overview.store(Arc::new(Overview::of(titles)));
        Ok(())
    }
}

/// Keeps the overview fresh until `stop`.
pub(crate) async fn run(app: Arc<App>, stop: CancellationToken) {
    loop {
        let refresh = async {
            let pause = match app.discover.refresh(&app.db).await {
                Ok(()) => REFRESH_EVERY,
                Err(error) => {
                    tracing::warn!(%error, "the overview of the catalogue stays as it was");
                    RETRY_AFTER
                }
            };
            if timeout(pause, app.discover.changed.notified()).await.is_ok() {
                sleep(GATHER).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = refresh => {}
        }
    }
}

/// Tells search what is popular, as viewers' activity has it, until `stop`.
pub(crate) async fn rank(app: Arc<App>, stop: CancellationToken) {
    loop {
        let ranked = async {
            if let Err(error) = app.finder.set_popularity(app.activity.popularity()).await {
                tracing::error!(%error, "search ranks by what was popular before");
            }
            sleep(RANK_EVERY).await;
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = ranked => {}
        }
    }
}
