//! Players that are steered: unmodified ones in a browser, one of HLS and one of DASH, through a fleet of processes in which an edge is drained, one
//! is killed and one comes back; and an edge that is asked for more than it can do, which leaves the rankings while it still serves.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use edge::http::{Protocol, client::Connection};
use http::{HeaderMap, Method, StatusCode};
use rcgen::PublicKeyData as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use wire::object::Digest;

use crate::{
    cli::words,
    support::{Role, certificate, connect, free_port},
};

/// Long enough for all that a browser sees of it, on a machine that is busy with other things.
const FILM_S: u32 = 240;
/// How long anything may take that nobody tells of.
const PATIENCE: Duration = Duration::from_secs(120);

/// Control, an origin with a film, and edges, each at a site of its own.
struct Fleet {
    dir: TempDir,
    control_port: u16,
    origin_port: u16,
    edges: Vec<Edge>,
    control: Role,
    _origin: Role,
    video: String,
    tls: Arc<rustls::ClientConfig>,
}

struct Edge {
    name: &'static str,
    port: u16,
    role: Role,
}

impl Fleet {
    /// Players follow a ranking for a second.
    fn start(film_s: u32) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let path = |name: &str| dir.path().join(name);
        for name in ["fill", "operator", "edge"] {
            fs::write(path(name), secret(name)).expect("writes");
        }
        let (_, _, tls) = certificate(dir.path());
        let here = dir.path().display();
        let key = words(&format!("sign --new-key EdDSA --kid test --out {here}/signing.jwk --public-out {here}/keys.json"));
        assert_eq!(key.code, Some(0), "{key:?}");
        let (control_port, origin_port) = (free_port(), free_port());
        let control_file = format!(
            "role = \"control\"\nlisten = \"127.0.0.1:{control_port}\"\nstate_dir = \"{here}/control\"\ntoken_issuer = \"test\"\n\
             signing_key_file = \"{here}/signing.jwk\"\noperator_token_file = \"{here}/operator\"\nedge_token_file = \"{here}/edge\"\n\
             [steering]\nttl = \"1s\"\n[cors]\nallowed_origins = [\"*\"]\n"
        );
        let origin_file = format!(
            "role = \"origin\"\nlisten = \"127.0.0.1:{origin_port}\"\nstate_dir = \"{here}/origin\"\nfill_token_file = \"{here}/fill\"\n\
             [control]\nurl = \"http://127.0.0.1:{control_port}\"\ntoken_file = \"{here}/operator\"\n"
        );
        fs::write(path("control.toml"), control_file).expect("writes");
        fs::write(path("origin.toml"), origin_file).expect("writes");
        let [control, origin] = ["control", "origin"].map(|role| Role::start(role, &path(&format!("{role}.toml"))));
        let film = film(dir.path(), film_s);
        let ingested = words(&format!("ingest --json --title Film --config {here}/origin.toml {}", film.display()));
        assert_eq!(ingested.code, Some(0), "{ingested:?}");
        let video = ingested.json()["id"].as_str().expect("an id").to_owned();
        Self { dir, control_port, origin_port, edges: Vec::new(), control, _origin: origin, video, tls }
    }

    /// Starts an edge at a site of the same name, with more at the top of its configuration, and waits until viewers are sent there.
    fn start_edge(&mut self, name: &'static str, more: &str) {
        let (here, port) = (self.dir.path().display(), free_port());
        let Self { control_port, origin_port, .. } = self;
        let config = format!(
            "role = \"edge\"\nname = \"{name}\"\nsite = \"{name}\"\nlisten = \"127.0.0.1:{port}\"\nadmin_listen = \"127.0.0.1:0\"\n\
             public_url = \"https://127.0.0.1:{port}\"\nworkers = 1\n{more}\n\
             [tls]\ncertificate_file = \"{here}/edge.crt\"\nkey_file = \"{here}/edge.key\"\n\
             [tokens]\nkeys_file = \"{here}/keys.json\"\nissuer = \"test\"\n[cache]\nram = \"64MiB\"\n\
             [origin]\nurl = \"http://127.0.0.1:{origin_port}\"\ntoken_file = \"{here}/fill\"\n\
             [control]\nurl = \"http://127.0.0.1:{control_port}\"\ntoken_file = \"{here}/edge\"\nreport_every = \"250ms\"\n\
             content_every = \"500ms\"\n"
        );
        let file = self.dir.path().join(format!("{name}.toml"));
        fs::write(&file, config).expect("writes");
        let role = Role::start("edge", &file);
        self.edges.push(Edge { name, port, role });
        self.becomes(|fleet| fleet.ranked().iter().any(|edge| edge == name));
    }

    /// Control's answer, over HTTP/1.0: the body is all that follows the head.
    fn ask(&self, method: &str, path: &str) -> (u16, Value) {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, self.control_port));
        let mut stream = TcpStream::connect(addr).expect("control listens");
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nhost: {addr}\r\nauthorization: Bearer {}\r\ncontent-length: 0\r\n\r\n",
            secret("operator")
        )
        .expect("writes");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        (status, serde_json::from_str(body).unwrap_or_default())
    }

    fn playback(&self) -> Value {
        self.ask("GET", &format!("/videos/{}/playback", self.video)).1
    }

    /// Where a viewer would be sent, best first.
    fn ranked(&self) -> Vec<String> {
        let playback = self.playback();
        playback["edges"].as_array().into_iter().flatten().map(|edge| edge["edge"].as_str().expect("a name").to_owned()).collect()
    }

    /// Waits until it is so, and says how long that took.
    fn becomes(&self, is_so: impl Fn(&Self) -> bool) -> Duration {
        let begun = Instant::now();
        while !is_so(self) {
            assert!(begun.elapsed() < PATIENCE, "it does not become so; control ranks {:?}\n{}", self.ranked(), self.logs());
            std::thread::park_timeout(Duration::from_millis(50));
        }
        begun.elapsed()
    }

    /// What the roles said, for whoever looks for a fault.
    fn logs(&self) -> String {
        let names = ["control", "origin"].into_iter().chain(self.edges.iter().map(|edge| edge.name));
        let log = |name: &str| fs::read_to_string(self.dir.path().join(name).with_extension("log")).unwrap_or_default();
        names.map(|name| format!("--- {name}\n{}", log(name))).collect()
    }

    fn edge(&self, name: &str) -> &Edge {
        self.edges.iter().find(|edge| edge.name == name).expect("it was started")
    }

    /// SHA-256 of the edges' public key, in base64: by this Chromium is told to trust their certificate.
    fn spki(&self) -> String {
        let pem = fs::read_to_string(self.dir.path().join("edge.key")).expect("a key");
        let key = rcgen::KeyPair::from_pem(&pem).expect("a key");
        BASE64_STANDARD.encode(Digest::of(&key.subject_public_key_info()).as_bytes())
    }

    /// Plays the film in a browser by this player ("hls", "dash"), while an edge is drained, the next one is killed, and then one that was drained
    /// when the playback began is all that is left. Gives what the script found.
    fn watch(&self, player: &str, late: &str) -> Value {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let edges = self.edges.iter().map(|edge| json!({ "name": edge.name, "port": edge.port, "pid": edge.role.id() }));
        let plan = json!({
            "player": player, "late": late, "control": format!("http://127.0.0.1:{}", self.control_port), "video": self.video, "spki": self.spki(),
            "secret": secret("operator"), "edges": edges.collect::<Vec<_>>(),
        });
        let output = Command::new("node")
            .arg(root.join("tests/browser/steer.mjs"))
            .arg(plan.to_string())
            .output()
            .expect("node runs; `make test` installs it");
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        println!("{out}{err}");
        assert!(output.status.success(), "{out}\n{err}");
        serde_json::from_str(out.lines().last().unwrap_or_default()).expect("a JSON line")
    }
}

/// Who asks is known by what is asked with.
fn secret(whose: &str) -> String {
    format!("a-secret-that-only-a-test-has-{whose}")
}

/// A film whose segments are small: what is tested is where they come from.
fn film(dir: &Path, seconds: u32) -> PathBuf {
    let path = dir.join("film.mp4");
    let made = Command::new("ffmpeg")
        .args("-nostdin -y -loglevel error".split(' '))
        .args(
            format!("-f lavfi -i testsrc2=size=320x180:rate=10:duration={seconds} -f lavfi -i sine=duration={seconds}")
                .split(' '),
        )
        .args("-c:v libx264 -preset ultrafast -pix_fmt yuv420p -c:a aac".split(' '))
        .arg(&path)
        .status()
        .expect("ffmpeg runs; `make test` installs it");
    assert!(made.success());
    path
}

#[test]
fn an_unmodified_hls_player_goes_where_it_is_sent_and_leaves_an_edge_that_is_killed() {
    plays_on_wherever_it_is_sent("hls");
}

/// As in HLS, with one difference that is the player's: it tries a segment four times in three seconds before it leaves a killed edge.
#[test]
fn an_unmodified_dash_player_goes_where_it_is_sent_and_leaves_an_edge_that_is_killed() {
    plays_on_wherever_it_is_sent("dash");
}

fn plays_on_wherever_it_is_sent(player: &str) {
    let mut fleet = Fleet::start(FILM_S);
    for name in ["edge-a", "edge-b", "edge-c", "edge-d"] {
        fleet.start_edge(name, "");
    }
    let late = "edge-d";
    let (status, answer) = fleet.ask("POST", &format!("/fleet/edges/{late}/drain"));
    assert!((200..300).contains(&status), "{status} {answer}");
    fleet.becomes(|fleet| fleet.ranked().len() == 3);
    let found = fleet.watch(player, late);
    assert_eq!((&found["ok"], found["moves"].as_array().map(Vec::len)), (&json!(true), Some(3)), "{found}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_that_is_asked_for_more_than_it_can_do_leaves_while_it_still_serves_and_comes_back() {
    let mut fleet = tokio::task::spawn_blocking(|| Fleet::start(20)).await.expect("no panic");
    let fleet = tokio::task::spawn_blocking(move || {
        fleet.start_edge("small", "capacity = \"1Mbit/s\"");
        fleet.start_edge("large", "capacity = \"10Gbit/s\"");
        fleet
    });
    let fleet = fleet.await.expect("no panic");
    let small = fleet.edge("small").port;
    let url = {
        let playback = fleet.playback();
        let edges = playback["edges"].as_array().expect("edges").clone();
        let hls =
            edges.iter().find(|edge| edge["edge"] == "small").expect("it is ranked")["hls"].as_str().expect("a URL").to_owned();
        hls[..hls.rfind('/').expect("a path")].split_once(&format!(":{small}")).expect("its port").1.to_owned()
            + "/v180/00001.m4s"
    };
    let connection = connect(Protocol::Http2, (Ipv4Addr::LOCALHOST, small).into(), &fleet.tls).await;
    let begun = Instant::now();
    let mut bytes = 0;
    loop {
        bytes += fetched(&connection, small, &url).await;
        let ranked = tokio::task::block_in_place(|| fleet.ranked());
        if ranked == ["large"] {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "it does not leave; control ranks {ranked:?} after {bytes} bytes");
    }
    let left = begun.elapsed();
    assert!(fetched(&connection, small, &url).await > 0, "it still serves whoever comes");
    let back = tokio::task::block_in_place(|| fleet.becomes(|fleet| fleet.ranked().len() == 2));
    println!("left after {} ms and {bytes} bytes, back {} ms after the last of them", left.as_millis(), back.as_millis());
    tokio::task::block_in_place(|| explained_and_replayed(fleet));
}

/// What operators ask of what has happened: why a viewer is sent where he is, and what it would have been without a site.
fn explained_and_replayed(fleet: Fleet) {
    let Fleet { dir, control_port, control, video, .. } = fleet;
    let here = dir.path().display();
    let explained = words(&format!(
        "steer explain --json --control http://127.0.0.1:{control_port} --token-file {here}/operator --client 203.0.113.7 --video {video}"
    ));
    assert_eq!(explained.code, Some(0), "{explained:?}");
    assert_eq!(explained.json()["candidates"].as_array().map(Vec::len), Some(2), "{explained:?}");
    assert!(control.stop().success());
    let replayed = words(&format!("steer replay --json --decisions {here}/control/decisions --without-site small"));
    assert_eq!(replayed.code, Some(0), "{replayed:?}");
    let outcome = replayed.json();
    let count = |name: &str| outcome[name].as_u64().unwrap_or_else(|| panic!("{name} in {outcome}"));
    assert!(count("decisions") > 0 && count("decisions") >= count("moved"), "{outcome}");
    let small = outcome["sites"].as_array().into_iter().flatten().find(|site| site["site"] == "small").expect("it is told");
    assert_eq!(small["sessions"]["after"], 0, "{outcome}");
}

/// The bytes of an object, all of which come.
async fn fetched(connection: &Connection, port: u16, path: &str) -> usize {
    let sent = connection.send(Method::GET, &format!("127.0.0.1:{port}"), path, HeaderMap::new()).await;
    let (head, mut chunks) = sent.expect("an answer");
    assert_eq!(head.status, StatusCode::OK, "{path}");
    let mut bytes = 0;
    while let Some(chunk) = chunks.next().await {
        bytes += chunk.expect("bytes").len();
    }
    bytes
}
