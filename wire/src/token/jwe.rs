//! Encrypted claims: `cdniip` and `sub` as compact JWEs (RFC 7516 §7.1) with direct encryption (`dir`) by AES-GCM, as in the
//! examples of RFC 9246. Other ways to encrypt are refused; key wrapping and RSA would add much and serve nobody here.

use std::{fmt, sync::Arc};

use aws_lc_rs::{
    aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde_json::json;

use super::key::{Jwk, KeyError, KeySet, check_kid};

/// A shared key for claims that only signer and verifier may read. It signs nothing.
#[derive(Clone)]
pub struct ClaimKey {
    kid: String,
    /// `A128GCM` or `A256GCM` (RFC 7518 §5.3).
    encryption: &'static str,
    key: Arc<LessSafeKey>,
}

impl ClaimKey {
    /// Reads an `oct` JWK with a `kid` and `alg` `A128GCM` or `A256GCM`.
    pub fn from_jwk(json: &str) -> Result<Self, KeyError> {
        Jwk::parse(json)?.claim_key()
    }

    /// `None` if `secret` is no key of `encryption`.
    pub(super) fn new(kid: &str, encryption: &str, secret: &[u8]) -> Option<Self> {
        check_kid(kid).ok()?;
        let (encryption, algorithm) = match encryption {
            "A128GCM" => ("A128GCM", &AES_128_GCM),
            "A256GCM" => ("A256GCM", &AES_256_GCM),
            _ => return None,
        };
        let key = UnboundKey::new(algorithm, secret).ok()?;
        Some(Self { kid: kid.into(), encryption, key: Arc::new(LessSafeKey::new(key)) })
    }

    /// Encrypts the value of a claim.
    pub fn seal(&self, value: &str) -> Result<String, KeyError> {
        let header = json!({ "alg": "dir", "enc": self.encryption, "kid": self.kid }).to_string();
        let header = URL_SAFE_NO_PAD.encode(header);
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).map_err(|_| KeyError::NoRandomness)?;
        let mut text = value.as_bytes().to_vec();
        let unique = Nonce::assume_unique_for_key(nonce);
        let tag = self.key.seal_in_place_separate_tag(unique, Aad::from(header.as_bytes()), &mut text);
        let tag = tag.map_err(|_| KeyError::NoRandomness)?;
        let [nonce, text, tag] = [&nonce[..], &text, tag.as_ref()].map(|bytes| URL_SAFE_NO_PAD.encode(bytes));
        Ok(format!("{header}..{nonce}.{text}.{tag}"))
    }

    fn open(&self, header: &str, nonce: &str, text: &str, tag: &str) -> Option<String> {
        let nonce = Nonce::try_assume_unique_for_key(&URL_SAFE_NO_PAD.decode(nonce).ok()?).ok()?;
        let mut sealed = URL_SAFE_NO_PAD.decode(text).ok()?;
        sealed.extend(URL_SAFE_NO_PAD.decode(tag).ok()?);
        let opened = self.key.open_in_place(nonce, Aad::from(header.as_bytes()), &mut sealed).ok()?;
        String::from_utf8(opened.to_vec()).ok()
    }
}

impl fmt::Debug for ClaimKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClaimKey").field("kid", &self.kid).field("encryption", &self.encryption).finish_non_exhaustive()
    }
}

/// Whether a claim's value has the five parts of a compact JWE.
pub(super) fn is_sealed(value: &str) -> bool {
    value.starts_with("eyJ") && value.split('.').count() == 5
}

/// Why an encrypted claim stays shut.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Shut {
    /// We do not have the key.
    Keyless(String),
    /// It is malformed, encrypted in a way we do not know, or was changed.
    Unreadable(&'static str),
}

/// Decrypts the value of a claim with the key it names.
pub(super) fn open(value: &str, keys: &KeySet) -> Result<String, Shut> {
    #[derive(Deserialize)]
    struct Header {
        alg: String,
        enc: String,
        kid: Option<String>,
        crit: Option<serde_json::Value>,
        zip: Option<serde_json::Value>,
    }
    let parts: Vec<&str> = value.split('.').collect();
    let [header_part, "", nonce, text, tag] = parts[..] else {
        return Err(Shut::Unreadable("is no compact JWE with alg dir"));
    };
    let header = URL_SAFE_NO_PAD.decode(header_part).ok().and_then(|json| serde_json::from_slice::<Header>(&json).ok());
    let header = header.ok_or(Shut::Unreadable("has a JWE header that is not JSON with alg and enc"))?;
    if header.alg != "dir" || header.crit.is_some() || header.zip.is_some() {
        return Err(Shut::Unreadable("is encrypted in a way that is not supported; alg dir is"));
    }
    let kid = header.kid.ok_or(Shut::Unreadable("has a JWE header without kid"))?;
    let Some(key) = keys.claims(&kid) else { return Err(Shut::Keyless(kid)) };
    if header.enc != key.encryption {
        return Err(Shut::Unreadable("has an enc that is not its key's"));
    }
    key.open(header_part, nonce, text, tag).ok_or(Shut::Unreadable("was not encrypted with the key it names"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_sealed_and_opened_by_the_named_key_alone() {
        let jwk = |kid: &str, alg: &str, secret: &[u8]| {
            json!({ "kty": "oct", "kid": kid, "alg": alg, "use": "enc", "k": URL_SAFE_NO_PAD.encode(secret) }).to_string()
        };
        let set = |jwk: &str| KeySet::from_jwks(&format!("{{\"keys\":[{jwk}]}}")).unwrap();
        for (alg, secret) in [("A128GCM", &[7; 16][..]), ("A256GCM", &[8; 32])] {
            let ours = jwk("c", alg, secret);
            let sealed = ClaimKey::from_jwk(&ours).unwrap().seal("192.0.2.0/24").unwrap();
            assert!(is_sealed(&sealed));
            assert_eq!(open(&sealed, &set(&ours)).as_deref(), Ok("192.0.2.0/24"));
            assert_eq!(open(&sealed, &set(&jwk("d", alg, secret))), Err(Shut::Keyless("c".into())));
            let other: Vec<u8> = secret.iter().map(|byte| byte ^ 1).collect();
            assert!(matches!(open(&sealed, &set(&jwk("c", alg, &other))), Err(Shut::Unreadable(_))));
            for at in (0..sealed.len()).filter(|at| sealed.as_bytes()[*at] != b'.') {
                let mut changed = sealed.clone().into_bytes();
                changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
                assert!(open(str::from_utf8(&changed).unwrap(), &set(&ours)).is_err(), "{at}");
            }
        }
        assert!(ClaimKey::from_jwk(&jwk("c", "A128GCM", &[0; 32])).is_err());
        assert!(ClaimKey::from_jwk(&jwk("c", "A192GCM", &[0; 24])).is_err());
        assert!(!is_sealed("192.0.2.0/24") && !is_sealed("a.b.c.d.e"));
    }
}
