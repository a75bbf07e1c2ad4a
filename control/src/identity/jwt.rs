//! A viewer's token: a signed JWT (RFC 7519) in compact form, checked as RFC 8725 advises. Pure: takes keys, rules and the time.
//!
//! What always holds: the key says which algorithm is used, claims are read only after the signature is good, and a stranger
//! learns a coarse reason and nothing of what the token said.
//!
//! Not followed, and why: nested and encrypted tokens (RFC 7519 §5.2) are refused, as nobody here could open them; `jti` is not
//! remembered, since a viewer's token is meant to be used often.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{
    Deserialize,
    de::{DeserializeOwned, Deserializer, Error as _, MapAccess, Visitor},
};
use serde_json::Value;
use wire::token::KID_BYTES_MAX;

use super::{
    jwks::{Jwks, Key},
    user::UserId,
};

/// The longest token, in bytes.
pub(crate) const TOKEN_BYTES_MAX: usize = 8192;
/// What a token's `typ` may be (RFC 8725 §3.11), besides absent: others are tokens for other purposes.
const TYPES: [&str; 2] = ["jwt", "at+jwt"];

/// Whose tokens are taken, and what they must say.
#[derive(Debug, Clone)]
pub struct Rules {
    /// At least one. Accounts of the first are called by their subject alone.
    pub issuers: Vec<String>,
    /// At least one; a token is for one of them.
    pub audiences: Vec<String>,
    /// How much the issuer's clock may differ from ours.
    pub clock_skew: Duration,
    /// The claim that names a profile.
    pub profile_claim: Option<String>,
}

/// What a good token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verified {
    pub(crate) user: UserId,
    /// In seconds since 1970, the allowed difference of clocks included.
    not_before: i64,
    expires: i64,
}

impl Verified {
    /// Whether it is good at this time.
    pub(crate) fn check(&self, now_unix_s: i64) -> Result<(), BadToken> {
        match now_unix_s {
            now if now >= self.expires => Err(BadToken::Expired),
            now if now < self.not_before => Err(BadToken::NotYetValid),
            _ => Ok(()),
        }
    }
}

/// Why a token is not taken, told to whoever sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadToken {
    #[error("no tokens of viewers are taken here")]
    NotTaken,
    /// Our fault, or that of whoever has the keys.
    #[error("the keys that verify viewers' tokens cannot be had at the moment")]
    NoKeys,
    #[error("the token is longer than {TOKEN_BYTES_MAX} bytes")]
    TooLong,
    #[error("the token is not a signed JWT")]
    Malformed,
    #[error("the token's key is not known")]
    UnknownKey,
    #[error("the token's signature or algorithm is wrong")]
    Signature,
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet")]
    NotYetValid,
    #[error("the token is of another issuer")]
    Issuer,
    #[error("the token is for another audience")]
    Audience,
    #[error("the token's claims are missing or of the wrong kind")]
    Claims,
}

impl BadToken {
    /// For counters.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::NotTaken => "not-taken",
            Self::NoKeys => "no-keys",
            Self::TooLong => "too-long",
            Self::Malformed => "malformed",
            Self::UnknownKey => "unknown-key",
            Self::Signature => "signature",
            Self::Expired => "expired",
            Self::NotYetValid => "not-yet-valid",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Claims => "claims",
        }
    }
}

/// A token of which nothing is believed yet.
#[derive(Debug)]
pub(crate) struct Unverified<'a> {
    algorithm: String,
    kid: String,
    message: &'a str,
    claims: &'a str,
    signature: &'a str,
}

impl<'a> Unverified<'a> {
    pub(crate) fn parse(token: &'a str) -> Result<Self, BadToken> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(BadToken::TooLong);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(BadToken::Malformed)?;
        let (header, claims) = message.split_once('.').filter(|(_, claims)| !claims.contains('.')).ok_or(BadToken::Malformed)?;
        let mut header: Members = decoded(header).ok_or(BadToken::Malformed)?;
        // RFC 7515 §4.1.11: extensions that must be understood. None is.
        if header.0.contains_key("crit") {
            return Err(BadToken::Malformed);
        }
        let kind = header.text("typ").map_err(|_| BadToken::Malformed)?;
        if kind.is_some_and(|kind| {
            let kind = kind.to_ascii_lowercase();
            !TYPES.contains(&kind.strip_prefix("application/").unwrap_or(&kind))
        }) {
            return Err(BadToken::Malformed);
        }
        let algorithm = header.text("alg").ok().flatten().ok_or(BadToken::Malformed)?;
        let kid = header.text("kid").ok().flatten().filter(|kid| kid.len() <= KID_BYTES_MAX).ok_or(BadToken::UnknownKey)?;
        Ok(Self { algorithm, kid, message, claims, signature })
    }

    /// Checks everything but the time, with the key of that name in the first set that has one.
    pub(crate) fn verify(&self, sets: &[Arc<Jwks>], rules: &Rules) -> Result<Verified, BadToken> {
        let key = sets.iter().find_map(|set| set.find(&self.kid)).ok_or(BadToken::UnknownKey)?;
        if !key.is_for(&self.algorithm) || !key.verifies(self.message, self.signature) {
            return Err(BadToken::Signature);
        }
        decoded::<Members>(self.claims).ok_or(BadToken::Claims)?.verified(key, rules)
    }
}

/// What a part of a token has in it.
fn decoded<T: DeserializeOwned>(part: &str) -> Option<T> {
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

/// The members of a JSON object. RFC 7519 §4: "The Claim Names within a JWT Claims Set MUST be unique"; so are a header's.
struct Members(HashMap<String, Value>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Unique;
        impl<'de> Visitor<'de> for Unique {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object whose members have different names")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = HashMap::new();
                while let Some((name, value)) = map.next_entry()? {
                    if members.insert(name, value).is_some() {
                        return Err(A::Error::custom("a member is there twice"));
                    }
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Unique)
    }
}

impl Members {
    /// A text that may be absent.
    fn text(&mut self, name: &str) -> Result<Option<String>, BadToken> {
        match self.0.remove(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(BadToken::Claims),
        }
    }

    /// A time that may be absent, rounded down. RFC 7519 §2: "non-integer values can be represented".
    fn seconds(&self, name: &str) -> Result<Option<i64>, BadToken> {
        match self.0.get(name) {
            None => Ok(None),
            // What is out of range becomes the nearest that is in it, which is as far from today.
            Some(value) => value.as_f64().map(|seconds| Some(seconds.floor() as i64)).ok_or(BadToken::Claims),
        }
    }

    fn verified(mut self, key: &Key, rules: &Rules) -> Result<Verified, BadToken> {
        let issuer = self.text("iss")?.ok_or(BadToken::Issuer)?;
        let place = rules.issuers.iter().position(|accepted| *accepted == issuer).ok_or(BadToken::Issuer)?;
        if key.issuer.as_ref().is_some_and(|only| *only != issuer) {
            return Err(BadToken::Issuer);
        }
        let is_for_us = |audience: &str| rules.audiences.iter().any(|accepted| accepted == audience);
        let has_audience = match self.0.get("aud") {
            Some(Value::String(audience)) => is_for_us(audience),
            // RFC 7519 §4.1.3: "an array of case-sensitive strings".
            Some(Value::Array(audiences)) if audiences.iter().all(Value::is_string) => {
                audiences.iter().filter_map(Value::as_str).any(is_for_us)
            }
            Some(_) => return Err(BadToken::Claims),
            None => false,
        };
        if !has_audience {
            return Err(BadToken::Audience);
        }
        let skew = i64::try_from(rules.clock_skew.as_secs()).unwrap_or(i64::MAX);
        let expires = self.seconds("exp")?.ok_or(BadToken::Claims)?.saturating_add(skew);
        let not_before = self.seconds("nbf")?.map_or(i64::MIN, |seconds| seconds.saturating_sub(skew));
        let subject = self.text("sub")?.ok_or(BadToken::Claims)?;
        let profile = rules.profile_claim.as_ref().map(|name| self.text(name)).transpose()?.flatten();
        let user = UserId::new(&subject, (place > 0).then_some(&*issuer), profile.as_deref()).map_err(|_| BadToken::Claims)?;
        Ok(Verified { user, not_before, expires })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wire::token::{Algorithm, SigningKey};

    use super::{super::jwks::Origin, *};

    fn rules() -> Rules {
        Rules {
            issuers: vec!["i".into()],
            audiences: vec!["a".into()],
            clock_skew: Duration::from_secs(10),
            profile_claim: Some("p".into()),
        }
    }

    fn members(json: &str) -> Members {
        serde_json::from_str(json).unwrap()
    }

    /// A set with a key of each kind but RSA, which takes long to make.
    fn sets() -> Vec<Arc<Jwks>> {
        let jwks = [("e", Algorithm::Es256), ("d", Algorithm::EdDsa), ("h", Algorithm::Hs256)]
            .map(|(kid, algorithm)| SigningKey::generate(algorithm, kid).unwrap().verifying_jwk());
        vec![Arc::new(Jwks::parse(serde_json::json!({ "keys": jwks }).to_string().as_bytes(), Origin::File).unwrap())]
    }

    fn verified(claims: &str) -> Result<Verified, BadToken> {
        let set = sets().remove(0);
        members(claims).verified(set.find("d").unwrap(), &rules())
    }

    #[test]
    fn times_are_whole_seconds_and_the_clocks_may_differ() {
        let good = verified(r#"{"iss":"i","aud":"a","sub":"s","exp":100.9,"nbf":50}"#).unwrap();
        assert_eq!(
            [39, 40, 109, 110].map(|now| good.check(now)),
            [Err(BadToken::NotYetValid), Ok(()), Ok(()), Err(BadToken::Expired)]
        );
        let endless = verified(r#"{"iss":"i","aud":"a","sub":"s","exp":1e308}"#).unwrap();
        assert_eq!([i64::MIN, 0, i64::MAX - 1].map(|now| endless.check(now)), [Ok(()); 3]);
        assert_eq!(verified(r#"{"iss":"i","aud":"a","sub":"s","exp":null}"#), Err(BadToken::Claims));
    }

    #[test]
    fn a_key_with_an_issuer_signs_for_no_other() {
        let jwk = |iss: &str| {
            let mut jwk = SigningKey::generate(Algorithm::EdDsa, "d").unwrap().verifying_jwk();
            jwk["iss"] = iss.into();
            Jwks::parse(serde_json::json!({ "keys": [jwk] }).to_string().as_bytes(), Origin::File).unwrap()
        };
        for (iss, outcome) in [("i", Ok(())), ("j", Err(BadToken::Issuer))] {
            let set = jwk(iss);
            let claims = members(r#"{"iss":"i","aud":"a","sub":"s","exp":1}"#);
            assert_eq!(claims.verified(set.find("d").unwrap(), &rules()).map(drop), outcome);
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_a_check_fail_in_another_way_than_refusing(
            header in r#"(\{("(alg|kid|typ|crit|x)":("ES256"|"HS256"|"none"|"e"|"d"|"h"|1|null|\[\]|\{\}),?){0,5}\}|\PC{0,40})"#,
            claims in r#"(\{("(iss|aud|sub|exp|nbf|p)":("i"|"a"|-?[0-9]{1,20}(e[0-9]{1,3})?|null|\["a"\]|\{\}),?){0,7}\}|\PC{0,40})"#,
            signature in "[A-Za-z0-9_-]{0,100}",
            raw in "\\PC{0,80}",
        ) {
            let sets = sets();
            let text = |part: &str| BASE64_URL_SAFE_NO_PAD.encode(part);
            for token in [format!("{}.{}.{signature}", text(&header), text(&claims)), format!("{raw}.{raw}.{raw}"), raw.clone()] {
                let outcome = Unverified::parse(&token).and_then(|token| token.verify(&sets, &rules()));
                prop_assert!(outcome.is_err(), "{token}");
            }
            if let Ok(members) = serde_json::from_str::<Members>(&claims)
                && let Ok(verified) = members.verified(sets[0].find("d").unwrap(), &rules())
            {
                let _ = [i64::MIN, 0, i64::MAX].map(|now| verified.check(now));
            }
        }
    }
}
