//! The claims of a token (RFC 9246 §2.1), and signing them.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::{Map, Number, Value, json};

use super::{TOKEN_BYTES_MAX, container::Container, key::SigningKey, uri};
use crate::object::ObjectPath;

/// What a token says. Claims that RFC 9246 does not define are kept in `extensions`, so that a renewed token still has them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Claims {
    /// Who signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
    /// For whom: plain, or a JWE.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sub: Option<String>,
    /// Which CDNs it is meant for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aud: Option<Audience>,
    /// The first second, since 1970, in which it is no longer good.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "rounded_down")]
    pub exp: Option<u64>,
    /// The first second, since 1970, in which it is good.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "rounded_up")]
    pub nbf: Option<u64>,
    /// When it was signed, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "rounded_down")]
    pub iat: Option<u64>,
    /// Its own name: such a token opens each URI once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    /// The version of the claim set; 1 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cdniv: Option<u64>,
    /// Comma-separated names of extension claims that a verifier must understand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cdnicrit: Option<String>,
    /// The client's address or prefix: plain, or a JWE.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cdniip: Option<String>,
    /// What it opens: `hash:sha-256;…` or `regex:…`. Every token has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cdniuc: Option<String>,
    /// How long a renewed token is good, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "rounded_down")]
    pub cdniets: Option<u64>,
    /// How a renewed token travels: 0 not at all, 1 in a cookie, 2 in a query.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cdnistt: Option<u64>,
    /// How many segments of the path the renewed token's cookie is bound to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cdnistd: Option<u64>,
    /// Every other claim.
    #[serde(flatten)]
    pub extensions: Map<String, Value>,
}

impl Claims {
    /// Everything below `root`, on any host, with any query.
    pub fn for_tree(root: &ObjectPath, expires_unix_s: u64) -> Self {
        Self { exp: Some(expires_unix_s), cdniuc: Some(Container::tree_of(root)), ..Self::default() }
    }

    /// This one URI: scheme, host, path and query.
    pub fn for_uri(uri: &str, expires_unix_s: u64) -> Result<Self, SignError> {
        let uri = uri::normal(uri).map_err(|refusal| SignError::Uri(refusal.to_string()))?;
        Ok(Self { exp: Some(expires_unix_s), cdniuc: Some(Container::hash_of(&uri)), ..Self::default() })
    }

    /// Reads a payload. The error names the claim and what is wrong with it.
    pub(super) fn parse(payload: &[u8]) -> Result<Self, BadClaim> {
        let claims: Self = serde_json::from_slice(payload).map_err(|error| Self::fault(payload, &error))?;
        claims.consistent()?;
        Ok(claims)
    }

    /// Which claim it is that cannot be read.
    fn fault(payload: &[u8], error: &serde_json::Error) -> BadClaim {
        let object: Map<String, Value> = serde_json::from_slice(payload).unwrap_or_default();
        let is_bad = |(name, value): (String, Value)| Self::deserialize(json!({ &name: value })).is_err().then_some(name);
        let name = object.into_iter().find_map(is_bad);
        BadClaim::new(name.as_deref().unwrap_or("payload"), error.to_string())
    }

    /// What holds whoever signs and whoever verifies.
    fn consistent(&self) -> Result<(), BadClaim> {
        // §2.1.11: "URI Container (cdniuc) [mandatory]".
        if self.cdniuc.is_none() {
            return Err(BadClaim::new("cdniuc", "is missing, and every token needs one"));
        }
        // §3.2.1: "The cdnistt claim (Section 2.1.13) and cdniets claim (Section 2.1.12) MUST both be present for Signed Token
        // Renewal."
        match (self.cdnistt, self.cdniets) {
            (Some(0..=2), Some(_)) | (None, None) => Ok(()),
            (Some(0..=2), None) => Err(BadClaim::new("cdniets", "is missing, though cdnistt is there")),
            (Some(other), _) => Err(BadClaim::new("cdnistt", format!("{other} is no transport (0, 1 or 2)"))),
            (None, Some(_)) => Err(BadClaim::new("cdnistt", "is missing, though cdniets is there")),
        }
    }
}

/// One audience or several; a lone one is written as a string (RFC 7519 §4.1.3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Audience {
    /// Whether `name` is among them.
    pub fn includes(&self, name: &str) -> bool {
        match self {
            Self::One(one) => one == name,
            Self::Several(several) => several.iter().any(|one| one == name),
        }
    }
}

/// A claim that cannot be right, whoever sent it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("claim {claim}: {why}")]
pub struct BadClaim {
    pub claim: String,
    pub why: String,
}

impl BadClaim {
    pub(super) fn new(claim: &str, why: impl Into<String>) -> Self {
        Self { claim: claim.into(), why: why.into() }
    }
}

/// Signs `claims`: a JWT in compact form, at most [`TOKEN_BYTES_MAX`] bytes.
///
/// Refuses claims that no verifier would accept: without a container, with a container that cannot be compiled, or with half of
/// a renewal.
pub fn sign(key: &SigningKey, claims: &Claims) -> Result<String, SignError> {
    claims.consistent()?;
    if let Some(container) = &claims.cdniuc {
        Container::parse(container).map_err(|why| BadClaim::new("cdniuc", why))?;
    }
    // §2.1.9: "Producers MUST NOT include claim names defined by this specification, duplicate names, or names that do not
    // occur as claim names within the Signed JWT in the cdnicrit list. Producers MUST NOT use the empty list".
    if let Some(critical) = &claims.cdnicrit {
        let names: Vec<&str> = critical.split(',').collect();
        let is_stray = |name: &&&str| !claims.extensions.contains_key(**name) || names.iter().filter(|n| n == name).count() > 1;
        if let Some(stray) = names.iter().find(is_stray) {
            return Err(BadClaim::new("cdnicrit", format!("{stray:?} is not the name of one extension claim")).into());
        }
    }
    let payload = serde_json::to_vec(claims).map_err(|error| BadClaim::new("payload", error.to_string()))?;
    let token = key.sign(&URL_SAFE_NO_PAD.encode(payload))?;
    if token.len() > TOKEN_BYTES_MAX {
        return Err(SignError::TooLong(token.len()));
    }
    Ok(token)
}

/// Why claims were not signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    #[error(transparent)]
    Claim(#[from] BadClaim),
    #[error("the token would have {0} bytes, and {TOKEN_BYTES_MAX} is the most that verifiers read: shorten its claims")]
    TooLong(usize),
    #[error("not a URI that can be signed: {0}")]
    Uri(String),
    #[error("the key {kid} does not sign: {why}")]
    Key { kid: String, why: String },
}

/// RFC 7519 §2 allows a NumericDate with a fraction; an end is rounded towards less time.
fn rounded_down<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    seconds(deserializer, f64::floor)
}

fn rounded_up<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    seconds(deserializer, f64::ceil)
}

fn seconds<'de, D: Deserializer<'de>>(deserializer: D, round: fn(f64) -> f64) -> Result<Option<u64>, D::Error> {
    /// Above this an f64 no longer tells one second from the next.
    const EXACT_MAX: f64 = (1_u64 << 53) as f64;
    let number = Number::deserialize(deserializer)?;
    let fraction = || number.as_f64().filter(|n| (0.0..=EXACT_MAX).contains(n)).map(|n| round(n) as u64);
    let whole = number.as_u64().or_else(fraction);
    whole.map(Some).ok_or_else(|| D::Error::custom(format!("{number} is not a number of seconds")))
}
