//! From what a client presents to a [`Grant`]: signature, then claims. Every refusal names the claim for the log, and tells a
//! stranger next to nothing.

use std::{fmt, net::IpAddr, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ipnet::IpNet;
use serde::Deserialize;

use super::{
    Audience, Claims, KeySet, Presented, RATE_CLAIM, RATE_CLAIM_MIN, Renewal, TOKEN_BYTES_MAX,
    claims::BadClaim,
    container::Container,
    jwe::{self, Shut},
    key::VerifyingKey,
    remembered::Remembered,
    replay::{Replay, Replays},
    uri,
};

/// How many compiled patterns are kept, which take about 5 KiB each. Many tokens share one.
const CONTAINERS_MAX: usize = 1024;

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
    container: Held,
    subject: Option<String>,
    bits_per_second_max: Option<u64>,
    /// The issuer, or for want of one its key, and the `jti`.
    once: Option<(String, String)>,
    /// Kept only if the token asks for renewal.
    renewing: Option<Claims>,
}

/// A remembered token's container.
#[derive(Debug)]
enum Held {
    /// Small enough to be the token's own.
    Own(Container),
    /// The claim of a compiled pattern, which tokens share: thousands of them may be for one title, and it is large.
    Shared(String),
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
        let is_held = match &verified.container {
            Held::Own(container) => container.holds(uri),
            Held::Shared(claim) => self.compiled(claim)?.holds(uri),
        };
        if !is_held {
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
        let bits_per_second_max = claims.extensions.get(RATE_CLAIM).map(rate).transpose()?;
        let container = self.held(claims.cdniuc.as_deref().unwrap_or_default())?;
        let once = claims.jti.clone().map(|jti| (claims.iss.clone().unwrap_or(kid), jti));
        let (exp, nbf) = (claims.exp, claims.nbf);
        let renewing = claims.cdnistt.is_some_and(|transport| transport != 0).then_some(claims);
        Ok(Verified { exp, nbf, clients, container, subject, bits_per_second_max, once, renewing })
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

    fn held(&self, claim: &str) -> Result<Held, Refusal> {
        if Container::is_compiled(claim) {
            self.compiled(claim)?;
            return Ok(Held::Shared(claim.into()));
        }
        Ok(Held::Own(Container::parse(claim).map_err(|why| BadClaim::new("cdniuc", why))?))
    }

    /// A pattern, compiled at most once while it is in use.
    fn compiled(&self, claim: &str) -> Result<Arc<Container>, Refusal> {
        if let Some(container) = self.containers.get(claim) {
            return Ok(container);
        }
        let container = Arc::new(Container::parse(claim).map_err(|why| BadClaim::new("cdniuc", why))?);
        self.containers.put(claim, container.clone());
        Ok(container)
    }
}

fn rate(claim: &serde_json::Value) -> Result<u64, Refusal> {
    let rate = claim.as_u64().filter(|rate| *rate >= RATE_CLAIM_MIN);
    rate.ok_or_else(|| BadClaim::new(RATE_CLAIM, format!("is not a whole number of at least {RATE_CLAIM_MIN}")).into())
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

    /// Whether nobody had to present anything for it.
    pub const fn is_open_path(&self) -> bool {
        self.verified.is_none()
    }

    /// When the token ends, in seconds since 1970; `u64::MAX` if never.
    pub fn expires_unix_s(&self) -> u64 {
        self.verified.as_ref().and_then(|verified| verified.exp).unwrap_or(u64::MAX)
    }

    /// Whom the token is for, if it says so to us.
    pub fn subject(&self) -> Option<&str> {
        self.verified.as_ref()?.subject.as_deref()
    }

    /// The most that may be sent for the token, if it says so ([`RATE_CLAIM`](super::RATE_CLAIM)).
    pub fn bits_per_second_max(&self) -> Option<u64> {
        self.verified.as_ref()?.bits_per_second_max
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        object::ObjectPath,
        token::{Algorithm, Carrier, ClaimKey, SignError, SigningKey, Transport, sign},
    };

    const NOW: u64 = 1_700_000_000;
    const CLIENT: &str = "192.0.2.7";
    const SEGMENT: &str = "https://edge.example/titles/x/v720/00001.m4s";

    fn key(kid: &str) -> SigningKey {
        SigningKey::generate(Algorithm::EdDsa, kid).unwrap()
    }

    fn set(keys: &[Value]) -> KeySet {
        KeySet::from_jwks(&json!({ "keys": keys }).to_string()).unwrap()
    }

    fn verifier(key: &SigningKey, rules: Rules) -> Verifier {
        Verifier::new(set(&[key.verifying_jwk()]), rules)
    }

    fn tree() -> Claims {
        Claims::for_tree(&ObjectPath::new("/titles/x").unwrap(), NOW + 60)
    }

    fn check(verifier: &Verifier, token: &str, uri: &str, client: &str, now_unix_s: u64) -> Result<Grant, Refusal> {
        let presented = Presented { token: token.into(), uri: uri.into(), carrier: Carrier::Path };
        verifier.check(&presented, client.parse().unwrap(), now_unix_s)
    }

    /// What comes of a payload that [`sign`] might refuse, for a segment asked for now.
    fn outcome(rules: Rules, payload: &str) -> Result<Grant, Refusal> {
        let key = key("k");
        let token = key.sign(&URL_SAFE_NO_PAD.encode(payload)).unwrap();
        check(&verifier(&key, rules), &token, SEGMENT, CLIENT, NOW)
    }

    /// [`outcome`] of a tree's claims with some more.
    fn with(rules: Rules, more: Value) -> Result<Grant, Refusal> {
        let mut claims = serde_json::to_value(tree()).unwrap();
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        outcome(rules, &claims.to_string())
    }

    #[test]
    fn a_token_may_say_at_what_rate_it_is_sent_for() {
        let rate = |claim: Value| with(Rules::default(), json!({ RATE_CLAIM: claim })).map(|grant| grant.bits_per_second_max());
        assert_eq!(rate(json!(25_000_000)).unwrap(), Some(25_000_000));
        assert_eq!(with(Rules::default(), json!({})).unwrap().bits_per_second_max(), None);
        assert!(Grant::open_path().bits_per_second_max().is_none() && Grant::open_path().is_open_path());
        for claim in [json!(999_999), json!(0), json!(-1), json!(2e6), json!("2000000"), Value::Null] {
            let refusal = rate(claim.clone()).unwrap_err();
            assert!(refusal.to_string().contains(RATE_CLAIM), "{claim}: {refusal}");
        }
    }

    #[test]
    fn time_address_and_uri_are_checked_also_when_the_token_is_remembered() {
        let key = key("k");
        let verifier = verifier(&key, Rules::default());
        let token = sign(&key, &Claims { nbf: Some(NOW), cdniip: Some("192.0.2.0/24".into()), ..tree() }).unwrap();
        let outside = "https://edge.example/titles/y/v720/00001.m4s";
        for round in 0..2 {
            assert_eq!(
                check(&verifier, &token, SEGMENT, CLIENT, NOW + 60).unwrap_err(),
                Refusal::Expired { exp: NOW + 60, now_unix_s: NOW + 60 }
            );
            assert_eq!(
                check(&verifier, &token, SEGMENT, CLIENT, NOW - 1).unwrap_err(),
                Refusal::NotYet { nbf: NOW, now_unix_s: NOW - 1 }
            );
            assert_eq!(
                check(&verifier, &token, SEGMENT, "192.0.3.7", NOW).unwrap_err(),
                Refusal::Client("192.0.3.7".parse().unwrap())
            );
            assert_eq!(check(&verifier, &token, outside, CLIENT, NOW).unwrap_err(), Refusal::Uri(outside.into()));
            assert_eq!(verifier.remembered(), round, "what was refused is not remembered");
            assert!(check(&verifier, &token, SEGMENT, CLIENT, NOW).is_ok());
            assert!(
                check(&verifier, &token, SEGMENT, "::ffff:192.0.2.7", NOW + 59).is_ok(),
                "a mapped address is its IPv4 address"
            );
        }
    }

    #[test]
    fn cores_share_a_verifier_and_garbage_displaces_nothing() {
        const HONEST: usize = 64;
        let key = SigningKey::generate(Algorithm::Hs256, "k").unwrap();
        let verifier = verifier(&key, Rules { remembered_max: 4 * HONEST, ..Rules::default() });
        let token = |n: usize| sign(&key, &Claims { sub: Some(format!("viewer {n}")), ..tree() }).unwrap();
        let honest: Vec<String> = (0..HONEST).map(token).collect();
        std::thread::scope(|scope| {
            for core in 0..4 {
                let (verifier, honest) = (&verifier, &honest);
                scope.spawn(move || {
                    for round in 0..20 {
                        for token in honest {
                            assert!(check(verifier, token, SEGMENT, CLIENT, NOW).is_ok());
                            let garbage = format!("{token}{core}{round}");
                            assert!(check(verifier, &garbage, SEGMENT, CLIENT, NOW).is_err());
                        }
                    }
                });
            }
        });
        assert_eq!(verifier.remembered(), HONEST);
        assert!((HONEST..1000).all(|n| check(&verifier, &token(n), SEGMENT, CLIENT, NOW).is_ok()));
        assert!(verifier.remembered() <= 4 * HONEST);
    }

    #[test]
    fn a_tree_holds_what_is_below_its_root_and_nothing_else() {
        let key = key("k");
        let verifier = verifier(&key, Rules::default());
        let root = ObjectPath::new("/titles/a.b").unwrap();
        let token = sign(&key, &Claims::for_tree(&root, NOW + 60)).unwrap();
        for (uri, is_inside) in [
            ("https://edge.example/titles/a.b/master.m3u8", true),
            ("http://[2001:db8::1]:8080/titles/a.b/v720/1.m4s?x=/y", true),
            ("https://edge.example/titles/c/../a.b/x", true),
            ("https://edge.example/titles/a.b/../c/x", false),
            ("https://edge.example/titles/a.b/%2e%2e/c/x", false),
            ("https://edge.example/titles/a.b", false),
            ("https://edge.example/titles/a.bc/x", false),
            ("https://edge.example/titles/aXb/x", false),
            ("https://edge.example/c?/titles/a.b/x", false),
            ("https://edge.example/c/titles/a.b/x", false),
        ] {
            assert_eq!(check(&verifier, &token, uri, CLIENT, NOW).is_ok(), is_inside, "{uri}");
        }
    }

    #[test]
    fn the_key_says_which_algorithm_is_used() {
        let (es, ed, hs) = (
            SigningKey::generate(Algorithm::Es256, "es").unwrap(),
            key("ed"),
            SigningKey::generate(Algorithm::Hs256, "hs").unwrap(),
        );
        let verifier = Verifier::new(set(&[&es, &ed, &hs].map(SigningKey::verifying_jwk)), Rules::default());
        for key in [&es, &ed, &hs] {
            let token = sign(key, &tree()).unwrap();
            assert!(check(&verifier, &token, SEGMENT, CLIENT, NOW).is_ok());
            let (header, rest) = token.split_once('.').unwrap();
            let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap();
            for (alg, kid) in
                [("none", key.kid()), ("HS256", "es"), ("HS256", "ed"), ("ES256", "hs"), ("EdDSA", "es"), ("eddsa", "ed")]
            {
                let mut header = header.clone();
                (header["alg"], header["kid"]) = (alg.into(), kid.into());
                for rest in [rest, rest.rsplit_once('.').map(|(payload, _)| format!("{payload}.")).as_deref().unwrap()] {
                    let token = format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header.to_string()));
                    let refusal = check(&verifier, &token, SEGMENT, CLIENT, NOW).unwrap_err();
                    assert_eq!(refusal, Refusal::Algorithm { kid: kid.into(), alg: alg.into() });
                }
            }
        }
        // The classic: a public key used as if it were a shared secret.
        let secret = json!({ "kty": "oct", "kid": "es", "k": es.public_jwk()["x"] }).to_string();
        let forged = sign(&SigningKey::from_jwk(&secret).unwrap(), &tree()).unwrap();
        assert_eq!(
            check(&verifier, &forged, SEGMENT, CLIENT, NOW).unwrap_err(),
            Refusal::Algorithm { kid: "es".into(), alg: "HS256".into() }
        );
    }

    #[test]
    fn tokens_that_are_not_ours_are_refused_before_they_are_read() {
        let ours = key("k");
        let verifier = verifier(&ours, Rules::default());
        let refused = |token: &str| check(&verifier, token, SEGMENT, CLIENT, NOW).unwrap_err();
        let good = sign(&ours, &tree()).unwrap();
        let (header, rest) = good.split_once('.').unwrap();
        let headed = |header: &str| refused(&format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header)));
        assert_eq!(refused(&sign(&key("k"), &tree()).unwrap()), Refusal::Signature { kid: "k".into() });
        assert_eq!(refused(&sign(&key("other"), &tree()).unwrap()), Refusal::UnknownKey { kid: "other".into() });
        assert_eq!(headed(r#"{"alg":"EdDSA"}"#), Refusal::Nameless);
        assert!(matches!(headed(r#"{"alg":"EdDSA","kid":"k","crit":["b64"],"b64":false}"#), Refusal::Malformed(_)));
        for token in ["", ".", "..", "a.b", "a.b.c.d", rest, &format!("{header}={rest}"), &good.replace('.', "")] {
            assert!(matches!(refused(token), Refusal::Malformed(_)), "{token}: {:?}", refused(token));
        }
        assert_eq!(refused(&format!("{good}{}", "A".repeat(TOKEN_BYTES_MAX))), Refusal::TooLong(good.len() + TOKEN_BYTES_MAX));
        assert_eq!(refused(&format!("{good}=")), Refusal::Signature { kid: "k".into() });
        let garbled = ours.sign(&URL_SAFE_NO_PAD.encode("not JSON")).unwrap();
        assert_eq!(refused(&garbled).verification_code(), 500);
    }

    #[test]
    fn each_claim_is_enforced_and_named() {
        let code = |more: Value| with(Rules::default(), more).unwrap_err().verification_code();
        for (claim, bad) in [
            ("exp", json!("tomorrow")),
            ("exp", json!(-1)),
            ("exp", Value::Null),
            ("nbf", json!([])),
            ("iat", json!("x")),
            ("aud", json!(7)),
            ("sub", json!(7)),
            ("iss", json!({})),
            ("jti", json!(7)),
            ("cdniv", json!("1")),
            ("cdnicrit", json!(["a"])),
            ("cdniip", json!("everywhere")),
            ("cdniip", json!("10.0.0.0/33")),
            ("cdniuc", json!("regex:(")),
            ("cdniuc", json!("prefix:/")),
            ("cdniets", json!(30)),
            ("cdnistd", json!(-1)),
        ] {
            let refusal = with(Rules::default(), json!({ claim: bad })).unwrap_err();
            let Refusal::Claim(fault) = &refusal else { panic!("{claim}: {refusal:?}") };
            let expected = if claim == "cdniets" { "cdnistt" } else { claim };
            assert_eq!(fault.claim, expected, "{refusal}");
        }
        assert_eq!(
            (code(json!({ "cdniv": 2 })), code(json!({ "cdnicrit": "x-new" })), code(json!({ "cdnicrit": "" }))),
            (408, 409, 409)
        );
        assert_eq!((code(json!({ "cdnistt": 1 })), code(json!({ "cdnistt": 3, "cdniets": 1 }))), (406, 406));
        assert_eq!(
            (code(json!({ "iss": "me" })), code(json!({ "aud": "me" })), code(json!({ "cdniip": "::1" }))),
            (401, 403, 410)
        );
        assert!(with(Rules::default(), json!({ "cdniv": 1, "iat": NOW, "unknown": {}, "cdnistd": 9 })).is_ok());
        let missing = outcome(Rules::default(), &json!({ "exp": NOW + 1 }).to_string()).unwrap_err();
        assert_eq!(missing.to_string(), "claim cdniuc: is missing, and every token needs one");
    }

    #[test]
    fn times_may_have_fractions_and_never_gain_by_them() {
        let at =
            |exp: f64, nbf: f64| with(Rules::default(), json!({ "exp": exp, "nbf": nbf })).map(|grant| grant.expires_unix_s());
        let now = NOW as f64;
        assert_eq!(at(now + 1.9, now - 0.5), Ok(NOW + 1));
        assert_eq!(at(now + 0.9, now), Err(Refusal::Expired { exp: NOW, now_unix_s: NOW }));
        assert_eq!(at(now + 9.0, now + 0.1), Err(Refusal::NotYet { nbf: NOW + 1, now_unix_s: NOW }));
        assert!(matches!(at(1e300, now), Err(Refusal::Claim(fault)) if fault.claim == "exp"));
    }

    #[test]
    fn rules_decide_about_issuers_audiences_leeway_and_endless_tokens() {
        let rules = || Rules { issuers: vec!["us".into()], audience: Some("edge".into()), ..Rules::default() };
        assert!(with(rules(), json!({ "iss": "us", "aud": ["x", "edge"] })).is_ok());
        assert!(with(rules(), json!({ "aud": "edge" })).is_ok());
        assert!(matches!(with(rules(), json!({ "iss": "them" })), Err(Refusal::Issuer { .. })));
        assert!(matches!(with(rules(), json!({ "aud": ["x"] })), Err(Refusal::Audience(_))));
        assert!(matches!(with(rules(), json!({ "aud": [] })), Err(Refusal::Audience(_))));

        let late = json!({ "exp": NOW - 4, "nbf": NOW + 5 });
        assert!(with(Rules { leeway_s: 5, ..rules() }, late.clone()).is_ok());
        assert!(matches!(with(Rules { leeway_s: 4, ..rules() }, late.clone()), Err(Refusal::Expired { .. })));
        assert!(with(Rules { leeway_s: u64::MAX, ..rules() }, late).is_ok());

        let endless = json!({ "cdniuc": "regex:.*" }).to_string();
        assert_eq!(outcome(rules(), &endless).unwrap_err().verification_code(), 404);
        assert_eq!(outcome(Rules { requires_expiry: false, ..rules() }, &endless).unwrap().expires_unix_s(), u64::MAX);
        assert_eq!(Grant::open_path().expires_unix_s(), u64::MAX);
    }

    #[test]
    fn a_key_with_an_issuer_signs_for_no_other() {
        let key = key("k");
        let mut bound = key.public_jwk();
        bound["iss"] = "theirs".into();
        let verifier = Verifier::new(set(&[bound]), Rules { issuers: vec!["ours".into()], ..Rules::default() });
        let check = |iss: &str| {
            let token = sign(&key, &Claims { iss: Some(iss.into()), ..tree() }).unwrap();
            check(&verifier, &token, SEGMENT, CLIENT, NOW)
        };
        assert!(check("theirs").is_ok());
        assert_eq!(check("ours").unwrap_err(), Refusal::Issuer { iss: "ours".into(), kid: "k".into() });
    }

    #[test]
    fn sealed_addresses_bind_and_sealed_subjects_are_read_if_we_have_the_key() {
        let secret = json!({ "kty": "oct", "kid": "c", "alg": "A256GCM", "use": "enc", "k": URL_SAFE_NO_PAD.encode([9; 32]) });
        let sealer = ClaimKey::from_jwk(&secret.to_string()).unwrap();
        let key = key("k");
        let seal = |value: &str| Some(sealer.seal(value).unwrap());
        let subject = sign(&key, &Claims { sub: seal("viewer 7"), ..tree() }).unwrap();
        let address = sign(&key, &Claims { cdniip: seal("192.0.2.7"), ..tree() }).unwrap();
        let keyed = Verifier::new(set(&[key.public_jwk(), secret]), Rules::default());
        let keyless = verifier(&key, Rules::default());
        assert_eq!(check(&keyed, &subject, SEGMENT, CLIENT, NOW).unwrap().subject(), Some("viewer 7"));
        assert_eq!(check(&keyless, &subject, SEGMENT, CLIENT, NOW).unwrap().subject(), None);
        assert!(check(&keyed, &address, SEGMENT, CLIENT, NOW).is_ok());
        assert!(matches!(check(&keyed, &address, SEGMENT, "192.0.2.8", NOW), Err(Refusal::Client(_))));
        let refusal = check(&keyless, &address, SEGMENT, CLIENT, NOW).unwrap_err();
        assert_eq!(refusal.to_string(), "claim cdniip: is encrypted with key \"c\", which is not in the set");
        let spoilt = sign(&key, &Claims { sub: seal("viewer 7").map(|jwe| jwe.replace("..", "..A")), ..tree() }).unwrap();
        assert_eq!(check(&keyed, &spoilt, SEGMENT, CLIENT, NOW).unwrap_err().verification_code(), 402);
    }

    #[test]
    fn a_renewed_token_ends_later_and_carries_the_rest_over() {
        let key = key("k");
        let verifier = verifier(&key, Rules { issuers: vec!["old".into(), "new".into()], ..Rules::default() });
        let extensions = serde_json::Map::from_iter([("extra".to_owned(), json!([1]))]);
        let (iss, sub) = (Some("old".into()), Some("viewer".into()));
        let claims = Claims { iss, sub, iat: Some(1), cdnistt: Some(2), cdniets: Some(600), extensions, ..tree() };
        let grant = check(&verifier, &sign(&key, &claims).unwrap(), SEGMENT, CLIENT, NOW + 5).unwrap();
        let renewal = grant.renewal().unwrap();
        assert_eq!(renewal.transport(), Transport::Query);
        let renewed = renewal.sign(&key, Some("new")).unwrap();
        assert!(renewed.set_cookie().ends_with("; Path=/; Max-Age=600; HttpOnly; Secure; SameSite=None"));
        let payload = URL_SAFE_NO_PAD.decode(renewed.token.split('.').nth(1).unwrap()).unwrap();
        let expected = Claims { iss: Some("new".into()), iat: Some(NOW + 5), exp: Some(NOW + 605), ..claims.clone() };
        assert_eq!(Claims::parse(&payload), Ok(expected));
        assert_eq!(check(&verifier, &renewed.token, SEGMENT, CLIENT, NOW + 604).unwrap().subject(), Some("viewer"));

        let never = Claims { cdnistt: Some(0), ..claims.clone() };
        let too_deep = Claims { cdnistd: Some(5), ..claims };
        for claims in [never, too_deep] {
            assert_eq!(check(&verifier, &sign(&key, &claims).unwrap(), SEGMENT, CLIENT, NOW).unwrap().renewal(), None);
        }
    }

    #[test]
    fn claims_that_no_verifier_accepts_are_not_signed() {
        let key = key("k");
        let claim = |claims: &Claims| match sign(&key, claims) {
            Err(SignError::Claim(fault)) => fault.claim,
            other => panic!("{other:?}"),
        };
        let extensions = serde_json::Map::from_iter([("x".to_owned(), Value::Null)]);
        assert_eq!(claim(&Claims::default()), "cdniuc");
        assert_eq!(claim(&Claims { cdniuc: Some("regex:[".into()), ..tree() }), "cdniuc");
        assert_eq!(claim(&Claims { cdnistt: Some(1), ..tree() }), "cdniets");
        for critical in ["", "exp", "x,x", "x,y"] {
            let claims = Claims { cdnicrit: Some(critical.into()), extensions: extensions.clone(), ..tree() };
            assert_eq!(claim(&claims), "cdnicrit", "{critical:?}");
        }
        assert!(sign(&key, &Claims { cdnicrit: Some("x".into()), extensions, ..tree() }).is_ok());
        assert!(matches!(sign(&key, &Claims { sub: Some("x".repeat(4096)), ..tree() }), Err(SignError::TooLong(_))));
        assert!(matches!(Claims::for_uri("/relative", NOW), Err(SignError::Uri(_))));
    }

    #[test]
    fn a_stranger_learns_little_from_a_refusal() {
        let secret_words = ["exp", "kid", "sign", "iss", "cdni", "alg"];
        for refusal in [
            Refusal::Missing,
            Refusal::Target(""),
            Refusal::TooLong(1),
            Refusal::Signature { kid: "k".into() },
            Refusal::Expired { exp: 0, now_unix_s: 1 },
            Refusal::Uri("u".into()),
            Refusal::Replayed("j".into()),
        ] {
            assert!(secret_words.iter().all(|word| !refusal.code().contains(word)), "{}", refusal.code());
        }
    }
}
