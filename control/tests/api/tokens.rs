//! Tokens of viewers: good ones of every kind name their viewer, and no hostile one names anybody.

use std::time::Duration;

use control::{
    Config,
    config::{KeySource, Refresh, Rules, ViewersConfig},
};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    issuer::{self, AUDIENCE, ISSUER, Key, claims, jwks, now_s, with},
    service::{self, EDGE, OPERATOR, Service, config, directory, start_with, title},
};

/// A key of each kind.
struct Keys {
    es256: Key,
    eddsa: Key,
    rs256: Key,
    hs256: Key,
}

pub(crate) fn viewers(source: KeySource) -> ViewersConfig {
    ViewersConfig {
        keys: vec![source],
        tokens_remembered: 1000,
        refresh: Refresh { every: Duration::from_secs(3600), pause: Duration::from_secs(3600) },
        rules: Rules {
            issuers: vec![ISSUER.into(), "https://other.example".into()],
            audiences: vec![AUDIENCE.into(), "tv".into()],
            clock_skew: Duration::from_secs(60),
            profile_claim: Some("profile".into()),
        },
    }
}

async fn start() -> (TempDir, Service, Keys) {
    start_open(true).await
}

async fn start_open(anonymous: bool) -> (TempDir, Service, Keys) {
    let dir = directory();
    let keys = Keys {
        es256: Key::es256("es"),
        eddsa: Key::eddsa("ed"),
        rs256: Key::rs256("rs"),
        hs256: Key::hs256("hs", b"a secret of thirty-two bytes or more"),
    };
    let set = dir.path().join("viewers.jwks");
    std::fs::write(&set, jwks(&[&keys.es256, &keys.eddsa, &keys.rs256, &keys.hs256])).unwrap();
    let config = Config { viewers: Some(viewers(KeySource::File(set))), anonymous, ..config(dir.path()) };
    (dir, start_with(config).await.unwrap(), keys)
}

/// Whom control takes the token for, or the type and detail of its refusal.
async fn me(service: &Service, token: &str) -> Result<String, (u16, String, String)> {
    let reply = service.send(service::with(Method::GET, "/me", token, &Value::Null)).await;
    let json = reply.json();
    let text = |member: &str| json[member].as_str().unwrap().to_owned();
    match reply.status {
        StatusCode::OK => Ok(text("user")),
        status => {
            let expected =
                if status == StatusCode::UNAUTHORIZED { "Bearer realm=\"larder\", error=\"invalid_token\"" } else { "" };
            assert_eq!(reply.header("www-authenticate"), expected);
            Err((status.as_u16(), text("type"), text("detail")))
        }
    }
}

#[tokio::test]
async fn a_good_token_of_each_algorithm_names_its_viewer() {
    let (_dir, service, keys) = start().await;
    for key in [&keys.es256, &keys.eddsa, &keys.rs256, &keys.hs256] {
        assert_eq!(me(&service, &key.token(&claims("alice"))).await, Ok("alice".into()), "{key:?}");
    }
    let of = |claims| keys.eddsa.token(&claims);
    for (token, user) in [
        (of(with(claims("alice"), "profile", json!("kids"))), "alice/kids"),
        (of(with(claims("a/b"), "profile", json!("c"))), "a%2Fb/c"),
        (of(with(claims("bob"), "iss", json!("https://other.example"))), "bob!https:%2F%2Fother.example"),
        (of(with(claims("alice"), "aud", json!(["x", "tv"]))), "alice"),
        (of(with(claims("alice"), "exp", json!(now_s() - 30))), "alice"),
        (of(with(claims("alice"), "nbf", json!(now_s() + 30))), "alice"),
        (of(with(claims("alice"), "exp", json!(now_s() as f64 + 10.5))), "alice"),
        (keys.eddsa.sign(&with(keys.eddsa.header(), "alg", json!("Ed25519")).to_string(), &claims("alice").to_string()), "alice"),
        (
            keys.eddsa
                .sign(&with(keys.eddsa.header(), "typ", json!("application/AT+JWT")).to_string(), &claims("alice").to_string()),
            "alice",
        ),
        (keys.eddsa.sign(&with(keys.eddsa.header(), "typ", Value::Null).to_string(), &claims("alice").to_string()), "alice"),
    ] {
        assert_eq!(me(&service, &token).await.as_deref(), Ok(user), "{token}");
    }
}

#[tokio::test]
async fn no_hostile_token_names_anybody() {
    let (_dir, service, keys) = start().await;
    let key = &keys.es256;
    let good = claims("alice");
    let of = |claims: Value| key.token(&claims);
    let headed = |header: Value| key.sign(&header.to_string(), &good.to_string());
    let changed = |member: &str, to: Value| of(with(good.clone(), member, to));
    let valid = of(good.clone());
    let (message, signature) = valid.rsplit_once('.').unwrap();
    let (header, payload) = message.split_once('.').unwrap();
    // The public key of a key pair, taken for a shared secret.
    let confused = |other: &Key| {
        let forger = Key::hs256(other.kid, &issuer::as_secret(other));
        forger.sign(&json!({ "alg": "HS256", "kid": other.kid }).to_string(), &good.to_string())
    };
    let deep = |n: usize| format!("{}1{}", "[".repeat(n), "]".repeat(n));
    let twice = |claims: &Value, member: &str, value: &str| {
        let text = claims.to_string();
        format!("{},\"{member}\":{value}}}", text.strip_suffix('}').unwrap())
    };
    let stranger = Key::es256("es");
    let cases: Vec<(&str, String, &str)> = vec![
        ("alg none, no signature", format!("{}.{payload}.", b64(r#"{"alg":"none","kid":"es"}"#)), "signature"),
        ("alg none, with the signature", format!("{}.{payload}.{signature}", b64(r#"{"alg":"none","kid":"es"}"#)), "signature"),
        ("alg nOnE", headed(json!({ "alg": "nOnE", "kid": "es" })), "signature"),
        ("HS256 with the public EC key", confused(&keys.es256), "signature"),
        ("HS256 with the public Ed25519 key", confused(&keys.eddsa), "signature"),
        ("HS256 with the public RSA key", confused(&keys.rs256), "signature"),
        ("RS384 named for an RS256 key", keys.rs256.sign(r#"{"alg":"RS384","kid":"rs"}"#, &good.to_string()), "signature"),
        ("ES256 under another key's name", keys.es256.sign(r#"{"alg":"ES256","kid":"ed"}"#, &good.to_string()), "signature"),
        ("a stranger's key under a known name", stranger.token(&good), "signature"),
        ("an unknown key", Key::es256("who").token(&good), "key is not known"),
        ("no kid", headed(json!({ "alg": "ES256" })), "key is not known"),
        ("a kid that is a number", headed(json!({ "alg": "ES256", "kid": 7 })), "key is not known"),
        ("a kid that is too long", headed(json!({ "alg": "ES256", "kid": "k".repeat(5000) })), "key is not known"),
        ("a kid that is a path", headed(json!({ "alg": "ES256", "kid": "../../../dev/null" })), "key is not known"),
        ("no alg", headed(json!({ "kid": "es" })), "not a signed JWT"),
        ("a key of its own in the header", headed(json!({ "alg": "ES256", "jwk": stranger.jwk() })), "key is not known"),
        (
            "a critical extension",
            headed(json!({ "alg": "ES256", "kid": "es", "crit": ["b64"], "b64": false })),
            "not a signed JWT",
        ),
        ("another type", headed(json!({ "alg": "ES256", "kid": "es", "typ": "logout+jwt" })), "not a signed JWT"),
        (
            "a header that says kid twice",
            key.sign(r#"{"alg":"ES256","kid":"ed","kid":"es"}"#, &good.to_string()),
            "not a signed JWT",
        ),
        ("expired", changed("exp", json!(now_s() - 61)), "expired"),
        ("expired long ago", changed("exp", json!(-1e300)), "expired"),
        ("no exp", changed("exp", Value::Null), "claims"),
        ("exp is a text", changed("exp", json!("never")), "claims"),
        ("not yet valid", changed("nbf", json!(now_s() + 120)), "not valid yet"),
        ("not valid before the end of time", changed("nbf", json!(1e300)), "not valid yet"),
        ("nbf is a list", changed("nbf", json!([])), "claims"),
        ("another audience", changed("aud", json!("bank")), "another audience"),
        ("other audiences", changed("aud", json!(["bank", "shop"])), "another audience"),
        ("no audience", changed("aud", Value::Null), "another audience"),
        ("audiences that are not all texts", changed("aud", json!([AUDIENCE, 7])), "claims"),
        ("another issuer", changed("iss", json!("https://evil.example")), "another issuer"),
        ("an issuer that begins like ours", changed("iss", json!(format!("{ISSUER}.evil.example"))), "another issuer"),
        ("no issuer", changed("iss", Value::Null), "another issuer"),
        ("no subject", changed("sub", Value::Null), "claims"),
        ("an empty subject", changed("sub", json!("")), "claims"),
        ("a subject that is a number", changed("sub", json!(7)), "claims"),
        ("a subject that is too long", changed("sub", json!("x".repeat(300))), "claims"),
        ("a profile that is a number", changed("profile", json!(7)), "claims"),
        ("an empty profile", changed("profile", json!("")), "claims"),
        ("a claim twice", key.sign(&key.header().to_string(), &twice(&good, "sub", "\"mallory\"")), "claims"),
        (
            "a claim twice that nobody reads",
            key.sign(&key.header().to_string(), &twice(&with(good.clone(), "x", json!(1)), "x", "2")),
            "claims",
        ),
        ("deep claims", key.sign(&key.header().to_string(), &twice(&good, "x", &deep(2000))), "claims"),
        (
            "a deep header",
            key.sign(&format!(r#"{{"alg":"ES256","kid":"es","x":{}}}"#, deep(2000)), &good.to_string()),
            "not a signed JWT",
        ),
        ("claims that are a list", key.sign(&key.header().to_string(), "[]"), "claims"),
        ("claims that are no JSON", key.sign(&key.header().to_string(), "exp=never"), "claims"),
        ("claims that are no UTF-8", key.sign(&key.header().to_string(), "\u{0}"), "claims"),
        ("huge", format!("{header}.{}.{signature}", "A".repeat(20_000)), "longer than"),
        ("five parts, as if encrypted", format!("{header}..{payload}.{payload}.{signature}"), "not a signed JWT"),
        ("two parts", format!("{header}.{payload}"), "not a signed JWT"),
        ("dots", "...".into(), "not a signed JWT"),
        ("padding", format!("{header}=.{payload}=.{signature}="), "not a signed JWT"),
        ("a changed signature", format!("{message}.{}", flipped(signature)), "signature"),
        ("a changed payload", format!("{header}.{}.{signature}", flipped(payload)), "signature"),
        ("the edges' secret and more", format!("{EDGE}x"), "not a signed JWT"),
    ];
    for (what, token, reason) in cases {
        match me(&service, &token).await {
            Err((401, kind, detail)) => {
                assert_eq!(kind, "/problems/bad-token", "{what}");
                assert!(detail.contains(reason), "{what}: {detail}");
            }
            other => panic!("{what}: {other:?}"),
        }
        let said = service.send(service::with(Method::GET, "/videos", &token, &Value::Null)).await;
        assert_eq!(said.status, StatusCode::UNAUTHORIZED, "{what}: a bad token is refused also where none is needed");
    }
    assert_eq!(me(&service, &valid).await, Ok("alice".into()), "none of it keeps the good one out");
}

#[tokio::test]
async fn secrets_of_others_make_no_viewer_and_a_viewer_makes_nobody_else() {
    let (_dir, service, keys) = start().await;
    for secret in [OPERATOR, EDGE] {
        let reply = service.send(service::with(Method::GET, "/me", secret, &Value::Null)).await;
        assert_eq!((reply.status, reply.json()["type"].clone()), (StatusCode::UNAUTHORIZED, json!("/problems/no-token")));
    }
    assert_eq!(service.get("/me").await.json()["type"], "/problems/no-token");
    let token = keys.rs256.token(&claims("alice"));
    for (method, path) in
        [(Method::PUT, "/videos/demo"), (Method::GET, "/fleet/edges"), (Method::PUT, "/fleet/edges/e1"), (Method::GET, "/audit")]
    {
        let reply = service.send(service::with(method, path, &token, &title("demo"))).await;
        assert_eq!(
            (reply.status, reply.json()["type"].clone()),
            (StatusCode::UNAUTHORIZED, json!("/problems/no-secret")),
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_second_authorization_header_is_nobodys() {
    let (_dir, service, keys) = start().await;
    let token = keys.eddsa.token(&claims("alice"));
    let mut request = service::with(Method::GET, "/me", &token, &Value::Null);
    request.headers_mut().append("authorization", format!("Bearer {OPERATOR}").parse().unwrap());
    assert_eq!(service.send(request).await.json()["type"], "/problems/no-token");
}

#[tokio::test]
async fn a_verified_token_costs_no_second_signature_check() {
    let (_dir, service, keys) = start().await;
    let token = keys.rs256.token(&claims("alice"));
    for _ in 0..5 {
        assert_eq!(me(&service, &token).await, Ok("alice".into()));
    }
    let metrics = service.get("/metrics").await;
    let metrics = str::from_utf8(&metrics.body).unwrap();
    for line in [
        "larder_control_tokens_found_total{remembered=\"yes\"} 4",
        "larder_control_tokens_found_total{remembered=\"no\"} 1",
        "larder_control_callers_total{caller=\"viewer\"} 5",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
}

#[tokio::test]
async fn a_control_that_is_not_open_is_read_by_viewers_and_operators_alone() {
    let (_dir, service, keys) = start_open(false).await;
    service.publish(&title("demo")).await;
    service.edge_up("e1").await;
    let token = keys.eddsa.token(&claims("alice"));
    for path in ["/videos", "/videos/demo", "/videos/demo/playback", "/videos/demo/cdn-url?segment=1", "/videos/demo/thumbnail"] {
        let reply = service.get(path).await;
        assert_eq!(
            (reply.status, reply.json()["type"].clone()),
            (StatusCode::UNAUTHORIZED, json!("/problems/no-token")),
            "{path}"
        );
        for secret in [&*token, OPERATOR] {
            let reply = service.send(service::with(Method::GET, path, secret, &Value::Null)).await;
            assert!(reply.status.is_success() || reply.status.is_redirection(), "{path}: {reply:?}");
            assert!(!reply.header("cache-control").contains("public"), "{path}: {reply:?}");
        }
        let edge = service.send(service::with(Method::GET, path, EDGE, &Value::Null)).await;
        assert_eq!(edge.status, StatusCode::UNAUTHORIZED, "{path}");
    }
    assert_eq!(service.get("/healthz").await.status, StatusCode::OK);
    assert_eq!(service.get("/openapi.json").await.status, StatusCode::OK);
}

#[tokio::test]
async fn without_a_key_set_no_viewer_is_recognised() {
    let (_dir, service) = service::start().await;
    let token = Key::eddsa("ed").token(&claims("alice"));
    assert_eq!(
        me(&service, &token).await,
        Err((401, "/problems/bad-token".into(), "no tokens of viewers are taken here".into()))
    );
}

fn b64(text: &str) -> String {
    use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
    BASE64_URL_SAFE_NO_PAD.encode(text)
}

/// Another text of the same alphabet.
fn flipped(text: &str) -> String {
    let middle = text.len() / 2;
    let other = if text.as_bytes()[middle] == b'A' { "B" } else { "A" };
    format!("{}{other}{}", &text[..middle], &text[middle + 1..])
}
