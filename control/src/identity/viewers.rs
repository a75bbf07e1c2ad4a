//! Viewers: who a bearer token says they are. Issues nothing and registers nobody.
//!
//! A token that was verified is remembered, by its digest, so that a player that writes every few seconds costs one signature check in
//! its token's life. Time is checked every time, and a change of keys forgets all that was verified before it.
//!
//! Keys are asked for anew at intervals, and when a token names one that is not known; that at most once in [`Refresh::pause`],
//! however many strangers invent names. While no source answers, the last keys stay.

use std::{
    collections::BTreeMap,
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
    fetch::{FetchError, Source},
    jwks::Jwks,
    jwt::{BadToken, Rules, TOKEN_BYTES_MAX, Unverified, Verified},
    user::UserId,
};
use crate::hot::Hot;

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
    /// Those before others are asked first for a key.
    sources: Vec<Source>,
    refresh: Refresh,
    /// The most tokens that are remembered.
    remembered_max: usize,
    /// None until there is a set.
    keys: ArcSwapOption<Keys>,
    wanted: Notify,
    /// When the last attempt to get keys ended.
    attempted: watch::Sender<Option<Instant>>,
    found: AtomicU64,
    not_found: AtomicU64,
}

/// The keys of all sources, and what was verified with them.
struct Keys {
    sets: Vec<Arc<Jwks>>,
    /// The source of each set, by its place.
    places: Vec<usize>,
    remembered: Hot<Digest, Verified>,
}

impl Viewers {
    /// Recognises nobody until it has keys.
    pub(crate) fn new(rules: Rules, sources: Vec<Source>, refresh: Refresh, remembered_max: usize) -> Self {
        let (attempted, _) = watch::channel(None);
        Self {
            rules,
            sources,
            refresh,
            remembered_max,
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
        if let Some(verified) = remembered {
            self.found.fetch_add(1, Ordering::Relaxed);
            verified.check(now_unix_s)?;
            return Ok(verified.user);
        }
        let unverified = Unverified::parse(token)?;
        let keys = keys.as_deref().ok_or(BadToken::NoKeys)?;
        // One whose key comes a moment later counts once.
        let verified = unverified.verify(&keys.sets, &self.rules);
        if !matches!(verified, Err(BadToken::UnknownKey)) {
            self.not_found.fetch_add(1, Ordering::Relaxed);
        }
        let verified = verified?;
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

    /// Asks every source once. The last keys of one that has none stay; the first failure is told.
    pub(crate) async fn load(&self) -> Result<(), FetchError> {
        let mut failed = Ok(());
        let mut loaded = Vec::new();
        for (place, source) in self.sources.iter().enumerate() {
            match source.fetch().await {
                Ok(set) => loaded.push((place, Arc::new(set))),
                Err(error) => {
                    tracing::warn!(%source, %error, "no keys of viewers' tokens from here; the last ones stay");
                    failed = failed.and(Err(error));
                }
            }
        }
        self.replace(loaded);
        self.attempted.send_replace(Some(Instant::now()));
        failed
    }

    /// Takes what was loaded in the places of what was there; if that changes anything, all that was verified is forgotten.
    fn replace(&self, loaded: Vec<(usize, Arc<Jwks>)>) {
        let old = self.keys.load();
        let old = old.iter().flat_map(|keys| keys.places.iter().copied().zip(keys.sets.iter().cloned()));
        let old: BTreeMap<usize, Arc<Jwks>> = old.collect();
        let is_known = |(place, set): &(usize, Arc<Jwks>)| old.get(place).is_some_and(|old| old.digest == set.digest);
        if loaded.iter().all(is_known) {
            return;
        }
        let mut sets = old.clone();
        sets.extend(loaded);
        tracing::info!(keys = sets.values().map(|set| set.len()).sum::<usize>(), "keys of viewers' tokens loaded");
        let (places, sets) = sets.into_iter().unzip();
        self.keys.store(Some(Arc::new(Keys { sets, places, remembered: Hot::new(self.remembered_max, |_, _| 1) })));
    }

    /// Keeps the keys fresh until `stop`.
    pub(crate) async fn run(&self, stop: CancellationToken) {
        let mut failures: u32 = 0;
        loop {
            failures = if self.load().await.is_ok() { 0 } else { failures.saturating_add(1) };
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

    /// Tokens that were found remembered, and those whose signature was checked.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.found.load(Ordering::Relaxed), self.not_found.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::hmac;
    use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};

    use super::*;

    #[tokio::test]
    async fn a_remembered_token_still_expires() {
        let secret = [7; 32];
        let encoded = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let dir = tempfile::tempdir().unwrap();
        let set = dir.path().join("viewers.jwks");
        let jwk = serde_json::json!({ "kty": "oct", "kid": "k", "alg": "HS256", "k": encoded(&secret) });
        std::fs::write(&set, serde_json::json!({ "keys": [jwk] }).to_string()).unwrap();
        let rules = Rules {
            issuers: vec!["i".into()],
            audiences: vec!["a".into()],
            clock_skew: Duration::from_secs(10),
            profile_claim: None,
        };
        let refresh = Refresh { every: Duration::MAX, pause: Duration::MAX };
        let viewers = Viewers::new(rules, vec![Source::File(set)], refresh, 100);
        viewers.load().await.unwrap();

        let message =
            [r#"{"alg":"HS256","kid":"k"}"#, r#"{"iss":"i","aud":"a","sub":"s","exp":100}"#].map(|part| encoded(part.as_bytes()));
        let message = message.join(".");
        let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), message.as_bytes());
        let token = format!("{message}.{}", encoded(signature.as_ref()));
        let digest = Digest::of(token.as_bytes());
        let mut outcomes = Vec::new();
        for now_unix_s in [90, 109, 110] {
            outcomes.push(viewers.check(&token, digest, now_unix_s).await.map(drop));
        }
        assert_eq!(outcomes, [Ok(()), Ok(()), Err(BadToken::Expired)]);
        assert_eq!(viewers.counts(), (2, 1));
    }
}
