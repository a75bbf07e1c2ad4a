//! Rate limits: who asks too often is told so, in the headers of the draft, and is let in again.

use control::{
    Config,
    config::{Rate, Rates},
};
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use serde_json::Value;

use crate::{
    issuer::{Key, claims, jwks},
    service::{self, NO_LIMIT, OPERATOR, Reply, Service, config, directory, request, start_with},
    tokens::viewers,
};

/// So slow that no test waits for it to fill.
const TWO: Rate = Rate { per_second: 1, burst: 2 };

async fn get_for(service: &Service, forwarded_for: &str) -> Reply {
    let mut request: Request<Full<_>> = request(Method::GET, "/videos");
    request.headers_mut().insert("x-forwarded-for", forwarded_for.parse().unwrap());
    service.send(request).await
}

async fn start(limits: Rates) -> (tempfile::TempDir, Service, Key) {
    let dir = directory();
    let key = Key::eddsa("k");
    let file = dir.path().join("viewers.jwks");
    std::fs::write(&file, jwks(&[&key])).unwrap();
    let viewers = Some(viewers(control::config::KeySource::File(file)));
    let service = start_with(Config { limits, viewers, ..config(dir.path()) }).await.unwrap();
    (dir, service, key)
}

#[tokio::test]
async fn an_address_that_asks_too_often_waits_and_others_do_not() {
    let (_dir, service, _) =
        start(Rates { viewer: NO_LIMIT, operator: NO_LIMIT, address: Rate { per_second: 1, burst: 3 } }).await;
    for left in [2, 1, 0] {
        let reply = get_for(&service, "203.0.113.7").await;
        assert_eq!((reply.status, reply.header("ratelimit-policy")), (StatusCode::OK, "\"address\";q=3;w=3"));
        assert!(reply.header("ratelimit").starts_with(&format!("\"address\";r={left};t=")), "{reply:?}");
    }
    let refused = get_for(&service, "203.0.113.7").await;
    assert_eq!((refused.status, refused.header("retry-after")), (StatusCode::TOO_MANY_REQUESTS, "1"));
    assert_eq!(refused.header("ratelimit"), "\"address\";r=0;t=1");
    assert_eq!(refused.json()["type"], "/problems/too-many-requests");
    assert_eq!(refused.json()["detail"], "one address may send 1 requests a second, and 3 at once");
    assert_eq!(get_for(&service, "203.0.113.8").await.status, StatusCode::OK);
    assert_eq!(get_for(&service, "203.0.113.7, 203.0.113.9").await.status, StatusCode::OK, "the proxy saw .9");
    let own = service.get("/videos").await;
    assert_eq!((own.status, own.header("ratelimit")), (StatusCode::OK, ""), "this machine's own requests are not counted");
    let again = async {
        while get_for(&service, "203.0.113.7").await.status != StatusCode::OK {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), again).await.expect("it is let in again");
}

#[tokio::test]
async fn viewers_and_operators_are_counted_by_who_they_are() {
    let (_dir, service, key) = start(Rates { viewer: TWO, operator: TWO, address: TWO }).await;
    let ask = async |secret: &str| service.send(service::with(Method::GET, "/videos", secret, &Value::Null)).await;
    let (alice, bob) = (key.token(&claims("alice")), key.token(&claims("bob")));
    for (secret, policy) in [(&*alice, "\"viewer\";q=2;w=2"), (OPERATOR, "\"operator\";q=2;w=2")] {
        for status in [StatusCode::OK, StatusCode::OK, StatusCode::TOO_MANY_REQUESTS] {
            let reply = ask(secret).await;
            assert_eq!((reply.status, reply.header("ratelimit-policy")), (status, policy));
        }
    }
    assert_eq!(ask(&bob).await.status, StatusCode::OK);
    let again = key.token(&issuer_again("alice"));
    assert_eq!(ask(&again).await.status, StatusCode::TOO_MANY_REQUESTS, "another token of hers is she");
    let metrics = service.get("/metrics").await;
    let metrics = str::from_utf8(&metrics.body).unwrap();
    assert!(metrics.contains("larder_control_limited_total{caller=\"viewer\"} 2"), "{metrics}");
}

fn issuer_again(subject: &str) -> Value {
    crate::issuer::with(claims(subject), "jti", "another".into())
}

#[tokio::test]
async fn bad_tokens_are_counted_by_the_address_that_sends_them() {
    let (_dir, service, _) = start(Rates { viewer: NO_LIMIT, operator: NO_LIMIT, address: TWO }).await;
    let mut statuses = Vec::new();
    for n in 0..3 {
        let mut request = service::with(Method::GET, "/me", &format!("guess-{n}"), &Value::Null);
        request.headers_mut().insert("x-forwarded-for", "2001:db8::1".parse().unwrap());
        statuses.push(service.send(request).await.status.as_u16());
    }
    assert_eq!(statuses, [401, 401, 429]);
    assert_eq!(get_for(&service, "2001:db8::2").await.status, StatusCode::TOO_MANY_REQUESTS, "of the same /64");
}
