//! Where the keys of viewers' tokens come from: a file or a server, asked anew at intervals and when a token names an unknown key.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use control::{
    Config, Control,
    config::{KeySource, Refresh, ViewersConfig},
};
use http::Method;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    issuer::{Key, claims, jwks},
    service::{self, Service, config, directory, start_with},
    tokens::viewers,
};

const LONG: Duration = Duration::from_secs(3600);

/// A server of key sets, and how often it was asked.
#[derive(Clone)]
struct Server {
    url: String,
    answer: Arc<Mutex<String>>,
    asked: Arc<AtomicUsize>,
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

impl Server {
    async fn start(answer: String, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (scheme, port) = (if tls.is_some() { "https" } else { "http" }, listener.local_addr().unwrap().port());
        let server = Self {
            url: format!("{scheme}://localhost:{port}/keys.json?v=1"),
            answer: Arc::new(Mutex::new(answer)),
            asked: Arc::default(),
        };
        let serving = server.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (server, tls) = (serving.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => server.answer(stream).await,
                        Some(tls) => {
                            // Who does not trust the certificate does not come so far.
                            let Ok(stream) = tls.accept(stream).await else { return };
                            server.answer(stream).await;
                        }
                    }
                });
            }
        });
        server
    }

    async fn answer(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        assert!(head.starts_with(b"GET /keys.json?v=1 HTTP/1.1\r\n"), "{}", String::from_utf8_lossy(&head));
        self.asked.fetch_add(1, Ordering::SeqCst);
        let answer = self.answer.lock().clone();
        let _ = stream.write_all(answer.as_bytes()).await;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn source(&self, ca_file: Option<&Path>) -> KeySource {
        KeySource::Url { url: self.url.parse().unwrap(), ca_file: ca_file.map(Path::to_owned) }
    }
}

async fn start(dir: &Path, keys: KeySource, refresh: Refresh) -> Service {
    start_with(Config { viewers: Some(ViewersConfig { refresh, ..viewers(keys) }), ..config(dir) }).await.unwrap()
}

async fn me(service: &Service, key: &Key) -> Result<String, String> {
    let reply = service.send(service::with(Method::GET, "/me", &key.token(&claims("alice")), &Value::Null)).await;
    let json = reply.json();
    json["user"].as_str().map(str::to_owned).ok_or_else(|| json["type"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn an_unknown_key_is_asked_for_once_however_many_name_one() {
    let (old, new) = (Key::eddsa("old"), Key::es256("new"));
    let server = Server::start(ok(&jwks(&[&old])), None).await;
    let dir = directory();
    let service = start(dir.path(), server.source(None), Refresh { every: LONG, pause: Duration::from_millis(300) }).await;
    assert_eq!(me(&service, &old).await, Ok("alice".into()));
    assert_eq!(server.asked(), 1);

    *server.answer.lock() = ok(&jwks(&[&new]));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (a, b) = tokio::join!(me(&service, &new), me(&service, &new));
    assert_eq!((a, b), (Ok("alice".into()), Ok("alice".into())), "keys are changed without a restart and without a refusal");
    assert_eq!(server.asked(), 2);
    assert_eq!(
        me(&service, &old).await,
        Err("/problems/bad-token".into()),
        "a key that is gone verifies nothing, remembered or not"
    );
}

#[tokio::test]
async fn invented_keys_do_not_make_control_ask_again_and_again() {
    let known = Key::eddsa("known");
    let server = Server::start(ok(&jwks(&[&known])), None).await;
    let dir = directory();
    let service = start(dir.path(), server.source(None), Refresh { every: LONG, pause: LONG }).await;
    assert_eq!(me(&service, &known).await, Ok("alice".into()));
    for kid in ["a", "b", "c", "d", "e"] {
        assert_eq!(me(&service, &Key::eddsa(kid)).await, Err("/problems/bad-token".into()));
    }
    assert_eq!(server.asked(), 1);
}

#[tokio::test]
async fn while_there_are_no_keys_yet_viewers_are_asked_to_come_back() {
    let key = Key::eddsa("k");
    let server = Server::start("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n".into(), None).await;
    let dir = directory();
    let service = start(dir.path(), server.source(None), Refresh { every: LONG, pause: Duration::from_millis(100) }).await;
    assert_eq!(me(&service, &key).await, Err("/problems/no-keys".into()));
    for answer in [ok("{}"), ok("{\"keys\":[]}"), "HTTP/1.1 302 Found\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n".into()] {
        *server.answer.lock() = answer;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(me(&service, &key).await, Err("/problems/no-keys".into()));
    }
    let shared = Key::hs256("k", b"a secret of thirty-two bytes or more");
    *server.answer.lock() = ok(&jwks(&[&shared, &Key::eddsa("other")]));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(me(&service, &shared).await, Err("/problems/bad-token".into()), "a secret that anyone can fetch is none");
    *server.answer.lock() = ok(&jwks(&[&key]));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(me(&service, &key).await, Ok("alice".into()));
    *server.answer.lock() = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n".into();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(me(&service, &Key::eddsa("none")).await, Err("/problems/bad-token".into()));
    assert_eq!(me(&service, &key).await, Ok("alice".into()), "the last keys stay while the server is away");
}

#[tokio::test]
async fn keys_of_a_file_and_of_a_server_are_all_known() {
    let (shared, public) = (Key::hs256("shared", &[7; 32]), Key::eddsa("public"));
    let server = Server::start("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n".into(), None).await;
    let dir = directory();
    let file = dir.path().join("viewers.jwks");
    std::fs::write(&file, jwks(&[&shared])).unwrap();
    let refresh = Refresh { every: LONG, pause: Duration::from_millis(100) };
    let both = ViewersConfig { keys: vec![KeySource::File(file), server.source(None)], refresh, ..viewers(server.source(None)) };
    let service = start_with(Config { viewers: Some(both), ..config(dir.path()) }).await.unwrap();
    assert_eq!(me(&service, &shared).await, Ok("alice".into()), "the server's silence is no reason");
    *server.answer.lock() = ok(&jwks(&[&public, &Key::eddsa("shared")]));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(me(&service, &public).await, Ok("alice".into()));
    assert_eq!(me(&service, &shared).await, Ok("alice".into()), "the file's key of that name comes first");
}

#[tokio::test]
async fn keys_are_asked_for_at_intervals() {
    let (old, new) = (Key::eddsa("same"), Key::eddsa("same"));
    let server = Server::start(ok(&jwks(&[&old])), None).await;
    let dir = directory();
    let every = Duration::from_millis(1000);
    let service = start(dir.path(), server.source(None), Refresh { every, pause: Duration::from_millis(100) }).await;
    assert_eq!(me(&service, &old).await, Ok("alice".into()));
    *server.answer.lock() = ok(&jwks(&[&new]));
    let changed = async {
        while me(&service, &new).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), changed).await.expect("the new key of the old name is known");
    assert_eq!(me(&service, &old).await, Err("/problems/bad-token".into()), "what the old key verified is forgotten");
}

#[tokio::test]
async fn a_server_of_keys_must_show_a_certificate_of_a_trusted_authority() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let dir = directory();
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, made.cert.pem()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let private = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let tls = tls.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], private).unwrap();
    let key = Key::rs256("k");
    let server = Server::start(ok(&jwks(&[&key])), Some(TlsAcceptor::from(Arc::new(tls)))).await;
    let refresh = Refresh { every: LONG, pause: Duration::from_millis(100) };
    let trusting = start(dir.path(), server.source(Some(&ca)), refresh).await;
    assert_eq!(me(&trusting, &key).await, Ok("alice".into()));
    let other = directory();
    let not = start(other.path(), server.source(None), refresh).await;
    assert_eq!(me(&not, &key).await, Err("/problems/no-keys".into()));
    assert_eq!(server.asked(), 1, "the second one never got so far");
}

#[tokio::test]
async fn a_file_of_keys_must_be_there_and_is_read_anew() {
    let dir = directory();
    let file = dir.path().join("viewers.jwks");
    let open = async |text: Option<&str>| {
        if let Some(text) = text {
            std::fs::write(&file, text).unwrap();
        }
        let config = Config { viewers: Some(viewers(KeySource::File(file.clone()))), ..config(dir.path()) };
        Control::open(config).await.err().map(|error| error.to_string()).unwrap_or_default()
    };
    let begins = "cannot use the key set of viewers (viewers.jwks_file, viewers.jwks_ca_file): ";
    assert_eq!(open(None).await, format!("{begins}No such file or directory (os error 2)"));
    assert!(open(Some("{}")).await.starts_with(&format!("{begins}it is no JWK set (RFC 7517): missing field `keys`")));
    assert!(open(Some("{\"keys\":[{}]}")).await.starts_with(&format!("{begins}no key in it can verify")));
    assert!(open(Some(&" ".repeat(600_000))).await.starts_with(&format!("{begins}it is larger than 524288 bytes")));

    let (old, new) = (Key::hs256("old", &[1; 32]), Key::hs256("new", &[2; 32]));
    std::fs::write(&file, jwks(&[&old])).unwrap();
    let service =
        start(dir.path(), KeySource::File(file.clone()), Refresh { every: LONG, pause: Duration::from_millis(100) }).await;
    assert_eq!(me(&service, &old).await, Ok("alice".into()));
    std::fs::write(&file, jwks(&[&new])).unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(me(&service, &new).await, Ok("alice".into()));
    assert_eq!(me(&service, &old).await, Err("/problems/bad-token".into()));
}
