//! Viewers: who a bearer token says they are. Issues nothing and registers nobody.
//!
//! A token that was verified is remembered, by its digest, so that a player that writes every few seconds costs one signature check in
//! its token's life. Time is checked every time, and a new set of keys forgets all that was verified with the old one.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use wire::object::Digest;

use super::{
    jwks::Jwks,
    jwt::{BadToken, Rules, TOKEN_BYTES_MAX, Unverified, Verified},
    user::UserId,
};
use crate::hot::Hot;

/// The most tokens that are remembered. Each takes about 200 bytes.
const REMEMBERED_MAX: usize = 262_144;

/// Recognises viewers.
pub(crate) struct Viewers {
    rules: Rules,
    /// None until there is a set.
    keys: ArcSwapOption<Keys>,
}

/// A set of keys and what was verified with it.
struct Keys {
    set: Jwks,
    remembered: Hot<Digest, Verified>,
}

impl Viewers {
    /// Recognises nobody until it has keys.
    pub(crate) fn new(rules: Rules) -> Self {
        Self { rules, keys: ArcSwapOption::empty() }
    }

    /// From now on these keys verify, and no others.
    pub(crate) fn replace(&self, set: Jwks) {
        self.keys.store(Some(Arc::new(Keys { set, remembered: Hot::new(REMEMBERED_MAX, |_, _| 1) })));
    }

    /// The viewer whose token this is; `digest` is the token's.
    pub(crate) fn check(&self, token: &str, digest: Digest, now_unix_s: i64) -> Result<UserId, BadToken> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(BadToken::TooLong);
        }
        let keys = self.keys.load();
        let Some(keys) = keys.as_deref() else { return Err(BadToken::UnknownKey) };
        if let Some(verified) = keys.remembered.find(&digest) {
            verified.check(now_unix_s)?;
            return Ok(verified.user);
        }
        let verified = Unverified::parse(token)?.verify(&keys.set, &self.rules)?;
        verified.check(now_unix_s)?;
        keys.remembered.keep(keys.remembered.reading(&digest), digest, verified.clone());
        Ok(verified.user)
    }
}
