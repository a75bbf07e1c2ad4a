//! What stops an edge from starting is told so that an operator can mend it.

use std::{fs, net::SocketAddr, path::Path};

use edge::Edge;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_util::sync::CancellationToken;

use crate::support::{config, files};

const ORIGIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9);

async fn why_not(spoil: impl FnOnce(&Path) -> Option<String>) -> (String, TempDir) {
    let (dir, _) = files();
    let more = spoil(dir.path()).unwrap_or_default();
    let error = Edge::open(config(dir.path(), ORIGIN, &more)).await.err().expect("it does not start");
    (error.to_string(), dir)
}

#[tokio::test]
async fn a_port_that_is_in_use_is_named() {
    let (dir, _) = files();
    let first = Edge::open(config(dir.path(), ORIGIN, "")).await.expect("opens");
    let mut second = config(dir.path(), ORIGIN, "");
    second.listen = first.addr();
    let error = Edge::open(second.clone()).await.err().expect("in use");
    assert_eq!(error.to_string(), format!("cannot listen on {}: the port is in use by another process (TCP)", first.addr()));
    second.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    second.admin_listen = first.admin_addr();
    let error = Edge::open(second).await.err().expect("in use").to_string();
    assert!(error.starts_with(&format!("cannot listen on {} for operators: ", first.admin_addr())), "{error}");
}

#[tokio::test]
async fn without_tls_it_serves_where_it_is_told_to_and_nowhere_else() {
    let (dir, _) = files();
    let mut config = config(dir.path(), ORIGIN, "");
    let edge = Edge::open(config.clone()).await.expect("opens");
    assert_eq!(edge.plain_addr(), None);
    config.listen_plain = Some(edge.addr());
    let error = Edge::open(config.clone()).await.err().expect("in use").to_string();
    assert_eq!(error, format!("cannot listen on {}: the port is in use by another process (TCP)", edge.addr()));
    config.listen_plain = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    config.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let edge = Edge::open(config).await.expect("opens");
    let (addr, stop) = (edge.plain_addr().expect("told to"), CancellationToken::new());
    let running = tokio::spawn(edge.run(stop.clone()));
    let mut stream = TcpStream::connect(addr).await.expect("connects");
    stream.write_all(b"GET /titles/a HTTP/1.1\r\nhost: edge.example\r\nconnection: close\r\n\r\n").await.expect("writes");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("text");
    assert!(answer.starts_with("HTTP/1.1 403 "), "tokens are checked there too: {answer}");
    stop.cancel();
    running.await.expect("no panic").expect("ends well");
}

#[tokio::test]
async fn files_that_are_missing_or_wrong_are_named_with_what_belongs_in_them() {
    let remove = |name: &'static str| move |dir: &Path| fs::remove_file(dir.join(name)).err().map(|error| error.to_string());
    let (error, dir) = why_not(remove("keys.json")).await;
    assert!(error.starts_with(&format!("cannot read the keys in {}/keys.json: ", dir.path().display())), "{error}");
    let (error, dir) = why_not(remove("edge.crt")).await;
    assert!(error.contains(&format!("{}/edge.crt", dir.path().display())), "{error}");
    let (error, dir) = why_not(remove("fill.token")).await;
    assert!(
        error.starts_with(&format!("origin: cannot use the secret in {}/fill.token (origin.token_file): ", dir.path().display())),
        "{error}"
    );
    let (error, _) = why_not(|dir| {
        fs::remove_file(dir.join("edge.token")).expect("removes");
        Some(format!("[control]\nurl = \"http://127.0.0.1:9\"\ntoken_file = \"{}/edge.token\"\n", dir.display()))
    })
    .await;
    assert!(error.starts_with("control: cannot use the secret in "), "{error}");
}

#[tokio::test]
async fn an_edge_refuses_keys_that_could_sign() {
    let (error, dir) = why_not(|dir| {
        let key = wire::token::SigningKey::generate(wire::token::Algorithm::Es256, "private-1").expect("a key");
        let jwk: serde_json::Value = serde_json::from_str(&key.to_jwk()).expect("JSON");
        fs::write(dir.join("keys.json"), serde_json::json!({ "keys": [jwk] }).to_string()).expect("writes");
        None
    })
    .await;
    assert!(error.starts_with(&format!("cannot use the keys in {}/keys.json: ", dir.path().display())), "{error}");
    assert!(error.contains("private-1"), "the key is named: {error}");
}
