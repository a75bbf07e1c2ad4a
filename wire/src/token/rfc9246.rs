//! The examples of RFC 9246, Appendix A, to the letter: keys, claims and signed JWTs. Line breaks, which "are not present in the
//! generated content", are taken out by `\`.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::*;

/// The public signing key and the encryption key of the appendix's JWK set; its private key is [`PRIVATE`].
const KEYS: &str = r#"{ "keys": [
  {
    "kty": "EC",
    "kid": "P5UpOv0eMq1wcxLf7WxIg09JdSYGYFDOWkldueaImf0",
    "use": "sig",
    "alg": "ES256",
    "crv": "P-256",
    "x": "be807S4O7dzB6I4hTiCUvmxCI6FuxWba1xYBlLSSsZ8",
    "y": "rOGC4vI69g-WF9AGEVI37sNNwbjIzBxSjLvIL7f3RBA"
  },
  {
    "kty": "oct",
    "kid": "f-WbjxBC3dPuI3d24kP2hfvos7Qz688UTi6aB0hN998",
    "use": "enc",
    "alg": "A128GCM",
    "k": "4uFxxV7fhNmrtiah2d1fFg"
  }
]}"#;

const PRIVATE: &str = r#"{
    "kty": "EC",
    "kid": "P5UpOv0eMq1wcxLf7WxIg09JdSYGYFDOWkldueaImf0",
    "use": "sig",
    "alg": "ES256",
    "crv": "P-256",
    "x": "be807S4O7dzB6I4hTiCUvmxCI6FuxWba1xYBlLSSsZ8",
    "y": "rOGC4vI69g-WF9AGEVI37sNNwbjIzBxSjLvIL7f3RBA",
    "d": "yaowezrCLTU6yIwUL5RQw67cHgvZeMTLVZXjUGb1A1M"
  }"#;

/// A.1.
const SIMPLE: &str = "eyJhbGciOiJFUzI1NiIsImtpZCI6IlA1VXBPdjBlTXExd2N4TGY3V3hJZzA5SmRTWU\
dZRkRPV2tsZHVlYUltZjAifQ.eyJleHAiOjE2NDY4NjczNjksImlzcyI6InVDRE4gS\
W5jIiwiY2RuaXVjIjoiaGFzaDpzaGEtMjU2OzJ0ZGVyZldQYTg2S3U3WW56VzUxWVV\
wN2RHVWpCU18zU1czRUx4NGhtV1kifQ.TaNlJM3D96i_9J9XvlICO6FUIDFTqt3E2Y\
JkEUOLfcH0b89wYRKTbJ9Yj6h_GRgSoZoQO0cps3yUPcWGK3smCw";

/// A.2.
const COMPLEX: &str = "eyJhbGciOiJFUzI1NiIsImtpZCI6IlA1VXBPdjBlTXExd2N4TGY3V3hJZzA5SmRTWU\
dZRkRPV2tsZHVlYUltZjAifQ.eyJhdWQiOiJkQ0ROIExMQyIsInN1YiI6ImV5Smxib\
U1pT2lKQk1USTRSME5OSWl3aVlXeG5Jam9pWkdseUlpd2lhMmxrSWpvaVppMVhZbXA\
0UWtNelpGQjFTVE5rTWpSclVESm9ablp2Y3pkUmVqWTRPRlZVYVRaaFFqQm9Uams1T\
0NKOS4uQ0xBdTgweGNsYzhCcC1VaS42UDFBM0Y2aXAyRHYuQ29oZHRMTHBnQm5UdlJ\
KUUNGdXotZyIsImNkbmlpcCI6ImV5SmxibU1pT2lKQk1USTRSME5OSWl3aVlXeG5Ja\
m9pWkdseUlpd2lhMmxrSWpvaVppMVhZbXA0UWtNelpGQjFTVE5rTWpSclVESm9ablp\
2Y3pkUmVqWTRPRlZVYVRaaFFqQm9Uams1T0NKOS4uYVVEREZFUUJJYzNuV2pPYi5iR\
1hXVEhQa250bVBDS24wcFBQTkVRLml5VHR0bkZ5Yk8yWUJMcXdsX1lTakEiLCJjZG5\
pdiI6MSwiZXhwIjoxNjQ2ODY3MzY5LCJpYXQiOjE2NDY2OTQ1NjksImlzcyI6InVDR\
E4gSW5jIiwianRpIjoiNURBYWZMaFpBZmhzYmUiLCJuYmYiOjE2NDY3ODA5NjksImN\
kbml1YyI6InJlZ2V4Omh0dHA6Ly9jZG5pXFwuZXhhbXBsZS9mb28vYmFyL1swLTlde\
zN9XFwucG5nIn0.IjmVX0uD5MYqArc-M08uEsEeoDQn8kuYXZ9HGHDmDDxsHikT0c8\
jcX8xYD0z3LzQclMG65i1kT2sRbZ7isUw8w";

/// A.2: "JWE for Client IP Address (cdniip) of [2001:db8::1/32]".
const SEALED_IP: &str = "eyJlbmMiOiJBMTI4R0NNIiwiYWxnIjoiZGlyIiwia2lkIjoiZi1XYmp4QkMzZFB1ST\
NkMjRrUDJoZnZvczdRejY4OFVUaTZhQjBoTjk5OCJ9..aUDDFEQBIc3nWjOb.bGXWT\
HPkntmPCKn0pPPNEQ.iyTttnFybO2YBLqwl_YSjA";

/// A.2: "JWE for Subject (sub) of "UserToken"".
const SEALED_SUBJECT: &str = "eyJlbmMiOiJBMTI4R0NNIiwiYWxnIjoiZGlyIiwia2lkIjoiZi1XYmp4QkMzZFB1ST\
NkMjRrUDJoZnZvczdRejY4OFVUaTZhQjBoTjk5OCJ9..CLAu80xclc8Bp-Ui.6P1A3\
F6ip2Dv.CohdtLLpgBnTvRJQCFuz-g";

/// A.3, as it comes.
const RENEWABLE: &str = "eyJhbGciOiJFUzI1NiIsImtpZCI6IlA1VXBPdjBlTXExd2N4TGY3V3hJZzA5SmRTWU\
dZRkRPV2tsZHVlYUltZjAifQ.eyJjZG5pZXRzIjozMCwiY2RuaXN0dCI6MSwiY2Rua\
XN0ZCI6MiwiZXhwIjoxNjQ2ODY3MzY5LCJjZG5pdWMiOiJyZWdleDpodHRwOi8vY2R\
uaVxcLmV4YW1wbGUvZm9vL2Jhci9bMC05XXszfVxcLnRzIn0.tlPvoKw3BCClw4Lx9\
PQu7MK6b2IN55ZoCPSaxovGK0zS53Wpb1MbJBow7G8LiGR39h6-2Iq7PWUSr3MdTIz\
HYw";

/// A.3, renewed.
const RENEWED: &str = "eyJhbGciOiJFUzI1NiIsImtpZCI6IlA1VXBPdjBlTXExd2N4TGY3V3hJZzA5SmRTWU\
dZRkRPV2tsZHVlYUltZjAifQ.eyJjZG5pZXRzIjozMCwiY2RuaXN0dCI6MSwiY2Rua\
XN0ZCI6MiwiZXhwIjoxNjQ2ODY3Mzk5LCJjZG5pdWMiOiJyZWdleDpodHRwOi8vY2R\
uaVxcLmV4YW1wbGUvZm9vL2Jhci9bMC05XXszfVxcLnRzIn0.ivY5d_fKGd-OHTpUs\
8uJUrnHvt-rduzu5H4zM7167pUUAghub53FqDQ5G16jRYX2sY73mA_uLpYDdb-CPts\
8FA";

const EXP: u64 = 1_646_867_369;
const NBF: u64 = 1_646_780_969;
const BAR: &str = "http://cdni.example/foo/bar";

fn verifier() -> Verifier {
    let rules = Rules { issuers: vec!["uCDN Inc".into()], audience: Some("dCDN LLC".into()), ..Rules::default() };
    Verifier::new(KeySet::from_jwks(KEYS).unwrap(), rules)
}

fn check(verifier: &Verifier, token: &str, uri: &str, client: &str, now_unix_s: u64) -> Result<Grant, Refusal> {
    let presented = Presented { token: token.into(), uri: uri.into(), carrier: Carrier::Query };
    verifier.check(&presented, client.parse().unwrap(), now_unix_s)
}

/// The claims of a token, unverified.
fn claims(token: &str) -> Value {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

#[test]
fn a1_simple_example() {
    let verifier = verifier();
    for _ in 0..2 {
        let grant = check(&verifier, SIMPLE, BAR, "192.0.2.1", EXP - 1).unwrap();
        assert_eq!((grant.expires_unix_s(), grant.subject(), grant.renewal()), (EXP, None, None));
        check(&verifier, SIMPLE, "HTTP://CDNI.example:80/foo/b%61r", "2001:db8::1", EXP - 1).unwrap();
        assert_eq!(check(&verifier, SIMPLE, BAR, "192.0.2.1", EXP).unwrap_err(), Refusal::Expired { exp: EXP, now_unix_s: EXP });
        for uri in ["http://cdni.example/foo/bar2", "https://cdni.example/foo/bar", "http://cdni.example/foo/bar?a"] {
            assert_eq!(check(&verifier, SIMPLE, uri, "192.0.2.1", EXP - 1).unwrap_err(), Refusal::Uri(uri.into()));
        }
    }
    assert_eq!(
        claims(SIMPLE),
        json!({ "exp": EXP, "iss": "uCDN Inc", "cdniuc": "hash:sha-256;2tderfWPa86Ku7YnzW51YUp7dGUjBS_3SW3ELx4hmWY" })
    );
    let ours = Claims { iss: Some("uCDN Inc".into()), ..Claims::for_uri(BAR, EXP).unwrap() };
    assert_eq!(serde_json::to_value(ours).unwrap(), claims(SIMPLE));
}

#[test]
fn a2_complex_example() {
    assert_eq!(claims(COMPLEX)["cdniip"], SEALED_IP);
    assert_eq!(claims(COMPLEX)["sub"], SEALED_SUBJECT);
    let verifier = verifier();
    let uri = |n: u32| format!("http://cdni.example/foo/bar/{n:03}.png");
    let grant = check(&verifier, COMPLEX, &uri(0), "2001:db8:ffff::2", NBF).unwrap();
    assert_eq!((grant.expires_unix_s(), grant.subject()), (EXP, Some("UserToken")));
    let refused = |uri: &str, client: &str, now| check(&verifier, COMPLEX, uri, client, now).unwrap_err();
    assert_eq!(refused(&uri(0), "2001:db8::2", NBF), Refusal::Replayed("5DAafLhZAfhsbe".into()));
    assert_eq!(refused(&uri(1), "2001:db8::2", NBF - 1), Refusal::NotYet { nbf: NBF, now_unix_s: NBF - 1 });
    assert_eq!(refused(&uri(1), "2001:db9::2", NBF), Refusal::Client("2001:db9::2".parse::<IpAddr>().unwrap()));
    assert_eq!(refused(&uri(1000), "2001:db8::2", NBF), Refusal::Uri(uri(1000)));
    check(&verifier, COMPLEX, &uri(1), "2001:db8::2", EXP - 1).unwrap();

    let elsewhere =
        Verifier::new(KeySet::from_jwks(KEYS).unwrap(), Rules { issuers: vec!["uCDN Inc".into()], ..Rules::default() });
    let refusal = check(&elsewhere, COMPLEX, &uri(0), "2001:db8::2", NBF).unwrap_err();
    assert_eq!((refusal.verification_code(), refusal), (403, Refusal::Audience(Audience::One("dCDN LLC".into()))));
}

#[test]
fn a3_signed_token_renewal_example() {
    let verifier = verifier();
    let uri = "http://cdni.example/foo/bar/123.ts";
    // The renewed token of the example ends at 1646867399, so the first was verified 30 seconds before.
    let now_unix_s = 1_646_867_399 - 30;
    assert_eq!(
        check(&verifier, RENEWABLE, uri, "192.0.2.1", now_unix_s).unwrap_err(),
        Refusal::Expired { exp: EXP, now_unix_s },
        "by the text of §2.1.4 the example comes a second too late"
    );
    let grant = check(&verifier, RENEWABLE, uri, "192.0.2.1", now_unix_s - 1).unwrap();
    let renewal = grant.renewal().unwrap();
    assert_eq!(renewal.transport(), Transport::Cookie);
    let renewed = renewal.sign(&SigningKey::from_jwk(PRIVATE).unwrap(), Some("uCDN Inc")).unwrap();
    let mut expected = claims(RENEWED);
    assert_eq!(expected["exp"], 1_646_867_399);
    expected["exp"] = 1_646_867_398_u64.into();
    assert_eq!(claims(&renewed.token), expected, "all but exp is carried over, and no iss is added");
    assert_eq!(renewed.set_cookie(), format!("URISigningPackage={}; Path=/foo/bar; Max-Age=30; HttpOnly", renewed.token));
    for token in [&renewed.token, RENEWED] {
        assert!(check(&verifier, token, "http://cdni.example/foo/bar/124.ts", "192.0.2.1", EXP + 28).is_ok());
    }
}
