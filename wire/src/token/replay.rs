//! Which URIs each `jti` has opened (RFC 9246 §2.1.7), until its token expires.
//!
//! Only verified tokens come here. The limits hold by refusing, never by forgetting: a full table opens nothing twice. §7 allows
//! to forget the least recently used; "however, this would allow values to eventually be reused."

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher as _, RandomState},
    sync::{Mutex, PoisonError},
};

/// The most URIs that one `jti` opens: a film of twelve hours in segments of four seconds.
const USES_MAX: usize = 10_800;

pub(super) struct Replays {
    tokens_max: usize,
    state: RandomState,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    tokens: HashMap<u64, Uses>,
    cleared_unix_s: u64,
}

struct Uses {
    expires_unix_s: u64,
    uris: HashSet<u64>,
}

/// Why a `jti` opens nothing now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Replay {
    /// It has opened this URI before.
    Seen,
    /// No more can be remembered of it, or of any.
    Full,
}

impl Replays {
    /// For at most `tokens_max` tokens at a time.
    pub(super) fn new(tokens_max: usize) -> Self {
        Self { tokens_max, state: RandomState::new(), seen: Mutex::default() }
    }

    /// Notes that the token `jti` of `issuer` opens `uri`.
    pub(super) fn note(&self, issuer: &str, jti: &str, uri: &str, expires_unix_s: u64, now_unix_s: u64) -> Result<(), Replay> {
        let (token, uri) = (self.state.hash_one((issuer, jti)), self.state.hash_one(uri));
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.tokens.len() >= self.tokens_max && seen.cleared_unix_s != now_unix_s {
            seen.tokens.retain(|_, uses| uses.expires_unix_s > now_unix_s);
            seen.cleared_unix_s = now_unix_s;
        }
        let is_full = seen.tokens.len() >= self.tokens_max;
        if is_full && !seen.tokens.contains_key(&token) {
            return Err(Replay::Full);
        }
        let uses = seen.tokens.entry(token).or_insert_with(|| Uses { expires_unix_s, uris: HashSet::new() });
        uses.expires_unix_s = uses.expires_unix_s.max(expires_unix_s);
        if uses.uris.contains(&uri) {
            return Err(Replay::Seen);
        }
        if uses.uris.len() >= USES_MAX {
            return Err(Replay::Full);
        }
        uses.uris.insert(uri);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jti_opens_each_uri_once() {
        let replays = Replays::new(10);
        assert_eq!(replays.note("i", "a", "/1", 100, 0), Ok(()));
        assert_eq!(replays.note("i", "a", "/2", 100, 0), Ok(()));
        assert_eq!(replays.note("i", "a", "/1", 100, 99), Err(Replay::Seen));
        assert_eq!(replays.note("i", "b", "/1", 100, 0), Ok(()));
        assert_eq!(replays.note("j", "a", "/1", 100, 0), Ok(()));
    }

    #[test]
    fn a_full_table_refuses_and_forgets_only_the_expired() {
        let replays = Replays::new(2);
        assert_eq!(replays.note("i", "a", "/1", 100, 0), Ok(()));
        assert_eq!(replays.note("i", "b", "/1", 200, 0), Ok(()));
        assert_eq!(replays.note("i", "c", "/1", 200, 50), Err(Replay::Full));
        assert_eq!(replays.note("i", "b", "/1", 200, 50), Err(Replay::Seen));
        assert_eq!(replays.note("i", "b", "/2", 200, 50), Ok(()), "known tokens go on");
        assert_eq!(replays.note("i", "c", "/1", 200, 100), Ok(()), "a has expired");
        assert_eq!(replays.note("i", "b", "/1", 200, 100), Err(Replay::Seen));
        for n in 0..USES_MAX - 2 {
            assert_eq!(replays.note("i", "b", &format!("/more{n}"), 200, 100), Ok(()));
        }
        assert_eq!(replays.note("i", "b", "/last", 200, 100), Err(Replay::Full));
    }
}
