//! From what a client presents to a [`Grant`]: signature, then claims. Every refusal names the claim for the log, and tells a
//! stranger next to nothing.

use std::{fmt, net::IpAddr, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ipnet::IpNet;
use serde::Deserialize;

use super::{
    Audience, Claims, KeySet, Presented, Renewal, TOKEN_BYTES_MAX,
    claims::BadClaim,
    container::Container,
    jwe::{self, Shut},
    key::VerifyingKey,
    remembered::Remembered,
    replay::{Replay, Replays},
    uri,
};

/// How many compiled `regex:` containers are kept. Many tokens share one: all viewers of a title.
const CONTAINERS_MAX: usize = 2048;

/// What a verifier accepts beyond a good signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The values of `iss` that are accepted from keys that are not bound to an issuer of their own. A token without `iss` is
    /// accepted: its key says who signed.
    pub issuers: Vec<String>,
    /// Our own name: a token with `aud` must be for it.
    pub audience: Option<String>,
    /// Seconds by which `exp` and `nbf` may be missed. RFC 9246 §2.1.4: "URI Signing implementations MUST NOT allow for any
    /// time-synchronization "leeway"": anything but 0 is an operator's own decision against it.
    pub leeway_s: u64,
    /// Whether a token without `exp`, which would be good for ever, is refused. RFC 9246 §2.1: "the claim requirements can be set
    /// by configuration".
    pub requires_expiry: bool,
    /// How many verified tokens are remembered. One takes about 1 KiB; 0 verifies each time.
    pub remembered_max: usize,
    /// How many tokens with `jti` may be in use at a time; above it further ones are refused.
    pub replays_max: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            issuers: Vec::new(),
            audience: None,
            leeway_s: 0,
            requires_expiry: true,
            remembered_max: 64 * 1024,
            replays_max: 16 * 1024,
        }
    }
}

/// Checks tokens. Shared by all cores; new keys or rules are a new verifier, which remembers nothing of the old one's.
pub struct Verifier {
    keys: KeySet,
    rules: Rules,
    remembered: Remembered<Arc<Verified>>,
    containers: Remembered<Arc<Container>>,
    replays: Replays,
}

/// What a token with a good signature says. Whether it opens anything is asked on each request.
#[derive(Debug)]
struct Verified {
    exp: Option<u64>,
    nbf: Option<u64>,
    clients: Option<IpNet>,
    container: String,
    subject: Option<String>,
    /// The issuer, or for want of one its key, and the `jti`.
    once: Option<(String, String)>,
    /// Kept only if the token asks for renewal.
    renewing: Option<Claims>,
}

impl Verifier {
    /// A verifier that knows `keys` and accepts by `rules`.
    pub fn new(keys: KeySet, rules: Rules) -> Self {
        let remembered = Remembered::new(rules.remembered_max);
        let replays = Replays::new(rules.replays_max);
        Self { keys, rules, remembered, containers: Remembered::new(CONTAINERS_MAX), replays }
    }

    /// Checks what `client` presents at `now_unix_s`. Time, address and URI are checked on every call.
    ///
    /// Costs a signature check (tens of microseconds) when the token is new, and a look-up when it was accepted before. Tokens
    /// that are refused are never remembered, so garbage displaces nothing.
    pub fn check(&self, presented: &Presented, client: IpAddr, now_unix_s: u64) -> Result<Grant, Refusal> {
        let uri = uri::normal(&presented.uri)?;
        let verified = match self.remembered.get(&presented.token) {
            Some(verified) => {
                self.admit(&verified, &uri, client, now_unix_s)?;
                verified
            }
            None => {
                let verified = Arc::new(self.verify(&presented.token)?);
                self.admit(&verified, &uri, client, now_unix_s)?;
                self.remembered.put(&presented.token, verified.clone());
                verified
            }
        };
        let renewal = verified.renewing.as_ref().and_then(|claims| Renewal::of(claims, &uri, now_unix_s));
        Ok(Grant { verified: Some(verified), renewal })
    }

    /// How many tokens are remembered now.
    pub fn remembered(&self) -> usize {
        self.remembered.len()
    }

    /// The checks that depend on the request.
    fn admit(&self, verified: &Verified, uri: &str, client: IpAddr, now_unix_s: u64) -> Result<(), Refusal> {
        let leeway_s = self.rules.leeway_s;
        // §2.1.4: "if the Expiry Time in the signed JWT corresponds to a time equal to or earlier than the time of the content
        // request, the CDN MUST reject the request."
        if let Some(exp) = verified.exp.filter(|exp| exp.saturating_add(leeway_s) <= now_unix_s) {
            return Err(Refusal::Expired { exp, now_unix_s });
        }
        // §2.1.5: "if the Not Before time in the signed JWT corresponds to a time later than the time of the content request, the
        // CDN MUST reject the request."
        if let Some(nbf) = verified.nbf.filter(|nbf| *nbf > now_unix_s.saturating_add(leeway_s)) {
            return Err(Refusal::NotYet { nbf, now_unix_s });
        }
        // §2.1.10: "The request MUST be rejected if sourced from a client outside the specified IP range."
        let client = client.to_canonical();
        if verified.clients.is_some_and(|clients| !clients.contains(&client)) {
            return Err(Refusal::Client(client));
        }
        // §2.1.11: "If the URI Container used in the signed JWT does not match the URI of the content request, the CDN verifying
        // the signed JWT MUST reject the request."
        if !self.container(&verified.container)?.holds(uri) {
            return Err(Refusal::Uri(uri.into()));
        }
        // §2.1.7: "If the signed JWT contains a JWT ID claim and the CDN verifying the signed JWT either does not support JWT ID
        // storage or has previously seen the value used in a request for the same content, then the CDN MUST reject the request."
        if let Some((issuer, jti)) = &verified.once {
            let noted = self.replays.note(issuer, jti, uri, verified.exp.unwrap_or(u64::MAX), now_unix_s);
            noted.map_err(|replay| match replay {
                Replay::Seen => Refusal::Replayed(jti.clone()),
                Replay::Full => Refusal::ReplaysFull(jti.clone()),
            })?;
        }
        Ok(())
    }

    /// The checks that depend on the token alone. Nothing of the payload is read before the signature is good.
    fn verify(&self, token: &str) -> Result<Verified, Refusal> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Refusal::TooLong(token.len()));
        }
        let (message, signature) = token.rsplit_once('.').ok_or(Refusal::Malformed("it has no three parts"))?;
        let (header, payload) = message.split_once('.').ok_or(Refusal::Malformed("it has no three parts"))?;
        let (kid, key) = self.key(header)?;
        if !key.verifies(message, signature) {
            return Err(Refusal::Signature { kid });
        }
        let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|_| Refusal::Malformed("its payload is not base64url"))?;
        let claims = Claims::parse(&payload)?;
        self.believe(claims, kid, key)
    }

    /// The key that a token's header names. The header is not trusted: it can only name a key, and must agree with it.
    fn key(&self, header: &str) -> Result<(String, &VerifyingKey), Refusal> {
        #[derive(Deserialize)]
        struct Header {
            alg: String,
            kid: Option<String>,
            crit: Option<serde_json::Value>,
        }
        let header = URL_SAFE_NO_PAD.decode(header).ok().and_then(|json| serde_json::from_slice::<Header>(&json).ok());
        let Header { alg, kid, crit } = header.ok_or(Refusal::Malformed("its header is not JSON with an alg"))?;
        // RFC 7515 §4.1.11: "If any of the listed extension Header Parameters are not understood and supported by the recipient,
        // then the JWS is invalid." None is.
        if crit.is_some() {
            return Err(Refusal::Malformed("its header has crit, and no extension is known"));
        }
        let kid = kid.ok_or(Refusal::Nameless)?;
        let Some(key) = self.keys.verifying(&kid) else { return Err(Refusal::UnknownKey { kid }) };
        // RFC 8725 §3.1: "each key MUST be used with exactly one algorithm, and this MUST be checked when the cryptographic
        // operation is performed."
        if alg != key.algorithm.name() {
            return Err(Refusal::Algorithm { kid, alg });
        }
        Ok((kid, key))
    }

    fn believe(&self, claims: Claims, kid: String, key: &VerifyingKey) -> Result<Verified, Refusal> {
        // §2.1.8: "Implementations MUST reject signed JWTs with unsupported CDNI Claim Set versions."
        if let Some(version) = claims.cdniv.filter(|version| *version != 1) {
            return Err(Refusal::Version(version));
        }
        // §2.1.9: "If any of the listed extension claims are not understood and supported by the recipient, then the Signed JWT
        // MUST be rejected." None is; and "Producers MUST NOT use the empty list".
        if let Some(critical) = claims.cdnicrit {
            return Err(Refusal::Critical(critical));
        }
        // §2.1.1: "if the Issuer in the signed JWT does not match the list of known acceptable Issuers, or if the Issuer claim does
        // not match the key used to sign the JWT, the CDN MUST reject the request."
        let is_known = |iss: &String| key.issuer.as_ref().map_or_else(|| self.rules.issuers.contains(iss), |bound| bound == iss);
        if let Some(iss) = claims.iss.as_ref().filter(|iss| !is_known(iss)) {
            return Err(Refusal::Issuer { iss: iss.clone(), kid });
        }
        // RFC 7519 §4.1.3: "If the principal processing the claim does not identify itself with a value in the "aud" claim when
        // this claim is present, then the JWT MUST be rejected."
        let is_for_us = |aud: &Audience| self.rules.audience.as_ref().is_some_and(|us| aud.includes(us));
        if let Some(aud) = claims.aud.as_ref().filter(|aud| !is_for_us(aud)) {
            return Err(Refusal::Audience(aud.clone()));
        }
        if claims.exp.is_none() && self.rules.requires_expiry {
            return Err(BadClaim::new("exp", "is missing, and the rules require it").into());
        }
        let clients = claims.cdniip.as_deref().map(|cdniip| self.clients(cdniip)).transpose()?;
        let subject = claims.sub.as_deref().map(|sub| self.subject(sub)).transpose()?.flatten();
        let container = claims.cdniuc.clone().unwrap_or_default();
        self.container(&container)?;
        let once = claims.jti.clone().map(|jti| (claims.iss.clone().unwrap_or(kid), jti));
        let (exp, nbf) = (claims.exp, claims.nbf);
        let renewing = claims.cdnistt.is_some_and(|transport| transport != 0).then_some(claims);
        Ok(Verified { exp, nbf, clients, container, subject, once, renewing })
    }

    /// §2.1.10: "This is represented in CIDR notation with dotted decimal format for IPv4 addresses [RFC0791] or canonical text
    /// representation for IPv6 addresses [RFC5952]." A.2 writes brackets around it, and a lone address means itself.
    fn clients(&self, cdniip: &str) -> Result<IpNet, Refusal> {
        let opened;
        let text = if jwe::is_sealed(cdniip) {
            opened = jwe::open(cdniip, &self.keys).map_err(|shut| BadClaim::new("cdniip", shut.to_string()))?;
            &opened
        } else {
            cdniip
        };
        let text = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        net.map_err(|_| BadClaim::new("cdniip", "is neither an address, nor a prefix, nor a JWE").into())
    }

    /// §2.1.2: the subject "MAY be used to verify the signed JWT"; we only report it, so one that is sealed for others is left shut.
    fn subject(&self, sub: &str) -> Result<Option<String>, Refusal> {
        if !jwe::is_sealed(sub) {
            return Ok(Some(sub.into()));
        }
        match jwe::open(sub, &self.keys) {
            Ok(subject) => Ok(Some(subject)),
            Err(Shut::Keyless(_)) => Ok(None),
            Err(shut) => Err(BadClaim::new("sub", shut.to_string()).into()),
        }
    }

    /// A container, compiled at most once while it is in use.
    fn container(&self, claim: &str) -> Result<Arc<Container>, Refusal> {
        if let Some(container) = self.containers.get(claim) {
            return Ok(container);
        }
        let container = Arc::new(Container::parse(claim).map_err(|why| BadClaim::new("cdniuc", why))?);
        if matches!(*container, Container::Regex(_)) {
            self.containers.put(claim, container.clone());
        }
        Ok(container)
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { keys, rules, .. } = self;
        f.debug_struct("Verifier").field("keys", keys).field("rules", rules).finish_non_exhaustive()
    }
}

impl fmt::Display for Shut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keyless(kid) => write!(f, "is encrypted with key {kid:?}, which is not in the set"),
            Self::Unreadable(why) => f.write_str(why),
        }
    }
}

/// Leave to read what was asked for. Only [`Verifier::check`] and [`Grant::open_path`] make one.
#[derive(Debug)]
pub struct Grant {
    /// `None` for a path that is open to all.
    verified: Option<Arc<Verified>>,
    renewal: Option<Renewal>,
}

impl Grant {
    /// The grant for a path that the operator opened to everyone by configuration.
    pub const fn open_path() -> Self {
        Self { verified: None, renewal: None }
    }

    /// When the token ends, in seconds since 1970; `u64::MAX` if never.
    pub fn expires_unix_s(&self) -> u64 {
        self.verified.as_ref().and_then(|verified| verified.exp).unwrap_or(u64::MAX)
    }

    /// Whom the token is for, if it says so to us.
    pub fn subject(&self) -> Option<&str> {
        self.verified.as_ref()?.subject.as_deref()
    }

    /// The renewal that the token asks for.
    pub const fn renewal(&self) -> Option<&Renewal> {
        self.renewal.as_ref()
    }
}

/// Why a token opens nothing. `Display` is for logs and operators; a client gets [`Refusal::code`] at most.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the request has no token")]
    Missing,
    #[error("the request's target cannot be read: {0}")]
    Target(&'static str),
    #[error("the token has {0} bytes, more than {TOKEN_BYTES_MAX}")]
    TooLong(usize),
    #[error("the token is malformed: {0}")]
    Malformed(&'static str),
    #[error("the token's header names no key (kid)")]
    Nameless,
    #[error("the token's key (kid) {kid:?} is not in the set")]
    UnknownKey { kid: String },
    #[error("the token's alg {alg:?} is not the algorithm of its key {kid:?}")]
    Algorithm { kid: String, alg: String },
    #[error("the token's signature is not by key {kid:?}")]
    Signature { kid: String },
    #[error(transparent)]
    Claim(#[from] BadClaim),
    #[error("claim cdniv: version {0} is not known; 1 is")]
    Version(u64),
    #[error("claim cdnicrit: {0:?} must be understood, and is not")]
    Critical(String),
    #[error("claim iss: {iss:?} is not an issuer that key {kid:?} may sign for")]
    Issuer { iss: String, kid: String },
    #[error("claim aud: {0:?} does not include us")]
    Audience(Audience),
    #[error("claim exp: the token ended at {exp}, and it is {now_unix_s}")]
    Expired { exp: u64, now_unix_s: u64 },
    #[error("claim nbf: the token begins at {nbf}, and it is {now_unix_s}")]
    NotYet { nbf: u64, now_unix_s: u64 },
    #[error("claim cdniip: {0} is not among the clients it is for")]
    Client(IpAddr),
    #[error("claim cdniuc: it does not hold {0}")]
    Uri(String),
    #[error("claim jti: {0:?} has opened this URI before")]
    Replayed(String),
    #[error("claim jti: no more uses can be remembered, so {0:?} is not used")]
    ReplaysFull(String),
}

impl Refusal {
    /// All that a stranger is told: enough for a player to know whether a new token would help, and nothing about how tokens are
    /// checked.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Missing => "no-token",
            Self::Target(_) => "bad-target",
            Self::Expired { .. } | Self::NotYet { .. } | Self::Replayed(_) | Self::ReplaysFull(_) => "stale-token",
            Self::Client(_) | Self::Uri(_) | Self::Audience(_) => "wrong-token",
            _ => "bad-token",
        }
    }

    /// The CDNI URI Signing Verification Code for logs (RFC 9246 §6.4).
    pub fn verification_code(&self) -> u16 {
        match self {
            Self::Missing => 0,
            Self::Target(_) | Self::TooLong(_) | Self::Malformed(_) => 500,
            Self::Nameless | Self::UnknownKey { .. } | Self::Algorithm { .. } | Self::Signature { .. } => 400,
            Self::Issuer { .. } => 401,
            Self::Audience(_) => 403,
            Self::Expired { .. } => 404,
            Self::NotYet { .. } => 405,
            Self::Replayed(_) | Self::ReplaysFull(_) => 407,
            Self::Version(_) => 408,
            Self::Critical(_) => 409,
            Self::Client(_) => 410,
            Self::Uri(_) => 411,
            Self::Claim(bad) => match bad.claim.as_str() {
                "iss" => 401,
                "sub" => 402,
                "aud" => 403,
                "exp" => 404,
                "nbf" => 405,
                "cdnistt" | "cdniets" => 406,
                "jti" => 407,
                "cdniv" => 408,
                "cdnicrit" => 409,
                "cdniip" => 410,
                "cdniuc" => 411,
                _ => 500,
            },
        }
    }
}
