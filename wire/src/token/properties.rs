//! Whatever is signed is accepted however it travels, and whatever was changed on the way is refused.

use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;

use super::*;
use crate::object::ObjectPath;

const NOW: u64 = 1_700_000_000;
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));
const CARRIERS: [Carrier; 3] = [Carrier::Path, Carrier::Query, Carrier::Cookie];
const ALGORITHMS: [Algorithm; 3] = [Algorithm::Es256, Algorithm::EdDsa, Algorithm::Hs256];

fn key_and_verifier(algorithm: Algorithm) -> (SigningKey, Verifier) {
    let key = SigningKey::generate(algorithm, "k1").unwrap();
    let keys = KeySet::from_jwks(&serde_json::json!({ "keys": [key.verifying_jwk()] }).to_string()).unwrap();
    (key, Verifier::new(keys, Rules::default()))
}

/// The request for `path` at `edge:8443`: its target, and its cookie.
fn embedded(carrier: Carrier, token: &str, path: &ObjectPath, query: Option<&str>) -> (String, Option<String>) {
    let query = query.map_or(String::new(), |query| format!("?{query}"));
    match carrier {
        Carrier::Path => (in_path("", token, path) + &query, None),
        Carrier::Query => (in_query(&format!("{path}{query}"), token), None),
        Carrier::Cookie => (format!("{path}{query}"), Some(cookie(token))),
    }
}

fn requested(target: &str, cookie: Option<&str>) -> Result<Found, Refusal> {
    find("https", "edge:8443", target, cookie.into_iter())
}

fn checked(verifier: &Verifier, target: &str, cookie: Option<&str>) -> Result<Grant, Refusal> {
    let presented = requested(target, cookie)?.presented.ok_or(Refusal::Missing)?;
    verifier.check(&presented, CLIENT, NOW)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_is_signed_is_found_and_accepted(
        path in "(/[A-Za-z0-9_~=-][A-Za-z0-9._~=-]{0,12}){2,5}",
        query in proptest::option::of("[a-z]{1,8}(=[A-Za-z0-9/:@]{0,8})?(&[a-z]{1,4}=[0-9]{1,3}){0,2}"),
        lifetime_s in 1_u64..100_000,
        (algorithm, carrier) in (0..3_usize, 0..3_usize),
    ) {
        let (key, verifier) = key_and_verifier(ALGORITHMS[algorithm]);
        let path = ObjectPath::new(path).unwrap();
        let root = ObjectPath::new(path.as_str().rsplit_once('/').unwrap().0).unwrap();
        let uri = format!("https://edge:8443{path}{}", query.as_ref().map_or(String::new(), |query| format!("?{query}")));
        for claims in [Claims::for_tree(&root, NOW + lifetime_s), Claims::for_uri(&uri, NOW + lifetime_s).unwrap()] {
            let token = sign(&key, &claims).unwrap();
            let (target, cookie) = embedded(CARRIERS[carrier], &token, &path, query.as_deref());
            let found = requested(&target, cookie.as_deref()).unwrap();
            prop_assert_eq!(&found.path, path.as_str());
            prop_assert_eq!(&found.query, &query);
            let presented = found.presented.unwrap();
            prop_assert_eq!((&presented.token, &presented.uri, presented.carrier), (&token, &uri, CARRIERS[carrier]));
            for remembered in [0, 1] {
                prop_assert_eq!(verifier.remembered(), remembered + usize::from(claims.cdniuc.as_ref().unwrap().starts_with("hash")));
                prop_assert_eq!(verifier.check(&presented, CLIENT, NOW).unwrap().expires_unix_s(), NOW + lifetime_s);
            }
            let late = verifier.check(&presented, CLIENT, NOW + lifetime_s);
            prop_assert_eq!(late.unwrap_err().code(), "stale-token");
        }
    }

    #[test]
    fn nothing_makes_find_or_check_fail_in_another_way_than_refusing(
        scheme in "(https?|[ -~]{0,5})",
        authority in "([a-z.]{1,9}(:[0-9]{0,5})?|[ -~]{0,9})",
        target in "(/|)([ -~]{0,20}|URISigningPackage=|[;?&/.%]{0,3}|\\PC{0,3}){0,6}",
        cookie in "\\PC{0,9}(; URISigningPackage=)?[ -~]{0,40}",
    ) {
        let (_, verifier) = key_and_verifier(Algorithm::EdDsa);
        if let Ok(Found { presented: Some(presented), .. }) = find(&scheme, &authority, &target, [cookie.as_str()].into_iter()) {
            prop_assert!(verifier.check(&presented, CLIENT, NOW).is_err());
        }
        prop_assert_eq!(verifier.remembered(), 0);
    }

    #[test]
    fn a_normal_uri_stays_as_it_is(uri in "https?://[a-zA-Z0-9.]{1,9}(:[0-9]{1,5})?(/[a-zA-Z0-9.%;=-]{0,9}){0,5}(\\?[a-zA-Z/.%]{0,9})?") {
        if let Ok(normal) = uri::normal(&uri) {
            prop_assert_eq!(uri::normal(&normal), Ok(normal.clone()));
        }
    }

    #[test]
    fn a_container_of_any_text_compiles_or_says_why_not(pattern in "[\\[\\](){}^$*+?|.:,a0\\\\-]{0,24}") {
        let _ = container::Container::parse(&format!("regex:{pattern}")).map(|container| container.holds("https://e/a0"));
    }
}

#[test]
fn no_character_of_a_token_can_be_changed() {
    let path = ObjectPath::new("/titles/x/1.m4s").unwrap();
    let claims = Claims::for_tree(&ObjectPath::new("/titles/x").unwrap(), NOW + 60);
    for algorithm in ALGORITHMS {
        let (key, verifier) = key_and_verifier(algorithm);
        let token = sign(&key, &claims).unwrap();
        for carrier in CARRIERS {
            let (target, cookie) = embedded(carrier, &token, &path, None);
            assert!(checked(&verifier, &target, cookie.as_deref()).is_ok());
            for at in 0..token.len() {
                for other in ["A", "z", "0", "_", ".", "/", "&", "%", ""] {
                    let changed = format!("{}{other}{}", &token[..at], &token[at + 1..]);
                    if changed == token {
                        continue;
                    }
                    let (target, cookie) = embedded(carrier, &changed, &path, None);
                    let outcome = checked(&verifier, &target, cookie.as_deref());
                    assert!(outcome.is_err(), "{algorithm} {carrier:?}: character {at} became {other:?}");
                }
            }
            assert!(checked(&verifier, &target, cookie.as_deref()).is_ok(), "and the token is still remembered");
            assert_eq!(verifier.remembered(), 1, "and nothing else is");
        }
    }
}

#[test]
fn every_last_character_of_a_signature_counts() {
    // base64url of 64 or 32 bytes has bits to spare in its last character; a decoder that ignores them accepts several tokens.
    let path = ObjectPath::new("/titles/x/1.m4s").unwrap();
    let claims = Claims::for_tree(&ObjectPath::new("/titles/x").unwrap(), NOW + 60);
    for algorithm in ALGORITHMS {
        let (key, verifier) = key_and_verifier(algorithm);
        let token = sign(&key, &claims).unwrap();
        let accepted = ('0'..='9').chain('A'..='Z').chain('a'..='z').chain(['-', '_']).filter(|last| {
            let changed = format!("{}{last}", &token[..token.len() - 1]);
            checked(&verifier, &in_path("", &changed, &path), None).is_ok()
        });
        assert_eq!(accepted.count(), 1, "{algorithm}");
    }
}
