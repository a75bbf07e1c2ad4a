//! An edge is upgraded while it serves: another process of the same program takes its sockets over, and players notice nothing.

use std::{
    collections::HashSet,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::net::UnixDatagram,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use edge::http::{Protocol, client::Connection};
use http::{HeaderMap, Method};
use tempfile::TempDir;

use crate::support::{EdgeFiles, connect, free_port};

const SLICE: usize = 256 << 10;
const LENGTH: usize = 2 * SLICE + 100_000;
/// No wait is longer, and none takes so long unless it fails.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn an_upgrade_under_load_loses_no_request_and_no_byte() {
    let site = Site::new();
    let first = site.start();
    let load = Arc::new(Load::default());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let edge = runtime.block_on(async {
        let mut edge = first;
        let players: Vec<_> = Protocol::ALL
            .into_iter()
            .flat_map(|protocol| (0..2).map(move |number| (protocol, number)))
            .map(|(protocol, number)| tokio::spawn(play(protocol, number, site.addr(), site.tls.clone(), load.clone())))
            .collect();
        for generation in 1..=3 {
            load.answers_more(30).await;
            edge = tokio::task::block_in_place(|| site.upgrade(edge)).expect("an upgrade");
            tokio::task::block_in_place(|| site.is_of(generation));
        }
        load.answers_more(30).await;
        load.is_over.store(true, Ordering::SeqCst);
        for player in players {
            player.await.expect("nothing was lost");
        }
        edge
    });
    let [answers, moves] = [&load.answers, &load.moves].map(|count| count.load(Ordering::SeqCst));
    println!("{answers} answers of {LENGTH} bytes; players moved to another connection {moves} times");
    assert!(moves >= 6, "each player moved at least once: {moves}");
    edge.stop();
}

#[test]
fn a_download_over_http3_that_began_before_an_upgrade_ends_right_after_it() {
    let site = Site::new();
    let edge = site.start();
    site.origin.holds(true);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let connection = runtime.block_on(connect(Protocol::Http3, site.addr(), &site.tls));
    let (mut body, mut received) = runtime.block_on(async {
        let (_, mut body) = send(&connection, "/films/long").await.expect("an answer");
        let received = body.next().await.expect("bytes").expect("bytes").to_vec();
        (body, received)
    });
    let before = edge.id;
    let edge = site.upgrade(edge).expect("an upgrade");
    assert_ne!(edge.id, before);
    site.origin.holds(false);
    runtime.block_on(async {
        let newcomer = connect(Protocol::Http3, site.addr(), &site.tls).await;
        fetch(&newcomer, "/films/other").await.expect("an answer").expect("whole");
        while let Some(chunk) = body.next().await {
            received.extend_from_slice(&chunk.expect("the rest comes"));
        }
    });
    assert!(received == content("/films/long"));
    assert!(site.metric("larder_edge_upgrade_forwarded_datagrams_total") > 0);
    // The process before ends by itself once it has nobody any more.
    site.elder_ends();
    edge.stop();
}

#[test]
fn a_configuration_or_a_program_that_does_not_work_leaves_the_edge_as_it_was() {
    let site = Site::new();
    let mut edge = site.start();
    let good = fs::read_to_string(site.path("edge.toml")).expect("a configuration");
    for (bad, why) in [
        (good.replace("[cache]", "[cache]\nram = 7\nnonsense = 1"), "edge.toml"),
        (format!("workers = 7\n{good}"), "workers is 7"),
    ] {
        fs::write(site.path("edge.toml"), bad).expect("written");
        let (same, error) = site.upgrade(edge).expect_err("it cannot serve");
        edge = same;
        assert!(error.contains(why), "{error}");
    }
    fs::write(site.path("edge.toml"), &good).expect("written");
    let program = fs::read(site.path("larder")).expect("the program");
    for (bad, why) in [(&b"#!/bin/sh\nexit 3\n"[..], "exit status: 3"), (b"no program", "cannot start")] {
        site.install(bad);
        let (same, error) = site.upgrade(edge).expect_err("it is no edge");
        edge = same;
        assert!(error.contains(why), "{error}");
    }
    assert_eq!(site.metric("larder_edge_generation"), 0);
    site.install(&program);
    let edge = site.upgrade(edge).expect("an upgrade");
    site.is_of(1);
    edge.stop();
}

/// What players have come to.
#[derive(Default)]
struct Load {
    answers: AtomicU64,
    moves: AtomicU64,
    is_over: AtomicBool,
}

impl Load {
    async fn answers_more(&self, count: u64) {
        let wanted = self.answers.load(Ordering::SeqCst) + count;
        let reached = async {
            while self.answers.load(Ordering::SeqCst) < wanted {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, reached).await.expect("players get on");
    }
}

/// Asks for one object after the other. Connects anew only when a connection says that it closes, before it has taken a request.
async fn play(protocol: Protocol, number: u64, addr: SocketAddr, tls: Arc<rustls::ClientConfig>, load: Arc<Load>) {
    let mut connection = connect(protocol, addr, &tls).await;
    for film in 0.. {
        let path = format!("/films/{}", (film * 7 + number) % 40);
        let answer = match fetch(&connection, &path).await {
            Some(answer) => answer,
            // HTTP/1.1 has said so by its answer before.
            None => {
                assert_ne!(protocol, Protocol::Http1, "a request was lost");
                connection = moved(protocol, addr, &tls, &load).await;
                fetch(&connection, &path).await.expect("a new connection takes a request")
            }
        };
        let is_last = answer.expect("the whole answer");
        load.answers.fetch_add(1, Ordering::SeqCst);
        if load.is_over.load(Ordering::SeqCst) {
            return;
        }
        if is_last {
            connection = moved(protocol, addr, &tls, &load).await;
        }
    }
}

async fn moved(protocol: Protocol, addr: SocketAddr, tls: &Arc<rustls::ClientConfig>, load: &Load) -> Connection {
    load.moves.fetch_add(1, Ordering::SeqCst);
    connect(protocol, addr, tls).await
}

async fn send(connection: &Connection, path: &str) -> Option<(http::response::Parts, edge::http::client::ClientBody)> {
    connection.send(Method::GET, "127.0.0.1", path, HeaderMap::new()).await.ok()
}

/// `None` if there was no answer; an error if it broke off or is wrong; else whether the connection says that it closes.
async fn fetch(connection: &Connection, path: &str) -> Option<Result<bool, String>> {
    let (head, mut body) = send(connection, path).await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = body.next().await {
        match chunk {
            Ok(chunk) => bytes.extend_from_slice(&chunk),
            Err(error) => return Some(Err(format!("{path} broke off after {}: {error}", bytes.len()))),
        }
    }
    if head.status != 200 || bytes != content(path) {
        return Some(Err(format!("{path} is wrong: {}, {} bytes", head.status, bytes.len())));
    }
    Some(Ok(head.headers.get("connection").is_some_and(|value| value == "close")))
}

/// An edge's files, its origin, and what its processes tell the service manager.
struct Site {
    dir: TempDir,
    port: u16,
    admin_port: u16,
    tls: Arc<rustls::ClientConfig>,
    origin: Arc<Origin>,
    told: UnixDatagram,
    /// The process that was started first.
    first: Mutex<Option<Child>>,
    /// All that have been there, to be killed if a test fails.
    all: Mutex<HashSet<u32>>,
}

/// The process that serves.
#[derive(Debug)]
struct Process {
    id: u32,
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let origin = Origin::start();
        let (port, admin_port) = (free_port(), free_port());
        let files = EdgeFiles {
            port,
            admin_port,
            origin_port: origin.port,
            open_paths: &["/films/"],
            cache: "ram = \"64MiB\"\nslice = \"256KiB\"",
        };
        let tls = files.write(dir.path());
        // It must say where the old configuration says how many.
        let config = fs::read_to_string(dir.path().join("edge.toml")).expect("a configuration");
        fs::write(dir.path().join("edge.toml"), format!("{config}\n[limits]\ndrain_timeout = \"2m\"\n")).expect("written");
        let told = UnixDatagram::bind(dir.path().join("notify")).expect("a socket");
        told.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let site = Self { dir, port, admin_port, tls, origin, told, first: Mutex::default(), all: Mutex::default() };
        // Another name of the same file: an upgrade replaces the name, not the file.
        let binary = env!("CARGO_BIN_EXE_larder");
        if fs::hard_link(binary, site.path("larder")).is_err() {
            fs::copy(binary, site.path("larder")).expect("copied");
        }
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// As dpkg does it.
    fn install(&self, program: &[u8]) {
        use std::os::unix::fs::PermissionsExt;
        let new = self.path("larder.new");
        fs::write(&new, program).expect("written");
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).expect("permitted");
        fs::rename(new, self.path("larder")).expect("installed");
    }

    fn start(&self) -> Process {
        let log = fs::File::create(self.path("log")).expect("a log file");
        let child = Command::new(self.path("larder"))
            .args(["edge", "--config"])
            .arg(self.path("edge.toml"))
            .env("NOTIFY_SOCKET", self.path("notify"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the binary starts");
        let id = child.id();
        *self.first.lock().expect("no panic") = Some(child);
        self.all.lock().expect("no panic").insert(id);
        assert_eq!(self.hear(), ["READY=1"]);
        Process { id }
    }

    /// What comes of a SIGUSR2: another process, or the same and why.
    fn upgrade(&self, process: Process) -> Result<Process, (Process, String)> {
        process.signal("USR2");
        let reloading = self.hear();
        assert!(reloading[0] == "RELOADING=1" && reloading[1].starts_with("MONOTONIC_USEC="), "{reloading:?}");
        let told = self.hear();
        assert!(told.iter().any(|line| line == "READY=1"), "{told:?}");
        match told.iter().find_map(|line| line.strip_prefix("MAINPID=")) {
            Some(id) => {
                let id = id.parse().expect("a process ID");
                self.all.lock().expect("no panic").insert(id);
                Ok(Process { id })
            }
            None => Err((process, told.join(" "))),
        }
    }

    /// The lines of the next message to the service manager.
    fn hear(&self) -> Vec<String> {
        let mut message = [0; 8192];
        let length = self.told.recv(&mut message).unwrap_or_else(|error| {
            panic!("nothing is told: {error}\n{}", fs::read_to_string(self.path("log")).unwrap_or_default())
        });
        String::from_utf8_lossy(&message[..length]).lines().map(str::to_owned).collect()
    }

    /// Waits until the process that was started first has ended well.
    fn elder_ends(&self) {
        let mut first = self.first.lock().expect("no panic").take().expect("it was started");
        self.all.lock().expect("no panic").remove(&first.id());
        assert!(first.wait().expect("its child").success());
    }

    /// Waits until operators are answered by the process of that generation: a moment after the hand-over the elder may still do so.
    fn is_of(&self, generation: u64) {
        let late = Instant::now() + PATIENCE;
        while self.metric("larder_edge_generation") != generation {
            assert!(Instant::now() < late, "operators are not answered by generation {generation}");
        }
    }

    fn metric(&self, name: &str) -> u64 {
        let mut stream = TcpStream::connect(("127.0.0.1", self.admin_port)).expect("connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        write!(stream, "GET /metrics HTTP/1.1\r\nhost: edge\r\nconnection: close\r\n\r\n").expect("asks");
        let mut page = String::new();
        stream.read_to_string(&mut page).expect("a page");
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} is not there")).parse().expect("a number")
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for id in self.all.lock().map(|all| all.clone()).unwrap_or_default() {
            let _ = Command::new("kill").args(["-KILL", &id.to_string()]).stderr(Stdio::null()).status();
        }
        if let Some(mut first) = self.first.lock().ok().and_then(|mut first| first.take()) {
            let _ = first.wait();
        }
    }
}

impl Process {
    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([format!("-{name}"), self.id.to_string()]).status().expect("kill runs").success());
    }

    fn stop(self) {
        self.signal("TERM");
    }
}

/// The bytes of the object with this path: others for each, and nowhere the same.
fn content(path: &str) -> Vec<u8> {
    let mut state =
        path.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let mut bytes = Vec::with_capacity(LENGTH + 8);
    while bytes.len() < LENGTH {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(LENGTH);
    bytes
}

/// An origin that has every object, and can hold answers after their first bytes.
struct Origin {
    port: u16,
    holds: Mutex<bool>,
    releasing: Condvar,
}

impl Origin {
    fn start() -> Arc<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let origin = Arc::new(Self { port, holds: Mutex::new(false), releasing: Condvar::new() });
        let serving = origin.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let origin = serving.clone();
                // A connection ends when the edge closes it, or breaks.
                thread::spawn(move || stream.and_then(|stream| origin.serve(stream)));
            }
        });
        origin
    }

    fn holds(&self, holds: bool) {
        *self.holds.lock().expect("no panic") = holds;
        self.releasing.notify_all();
    }

    fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        loop {
            let mut head = Vec::new();
            for line in lines.by_ref() {
                let line = line?;
                if line.is_empty() {
                    break;
                }
                head.push(line.to_lowercase());
            }
            let Some(path) = head.first().and_then(|line| line.split(' ').nth(1)) else { return Ok(()) };
            let range = head.iter().find_map(|line| line.strip_prefix("range: bytes=")?.split_once('-'));
            let (first, last) = range.expect("an edge asks for slices");
            let (first, last): (usize, usize) = (first.parse().expect("a number"), last.parse().expect("a number"));
            let bytes = &content(path)[first..LENGTH.min(last + 1)];
            write!(
                stream,
                "HTTP/1.1 206 Partial\r\netag: \"{path}\"\r\ncache-control: max-age=86400\r\ncontent-range: bytes {first}-{}/{LENGTH}\r\n\
                 content-length: {}\r\n\r\n",
                first + bytes.len() - 1,
                bytes.len()
            )?;
            let (now, later) = bytes.split_at(1000.min(bytes.len()));
            stream.write_all(now)?;
            let holds = self.holds.lock().expect("no panic");
            drop(self.releasing.wait_while(holds, |holds| *holds).expect("no panic"));
            stream.write_all(later)?;
        }
    }
}
