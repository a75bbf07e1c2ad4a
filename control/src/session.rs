//! Sessions of players that are steered: everything that the next answer needs, in the address itself, sealed.
//!
//! Nothing is kept here, so sessions are as many as players, outlast a restart, and any control with the same signing key goes on with
//! them. The seal is HMAC-SHA-256 (RFC 2104), cut to 128 bits; a seal is opaque to players, but secret is nothing in it.

use std::fmt;

use aws_lc_rs::{constant_time::verify_slices_are_equal, hmac};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use wire::{placement::Key, title::TitleId};

use crate::{fleet::EdgeId, steering::decide::Miss};

/// The version of what is sealed.
const VERSION: u8 = 1;
/// Bytes of a seal.
const SEAL_BYTES: usize = 16;
/// The longest text that is looked at, in bytes. The largest session has some 900.
const TEXT_BYTES_MAX: usize = 2048;
/// The most edges that a session's playlist names.
pub(crate) const PATHWAYS_MAX: usize = 4;
/// What the key is made for, and for nothing else.
const PURPOSE: &[u8] = b"larder: sessions of players, 1";

/// One playback of one title.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Session {
    /// Tells it from others.
    pub(crate) id: u64,
    pub(crate) title: TitleId,
    /// The title's root, as placement has it: another one is another version, of which this session's playlist knows nothing.
    pub(crate) root: Key,
    /// When its URLs and it are no longer good.
    pub(crate) expires_unix_s: u64,
    /// When this was sealed: with each answer anew.
    pub(crate) at_unix_ms: u64,
    /// The nearest site, as it was then, and why the session was sent elsewhere, if it was.
    pub(crate) home: Option<String>,
    pub(crate) miss: Option<Miss>,
    /// The edges that its playlist names, best first.
    pub(crate) pathways: Vec<EdgeId>,
}

/// Seals sessions.
pub(crate) struct Sealer(hmac::Key);

impl Sealer {
    /// One whose seals are good wherever the same secret is.
    pub(crate) fn new(secret: &[u8]) -> Self {
        let derived = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), PURPOSE);
        Self(hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref()))
    }

    /// As it stands in an address.
    pub(crate) fn seal(&self, session: &Session) -> String {
        let mut bytes = session.to_bytes();
        let seal = hmac::sign(&self.0, &bytes);
        bytes.extend(&seal.as_ref()[..SEAL_BYTES]);
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The session that was sealed, unless it has expired.
    pub(crate) fn open(&self, text: &str, now_unix_s: u64) -> Result<Session, NoSession> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(NoSession::Forged);
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| NoSession::Forged)?;
        let (sealed, seal) = bytes.split_at_checked(bytes.len().saturating_sub(SEAL_BYTES)).ok_or(NoSession::Forged)?;
        let expected = hmac::sign(&self.0, sealed);
        verify_slices_are_equal(&expected.as_ref()[..SEAL_BYTES], seal).map_err(|_| NoSession::Forged)?;
        let session = Session::from_bytes(sealed).ok_or(NoSession::Forged)?;
        if session.expires_unix_s <= now_unix_s { Err(NoSession::Expired) } else { Ok(session) }
    }
}

impl Session {
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        for number in [self.id, self.root.as_u64(), self.expires_unix_s, self.at_unix_ms] {
            bytes.extend(number.to_be_bytes());
        }
        bytes.push(match self.miss {
            None => 0,
            Some(Miss::Content) => 1,
            Some(Miss::Health) => 2,
            Some(Miss::Rules) => 3,
        });
        let texts = [self.title.as_str(), self.home.as_deref().unwrap_or_default()];
        for text in texts.into_iter().chain(self.pathways.iter().map(EdgeId::as_str)) {
            bytes.push(u8::try_from(text.len()).expect("names have at most 64 characters"));
            bytes.extend(text.as_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (&[VERSION], mut rest) = bytes.split_at_checked(1)? else { return None };
        let mut number = || {
            let (number, after) = rest.split_first_chunk()?;
            rest = after;
            Some(u64::from_be_bytes(*number))
        };
        let (id, root, expires_unix_s, at_unix_ms) = (number()?, number()?, number()?, number()?);
        let (miss, mut rest) = rest.split_first()?;
        let miss = match miss {
            0 => None,
            1 => Some(Miss::Content),
            2 => Some(Miss::Health),
            3 => Some(Miss::Rules),
            _ => return None,
        };
        let mut texts = Vec::new();
        while let Some((length, after)) = rest.split_first() {
            let (text, after) = after.split_at_checked(usize::from(*length))?;
            texts.push(str::from_utf8(text).ok()?);
            rest = after;
        }
        let [title, home, pathways @ ..] = &texts[..] else { return None };
        Some(Self {
            id,
            title: title.parse().ok()?,
            root: Key::from_u64(root),
            expires_unix_s,
            at_unix_ms,
            home: (!home.is_empty()).then(|| (*home).to_owned()),
            miss,
            pathways: pathways.iter().map(|id| id.parse().ok()).collect::<Option<_>>()?,
        })
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer(…)")
    }
}

/// Why an address names no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoSession {
    #[error("nobody was given this session here")]
    Forged,
    #[error("the session has expired; ask for playback again")]
    Expired,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Session {
        Session {
            id: 7,
            title: "demo".parse().unwrap(),
            root: Key::of(b"/titles/demo"),
            expires_unix_s: 1000,
            at_unix_ms: 5,
            home: Some("berlin".into()),
            miss: Some(Miss::Content),
            pathways: ["e1", "e2"].map(|id| id.parse().unwrap()).into(),
        }
    }

    #[test]
    fn a_session_comes_back_as_it_was_sealed_until_it_expires() {
        let sealer = Sealer::new(b"secret");
        for session in [session(), Session { home: None, miss: None, pathways: Vec::new(), ..session() }] {
            let text = sealer.seal(&session);
            assert_eq!(sealer.open(&text, 999), Ok(session.clone()));
            assert_eq!(sealer.open(&text, 1000), Err(NoSession::Expired));
            assert_eq!(Sealer::new(b"secret").open(&text, 0), Ok(session), "wherever the secret is the same");
            assert_eq!(Sealer::new(b"other").open(&text, 0), Err(NoSession::Forged));
        }
    }

    #[test]
    fn whatever_is_changed_in_it_is_noticed() {
        let sealer = Sealer::new(b"secret");
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(sealer.seal(&session())).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let text = BASE64_URL_SAFE_NO_PAD.encode(changed);
            assert_eq!(sealer.open(&text, 0), Err(NoSession::Forged), "{at}");
        }
        for text in ["", "x", "explain", "!", &"A".repeat(TEXT_BYTES_MAX + 1)] {
            assert_eq!(sealer.open(text, 0), Err(NoSession::Forged), "{text}");
        }
    }

    #[test]
    fn the_largest_session_fits_an_address() {
        let long = "x".repeat(64);
        let session = Session {
            title: long.parse().unwrap(),
            home: Some(long.clone()),
            pathways: vec![long.parse().unwrap(); PATHWAYS_MAX],
            ..session()
        };
        let sealer = Sealer::new(b"secret");
        let text = sealer.seal(&session);
        assert!(text.len() < 700, "{}", text.len());
        assert_eq!(sealer.open(&text, 0), Ok(session));
    }
}
