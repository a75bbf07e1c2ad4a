use edge::http::Protocol;
use http::{Method, StatusCode};
use wire::token::{Algorithm, Claims, PACKAGE, SigningKey, sign};

use crate::{
    origin::Object,
    support::{ISSUER, Running, ask, get, now_unix_s, start},
};

const PATH: &str = "/titles/t/v720/00001.m4s";

async fn stocked() -> Running {
    let edge = start().await;
    edge.origin.put(PATH, Object::new(1000, 1));
    edge
}

#[tokio::test]
async fn a_good_token_opens_wherever_it_stands() {
    let edge = stocked().await;
    let token = edge.token();
    for protocol in Protocol::ALL {
        let connection = edge.connect(protocol).await;
        for (path, cookie) in [
            (edge.signed(PATH), None),
            (format!("{PATH}?a=b&{PACKAGE}={token}"), None),
            (PATH.to_owned(), Some(format!("{PACKAGE}={token}"))),
        ] {
            let headers: Vec<_> = cookie.iter().map(|cookie| ("cookie", cookie.as_str())).collect();
            let answer = ask(&connection, Method::GET, &path, &headers).await;
            assert_eq!((answer.status, answer.body.len()), (StatusCode::OK, 1000), "{protocol:?} {path}");
        }
    }
    assert_eq!(edge.origin.asked().len(), 1, "one object, wherever the token stands");
    edge.stop().await;
}

#[tokio::test]
async fn no_token_that_is_wrong_in_any_way_opens_anything_or_learns_why() {
    let edge = stocked().await;
    let (good, later) = (edge.token(), now_unix_s() + 3600);
    let stranger = SigningKey::generate(Algorithm::EdDsa, edge.key.kid()).expect("a key");
    let unknown = SigningKey::generate(Algorithm::EdDsa, "key-2").expect("a key");
    let claims = |issuer: &str, client: Option<&str>| {
        let tree = Claims::for_tree(&"/titles".parse().expect("a path"), later);
        sign(&edge.key, &Claims { iss: Some(issuer.into()), cdniip: client.map(str::to_owned), ..tree }).expect("signs")
    };
    let end = good.len() - 5;
    let other = if good.as_bytes()[end] == b'A' { "B" } else { "A" };
    let wrong = [
        ("tampered", format!("{}{other}{}", &good[..end], &good[end + 1..]), "bad-token"),
        ("expired", edge.token_by(&edge.key, "/titles", now_unix_s() - 1), "stale-token"),
        ("for another title", edge.token_by(&edge.key, "/titles/u", later), "wrong-token"),
        ("by a stranger", edge.token_by(&stranger, "/titles", later), "bad-token"),
        ("by an unknown key", edge.token_by(&unknown, "/titles", later), "bad-token"),
        ("by another issuer", claims("somebody", None), "bad-token"),
        ("for another client", claims(ISSUER, Some("192.0.2.0/24")), "wrong-token"),
        ("nothing like a token", "a.b.c".into(), "bad-token"),
        ("empty", String::new(), "bad-token"),
    ];
    for protocol in Protocol::ALL {
        let connection = edge.connect(protocol).await;
        let with_token = wrong.iter().map(|(what, token, code)| (*what, format!("/{PACKAGE}={token}{PATH}"), *code));
        for (what, path, code) in with_token.chain([("missing", PATH.to_owned(), "no-token")]) {
            let answer = get(&connection, &path).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{protocol:?}, token {what}: {answer:?}");
            assert_eq!((answer.header("larder-reason"), answer.text().as_str()), (code, "not with this token\n"), "token {what}");
            assert_eq!(answer.header("cache-control"), "no-store");
        }
    }
    assert!(edge.origin.asked().is_empty(), "nothing is looked up without a grant");
    assert_eq!(edge.metric("larder_edge_refused_tokens_total{reason=\"stale-token\"}").await, 3);
    assert_eq!(edge.metric("larder_edge_refused_tokens_total{reason=\"no-token\"}").await, 3);

    let connection = edge.connect(Protocol::Http2).await;
    let local = format!("/{PACKAGE}={}{PATH}", claims(ISSUER, Some("127.0.0.0/8")));
    assert_eq!(get(&connection, &local).await.status, StatusCode::OK, "the client is known by its address");
    edge.stop().await;
}

#[tokio::test]
async fn a_token_that_asks_for_it_is_renewed_with_a_cookie_that_opens_the_next_object() {
    let edge = stocked().await;
    edge.origin.put("/titles/t/v720/00002.m4s", Object::new(20, 2));
    let claims = Claims {
        iss: Some(ISSUER.into()),
        cdnistt: Some(1),
        cdniets: Some(60),
        cdnistd: Some(2),
        ..Claims::for_tree(&"/titles/t".parse().expect("a path"), now_unix_s() + 5)
    };
    let first = sign(&edge.key, &claims).expect("signs");
    for protocol in Protocol::ALL {
        let connection = edge.connect(protocol).await;
        let answer = get(&connection, &format!("{PATH}?{PACKAGE}={first}")).await;
        let cookie = answer.header("set-cookie").to_owned();
        let (pair, attributes) = cookie.split_once("; ").expect("a cookie with attributes");
        assert_eq!(attributes, "Path=/titles/t; Max-Age=60; HttpOnly; Secure; SameSite=None", "{protocol:?}");
        assert_ne!(pair, format!("{PACKAGE}={first}"), "it expires later");
        let next = ask(&connection, Method::GET, "/titles/t/v720/00002.m4s", &[("cookie", pair)]).await;
        assert_eq!((next.status, next.body.len()), (StatusCode::OK, 20), "{protocol:?}");
        let elsewhere = ask(&connection, Method::GET, "/titles/u/v720/00002.m4s", &[("cookie", pair)]).await;
        assert_eq!(elsewhere.status, StatusCode::FORBIDDEN);
    }
    let plain = get(&edge.connect(Protocol::Http3).await, &edge.signed(PATH)).await;
    assert_eq!(plain.header("set-cookie"), "", "a token that does not ask gets none");
    edge.stop().await;
}

#[tokio::test]
async fn a_path_that_configuration_opened_needs_no_token_and_opens_no_other() {
    let edge = stocked().await;
    edge.origin.put("/open/clip.mp4", Object::new(10, 1));
    let connection = edge.connect(Protocol::Http3).await;
    assert_eq!(get(&connection, "/open/clip.mp4").await.status, StatusCode::OK);
    assert_eq!(get(&connection, &format!("/{PACKAGE}=a.b.c/open/clip.mp4")).await.status, StatusCode::OK, "nobody looks at it");
    assert_eq!(get(&connection, "/opener/clip.mp4").await.status, StatusCode::FORBIDDEN);
    assert_eq!(get(&connection, "/open/../titles/t").await.status, StatusCode::NOT_FOUND);
    edge.stop().await;
}
