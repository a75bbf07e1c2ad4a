//! Idempotency keys: done once, answered alike; and what is not kept under one.

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::service::{self, EDGE, OPERATOR, Reply, Service, directory, start, start_in, title};

fn keyed(method: Method, path: &str, secret: &str, key: &str, body: &Value) -> Request<Full<Bytes>> {
    let mut request = service::with(method, path, secret, body);
    request.headers_mut().insert("idempotency-key", key.parse().unwrap());
    request
}

async fn put(service: &Service, id: &str, key: &str, body: &Value) -> Reply {
    service.send(keyed(Method::PUT, &format!("/videos/{id}"), OPERATOR, key, body)).await
}

#[tokio::test]
async fn a_repeated_write_is_done_once_and_answered_alike_also_after_a_restart() {
    let dir = directory();
    let service = start_in(dir.path()).await.unwrap();
    let first = put(&service, "demo", "\"k1\"", &title("demo")).await;
    assert_eq!((first.status, first.header("idempotency-replayed")), (StatusCode::CREATED, ""));
    let again = put(&service, "demo", "k1", &title("demo")).await;
    assert_eq!((again.status, again.header("idempotency-replayed")), (StatusCode::CREATED, "true"));
    assert_eq!(again.body, first.body);
    for name in ["location", "etag", "content-type"] {
        assert_eq!(again.header(name), first.header(name), "{name}");
    }
    let delete = || keyed(Method::DELETE, "/videos/demo", OPERATOR, "k1", &Value::Null);
    assert_eq!(service.send(delete()).await.status, StatusCode::NO_CONTENT, "a key belongs to one method and path");
    service.stop().await;
    let service = start_in(dir.path()).await.unwrap();
    assert_eq!(service.send(delete()).await.status, StatusCode::NO_CONTENT, "not 404: it is the answer of then");
    assert_eq!(put(&service, "demo", "k1", &title("demo")).await.status, StatusCode::CREATED);
    assert_eq!(service.get("/videos/demo").await.status, StatusCode::NOT_FOUND, "nothing was done again");
    let audit = service.send(service::with(Method::GET, "/audit", OPERATOR, &Value::Null)).await.json();
    assert_eq!(audit["entries"].as_array().unwrap().len(), 2, "{audit}");
}

#[tokio::test]
async fn another_request_under_the_same_key_is_refused() {
    let (_dir, service) = start().await;
    assert_eq!(put(&service, "demo", "k1", &title("demo")).await.status, StatusCode::CREATED);
    let mut other = title("demo");
    other["title"] = json!("Another");
    let refused = put(&service, "demo", "k1", &other).await;
    assert_eq!(
        (refused.status, &refused.json()["type"]),
        (StatusCode::UNPROCESSABLE_ENTITY, &json!("/problems/idempotency-key-reused"))
    );
    let mut conditional = keyed(Method::PUT, "/videos/demo", OPERATOR, "k1", &title("demo"));
    conditional.headers_mut().insert("if-match", "*".parse().unwrap());
    assert_eq!(service.send(conditional).await.status, StatusCode::UNPROCESSABLE_ENTITY, "a condition is part of a request");
    assert_eq!(service.get("/videos/demo").await.json()["title"], "The Title demo");
}

#[tokio::test]
async fn a_key_is_the_callers_own() {
    let (_dir, service) = start().await;
    let register = |secret: &str| keyed(Method::PUT, "/fleet/edges/e1", secret, "k1", &service::registration("e1"));
    assert_eq!(service.send(register(EDGE)).await.status, StatusCode::CREATED);
    assert_eq!(service.send(register(OPERATOR)).await.status, StatusCode::UNAUTHORIZED, "not the edge's answer");
    assert_eq!(service.send(register("somebody-else-who-guesses")).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(service.send(register(EDGE)).await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn what_one_repeats_a_request_for_is_not_kept() {
    let (_dir, service) = start().await;
    let register = |body: &Value| keyed(Method::PUT, "/fleet/edges/e1", OPERATOR, "k1", body);
    assert_eq!(service.send(register(&json!({}))).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(service.send(register(&json!({ "x": 1 }))).await.status, StatusCode::UNAUTHORIZED, "so its key is free");
    let flawed = put(&service, "demo", "k1", &json!({})).await;
    assert_eq!(flawed.status, StatusCode::BAD_REQUEST);
    assert_eq!(put(&service, "demo", "k1", &title("demo")).await.status, StatusCode::UNPROCESSABLE_ENTITY, "a flaw is an answer");
}

#[tokio::test]
async fn a_request_in_progress_is_not_begun_twice() {
    let (_dir, service) = start().await;
    let body = title("demo").to_string();
    let head = format!(
        "PUT /videos/demo HTTP/1.1\r\nHost: control.test\r\nAuthorization: Bearer {OPERATOR}\r\nContent-Type: application/json\r\n\
         Idempotency-Key: \"k1\"\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let send = async || {
        let mut client = TcpStream::connect(service.addr).await.unwrap();
        client.write_all(head.as_bytes()).await.unwrap();
        client.write_all(body.as_bytes()).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        answer[9..12].to_owned()
    };
    let (a, b, c, d) = tokio::join!(send(), send(), send(), send());
    let mut statuses = vec![a, b, c, d];
    assert!(statuses.iter().all(|status| status == "201" || status == "409"), "{statuses:?}");
    statuses.retain(|status| status == "201");
    assert!(!statuses.is_empty());
    let audit = service.send(service::with(Method::GET, "/audit", OPERATOR, &Value::Null)).await.json();
    assert_eq!(audit["entries"].as_array().unwrap().len(), 1, "done once: {audit}");
}

#[tokio::test]
async fn a_write_is_finished_and_known_when_its_client_goes_away() {
    let (_dir, service) = start().await;
    let body = title("demo").to_string();
    let head = format!(
        "PUT /videos/demo HTTP/1.1\r\nHost: control.test\r\nAuthorization: Bearer {OPERATOR}\r\nContent-Type: application/json\r\n\
         Idempotency-Key: \"k1\"\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut client = TcpStream::connect(service.addr).await.unwrap();
    client.write_all(head.as_bytes()).await.unwrap();
    drop(client);
    let answer = async {
        loop {
            let reply = put(&service, "demo", "k1", &title("demo")).await;
            if reply.status != StatusCode::CONFLICT {
                break reply;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let answer = tokio::time::timeout(std::time::Duration::from_secs(30), answer).await.unwrap();
    assert_eq!(answer.status, StatusCode::CREATED, "whichever of the two was first");
}

#[tokio::test]
async fn keys_that_are_none_and_bodies_that_are_too_large_are_refused() {
    let (_dir, service) = start().await;
    for key in ["\"\"", "a b", "\"a\";b=1", &"x".repeat(129)] {
        let reply = put(&service, "demo", key, &title("demo")).await;
        assert_eq!(
            (reply.status, &reply.json()["type"]),
            (StatusCode::BAD_REQUEST, &json!("/problems/bad-idempotency-key")),
            "{key}"
        );
    }
    let mut large = keyed(Method::PUT, "/fleet/edges/e1", EDGE, "k1", &Value::Null);
    *large.body_mut() = Full::from(vec![b' '; 64 * 1024 + 1]);
    assert_eq!(service.send(large).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    let read = keyed(Method::GET, "/videos", OPERATOR, "not a key, but nobody asks", &Value::Null);
    assert_eq!(service.send(read).await.status, StatusCode::OK, "reads need none");
}
