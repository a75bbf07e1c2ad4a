//! An edge, its players, and tokens for them.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use edge::{
    Edge,
    config::Config,
    handover::Handover,
    http::{
        Protocol,
        client::{ClientError, Connection},
    },
};
use http::{HeaderMap, HeaderName, Method, StatusCode};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wire::{
    config::Document,
    object::ObjectPath,
    token::{Algorithm, Claims, SigningKey, in_path, sign},
};

use crate::origin::{Origin, SECRET};

/// What the edge of the tests caches by.
pub(crate) const SLICE: usize = 256 << 10;
pub(crate) const ISSUER: &str = "test";
const RAM_ALONE: &str = "ram = \"16MiB\", slice = \"256KiB\"";
/// Players reach the edge by this name, whichever port it has.
pub(crate) const AUTHORITY: &str = "edge.example";

/// Beside the name of a test's RAM tier, what makes an SSD tier of `device-0`, `device-1` … of 64 MiB each, in segments of 4 MiB.
pub(crate) fn with_devices(ram: &str, count: usize) -> String {
    let devices: Vec<_> = (0..count).map(|at| format!("{{ path = \"DIR/device-{at}\", size = \"64MiB\" }}")).collect();
    format!(
        "ram = \"{ram}\", slice = \"256KiB\", segment = \"4MiB\", state_dir = \"DIR/state\", devices = [{}]",
        devices.join(", ")
    )
}

/// An edge that runs.
pub(crate) struct Running {
    pub(crate) addr: SocketAddr,
    pub(crate) admin_addr: SocketAddr,
    pub(crate) origin: Origin,
    pub(crate) key: SigningKey,
    pub(crate) stop: CancellationToken,
    pub(crate) task: Run,
    pub(crate) handover: Handover,
    client_tls: Arc<rustls::ClientConfig>,
    config: Config,
    dir: TempDir,
}

/// Files that an edge needs, in a directory: a certificate, keys, secrets.
pub(crate) fn files() -> (TempDir, SigningKey) {
    let dir = tempfile::tempdir().expect("a directory");
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()]).expect("a certificate");
    let key = SigningKey::generate(Algorithm::EdDsa, "key-1").expect("a key");
    for (name, text) in [
        ("edge.crt", made.cert.pem()),
        ("edge.key", made.signing_key.serialize_pem()),
        ("keys.json", serde_json::json!({ "keys": [key.public_jwk()] }).to_string()),
        ("renewal.jwk", key.to_jwk()),
        ("fill.token", format!("{SECRET}\n")),
        ("edge.token", "the-secret-of-edges".into()),
    ] {
        fs::write(dir.path().join(name), text).expect("writes");
    }
    (dir, key)
}

/// A configuration with these files; `more` is appended, where keys of `[origin]` may stand.
pub(crate) fn config(dir: &Path, origin: SocketAddr, more: &str) -> Config {
    config_of(dir, origin, RAM_ALONE, more)
}

/// As [`config`], with what stands in `cache`.
fn config_of(dir: &Path, origin: SocketAddr, cache: &str, more: &str) -> Config {
    let dir = dir.display().to_string();
    let (cache, more) = (cache.replace("DIR", &dir), more.replace("DIR", &dir));
    let text = format!(
        r#"name = "edge-a"
site = "site-1"
listen = "127.0.0.1:0"
admin_listen = "127.0.0.1:0"
public_url = "https://{AUTHORITY}"
workers = 2
tls = {{ certificate_file = "{dir}/edge.crt", key_file = "{dir}/edge.key" }}
tokens = {{ keys_file = "{dir}/keys.json", issuer = "{ISSUER}", open_paths = ["/open/"], renewal_key_file = "{dir}/renewal.jwk" }}
cache = {{ {cache} }}
[origin]
url = "http://{origin}"
token_file = "{dir}/fill.token"
{more}
"#
    );
    let mut document = Document::parse(&text).expect("TOML");
    let config = Config::read(&mut document);
    document.finish().expect("a good configuration");
    config.expect("a good configuration")
}

/// Starts an edge in front of an origin that holds nothing yet.
pub(crate) async fn start() -> Running {
    start_with("").await
}

/// As [`start`], with `more` in its configuration.
pub(crate) async fn start_with(more: &str) -> Running {
    start_of(RAM_ALONE, more).await
}

/// As [`start`], with what stands in `cache`.
pub(crate) async fn start_of(cache: &str, more: &str) -> Running {
    let (dir, key) = files();
    let origin = Origin::start().await;
    let config = config_of(dir.path(), origin.addr, cache, more);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(dir.path().join("edge.crt")).expect("a certificate")).expect("usable");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("TLS");
    let client_tls = Arc::new(builder.with_root_certificates(roots).with_no_client_auth());
    let edge = Edge::open(config.clone()).await.expect("opens");
    let (addr, admin_addr, handover, stop) = (edge.addr(), edge.admin_addr(), edge.handover(), CancellationToken::new());
    let task = tokio::spawn(edge.run(stop.clone()));
    Running { addr, admin_addr, origin, key, stop, task, handover, client_tls, config, dir }
}

pub(crate) type Run = JoinHandle<std::io::Result<()>>;

pub(crate) fn now_unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

impl Running {
    pub(crate) async fn connect(&self, protocol: Protocol) -> Connection {
        self.try_connect(protocol).await.expect("connects")
    }

    pub(crate) async fn try_connect(&self, protocol: Protocol) -> Result<Connection, ClientError> {
        Connection::connect(protocol, self.addr, "127.0.0.1", self.client_tls.clone()).await
    }

    /// A token for everything below `/titles`, good for an hour.
    pub(crate) fn token(&self) -> String {
        self.token_by(&self.key, "/titles", now_unix_s() + 3600)
    }

    pub(crate) fn token_by(&self, key: &SigningKey, root: &str, expires_unix_s: u64) -> String {
        let root = ObjectPath::new(root).expect("a path");
        let claims = Claims { iss: Some(ISSUER.into()), ..Claims::for_tree(&root, expires_unix_s) };
        sign(key, &claims).expect("signs")
    }

    /// The path of an object, with a good token in it.
    pub(crate) fn signed(&self, path: &str) -> String {
        in_path("", &self.token(), &ObjectPath::new(path).expect("a path"))
    }

    /// Asks operators' questions.
    pub(crate) async fn admin(&self, path: &'static str) -> (u16, String) {
        let addr = self.admin_addr;
        let asking = tokio::task::spawn_blocking(move || {
            let mut stream = TcpStream::connect(addr).expect("the admin listener is up");
            write!(stream, "GET {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n\r\n").expect("writes");
            let mut text = String::new();
            stream.read_to_string(&mut text).expect("text");
            text
        });
        let text = asking.await.expect("no panic");
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        (status, text.split_once("\r\n\r\n").expect("a body").1.to_owned())
    }

    /// The value of a metric, by its name and labels as Prometheus reads them; 0 if it is not there.
    pub(crate) async fn metric(&self, name: &str) -> u64 {
        let (_, page) = self.admin("/metrics").await;
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse::<f64>().ok());
        line.map_or(0, |value| value as u64)
    }

    /// Waits until a metric, which is counted after the client has all, has this value.
    pub(crate) async fn metric_becomes(&self, name: &str, expected: u64) {
        let mut last = 0;
        for _ in 0..500 {
            last = self.metric(name).await;
            if last == expected {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{name} is {last} and not {expected}");
    }

    /// Ends the edge and starts it again, on other ports, with the same files.
    pub(crate) async fn start_again(&mut self) {
        self.stop.cancel();
        (&mut self.task).await.expect("no panic").expect("ends well");
        let edge = Edge::open(self.config.clone()).await.expect("opens");
        self.goes_on_as(edge);
    }

    /// Runs `edge` in place of the one that ran, and gives what that one ends in.
    pub(crate) fn goes_on_as(&mut self, edge: Edge) -> Run {
        self.stop = CancellationToken::new();
        (self.addr, self.admin_addr, self.handover) = (edge.addr(), edge.admin_addr(), edge.handover());
        std::mem::replace(&mut self.task, tokio::spawn(edge.run(self.stop.clone())))
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// A file of the edge's.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Ends the edge and waits for it.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.task.await.expect("no panic").expect("ends well");
    }
}

/// An answer, and its body as far as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) is_broken: bool,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

pub(crate) async fn get(connection: &Connection, path: &str) -> Answer {
    ask(connection, Method::GET, path, &[]).await
}

/// Asks and reads the whole answer, which has at least a head.
pub(crate) async fn ask(connection: &Connection, method: Method, path: &str, headers: &[(&'static str, &str)]) -> Answer {
    try_ask(connection, method, path, headers).await.expect("an answer")
}

/// Asks and reads the answer as far as it comes. A stream that is reset may lose even its head (RFC 9000 §3.2).
pub(crate) async fn try_ask(
    connection: &Connection,
    method: Method,
    path: &str,
    headers: &[(&'static str, &str)],
) -> Result<Answer, ClientError> {
    let headers = headers.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().expect("a value"))).collect();
    let (head, mut chunks) = connection.send(method, AUTHORITY, path, headers).await?;
    let mut answer = Answer { status: head.status, headers: head.headers, body: Vec::new(), is_broken: false };
    while let Some(chunk) = chunks.next().await {
        match chunk {
            Ok(chunk) => answer.body.extend_from_slice(&chunk),
            Err(_) => {
                answer.is_broken = true;
                break;
            }
        }
    }
    Ok(answer)
}
