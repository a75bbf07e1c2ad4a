//! Viewers: who a bearer token says they are. Issues nothing and registers nobody.
//!
//! A token that was verified is remembered, by its digest, so that a player that writes every few seconds costs one signature check in
//! its token's life. Time is checked every time, and a new set of keys forgets all that was verified with the old one.
//!
//! Keys are asked for anew at intervals, and when a token names one that is not known; that at most once in [`Refresh::pause`],
//! however many strangers invent names. While no source answers, the last keys stay.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use tokio::{
    sync::{Notify, watch},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use wire::object::Digest;

use super::{
    fetch::Source,
    jwks::Jwks,
    jwt::{BadToken, Rules, TOKEN_BYTES_MAX, Unverified, Verified},
    user::UserId,
};
use crate::hot::Hot;

/// The most tokens that are remembered. Each takes about 200 bytes.
const REMEMBERED_MAX: usize = 262_144;
/// How long a request waits for keys that are being asked for.
const PATIENCE: Duration = Duration::from_secs(2);

/// When keys are asked for anew.
#[derive(Debug, Clone, Copy)]
pub struct Refresh {
    /// Without a reason.
    pub every: Duration,
    /// The least time between two attempts, whatever the reason.
    pub pause: Duration,
}

/// Recognises viewers.
pub(crate) struct Viewers {
    rules: Rules,
    source: Source,
    refresh: Refresh,
    /// None until there is a set.
    keys: ArcSwapOption<Keys>,
    wanted: Notify,
    /// When the last attempt to get keys ended.
    attempted: watch::Sender<Option<Instant>>,
    found: AtomicU64,
    not_found: AtomicU64,
}

/// A set of keys and what was verified with it.
struct Keys {
    set: Jwks,
    remembered: Hot<Digest, Verified>,
}

impl Viewers {
    /// Recognises nobody until it has keys.
    pub(crate) fn new(rules: Rules, source: Source, refresh: Refresh) -> Self {
        let (attempted, _) = watch::channel(None);
        Self {
            rules,
            source,
            refresh,
            keys: ArcSwapOption::empty(),
            wanted: Notify::new(),
            attempted,
            found: AtomicU64::new(0),
            not_found: AtomicU64::new(0),
        }
    }

    /// The viewer whose token this is; `digest` is the token's. A token that names an unknown key may wait for keys.
    pub(crate) async fn check(&self, token: &str, digest: Digest, now_unix_s: i64) -> Result<UserId, BadToken> {
        match self.check_now(token, digest, now_unix_s) {
            Err(BadToken::UnknownKey | BadToken::NoKeys) if self.refreshed().await => self.check_now(token, digest, now_unix_s),
            checked => checked,
        }
    }

    fn check_now(&self, token: &str, digest: Digest, now_unix_s: i64) -> Result<UserId, BadToken> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(BadToken::TooLong);
        }
        let keys = self.keys.load();
        let remembered = keys.as_deref().and_then(|keys| keys.remembered.find(&digest));
        let counter = if remembered.is_some() { &self.found } else { &self.not_found };
        counter.fetch_add(1, Ordering::Relaxed);
        if let Some(verified) = remembered {
            verified.check(now_unix_s)?;
            return Ok(verified.user);
        }
        let unverified = Unverified::parse(token)?;
        let keys = keys.as_deref().ok_or(BadToken::NoKeys)?;
        let verified = unverified.verify(&keys.set, &self.rules)?;
        verified.check(now_unix_s)?;
        keys.remembered.keep(keys.remembered.reading(&digest), digest, verified.clone());
        Ok(verified.user)
    }

    /// Whether keys were asked for just now, for us.
    async fn refreshed(&self) -> bool {
        let mut attempted = self.attempted.subscribe();
        if self.is_pausing() {
            return false;
        }
        self.wanted.notify_one();
        timeout(PATIENCE, attempted.changed()).await.is_ok_and(|changed| changed.is_ok())
    }

    fn is_pausing(&self) -> bool {
        self.attempted.borrow().is_some_and(|at| at.elapsed() < self.refresh.pause)
    }

    /// Asks for keys once. The last ones stay where there are none.
    pub(crate) async fn load(&self) -> Result<(), super::fetch::FetchError> {
        let loaded = self.source.fetch().await;
        self.attempted.send_replace(Some(Instant::now()));
        let set = loaded?;
        tracing::debug!(source = %self.source, keys = set.len(), "keys of viewers' tokens loaded");
        self.keys.store(Some(Arc::new(Keys { set, remembered: Hot::new(REMEMBERED_MAX, |_, _| 1) })));
        Ok(())
    }

    /// Keeps the keys fresh until `stop`.
    pub(crate) async fn run(&self, stop: CancellationToken) {
        let mut failures: u32 = 0;
        loop {
            match self.load().await {
                Ok(()) => failures = 0,
                Err(error) => {
                    failures = failures.saturating_add(1);
                    tracing::warn!(source = %self.source, %error, failures, "no keys of viewers' tokens; the last ones stay");
                }
            }
            // A source that fails is asked more often, but ever less so.
            let soon = self.refresh.pause.saturating_mul(1 << failures.min(16));
            let next = sleep(if failures == 0 { self.refresh.every } else { soon.min(self.refresh.every) });
            tokio::pin!(next);
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = &mut next => break,
                    () = self.wanted.notified() => {
                        // Who asked before the last attempt ended has what it brought.
                        if !self.is_pausing() {
                            break;
                        }
                    }
                }
            }
        }
    }

    /// Tokens that were found remembered, and those that were not.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.found.load(Ordering::Relaxed), self.not_found.load(Ordering::Relaxed))
    }
}
