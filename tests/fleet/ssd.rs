//! An edge with devices as its operator has it: killed, started again, purged, verified, with a device that fails.

use std::{
    collections::HashMap,
    fs::{self, OpenOptions},
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::FileExt,
    path::PathBuf,
    process::{Command, Stdio},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use edge::http::{Protocol, client::Connection};
use http::{HeaderMap, Method, header};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{EdgeFiles, Role, connect, free_port};

const SLICE: usize = 256 << 10;
/// Bytes of every object: three slices.
const LENGTH: usize = 2 * SLICE + 100_000;
const SLICES: u64 = 3;
/// Where slices begin on a device.
const PAGE: usize = 4096;
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn what_was_written_is_served_after_kill_9_without_an_origin() {
    let site = Site::new(2);
    let edge = site.start();
    let paths: Vec<_> = (0..30).map(|number| format!("/films/{number}")).collect();
    let runtime = runtime();
    runtime.block_on(async {
        let connection = site.connect(Protocol::Http2).await;
        for (number, path) in paths.iter().enumerate() {
            assert!(get(&connection, path).await.contains("fwd=miss"));
            site.ssd_holds((number as u64 + 1) * SLICES);
        }
    });
    // More comes, and is read, in the moment that it is killed.
    let kill = thread::spawn({
        let origin = site.origin.clone();
        let asked = origin.asked();
        move || {
            origin.is_asked(asked + 10);
            drop(edge);
        }
    });
    runtime.block_on(async {
        let connection = site.connect(Protocol::Http1).await;
        for number in 30..500 {
            if try_get(&connection, &format!("/films/{number}")).await.is_none() {
                break;
            }
        }
        assert!(try_get(&connection, "/films/0").await.is_none(), "it is dead");
    });
    kill.join().expect("no panic");

    let edge = site.start();
    site.origin.is_away(true);
    let asked = site.origin.asked();
    runtime.block_on(async {
        for protocol in Protocol::ALL {
            let connection = site.connect(protocol).await;
            let mut from_ssd = 0;
            for path in &paths {
                let told = get(&connection, path).await;
                assert!(told.starts_with("edge-a; hit; detail="), "{path} over {protocol:?}: {told}");
                from_ssd += usize::from(told.ends_with("ssd"));
            }
            assert!(from_ssd >= 20, "{from_ssd} of 30 from SSD");
        }
    });
    assert_eq!(site.origin.asked(), asked);
    assert_eq!(site.stat()["ssd"]["rejected"], 0);
    let verified = site.cache("verify --json");
    assert_eq!((verified.code, &verified.json()["fault_count"]), (Some(0), &0.into()), "{verified:?}");
    assert!(verified.json()["slices"].as_u64().is_some_and(|slices| slices >= 30 * SLICES), "{verified:?}");
    assert!(edge.stop().success());
}

#[test]
fn purges_by_object_prefix_tag_and_all_hold_at_once_and_after_restarts() {
    const PATHS: [&str; 4] = ["/films/red/1", "/films/red/2", "/films/blue/1", "/films/blue/2"];
    let site = Site::new(2);
    let mut edge = site.start();
    let runtime = runtime();
    // Which of the four are asked of the origin by a pass over them.
    let asked_by_a_pass = || {
        let before = site.origin.asked_for();
        runtime.block_on(async {
            let connection = site.connect(Protocol::Http3).await;
            for path in PATHS {
                get(&connection, path).await;
            }
        });
        let after = site.origin.asked_for();
        let count = |asked: &HashMap<String, u64>, path: &str| asked.get(path).copied().unwrap_or(0);
        PATHS.map(|path| count(&after, path) - count(&before, path))
    };
    assert_eq!(asked_by_a_pass(), [SLICES; 4]);
    for (arguments, purged, told) in [
        ("--object /films/red/2", [false, true, false, false], "purged the object /films/red/2\n"),
        ("--prefix /films/blue/", [false, false, true, true], "purged all objects whose paths begin with /films/blue/\n"),
        ("--tag red", [true, true, false, false], "purged all objects with the tag red\n"),
        ("--all --yes", [true; 4], "purged everything\n"),
    ] {
        let wanted = purged.map(|is_purged| u64::from(is_purged) * SLICES);
        for way in ["at once", "after a restart", "after kill -9"] {
            site.ssd_holds_all_of(4 * SLICES);
            let said = site.cache(&format!("purge {arguments}"));
            assert!(said.code == Some(0) && said.out.starts_with(told), "{said:?}");
            match way {
                "at once" => {}
                "after a restart" => {
                    assert!(edge.stop().success());
                    edge = site.start();
                }
                _ => {
                    drop(edge);
                    edge = site.start();
                }
            }
            assert_eq!(asked_by_a_pass(), wanted, "{arguments} {way}");
            assert_eq!(asked_by_a_pass(), [0; 4], "{arguments} {way}, once more");
        }
    }
    assert!(edge.stop().success());
}

#[test]
fn a_purge_counts_for_what_is_being_filled_in_that_moment() {
    let site = Site::new(1);
    let edge = site.start();
    let runtime = runtime();
    for (arguments, name) in [("--object /held/o", "o"), ("--prefix /held/p", "p"), ("--tag held", "t"), ("--all --yes", "a")] {
        let path = format!("/held/{name}");
        let asked_for = || site.origin.asked_for().get(&path).copied().unwrap_or(0);
        site.origin.holds(true);
        runtime.block_on(async {
            let connection = site.connect(Protocol::Http2).await;
            let (_, mut body) = send(&connection, &path).await.expect("an answer");
            let first = body.next().await.expect("bytes").expect("bytes");
            let before = asked_for();
            assert!(before > 0 && first.len() < SLICE);
            let said = site.cache(&format!("purge --json {arguments}"));
            assert_eq!(said.code, Some(0), "{said:?}");
            site.origin.holds_only_what_it_holds();
            let told = get(&connection, &path).await;
            assert!(told.contains("fwd=miss"), "{told}");
            assert!(asked_for() >= before + SLICES, "the fill under way is not what the next viewer gets");
            site.origin.holds(false);
            let mut bytes = first.to_vec();
            while let Some(chunk) = body.next().await {
                bytes.extend_from_slice(&chunk.expect("the one who came first is served all the same"));
            }
            assert!(bytes == content(&path));
            let asked = asked_for();
            assert!(get(&connection, &path).await.contains("; hit; "));
            assert_eq!(asked_for(), asked);
        });
    }
    assert!(edge.stop().success());
}

#[test]
fn a_flipped_byte_is_found_told_and_never_served() {
    let site = Site::new(2);
    let edge = site.start();
    let runtime = runtime();
    let paths: Vec<_> = (0..20).map(|number| format!("/films/{number}")).collect();
    runtime.block_on(async {
        let connection = site.connect(Protocol::Http2).await;
        for (number, path) in paths.iter().enumerate() {
            get(&connection, path).await;
            site.ssd_holds((number as u64 + 1) * SLICES);
        }
    });
    let running = site.cache("verify --offline --config");
    running.failed(1, &["open", "state"]);
    assert!(edge.stop().success());
    let right = site.cache("verify --offline --json --config");
    assert_eq!((right.code, &right.json()["slices"]), (Some(0), &(20 * SLICES).into()), "{right:?}");

    let device = site.flip(&content("/films/7")[SLICE..SLICE + 200]);
    for arguments in ["verify --offline --config", "verify --offline --json --config"] {
        let wrong = site.cache(arguments);
        wrong.failed(1, &["one fault; it is not served to anybody"]);
        for word in
            [device.to_str().expect("text"), "segment ", "page ", "slice 1 of /films/7: its checksums do not fit its bytes"]
        {
            assert!(wrong.out.contains(word), "no {word:?} in {wrong:?}");
        }
    }
    let edge = site.start();
    let wrong = site.cache("verify --json");
    assert_eq!(
        (wrong.code, &wrong.json()["fault_count"], &wrong.json()["slices"]),
        (Some(1), &1.into(), &59.into()),
        "{wrong:?}"
    );
    assert_eq!(site.cache("verify").code, Some(0), "what is wrong was forgotten");

    // And one that nobody looked for.
    site.flip(&content("/films/3")[..200]);
    let asked = site.origin.asked();
    runtime.block_on(async {
        let connection = site.connect(Protocol::Http1).await;
        for path in &paths {
            get(&connection, path).await;
        }
    });
    assert_eq!(site.origin.asked(), asked + 2, "only the slices that are wrong are filled anew");
    assert_eq!(site.stat()["ssd"]["devices"][0]["state"]["state"], "serving", "one record is forgiven");
    assert!(edge.stop().success());
}

#[test]
fn an_operator_sees_a_device_given_up_and_takes_it_back() {
    let site = Site::new(3);
    let mut edge = site.start();
    let runtime = runtime();
    let pass = || {
        runtime.block_on(async {
            let connection = site.connect(Protocol::Http3).await;
            for number in 0..30 {
                get(&connection, &format!("/films/{number}")).await;
            }
        });
    };
    pass();
    site.ssd_holds_all_of(1);
    let lost = site.path("device-2");
    let cut = || OpenOptions::new().write(true).open(&lost).and_then(|file| file.set_len(0)).expect("cut");
    assert!(!site.cache("devices").out.contains("GIVEN UP"));
    cut();
    pass();
    for is_started_again in [false, true] {
        if is_started_again {
            assert!(edge.stop().success());
            edge = site.start();
            pass();
        }
        let told = site.cache("devices").out;
        for line in [
            format!("{}  GIVEN UP\n", lost.display()),
            format!("  then    once it is mended: larder cache devices --restore {}\n", lost.display()),
            format!("{}  serving\n", site.path("device-0").display()),
        ] {
            assert!(told.contains(&line), "no {line:?} in {told}");
        }
        assert_eq!(told.matches("  why     ").count(), 1, "{told}");
        let json = site.cache("devices --json").json();
        assert_eq!((&json["devices"][2]["state"]["state"], &json["devices"][2]["bytes_used"]), (&"given_up".into(), &0.into()));
    }
    // Gone for good: it cannot be taken back as a directory, and then it can as a blank file.
    fs::remove_file(&lost).expect("removed");
    fs::create_dir(&lost).expect("a directory");
    let restore = format!("devices --restore {}", lost.display());
    site.cache(&restore).failed(1, &["neither a file nor a block device"]);
    fs::remove_dir(&lost).expect("removed");
    let said = site.cache(&restore);
    assert!(said.code == Some(0) && said.out.contains("is taken back"), "{said:?}");
    site.cache(&restore).failed(1, &["serves"]);
    pass();
    assert!(!site.cache("devices").out.contains("GIVEN UP"));
    // Before the restart, it may still be on its way to the state directory.
    assert!(edge.stop().success());
    edge = site.start();
    assert!(!site.cache("devices").out.contains("GIVEN UP"));
    pass();
    let stat = site.cache("stat").out;
    for line in ["SSD\n  driver  ", "  refused  ", "  amplification    "] {
        assert!(stat.contains(line), "no {line:?} in {stat}");
    }
    assert!(edge.stop().success());
}

/// An edge's files, and an origin that is the test's own.
struct Site {
    dir: TempDir,
    port: u16,
    tls: Arc<rustls::ClientConfig>,
    origin: Arc<Origin>,
}

/// What a command said, and its exit code.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Said {
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(self.out.lines().last().unwrap_or_default()).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    #[track_caller]
    fn failed(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        for word in words {
            assert!(self.err.contains(word), "{word:?} is not in {self:?}");
        }
    }
}

impl Site {
    /// With so many devices of 40 MiB.
    fn new(devices: usize) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let (origin, port, admin_port) = (Origin::start(), free_port(), free_port());
        let folder = dir.path().display();
        let device = |at| format!("{{ path = \"{folder}/device-{at}\", size = \"40MiB\" }}");
        let devices = (0..devices).map(device).collect::<Vec<_>>().join(", ");
        let cache = format!(
            "ram = \"6MiB\"\nslice = \"256KiB\"\nsegment = \"4MiB\"\nstate_dir = \"{folder}/state\"\ndevices = [{devices}]"
        );
        let open_paths = &["/films/", "/held/"];
        let tls = EdgeFiles { port, admin_port, origin_port: origin.port, open_paths, cache: &cache }.write(dir.path());
        Self { dir, port, tls, origin }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn start(&self) -> Role {
        Role::start("edge", &self.path("edge.toml"))
    }

    async fn connect(&self, protocol: Protocol) -> Connection {
        connect(protocol, SocketAddr::from(([127, 0, 0, 1], self.port)), &self.tls).await
    }

    /// `larder cache …`, told where the edge is by its configuration.
    fn cache(&self, arguments: &str) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
        command.arg("cache").args(arguments.split_whitespace().filter(|word| *word != "--config"));
        let output = command.arg("--config").arg(self.path("edge.toml")).stdin(Stdio::null()).output().expect("the binary runs");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    fn stat(&self) -> Value {
        self.cache("stat --json").json()
    }

    /// Waits until so many slices are on devices.
    #[track_caller]
    fn ssd_holds(&self, slices: u64) {
        self.ssd_becomes(|ssd| ssd["slices"] == slices);
    }

    /// Waits until so many slices are on devices at least, and none is on its way there.
    #[track_caller]
    fn ssd_holds_all_of(&self, slices: u64) {
        self.ssd_becomes(|ssd| ssd["bytes_queued"] == 0 && ssd["slices"].as_u64() >= Some(slices));
    }

    #[track_caller]
    fn ssd_becomes(&self, is_so: impl Fn(&Value) -> bool) {
        let begun = Instant::now();
        loop {
            let stat = self.stat();
            if is_so(&stat["ssd"]) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{stat}");
        }
    }

    /// Flips the first byte of a slice that begins with `bytes`, and says on which device it stands.
    fn flip(&self, bytes: &[u8]) -> PathBuf {
        for device in ["device-0", "device-1"].map(|name| self.path(name)) {
            let all = fs::read(&device).expect("a device");
            if let Some(page) = all.chunks(PAGE).position(|page| page.starts_with(bytes)) {
                let file = OpenOptions::new().write(true).open(&device).expect("a device");
                file.write_all_at(&[bytes[0] ^ 1], (page * PAGE) as u64).and_then(|()| file.sync_all()).expect("flipped");
                return device;
            }
        }
        panic!("it is on no device");
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

type Answer = (http::response::Parts, edge::http::client::ClientBody);

async fn send(connection: &Connection, path: &str) -> Option<Answer> {
    connection.send(Method::GET, "127.0.0.1", path, HeaderMap::new()).await.ok()
}

/// Reads an object, whose bytes must be right, and gives its `Cache-Status`. `None` where the connection breaks.
async fn try_get(connection: &Connection, path: &str) -> Option<String> {
    let (head, mut body) = send(connection, path).await?;
    assert_eq!(head.status, 200, "{path}: {:?}", head.headers);
    let mut bytes = Vec::new();
    while let Some(chunk) = body.next().await {
        bytes.extend_from_slice(&chunk.ok()?);
    }
    assert!(bytes == content(path), "{path}: wrong bytes");
    let told = head.headers.get("cache-status").expect("a Cache-Status").to_str().expect("text");
    assert_eq!(head.headers[header::CONTENT_LENGTH], LENGTH.to_string());
    Some(told.to_owned())
}

async fn get(connection: &Connection, path: &str) -> String {
    try_get(connection, path).await.unwrap_or_else(|| panic!("{path} is broken off"))
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

/// An origin that has every object, with the last folder of its path as its tag, and knows what it was asked.
struct Origin {
    port: u16,
    asked: Mutex<HashMap<String, u64>>,
    asking: Condvar,
    is_away: AtomicBool,
    /// Whether new answers are held after their first bytes, and those that are held already.
    holds: Mutex<(bool, bool)>,
    releasing: Condvar,
}

impl Origin {
    fn start() -> Arc<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let origin = Arc::new(Self {
            port: listener.local_addr().expect("bound").port(),
            asked: Mutex::default(),
            asking: Condvar::new(),
            is_away: AtomicBool::new(false),
            holds: Mutex::default(),
            releasing: Condvar::new(),
        });
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

    fn asked(&self) -> u64 {
        self.asked_for().values().sum()
    }

    fn asked_for(&self) -> HashMap<String, u64> {
        self.asked.lock().expect("no panic").clone()
    }

    /// Waits until it was asked so often.
    fn is_asked(&self, count: u64) {
        let asked = self.asked.lock().expect("no panic");
        drop(self.asking.wait_while(asked, |asked| asked.values().sum::<u64>() < count).expect("no panic"));
    }

    fn is_away(&self, is_away: bool) {
        self.is_away.store(is_away, Ordering::SeqCst);
    }

    fn holds(&self, holds: bool) {
        *self.holds.lock().expect("no panic") = (holds, holds);
        self.releasing.notify_all();
    }

    fn holds_only_what_it_holds(&self) {
        self.holds.lock().expect("no panic").0 = false;
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
            if self.is_away.load(Ordering::SeqCst) {
                return Ok(());
            }
            *self.asked.lock().expect("no panic").entry(path.to_owned()).or_default() += 1;
            self.asking.notify_all();
            let is_held = self.holds.lock().expect("no panic").0;
            let range = head.iter().find_map(|line| line.strip_prefix("range: bytes=")?.split_once('-'));
            let (first, last) = range.expect("an edge asks for slices");
            let (first, last): (usize, usize) = (first.parse().expect("a number"), last.parse().expect("a number"));
            let bytes = &content(path)[first..LENGTH.min(last + 1)];
            let tag = path.split('/').rev().nth(1).expect("a folder");
            write!(
                stream,
                "HTTP/1.1 206 Partial\r\netag: \"{path}\"\r\ncache-control: max-age=86400\r\ncache-tag: every, {tag}\r\n\
                 content-range: bytes {first}-{}/{LENGTH}\r\ncontent-length: {}\r\n\r\n",
                first + bytes.len() - 1,
                bytes.len()
            )?;
            let (now, later) = bytes.split_at(if is_held { 1000 } else { bytes.len() });
            stream.write_all(now)?;
            if is_held {
                let holds = self.holds.lock().expect("no panic");
                drop(self.releasing.wait_while(holds, |(_, held)| *held).expect("no panic"));
            }
            stream.write_all(later)?;
        }
    }
}
