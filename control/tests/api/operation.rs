use std::path::Path;

use control::{Config, Control};
use http::{Method, StatusCode};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use wire::token::{Algorithm, SigningKey};

use crate::service::{OPERATOR, config, directory, request, send_h2, start, start_in, title};

#[tokio::test]
async fn health_readiness_and_metrics_are_told() {
    let (_dir, service) = start().await;
    service.publish(&title("demo")).await;
    service.edge_up("e1").await;
    assert_eq!(service.get("/healthz").await.body, "ok\n");
    assert_eq!(service.get("/readyz").await.body, "ready\n");
    service.get("/nowhere/at/all").await;
    let metrics = service.get("/metrics").await;
    let metrics = str::from_utf8(&metrics.body).unwrap();
    for line in [
        "larder_control_titles 1",
        "larder_control_edges{standing=\"ready\"} 1",
        "larder_control_edges{standing=\"silent\"} 0",
        "larder_control_requests_total{method=\"PUT\",route=\"/videos/{id}\",status=\"201\"} 1",
        "larder_control_requests_total{method=\"GET\",route=\"none\",status=\"404\"} 1",
        "larder_control_request_seconds_count{route=\"/healthz\"} 1",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
}

#[tokio::test]
async fn http_2_is_spoken_to_those_who_begin_with_it() {
    let (_dir, service) = start().await;
    let reply = send_h2(service.addr, "/healthz").await;
    assert_eq!((reply.status, &reply.body[..]), (StatusCode::OK, &b"ok\n"[..]));
}

#[tokio::test]
async fn public_keys_are_published_and_shared_secrets_are_not() {
    let (_dir, service) = start().await;
    let keys = service.get("/keys.json").await.json();
    assert_eq!((&keys["keys"][0]["kid"], &keys["keys"][0]["kty"]), (&json!("test-key"), &json!("EC")));
    assert_eq!(keys["keys"][0].get("d"), None);

    let dir = directory();
    let shared = SigningKey::generate(Algorithm::Hs256, "shared").unwrap();
    std::fs::write(dir.path().join("key.jwk"), shared.to_jwk()).unwrap();
    let service = start_in(dir.path()).await.unwrap();
    assert_eq!(service.get("/keys.json").await.json(), json!({ "keys": [] }));
}

#[tokio::test]
async fn only_configured_origins_may_call_from_a_browser() {
    let (_dir, service) = start().await;
    let allowed = async |origin: &str, method: Method| {
        let mut request = request(method, "/videos");
        request.headers_mut().insert("origin", origin.parse().unwrap());
        request.headers_mut().insert("access-control-request-method", "GET".parse().unwrap());
        let reply = crate::service::send(service.addr, request).await;
        (reply.status, reply.header("access-control-allow-origin").to_owned())
    };
    for method in [Method::GET, Method::OPTIONS] {
        assert_eq!(allowed("https://app.example", method.clone()).await, (StatusCode::OK, "https://app.example".into()));
        assert_eq!(allowed("https://evil.example", method).await.1, "");
    }
}

#[tokio::test]
async fn the_player_is_at_the_root_and_at_each_of_its_views() {
    let (_dir, service) = start().await;
    let page = service.get("/").await;
    assert_eq!(
        (page.status, page.header("content-type"), page.header("cache-control")),
        (StatusCode::OK, "text/html; charset=utf-8", "no-cache")
    );
    assert!(page.header("content-security-policy").contains("media-src 'self' https: blob:"));
    assert_eq!(service.get("/player/demo").await.body, page.body);
    let mut again = request(Method::GET, "/");
    again.headers_mut().insert("if-none-match", page.header("etag").parse().unwrap());
    assert_eq!(service.send(again).await.status, StatusCode::NOT_MODIFIED);
}

#[tokio::test]
async fn on_stop_idle_connections_end_and_the_port_is_free() {
    let (_dir, service) = start().await;
    let addr = service.addr;
    let idle = TcpStream::connect(addr).await.unwrap();
    // Once this is answered, the earlier connection has been accepted.
    service.get("/healthz").await;
    service.stop().await;
    idle.readable().await.unwrap();
    assert_eq!(idle.try_read(&mut [0]).unwrap(), 0, "closed, nothing sent");
    TcpListener::bind(addr).await.unwrap();
}

#[tokio::test]
async fn on_stop_what_was_begun_is_answered() {
    let (_dir, service) = start().await;
    let body = title("demo").to_string();
    let mut client = TcpStream::connect(service.addr).await.unwrap();
    let head = format!(
        "PUT /videos/demo HTTP/1.1\r\nHost: control.test\r\nAuthorization: Bearer {OPERATOR}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        body.len()
    );
    client.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 25];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 100 Continue\r\n\r\n", "control waits for the body");

    service.stop.cancel();
    client.write_all(body.as_bytes()).await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201 Created\r\n"), "{answer}");
    service.stop().await;
}

#[tokio::test]
async fn what_keeps_control_from_starting_is_told() {
    let refused = async |spoil: fn(&Path, &mut Config)| {
        let dir = directory();
        let mut config = config(dir.path());
        spoil(dir.path(), &mut config);
        let Err(error) = Control::open(config).await else { panic!("it started") };
        error.to_string().replace(&dir.path().display().to_string(), "DIR")
    };
    assert_eq!(
        refused(|dir, _| std::fs::remove_file(dir.join("key.jwk")).unwrap()).await,
        "there is no signing key at DIR/key.jwk: `larder sign --new-key` makes one"
    );
    let not_a_key = refused(|dir, _| std::fs::write(dir.join("key.jwk"), "{}").unwrap()).await;
    assert!(not_a_key.starts_with("DIR/key.jwk is not a signing key: "), "{not_a_key}");
    assert_eq!(
        refused(|dir, _| std::fs::write(dir.join("edge.token"), "\n").unwrap()).await,
        "cannot use the secret in DIR/edge.token (edge_token_file): it is empty; put a long random secret into it (for example: openssl rand -hex 32)"
    );
    assert_eq!(
        refused(|dir, _| std::fs::remove_file(dir.join("operator.token")).unwrap()).await,
        "cannot use the secret in DIR/operator.token (operator_token_file): No such file or directory (os error 2)"
    );
    let not_a_directory = refused(|dir, _| std::fs::write(dir.join("state"), "").unwrap()).await;
    assert!(not_a_directory.starts_with("cannot use the state directory DIR/state: "), "{not_a_directory}");
    assert!(not_a_directory.ends_with("; it must be a directory that this user can read and write"), "{not_a_directory}");
    let not_ours = refused(|_, config| config.listen = "192.0.2.1:80".parse().unwrap()).await;
    assert!(not_ours.starts_with("cannot listen on 192.0.2.1:80: "), "{not_ours}");
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap().into_std().unwrap();
    let addr = taken.local_addr().unwrap();
    let dir = directory();
    let Err(error) = Control::open(Config { listen: addr, ..config(dir.path()) }).await else { panic!("it started") };
    assert_eq!(error.to_string(), format!("cannot listen on {addr}: the port is in use by another process"));
}
