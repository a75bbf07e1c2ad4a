//! Whoever issues viewers' tokens: keys of each kind, and tokens good and bad.

use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair},
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};

pub(crate) const ISSUER: &str = "https://id.example";
pub(crate) const AUDIENCE: &str = "larder";

/// A key that signs tokens.
pub(crate) struct Key {
    pub(crate) kid: &'static str,
    secret: Secret,
}

enum Secret {
    Es256(EcdsaKeyPair),
    EdDsa(Ed25519KeyPair),
    Rs256(RsaKeyPair),
    Hs256(Vec<u8>),
}

fn text(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

impl Key {
    pub(crate) fn es256(kid: &'static str) -> Self {
        Self { kid, secret: Secret::Es256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()) }
    }

    pub(crate) fn eddsa(kid: &'static str) -> Self {
        Self { kid, secret: Secret::EdDsa(Ed25519KeyPair::generate().unwrap()) }
    }

    pub(crate) fn rs256(kid: &'static str) -> Self {
        Self { kid, secret: Secret::Rs256(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()) }
    }

    pub(crate) fn hs256(kid: &'static str, secret: &[u8]) -> Self {
        Self { kid, secret: Secret::Hs256(secret.into()) }
    }

    pub(crate) fn alg(&self) -> &'static str {
        match self.secret {
            Secret::Es256(_) => "ES256",
            Secret::EdDsa(_) => "EdDSA",
            Secret::Rs256(_) => "RS256",
            Secret::Hs256(_) => "HS256",
        }
    }

    /// What verifies it.
    pub(crate) fn jwk(&self) -> Value {
        let mut jwk = match &self.secret {
            Secret::Es256(pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                json!({ "kty": "EC", "crv": "P-256", "x": text(x), "y": text(y) })
            }
            Secret::EdDsa(pair) => json!({ "kty": "OKP", "crv": "Ed25519", "x": text(pair.public_key()) }),
            Secret::Rs256(pair) => {
                let public = pair.public_key();
                let (n, e) = (public.modulus(), public.exponent());
                json!({ "kty": "RSA", "n": text(n.big_endian_without_leading_zero()), "e": text(e.big_endian_without_leading_zero()) })
            }
            Secret::Hs256(secret) => json!({ "kty": "oct", "k": text(secret) }),
        };
        jwk["kid"] = self.kid.into();
        jwk["alg"] = self.alg().into();
        jwk["use"] = "sig".into();
        jwk
    }

    fn signature(&self, message: &[u8]) -> Vec<u8> {
        match &self.secret {
            Secret::Es256(pair) => pair.sign(&SystemRandom::new(), message).unwrap().as_ref().into(),
            Secret::EdDsa(pair) => pair.sign(message).as_ref().into(),
            Secret::Rs256(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).unwrap();
                signature
            }
            Secret::Hs256(secret) => hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message).as_ref().into(),
        }
    }

    /// A token with this header and these claims, whatever they are.
    pub(crate) fn sign(&self, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", text(header), text(claims));
        let signature = text(self.signature(message.as_bytes()));
        format!("{message}.{signature}")
    }

    pub(crate) fn header(&self) -> Value {
        json!({ "typ": "JWT", "alg": self.alg(), "kid": self.kid })
    }

    /// A good header, and these claims.
    pub(crate) fn token(&self, claims: &Value) -> String {
        self.sign(&self.header().to_string(), &claims.to_string())
    }
}

pub(crate) fn jwks(keys: &[&Key]) -> String {
    json!({ "keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>() }).to_string()
}

/// What a good token of `subject` says; it is good for an hour.
pub(crate) fn claims(subject: &str) -> Value {
    json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": subject, "exp": now_s() + 3600, "iat": now_s() })
}

/// `value` with `member` changed, or without it if it is null.
pub(crate) fn with(mut value: Value, member: &str, to: Value) -> Value {
    match to {
        Value::Null => drop(value.as_object_mut().unwrap().remove(member)),
        to => value[member] = to,
    }
    value
}

pub(crate) fn now_s() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

/// The private value of a key is its own business; this says that tests do not print one.
impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} key {}", self.alg(), self.kid)
    }
}

/// The public value of an EC or OKP key as someone would use it for a shared secret.
pub(crate) fn as_secret(key: &Key) -> Vec<u8> {
    match &key.secret {
        Secret::Es256(pair) => pair.public_key().as_ref().into(),
        Secret::EdDsa(pair) => pair.public_key().as_ref().into(),
        Secret::Rs256(pair) => pair.public_key().as_ref().into(),
        Secret::Hs256(secret) => secret.clone(),
    }
}
