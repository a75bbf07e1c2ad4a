//! Keys as JWKs (RFC 7517): private ones sign, sets of public or shared ones verify. A key has one algorithm for good.

use std::{collections::HashMap, fmt, str::FromStr};

use aws_lc_rs::{
    encoding::AsBigEndian,
    rand,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
        ParsedPublicKey,
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{DecodingKey, EncodingKey, crypto};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{KID_BYTES_MAX, SignError, jwe::ClaimKey};

/// The least bytes of a shared secret. RFC 7518 §3.2: "A key of the same size as the hash output [...] or larger MUST be used".
const SECRET_BYTES_MIN: usize = 32;
/// P-256's coordinates and private value, and Ed25519's public key and seed.
const CURVE_BYTES: usize = 32;
/// The most keys in a set.
const KEYS_MAX: usize = 1024;

/// How a token is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
    /// HMAC with SHA-256: whoever verifies can also sign. RFC 9246 §7: "this architecture is NOT RECOMMENDED".
    Hs256,
}

impl Algorithm {
    /// Its name in a JWT's header (RFC 7518 §3.1, RFC 8037 §3.1).
    pub const fn name(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
            Self::Hs256 => "HS256",
        }
    }

    const fn jwt(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::Es256 => jsonwebtoken::Algorithm::ES256,
            Self::EdDsa => jsonwebtoken::Algorithm::EdDSA,
            Self::Hs256 => jsonwebtoken::Algorithm::HS256,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Algorithm {
    type Err = KeyError;

    fn from_str(name: &str) -> Result<Self, KeyError> {
        [Self::Es256, Self::EdDsa, Self::Hs256].into_iter().find(|algorithm| algorithm.name() == name).ok_or(KeyError::Algorithm)
    }
}

/// A key that signs tokens. Its private part is shown by [`Self::to_jwk`] alone.
#[derive(Clone)]
pub struct SigningKey {
    kid: String,
    material: Material,
    /// What `jsonwebtoken` signs with: PKCS #8 or the secret.
    encoded: EncodingKey,
}

/// The bytes of a JWK.
#[derive(Clone)]
enum Material {
    Es256 { x: Vec<u8>, y: Vec<u8>, d: Vec<u8> },
    EdDsa { x: Vec<u8>, d: Vec<u8> },
    Hs256 { k: Vec<u8> },
}

impl SigningKey {
    /// A new key named `kid`, 1 to [`KID_BYTES_MAX`] bytes of printable ASCII.
    pub fn generate(algorithm: Algorithm, kid: &str) -> Result<Self, KeyError> {
        let material = match algorithm {
            Algorithm::Es256 => {
                let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(|_| KeyError::NoRandomness)?;
                let d = pair.private_key().as_be_bytes().map_err(|_| KeyError::NoRandomness)?.as_ref().to_vec();
                let (x, y) = pair.public_key().as_ref()[1..].split_at(CURVE_BYTES);
                Material::Es256 { x: x.into(), y: y.into(), d }
            }
            Algorithm::EdDsa => {
                let pair = Ed25519KeyPair::generate().map_err(|_| KeyError::NoRandomness)?;
                let seed = pair.seed().and_then(|seed| seed.as_be_bytes()).map_err(|_| KeyError::NoRandomness)?;
                Material::EdDsa { x: pair.public_key().as_ref().into(), d: seed.as_ref().into() }
            }
            Algorithm::Hs256 => {
                let mut k = vec![0; SECRET_BYTES_MIN];
                rand::fill(&mut k).map_err(|_| KeyError::NoRandomness)?;
                Material::Hs256 { k }
            }
        };
        Self::new(kid, material)
    }

    /// Reads a private JWK: `EC` on P-256, `OKP` Ed25519, or `oct`, with a `kid`.
    pub fn from_jwk(json: &str) -> Result<Self, KeyError> {
        let jwk = Jwk::parse(json)?;
        let kid = jwk.kid()?.to_owned();
        let fault = |why| KeyError::Bad { kid: kid.clone(), why };
        let d = || jwk.bytes("d", &jwk.d)?.ok_or(fault("it has no private part (d), so it cannot sign"));
        let material = match jwk.algorithm()? {
            Algorithm::Es256 => Material::Es256 { x: jwk.needed("x", &jwk.x)?, y: jwk.needed("y", &jwk.y)?, d: d()? },
            Algorithm::EdDsa => Material::EdDsa { x: jwk.needed("x", &jwk.x)?, d: d()? },
            Algorithm::Hs256 => Material::Hs256 { k: jwk.secret()? },
        };
        Self::new(&kid, material)
    }

    fn new(kid: &str, material: Material) -> Result<Self, KeyError> {
        check_kid(kid)?;
        let bad = || KeyError::Bad { kid: kid.into(), why: "its private part (d) and its public part do not belong together" };
        let encoded = match &material {
            Material::Es256 { x, y, d } => {
                let pair = EcdsaKeyPair::from_private_key_and_public_key(&ECDSA_P256_SHA256_FIXED_SIGNING, d, &point(x, y));
                EncodingKey::from_ec_der(pair.map_err(|_| bad())?.to_pkcs8v1().map_err(|_| bad())?.as_ref())
            }
            Material::EdDsa { x, d } => {
                let pair = Ed25519KeyPair::from_seed_and_public_key(d, x).map_err(|_| bad())?;
                EncodingKey::from_ed_der(pair.to_pkcs8().map_err(|_| bad())?.as_ref())
            }
            Material::Hs256 { k } => EncodingKey::from_secret(k),
        };
        Ok(Self { kid: kid.into(), material, encoded })
    }

    /// The private JWK, in one line. Keep it secret.
    pub fn to_jwk(&self) -> String {
        let mut jwk = self.public_jwk();
        match &self.material {
            Material::Es256 { d, .. } | Material::EdDsa { d, .. } => jwk["d"] = URL_SAFE_NO_PAD.encode(d).into(),
            Material::Hs256 { k } => jwk["k"] = URL_SAFE_NO_PAD.encode(k).into(),
        }
        jwk.to_string()
    }

    /// The JWK that a verifier's set needs: the public one, or for HS256, where there is none, the shared secret itself.
    pub fn verifying_jwk(&self) -> Value {
        let mut jwk = self.public_jwk();
        if let Material::Hs256 { k } = &self.material {
            jwk["k"] = URL_SAFE_NO_PAD.encode(k).into();
        }
        jwk
    }

    /// The public JWK: nothing in it is secret. A shared secret has no public part, so for HS256 it verifies nothing.
    pub fn public_jwk(&self) -> Value {
        let mut jwk = match &self.material {
            Material::Es256 { x, y, .. } => {
                json!({ "kty": "EC", "crv": "P-256", "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y) })
            }
            Material::EdDsa { x, .. } => json!({ "kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(x) }),
            Material::Hs256 { .. } => json!({ "kty": "oct" }),
        };
        jwk["kid"] = self.kid.as_str().into();
        jwk["use"] = "sig".into();
        jwk["alg"] = self.algorithm().name().into();
        jwk
    }

    /// The name that tokens carry.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// How it signs.
    pub const fn algorithm(&self) -> Algorithm {
        match self.material {
            Material::Es256 { .. } => Algorithm::Es256,
            Material::EdDsa { .. } => Algorithm::EdDsa,
            Material::Hs256 { .. } => Algorithm::Hs256,
        }
    }

    /// The compact form of a JWS (RFC 7515 §7.1) around a payload that is encoded already.
    pub(super) fn sign(&self, payload: &str) -> Result<String, SignError> {
        let header = json!({ "alg": self.algorithm().name(), "kid": self.kid }).to_string();
        let mut token = format!("{}.{payload}", URL_SAFE_NO_PAD.encode(header));
        let signature = crypto::sign(token.as_bytes(), &self.encoded, self.algorithm().jwt())
            .map_err(|error| SignError::Key { kid: self.kid.clone(), why: error.to_string() })?;
        token.push('.');
        token.push_str(&signature);
        Ok(token)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("kid", &self.kid).field("algorithm", &self.algorithm()).finish_non_exhaustive()
    }
}

/// Keys that verify, and keys that open encrypted claims, by name.
#[derive(Debug, Clone, Default)]
pub struct KeySet {
    verifying: HashMap<String, VerifyingKey>,
    claims: HashMap<String, ClaimKey>,
}

/// One key that verifies.
#[derive(Debug, Clone)]
pub(super) struct VerifyingKey {
    pub(super) algorithm: Algorithm,
    /// RFC 9246 §2.1.1: "the recipient will have already received, in trusted configuration, a mapping of Issuer name to one or
    /// more keys". A key with the member `iss` signs for that issuer alone.
    pub(super) issuer: Option<String>,
    key: DecodingKey,
}

impl KeySet {
    /// Reads a JWK set, `{"keys": […]}`: `EC` P-256, `OKP` Ed25519 and `oct` keys, each with its own `kid`. `oct` keys with `alg`
    /// `A128GCM` or `A256GCM` open encrypted claims.
    ///
    /// A private `EC` or `OKP` key is refused: an edge that holds none cannot have one stolen.
    pub fn from_jwks(json: &str) -> Result<Self, KeyError> {
        #[derive(Deserialize)]
        struct Jwks {
            keys: Vec<Value>,
        }
        let jwks: Jwks = serde_json::from_str(json).map_err(|error| KeyError::Json(error.to_string()))?;
        if jwks.keys.len() > KEYS_MAX {
            return Err(KeyError::TooMany(jwks.keys.len()));
        }
        let mut set = Self::default();
        for jwk in jwks.keys {
            set.add(&Jwk::of(jwk)?)?;
        }
        Ok(set)
    }

    fn add(&mut self, jwk: &Jwk) -> Result<(), KeyError> {
        let kid = jwk.kid()?;
        let fault = |why| KeyError::Bad { kid: kid.into(), why };
        if self.verifying.contains_key(kid) || self.claims.contains_key(kid) {
            return Err(fault("another key of the set has the same kid"));
        }
        if jwk.seals() {
            self.claims.insert(kid.into(), jwk.claim_key()?);
            return Ok(());
        }
        let algorithm = jwk.algorithm()?;
        if jwk.d.is_some() {
            return Err(fault("it has its private part (d); a verifier's set has public keys only, so give it the public JWK"));
        }
        let key = match algorithm {
            Algorithm::Es256 => {
                let (x, y) = (jwk.needed("x", &jwk.x)?, jwk.needed("y", &jwk.y)?);
                let point = point(&x, &y);
                ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &point).map_err(|_| fault("x and y are no point of P-256"))?;
                DecodingKey::from_ec_der(&point)
            }
            Algorithm::EdDsa => {
                let x = jwk.needed("x", &jwk.x)?;
                ParsedPublicKey::new(&ED25519, &x).map_err(|_| fault("x is no Ed25519 key"))?;
                DecodingKey::from_ed_der(&x)
            }
            Algorithm::Hs256 => DecodingKey::from_secret(&jwk.secret()?),
        };
        self.verifying.insert(kid.into(), VerifyingKey { algorithm, issuer: jwk.iss.clone(), key });
        Ok(())
    }

    /// How many keys verify.
    pub fn len(&self) -> usize {
        self.verifying.len()
    }

    /// Whether no key verifies.
    pub fn is_empty(&self) -> bool {
        self.verifying.is_empty()
    }

    pub(super) fn verifying(&self, kid: &str) -> Option<&VerifyingKey> {
        self.verifying.get(kid)
    }

    pub(super) fn claims(&self, kid: &str) -> Option<&ClaimKey> {
        self.claims.get(kid)
    }
}

impl VerifyingKey {
    /// Whether `signature`, as it stands in a token, is this key's under `message`.
    pub(super) fn verifies(&self, message: &str, signature: &str) -> bool {
        crypto::verify(signature, message.as_bytes(), &self.key, self.algorithm.jwt()).unwrap_or(false)
    }
}

/// A JWK as it is written.
#[derive(Deserialize)]
pub(super) struct Jwk {
    kty: String,
    kid: Option<String>,
    crv: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    iss: Option<String>,
    x: Option<String>,
    y: Option<String>,
    d: Option<String>,
    k: Option<String>,
}

impl Jwk {
    pub(super) fn parse(json: &str) -> Result<Self, KeyError> {
        // Without the text: it may have the secret in it.
        serde_json::from_str(json).map_err(|error| KeyError::Json(error.to_string()))
    }

    fn of(value: Value) -> Result<Self, KeyError> {
        serde_json::from_value(value).map_err(|error| KeyError::Json(error.to_string()))
    }

    pub(super) fn kid(&self) -> Result<&str, KeyError> {
        let kid = self.kid.as_deref().ok_or(KeyError::Nameless)?;
        check_kid(kid)?;
        Ok(kid)
    }

    fn bad(&self, why: &'static str) -> KeyError {
        KeyError::Bad { kid: self.kid.clone().unwrap_or_default(), why }
    }

    /// The only algorithm that the key's kind allows; `alg`, if it is there, must agree.
    fn algorithm(&self) -> Result<Algorithm, KeyError> {
        let algorithm = match (self.kty.as_str(), self.crv.as_deref()) {
            ("EC", Some("P-256")) => Algorithm::Es256,
            ("OKP", Some("Ed25519")) => Algorithm::EdDsa,
            ("oct", _) => Algorithm::Hs256,
            _ => return Err(self.bad("its kty and crv are none of EC P-256, OKP Ed25519 and oct")),
        };
        // RFC 9864 §2.2 also calls it after its curve.
        let is_same = |name: &str| name == algorithm.name() || (name == "Ed25519" && algorithm == Algorithm::EdDsa);
        if self.alg.as_deref().is_some_and(|name| !is_same(name)) {
            return Err(self.bad("its alg does not fit its kty and crv"));
        }
        if self.usage.as_deref().is_some_and(|usage| usage != "sig") {
            return Err(self.bad("its use is not sig"));
        }
        Ok(algorithm)
    }

    fn seals(&self) -> bool {
        self.kty == "oct" && (self.usage.as_deref() == Some("enc") || self.alg.as_deref().is_some_and(|alg| alg.ends_with("GCM")))
    }

    pub(super) fn claim_key(&self) -> Result<ClaimKey, KeyError> {
        let secret = self.bytes("k", &self.k)?.ok_or(self.bad("it has no secret (k)"))?;
        ClaimKey::new(self.kid()?, self.alg.as_deref().unwrap_or_default(), &secret)
            .ok_or(self.bad("it is no key of A128GCM (16 bytes) or A256GCM (32 bytes)"))
    }

    fn bytes(&self, member: &'static str, value: &Option<String>) -> Result<Option<Vec<u8>>, KeyError> {
        let decode = |text: &String| URL_SAFE_NO_PAD.decode(text);
        let kid = || self.kid.clone().unwrap_or_default();
        value.as_ref().map(decode).transpose().map_err(|_| KeyError::NotBase64 { kid: kid(), member })
    }

    /// A member of an asymmetric key.
    fn needed(&self, member: &'static str, value: &Option<String>) -> Result<Vec<u8>, KeyError> {
        let bytes = self.bytes(member, value)?.ok_or(self.bad("a part of it (x or y) is missing"))?;
        if bytes.len() == CURVE_BYTES { Ok(bytes) } else { Err(self.bad("a part of it (x or y) has not 32 bytes")) }
    }

    fn secret(&self) -> Result<Vec<u8>, KeyError> {
        let secret = self.bytes("k", &self.k)?.ok_or(self.bad("it has no secret (k)"))?;
        if secret.len() < SECRET_BYTES_MIN {
            return Err(self.bad("its secret (k) is shorter than 32 bytes"));
        }
        Ok(secret)
    }
}

/// An uncompressed point (SEC 1 §2.3.3).
fn point(x: &[u8], y: &[u8]) -> Vec<u8> {
    [&[4], x, y].concat()
}

pub(super) fn check_kid(kid: &str) -> Result<(), KeyError> {
    let is_name = (1..=KID_BYTES_MAX).contains(&kid.len()) && kid.bytes().all(|byte| byte.is_ascii_graphic());
    if is_name { Ok(()) } else { Err(KeyError::Name) }
}

/// What is wrong with a key. Never shows the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("not a key: {0}; a JWK (RFC 7517) is wanted, or for a verifier a set of them, {{\"keys\": […]}}")]
    Json(String),
    #[error("a key without a name: every key needs a kid")]
    Nameless,
    #[error("a kid is 1 to {KID_BYTES_MAX} printable ASCII characters without spaces")]
    Name,
    #[error("not an algorithm for tokens: ES256, EdDSA and HS256 are")]
    Algorithm,
    #[error("key {kid}: {why}")]
    Bad { kid: String, why: &'static str },
    #[error("key {kid}: {member} is not base64url without padding")]
    NotBase64 { kid: String, member: &'static str },
    #[error("{0} keys in a set are more than {KEYS_MAX}")]
    TooMany(usize),
    #[error("the system gives no random numbers")]
    NoRandomness,
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Algorithm; 3] = [Algorithm::Es256, Algorithm::EdDsa, Algorithm::Hs256];

    fn set_of(keys: &[&str]) -> Result<KeySet, KeyError> {
        KeySet::from_jwks(&format!("{{\"keys\":[{}]}}", keys.join(",")))
    }

    #[test]
    fn keys_survive_being_written_and_read() {
        for algorithm in ALL {
            assert_eq!(algorithm.to_string().parse(), Ok(algorithm));
            let key = SigningKey::generate(algorithm, "k1").unwrap();
            let read = SigningKey::from_jwk(&key.to_jwk()).unwrap();
            assert_eq!((read.kid(), read.algorithm(), read.to_jwk()), ("k1", algorithm, key.to_jwk()));
            let token = read.sign("e30").unwrap();
            let (message, signature) = token.rsplit_once('.').unwrap();
            let set = set_of(&[&key.verifying_jwk().to_string()]).unwrap();
            let verifying = set.verifying("k1").unwrap();
            assert!(verifying.verifies(message, signature), "{algorithm}");
            assert!(!verifying.verifies("e30.e30", signature), "{algorithm}");
        }
        assert_eq!("RS256".parse::<Algorithm>(), Err(KeyError::Algorithm));
        assert_eq!("none".parse::<Algorithm>(), Err(KeyError::Algorithm));
    }

    #[test]
    fn secrets_are_not_shown() {
        for algorithm in ALL {
            let key = SigningKey::generate(algorithm, "k1").unwrap();
            let jwk: Value = serde_json::from_str(&key.to_jwk()).unwrap();
            let secret = jwk.get("d").or(jwk.get("k")).unwrap().as_str().unwrap();
            assert!(!key.public_jwk().to_string().contains(secret));
            assert!(!format!("{key:?}").contains(secret));
            if algorithm == Algorithm::Hs256 {
                let set = set_of(&[&key.to_jwk()]).unwrap();
                assert!(!format!("{set:?}").contains(secret));
            }
        }
    }

    #[test]
    fn keys_that_could_mint_or_confuse_are_refused() {
        let key = |algorithm, kid| SigningKey::generate(algorithm, kid).unwrap();
        let (es, ed, hs) = (key(Algorithm::Es256, "a"), key(Algorithm::EdDsa, "b"), key(Algorithm::Hs256, "c"));
        for private in [es.to_jwk(), ed.to_jwk()] {
            let error = set_of(&[&private]).unwrap_err();
            assert!(error.to_string().contains("public keys only"), "{error}");
        }
        let public = es.public_jwk().to_string();
        let why = |jwk: &str| match set_of(&[jwk]) {
            Err(KeyError::Bad { why, .. }) => why,
            other => panic!("{other:?}"),
        };
        assert_eq!(set_of(&[&public, &public]).unwrap_err().to_string(), "key a: another key of the set has the same kid");
        assert!(why(&public.replace("ES256", "HS256")).contains("alg"));
        assert!(why(&public.replace("\"sig\"", "\"enc\"")).contains("use"));
        assert!(why(&public.replace("P-256", "P-384")).contains("crv"));
        let x = es.public_jwk()["x"].as_str().unwrap().to_owned();
        assert!(why(&public.replace(&x, &URL_SAFE_NO_PAD.encode([7; 32]))).contains("no point"));
        assert!(why(&public.replace(&x, "AAAA")).contains("32 bytes"));
        assert_eq!(set_of(&[&public.replace(&x, "%")]).unwrap_err(), KeyError::NotBase64 { kid: "a".into(), member: "x" });
        let weak = r#"{"kty":"oct","kid":"w","k":"c2hvcnQ"}"#;
        assert!(why(weak).contains("shorter"));
        assert!(SigningKey::from_jwk(weak).is_err());
        assert!(why(&hs.public_jwk().to_string()).contains("no secret"));
        assert!(SigningKey::from_jwk(&public).unwrap_err().to_string().contains("cannot sign"));
        let other_d: Value = serde_json::from_str(&key(Algorithm::Es256, "a").to_jwk()).unwrap();
        let mut mixed = es.public_jwk();
        mixed["d"] = other_d["d"].clone();
        assert!(SigningKey::from_jwk(&mixed.to_string()).is_err());
        assert_eq!(SigningKey::generate(Algorithm::EdDsa, "").unwrap_err(), KeyError::Name);
        assert_eq!(SigningKey::generate(Algorithm::EdDsa, "a b").unwrap_err(), KeyError::Name);
        assert!(matches!(KeySet::from_jwks("[]"), Err(KeyError::Json(_))));
        assert_eq!(set_of(&[r#"{"kty":"oct"}"#]).unwrap_err(), KeyError::Nameless);
    }
}
