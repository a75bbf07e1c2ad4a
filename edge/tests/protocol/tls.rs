//! What a handshake comes to: cipher suites, and sessions that are resumed.

use std::{fs, sync::Arc};

use edge::http::{Limits, Protocol, client::Connection};
use rustls::{CipherSuite, ClientConfig, HandshakeKind, crypto::aws_lc_rs};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::support::{Running, fetch, start, start_as, trusting};

/// A client that offers these suites in this order, and trusts whom `trusting` trusts.
fn offering(server: &Running, suites: &[CipherSuite]) -> Arc<ClientConfig> {
    let mut provider = aws_lc_rs::default_provider();
    let known = std::mem::take(&mut provider.cipher_suites);
    let find = |suite: &CipherSuite| known.iter().find(|known| known.suite() == *suite).copied();
    provider.cipher_suites = suites.iter().filter_map(find).collect();
    assert_eq!(provider.cipher_suites.len(), suites.len());
    let builder = ClientConfig::builder_with_provider(Arc::new(provider)).with_safe_default_protocol_versions().expect("TLS");
    let roots = server.roots();
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

async fn shaken(server: &Running, tls: &Arc<ClientConfig>) -> TlsStream<TcpStream> {
    let tcp = TcpStream::connect(server.addr).await.expect("connects");
    let name = "127.0.0.1".try_into().expect("a name");
    TlsConnector::from(tls.clone()).connect(name, tcp).await.expect("shakes hands")
}

#[tokio::test]
async fn clients_get_aes_128_unless_they_put_chacha20_first_or_know_nothing_else() {
    use CipherSuite::*;
    let server = start(Limits::default());
    for (suites, agreed) in [
        // As OpenSSL and curl list them, as Chrome does, and as phones without instructions for AES do.
        (&[TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256, TLS13_AES_128_GCM_SHA256][..], TLS13_AES_128_GCM_SHA256),
        (&[TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256], TLS13_AES_128_GCM_SHA256),
        (&[TLS13_CHACHA20_POLY1305_SHA256, TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384], TLS13_CHACHA20_POLY1305_SHA256),
        (&[TLS13_AES_256_GCM_SHA384], TLS13_AES_256_GCM_SHA384),
        // TLS 1.2; the certificate's key is one of ECDSA.
        (
            &[
                TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
                TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
                TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            ],
            TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        ),
        (
            &[TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256],
            TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        ),
    ] {
        let tls = offering(&server, suites);
        let stream = shaken(&server, &tls).await;
        assert_eq!(stream.get_ref().1.negotiated_cipher_suite().map(|suite| suite.suite()), Some(agreed), "{suites:?}");
        for protocol in Protocol::ALL {
            // QUIC begins with AES-128 (RFC 9001 §5.2), so its clients know it. Which suite they get is told by a test that can look inside.
            if protocol == Protocol::Http3 && !suites.contains(&TLS13_AES_128_GCM_SHA256) {
                continue;
            }
            let connection = Connection::connect(protocol, server.addr, "127.0.0.1", tls.clone()).await.expect("connects");
            let (_, bytes) = fetch(&connection, "/bytes/100000").await.expect("an answer");
            assert_eq!(bytes.len(), 100_000, "{protocol:?} {suites:?}");
        }
    }
    server.stop().await;
}

/// An edge of a site whose secret is this.
fn edge_of(site: &TempDir, secret: &str) -> Running {
    let file = site.path().join(secret);
    fs::write(&file, format!("{secret}\n")).expect("writes");
    start_as("127.0.0.1:0", Limits::default(), |options| options.ticket_secret_file = Some(file))
}

const SECRET: &str = "the-secret-that-the-site's-edges-share";
const OTHER_SECRET: &str = "the-secret-of-edges-at-another-site";

#[tokio::test]
async fn a_session_of_one_edge_is_resumed_by_another_of_its_site_alone() {
    let site = tempfile::tempdir().expect("a directory");
    let (one, other, stranger) = (edge_of(&site, SECRET), edge_of(&site, SECRET), edge_of(&site, OTHER_SECRET));
    for protocol in Protocol::ALL {
        // It trusts the first one's certificate alone: the other can have no handshake with it but a resumed one.
        let tls = trusting(one.dir.path());
        let connect = |server: &Running| Connection::connect(protocol, server.addr, "127.0.0.1", tls.clone());
        assert!(connect(&other).await.is_err(), "{protocol:?}: nothing to resume yet");
        let first = connect(&one).await.expect("it is trusted");
        fetch(&first, "/bytes/1000").await.expect("an answer, and tickets before it");
        let resumed = connect(&other).await.unwrap_or_else(|error| panic!("{protocol:?}: {error}"));
        let (_, bytes) = fetch(&resumed, "/bytes/1000").await.expect("an answer");
        assert_eq!(bytes.len(), 1000);
        assert!(connect(&stranger).await.is_err(), "{protocol:?}: it cannot read the ticket, and nobody trusts it");
    }
    for server in [one, other, stranger] {
        server.stop().await;
    }
}

#[tokio::test]
async fn a_ticket_that_cannot_be_read_costs_a_handshake_and_nothing_else() {
    let site = tempfile::tempdir().expect("a directory");
    let server = edge_of(&site, SECRET);
    let mut tls = ClientConfig::clone(&server.client_tls);
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let tls = Arc::new(tls);
    let kind = async || {
        let mut stream = shaken(&server, &tls).await;
        exchange(&mut stream).await;
        stream.get_ref().1.handshake_kind()
    };
    let is_full = |kind| matches!(kind, Some(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest));
    assert!(is_full(kind().await));
    assert_eq!(kind().await, Some(HandshakeKind::Resumed));
    fs::write(site.path().join(SECRET), OTHER_SECRET).expect("writes");
    assert_eq!(kind().await, Some(HandshakeKind::Resumed), "the file is read when it is asked for");
    server.tls.reload().expect("a good secret");
    assert!(is_full(kind().await));
    assert_eq!(kind().await, Some(HandshakeKind::Resumed), "under the new secret");
    server.stop().await;
}

/// Asks for something, and reads the answer with all that TLS sends before it.
async fn exchange(stream: &mut TlsStream<TcpStream>) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    stream.write_all(b"GET /bytes/10 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.expect("writes");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("closed by TLS' own end");
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(&answer));
}
