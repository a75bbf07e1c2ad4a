//! The public keys of those who issue viewers' tokens: a JWK set (RFC 7517), of which what can be used is used.
//!
//! What always holds: a key's kind says which algorithm it verifies, and no token can say otherwise. So a public key is never taken
//! for a shared secret. Unlike the sets of edges (`wire::token::KeySet`) these are written by others: keys of other kinds are
//! left out, as §5 asks, and RSA is known.

use std::collections::HashMap;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use serde::Deserialize;
use serde_json::Value;
use wire::{object::Digest, token::KID_BYTES_MAX};

/// The most keys in a set.
const KEYS_MAX: usize = 256;
/// The least bytes of a shared secret. RFC 7518 §3.2: "A key of the same size as the hash output [...] or larger MUST be used".
const SECRET_BYTES_MIN: usize = 32;
/// The bytes of an RSA modulus. RFC 7518 §3.3: "A key of size 2048 bits or larger MUST be used".
const MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;
/// P-256's coordinates, and Ed25519's public key.
const CURVE_BYTES: usize = 32;

/// Where a set comes from, which decides what may be in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A file on this machine: may hold shared secrets.
    File,
    /// Another machine. What anyone can fetch is no secret, so shared secrets in it are left out.
    Url,
}

/// Keys that verify, by name.
#[derive(Debug)]
pub(crate) struct Jwks {
    keys: HashMap<String, Key>,
    /// Of the set as it was written.
    pub(crate) digest: Digest,
}

/// One key.
#[derive(Debug)]
pub(crate) struct Key {
    algorithm: Algorithm,
    /// If it is there, the key signs for that issuer alone.
    pub(crate) issuer: Option<String>,
    key: DecodingKey,
}

impl Jwks {
    /// Reads `{"keys": […]}`. What is left out of it is logged; a set without a usable key is refused.
    pub(crate) fn parse(json: &[u8], origin: Origin) -> Result<Self, JwksError> {
        #[derive(Deserialize)]
        struct Written {
            keys: Vec<Value>,
        }
        let written: Written = serde_json::from_slice(json).map_err(|error| JwksError::Json(error.to_string()))?;
        if written.keys.len() > KEYS_MAX {
            return Err(JwksError::TooMany(written.keys.len()));
        }
        let mut keys = HashMap::new();
        for (n, value) in written.keys.into_iter().enumerate() {
            let added = Jwk::deserialize(value).map_err(|_| "it is no JWK").and_then(|jwk| {
                let (kid, key) = jwk.usable(origin)?;
                if keys.contains_key(&kid) {
                    return Err("an earlier key of the set has the same kid");
                }
                keys.insert(kid, key);
                Ok(())
            });
            if let Err(why) = added {
                tracing::warn!(number = n + 1, why, "a key of the viewers' key set is left out");
            }
        }
        if keys.is_empty() { Err(JwksError::NoneUsable) } else { Ok(Self { keys, digest: Digest::of(json) }) }
    }

    pub(crate) fn find(&self, kid: &str) -> Option<&Key> {
        self.keys.get(kid)
    }

    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }
}

impl Key {
    /// Whether a token's header may call this key's algorithm `name`. RFC 9864 §2.2 also calls EdDSA after its curve.
    pub(crate) fn is_for(&self, name: &str) -> bool {
        match self.algorithm {
            Algorithm::ES256 => name == "ES256",
            Algorithm::EdDSA => name == "EdDSA" || name == "Ed25519",
            Algorithm::RS256 => name == "RS256",
            _ => name == "HS256",
        }
    }

    /// Whether `signature`, as it stands in a token, is this key's under `message`.
    pub(crate) fn verifies(&self, message: &str, signature: &str) -> bool {
        crypto::verify(signature, message.as_bytes(), &self.key, self.algorithm).unwrap_or(false)
    }
}

/// A JWK as it is written.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    crv: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    iss: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
    k: Option<String>,
}

impl Jwk {
    /// The key and its name, or why it is of no use here.
    fn usable(self, origin: Origin) -> Result<(String, Key), &'static str> {
        let kid = self.kid.clone().ok_or("it has no kid")?;
        if kid.is_empty() || kid.len() > KID_BYTES_MAX {
            return Err("its kid is empty or too long");
        }
        if self.usage.as_deref().is_some_and(|usage| usage != "sig") {
            return Err("its use is not sig");
        }
        if self.key_ops.as_ref().is_some_and(|operations| !operations.iter().any(|operation| operation == "verify")) {
            return Err("verify is not among its key_ops");
        }
        let (algorithm, key) = match (self.kty.as_str(), self.crv.as_deref()) {
            ("EC", Some("P-256")) => (Algorithm::ES256, self.es256()?),
            ("OKP", Some("Ed25519")) => (Algorithm::EdDSA, self.eddsa()?),
            ("RSA", _) => (Algorithm::RS256, self.rs256()?),
            ("oct", _) if origin == Origin::Url => return Err("it is a shared secret, and whoever can fetch it knows it"),
            ("oct", _) => (Algorithm::HS256, self.hs256()?),
            _ => return Err("its kty and crv are none of EC P-256, OKP Ed25519, RSA and oct"),
        };
        let key = Key { algorithm, issuer: self.iss, key };
        if self.alg.is_some_and(|name| !key.is_for(&name)) {
            return Err("its alg is not one of ES256, EdDSA, RS256 and HS256 that fits its kty");
        }
        Ok((kid, key))
    }

    fn es256(&self) -> Result<DecodingKey, &'static str> {
        let point = [vec![4], coordinate(&self.x)?, coordinate(&self.y)?].concat();
        ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &point).map_err(|_| "x and y are no point of P-256")?;
        Ok(DecodingKey::from_ec_der(&point))
    }

    fn eddsa(&self) -> Result<DecodingKey, &'static str> {
        let x = coordinate(&self.x)?;
        ParsedPublicKey::new(&ED25519, &x).map_err(|_| "x is no Ed25519 key")?;
        Ok(DecodingKey::from_ed_der(&x))
    }

    fn rs256(&self) -> Result<DecodingKey, &'static str> {
        let (n, e) = (bytes(&self.n)?, bytes(&self.e)?);
        // RFC 7518 §6.3.1.1: the modulus is written without leading zeros; some write one nevertheless.
        let n = n.strip_prefix(&[0]).unwrap_or(&n);
        if !MODULUS_BYTES.contains(&n.len()) {
            return Err("its modulus (n) has not 2048 to 8192 bits");
        }
        if e.is_empty() || e.len() > 8 || e.last().is_some_and(|last| last % 2 == 0) {
            return Err("its exponent (e) is none");
        }
        Ok(DecodingKey::from_rsa_raw_components(n, &e))
    }

    fn hs256(&self) -> Result<DecodingKey, &'static str> {
        let secret = bytes(&self.k)?;
        if secret.len() < SECRET_BYTES_MIN {
            return Err("its secret (k) is shorter than 32 bytes");
        }
        Ok(DecodingKey::from_secret(&secret))
    }
}

fn bytes(member: &Option<String>) -> Result<Vec<u8>, &'static str> {
    let text = member.as_ref().ok_or("a part of it (x, y, n, e or k) is missing")?;
    BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| "a part of it (x, y, n, e or k) is not base64url without padding")
}

fn coordinate(member: &Option<String>) -> Result<Vec<u8>, &'static str> {
    let bytes = bytes(member)?;
    if bytes.len() == CURVE_BYTES { Ok(bytes) } else { Err("a part of it (x or y) has not 32 bytes") }
}

/// Why a set cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwksError {
    #[error("it is no JWK set (RFC 7517): {0}")]
    Json(String),
    #[error("{0} keys in a set are more than {KEYS_MAX}")]
    TooMany(usize),
    #[error(
        "no key in it can verify: EC P-256, OKP Ed25519, RSA of 2048 to 8192 bits and, in a file, oct of 32 bytes or more do, each with a kid"
    )]
    NoneUsable,
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use wire::token::SigningKey;

    use super::*;

    fn why(jwk: Value, origin: Origin) -> &'static str {
        Jwk::deserialize(jwk).unwrap().usable(origin).map(drop).unwrap_err()
    }

    fn public(algorithm: wire::token::Algorithm, kid: &str) -> Value {
        SigningKey::generate(algorithm, kid).unwrap().verifying_jwk()
    }

    #[test]
    fn what_cannot_be_used_is_left_out_and_the_rest_is_used() {
        use wire::token::Algorithm::{EdDsa, Es256, Hs256};
        let set = json!({ "keys": [
            public(Es256, "a"), public(EdDsa, "b"), public(Hs256, "c"), public(EdDsa, "a"),
            { "kty": "EC", "crv": "P-521", "kid": "d" }, { "kty": "PQ", "kid": "e" }, 7, {},
        ], "more": true });
        let keys = Jwks::parse(set.to_string().as_bytes(), Origin::File).unwrap();
        assert_eq!(keys.len(), 3);
        assert!(keys.find("a").unwrap().is_for("ES256"), "the first of one name");
        assert!(keys.find("b").unwrap().is_for("Ed25519"));
        let fetched = Jwks::parse(set.to_string().as_bytes(), Origin::Url).unwrap();
        assert!(fetched.find("c").is_none(), "a secret that anyone can fetch");
        assert_eq!(Jwks::parse(br#"{"keys":[{}]}"#, Origin::File).unwrap_err(), JwksError::NoneUsable);
        assert!(matches!(Jwks::parse(b"[]", Origin::File), Err(JwksError::Json(_))));
        let many = json!({ "keys": vec![json!({}); KEYS_MAX + 1] }).to_string();
        assert_eq!(Jwks::parse(many.as_bytes(), Origin::File).unwrap_err(), JwksError::TooMany(KEYS_MAX + 1));
    }

    #[test]
    fn a_keys_kind_decides_its_algorithm() {
        let ec = public(wire::token::Algorithm::Es256, "a");
        for (member, value, reason) in [
            ("alg", json!("HS256"), "alg"),
            ("alg", json!("none"), "alg"),
            ("use", json!("enc"), "use"),
            ("key_ops", json!(["sign"]), "key_ops"),
            ("crv", json!("P-384"), "crv"),
            ("kid", json!(""), "kid"),
            ("kid", json!("x".repeat(KID_BYTES_MAX + 1)), "kid"),
            ("x", json!("AAAA"), "32 bytes"),
            ("x", json!("%"), "base64url"),
            ("x", json!(BASE64_URL_SAFE_NO_PAD.encode([7; 32])), "no point"),
            ("x", json!(null), "missing"),
        ] {
            let mut jwk = ec.clone();
            jwk[member] = value;
            assert!(why(jwk.clone(), Origin::File).contains(reason), "{jwk}");
        }
        let rsa =
            |n: usize, e: &str| json!({ "kty": "RSA", "kid": "r", "n": BASE64_URL_SAFE_NO_PAD.encode(vec![0xff; n]), "e": e });
        assert!(why(rsa(128, "AQAB"), Origin::File).contains("2048"));
        assert!(why(rsa(1025, "AQAB"), Origin::File).contains("8192"));
        assert!(why(rsa(256, "Ag"), Origin::File).contains("exponent"));
        assert!(why(json!({ "kty": "oct", "kid": "h", "k": "c2hvcnQ" }), Origin::File).contains("shorter"));
    }
}
