//! A conversation with one edge on the stream that it opened: what it reports is taken in, and what operators want of it is told, in order,
//! until it is done. Knows no HTTP: bytes come in chunks, and messages go out by [`Hold`].
//!
//! Nothing of it must last. Purges are numbered and kept; the edge's place among them is kept with each answer, and what was not
//! answered is told again on the next stream. An edge that was away for longer than purges are kept forgets all that it has.

use std::{
    collections::BTreeMap,
    fmt::Display,
    pin::pin,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use tokio::time::{MissedTickBehavior, interval, timeout_at};
use wire::{
    lines::{Lines, TooLong},
    operate::What,
    report::{Command, Down, PROTOCOL, UP_LINE_BYTES_MAX, Up},
};

use crate::{
    api::App,
    db::DbError,
    fleet::streams::{Hold, Unread},
};

/// Purges that an edge works at, at once.
const PURGES_AT_ONCE: usize = 32;
/// Reports come in a third of the time after which an edge is silent, so that one may be lost.
const REPORTS_IN_TIMEOUT: u32 = 3;
/// The longest word of an edge about what it could not do that is kept, in bytes.
const ERROR_BYTES_MAX: usize = 1000;

/// Why a conversation ended. Not an error: edges come back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    #[error("it closed the stream")]
    Closed,
    #[error("the stream broke: {0}")]
    Broken(String),
    #[error("it said nothing for {} ms", .0.as_millis())]
    Silent(Duration),
    #[error("it opened another stream")]
    Replaced,
    #[error("it is not registered any more")]
    Removed,
    #[error(transparent)]
    Unread(#[from] Unread),
    #[error(transparent)]
    TooLong(#[from] TooLong),
    #[error("it said what no edge says: {0}")]
    Nonsense(serde_json::Error),
    #[error(transparent)]
    Database(#[from] DbError),
    #[error("control stops")]
    Stopping,
}

/// How often an edge has to report, when one is silent after `timeout`.
pub(crate) fn report_every(timeout: Duration) -> Duration {
    (timeout / REPORTS_IN_TIMEOUT).max(Duration::from_millis(1))
}

/// Talks with an edge until the stream ends.
pub(crate) async fn converse<E: Display>(
    app: &App,
    hold: Hold,
    chunks: impl Stream<Item = Result<Bytes, E>>,
) -> Result<(), Ended> {
    let mut errands = Errands::begin(app, hold).await?;
    let result = errands.talk(chunks).await;
    if matches!(result, Err(Ended::Replaced)) {
        // It may be gone already.
        let _ = errands.hold.say(Down::Replaced);
    }
    result
}

/// What an edge is told and has not answered yet.
struct Errands<'a> {
    app: &'a App,
    hold: Hold,
    next_id: u64,
    /// By command.
    open: BTreeMap<u64, Errand>,
    /// Up to this number purges were told, or need not be.
    told_to: u64,
    /// Up to this number they are done, as it is kept.
    done_to: u64,
    is_drained: bool,
}

/// What a command is about.
#[derive(Debug, Clone, Copy)]
enum Errand {
    Purge(u64),
    Drain(bool),
}

impl<'a> Errands<'a> {
    async fn begin(app: &'a App, hold: Hold) -> Result<Self, Ended> {
        let is_drained = app.fleet.read().edge(hold.id.as_str()).ok_or(Ended::Removed)?.is_drained;
        let done_to = app.purges.of(&hold.id);
        let mut errands = Self { app, hold, next_id: 0, open: BTreeMap::new(), told_to: done_to, done_to, is_drained };
        let every = report_every(app.edge_timeout);
        errands.hold.say(Down::Hello {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            report_every_ms: u64::try_from(every.as_millis()).unwrap_or(u64::MAX),
            is_drained,
        })?;
        errands.catch_up().await?;
        Ok(errands)
    }

    async fn talk<E: Display>(&mut self, chunks: impl Stream<Item = Result<Bytes, E>>) -> Result<(), Ended> {
        let patience = self.app.edge_timeout;
        let mut chunks = pin!(chunks);
        let mut lines = Lines::new(UP_LINE_BYTES_MAX);
        let mut heard_at = tokio::time::Instant::now();
        let mut beats = interval(report_every(patience));
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (replaced, closing) = (self.hold.replaced.clone(), self.hold.closing());
        loop {
            tokio::select! {
                chunk = timeout_at(heard_at + patience, chunks.next()) => {
                    let chunk = chunk.map_err(|_| Ended::Silent(patience))?.ok_or(Ended::Closed)?;
                    lines.push(&chunk.map_err(|error| Ended::Broken(error.to_string()))?);
                    heard_at = tokio::time::Instant::now();
                    while let Some(line) = lines.next()? {
                        if !line.is_empty() {
                            self.hear(serde_json::from_slice(line).map_err(Ended::Nonsense)?).await?;
                        }
                    }
                }
                // The sender lives as long as the hold.
                _ = self.hold.news.changed() => self.catch_up().await?,
                _ = beats.tick() => self.hold.say(Down::Beat)?,
                () = replaced.cancelled() => return Err(Ended::Replaced),
                () = closing.cancelled() => return Err(Ended::Stopping),
            }
        }
    }

    async fn hear(&mut self, message: Up) -> Result<(), Ended> {
        let (app, id) = (self.app, &self.hold.id);
        let is_known = match message {
            Up::Hello { protocol, version } => {
                tracing::info!(edge = %id, protocol, version, "edge speaks");
                true
            }
            Up::Report(report) => app.fleet.write().report(id, report, Instant::now()),
            Up::Content(digest) => app.fleet.write().holds(id, digest),
            Up::Done { id, error } => {
                self.answered(id, error).await?;
                true
            }
            Up::Unknown => true,
        };
        if is_known { Ok(()) } else { Err(Ended::Removed) }
    }

    async fn answered(&mut self, command: u64, error: Option<String>) -> Result<(), Ended> {
        let Some(errand) = self.open.remove(&command) else { return Ok(()) };
        if let Some(mut error) = error {
            tracing::warn!(edge = %self.hold.id, error, ?errand, "edge could not do what it was told");
            error.truncate(error.floor_char_boundary(ERROR_BYTES_MAX));
            if let Errand::Purge(number) = errand {
                self.app.db.purge_failed(number, self.hold.id.to_string(), error).await?;
            }
        }
        match errand {
            Errand::Drain(is_drained) => tracing::info!(edge = %self.hold.id, is_drained, "edge knows whether it is drained"),
            Errand::Purge(_) => self.catch_up().await?,
        }
        Ok(())
    }

    /// Tells what is new, as much of it as the edge may have at once, and keeps how far it is.
    async fn catch_up(&mut self) -> Result<(), Ended> {
        let app = self.app;
        let (is_drained, site) = {
            let fleet = app.fleet.read();
            let edge = fleet.edge(self.hold.id.as_str()).ok_or(Ended::Removed)?;
            (edge.is_drained, edge.registration.site.clone())
        };
        if is_drained != self.is_drained {
            self.is_drained = is_drained;
            self.command(Errand::Drain(is_drained), if is_drained { Command::Drain } else { Command::Undrain })?;
        }
        self.tell_lost_purges().await?;
        while self.open.len() < PURGES_AT_ONCE {
            let purges = app.db.purges_after(self.told_to, PURGES_AT_ONCE - self.open.len()).await?;
            if purges.is_empty() {
                break;
            }
            for purge in purges {
                self.told_to = purge.number;
                if purge.is_for(self.hold.id.as_str(), &site) {
                    self.command(Errand::Purge(purge.number), Command::Purge { purge: purge.wanted })?;
                }
            }
        }
        self.keep_place().await
    }

    /// What an edge missed that is not kept any more could have been anything.
    async fn tell_lost_purges(&mut self) -> Result<(), Ended> {
        if let Some((first, last)) = self.app.db.purge_numbers().await?
            && self.told_to + 1 < first
        {
            tracing::warn!(edge = %self.hold.id, "edge was away for more purges than are kept, and forgets all that it has");
            self.told_to = last;
            self.command(Errand::Purge(last), Command::Purge { purge: vec![What::All] })?;
        }
        Ok(())
    }

    fn command(&mut self, errand: Errand, command: Command) -> Result<(), Ended> {
        let id = self.next_id;
        self.next_id += 1;
        self.hold.say(Down::Command { id, command })?;
        self.open.insert(id, errand);
        Ok(())
    }

    /// All before the first purge that is not answered is done.
    async fn keep_place(&mut self) -> Result<(), Ended> {
        let purges = self.open.values().filter_map(|errand| match errand {
            Errand::Purge(number) => Some(number - 1),
            Errand::Drain(_) => None,
        });
        let done_to = purges.min().unwrap_or(self.told_to);
        if done_to > self.done_to {
            self.done_to = done_to;
            self.app.db.edge_purged(self.hold.id.clone(), done_to).await?;
            self.app.purges.done(self.hold.id.clone(), done_to);
        }
        Ok(())
    }
}
