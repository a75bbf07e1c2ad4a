//! What tests share: films made by ffmpeg, one packaged title, and a client that sends and expects bytes.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use origin::{
    Config, Counters, Origin,
    ingest::{Ingest, IngestError, Progress, ingest},
    store::FileStore,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::OnceCell,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use wire::title::Title;

pub(crate) const SECRET: &str = "secret-of-edges-0123456789";

/// A packaged film of ten seconds, 320x180 at 29.97 frames a second, with an English and a German track.
pub(crate) struct Film {
    pub(crate) source: PathBuf,
    pub(crate) state_dir: PathBuf,
    pub(crate) store: FileStore,
    pub(crate) title: Title,
}

impl Film {
    pub(crate) fn folder(&self) -> PathBuf {
        self.state_dir.join(self.title.root.relative())
    }

    pub(crate) fn read(&self, path: &str) -> Vec<u8> {
        fs::read(self.folder().join(path)).unwrap()
    }
}

/// Made once for all tests of a process.
pub(crate) async fn film() -> &'static Film {
    static FILM: OnceCell<Film> = OnceCell::const_new();
    FILM.get_or_init(async || {
        let folder = own_folder("film");
        let source = folder.join("film.mp4");
        ffmpeg(
            "-f lavfi -i testsrc2=s=320x180:r=30000/1001:d=10 -f lavfi -i sine=d=10:r=44100 -f lavfi -i sine=d=10:f=880 \
             -map 0 -map 1 -map 2 -c:v libx264 -preset ultrafast -c:a aac \
             -metadata:s:a:0 language=eng -metadata:s:a:1 language=ger -metadata:s:a:1 title=Kommentar -movflags +faststart",
            &source,
        );
        let state_dir = folder.join("state");
        let store = FileStore::open(&state_dir).unwrap();
        let title = ingest_file(&store, &source).await.unwrap();
        Film { source, state_dir, store, title }
    })
    .await
}

/// An empty folder that is this process's own until it ends: tests may run in processes side by side.
fn own_folder(name: &str) -> PathBuf {
    let (folder, lock) = (0..)
        .map(|number| Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{number}")))
        .find_map(|folder| {
            let lock = fs::File::create(folder.with_extension("lock")).unwrap();
            lock.try_lock().is_ok().then_some((folder, lock))
        })
        .unwrap();
    // The kernel lets go of the lock when the process ends.
    std::mem::forget(lock);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

pub(crate) fn request(input: &Path) -> Ingest {
    Ingest { input: input.to_owned(), title: "A film".into(), ..Ingest::default() }
}

pub(crate) async fn ingest_file(store: &FileStore, input: &Path) -> Result<Title, IngestError> {
    ingest(store, request(input), &mut |_: Progress| ()).await
}

/// Runs ffmpeg with words, and writes to `output`.
pub(crate) fn ffmpeg(words: &str, output: &Path) {
    let mut file = std::ffi::OsString::from("file:");
    file.push(output);
    let words = words.split_whitespace().map(OsStr::new);
    let made = Command::new("ffmpeg").args(["-v", "error", "-nostdin", "-y"]).args(words).arg(file).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// What ffprobe says about `input`.
pub(crate) fn ffprobe(words: &str, input: &Path) -> String {
    let said = Command::new("ffprobe").args(["-v", "error"]).args(words.split_whitespace()).arg(input).output().unwrap();
    assert!(said.status.success() && said.stderr.is_empty(), "{}", String::from_utf8_lossy(&said.stderr));
    String::from_utf8(said.stdout).unwrap()
}

/// No title is there, and nothing is left of the attempt to make one.
pub(crate) fn assert_nothing_left(state_dir: &Path) {
    for folder in ["titles", "fingerprints", "staging"] {
        let names = fs::read_dir(state_dir.join(folder)).unwrap().map(|entry| entry.unwrap().file_name());
        let names: Vec<_> = names.filter(|name| name != ".lock").collect();
        assert!(names.is_empty(), "{folder}: {names:?}");
    }
}

/// An origin that runs until it is dropped.
pub(crate) struct Running {
    pub(crate) addr: std::net::SocketAddr,
    pub(crate) counters: Arc<Counters>,
    pub(crate) stop: CancellationToken,
    pub(crate) ended: JoinHandle<std::io::Result<()>>,
    _token_dir: tempfile::TempDir,
}

pub(crate) async fn run(state_dir: &Path, connections_max: u32) -> Running {
    let token_dir = tempfile::tempdir().unwrap();
    let fill_token_file = token_dir.path().join("token");
    fs::write(&fill_token_file, format!("{SECRET}\n")).unwrap();
    let listen = "127.0.0.1:0".parse().unwrap();
    let config = Config { listen, state_dir: state_dir.to_owned(), fill_token_file, connections_max, control: None };
    let origin = Origin::open(config).await.unwrap();
    let (addr, counters, stop) = (origin.addr(), origin.counters(), CancellationToken::new());
    let ended = tokio::spawn(origin.run(stop.clone()));
    Running { addr, counters, stop, ended, _token_dir: token_dir }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A connection on which raw requests are sent.
pub(crate) struct Client(pub(crate) TcpStream);

/// An answer as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().filter_map(|line| line.split_once(": ")).find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v)
    }
}

impl Client {
    pub(crate) async fn new(running: &Running) -> Self {
        Self(TcpStream::connect(running.addr).await.unwrap())
    }

    pub(crate) async fn send(&mut self, bytes: &str) {
        self.0.write_all(bytes.as_bytes()).await.unwrap();
    }

    /// Sends a request with the right token and returns its answer.
    pub(crate) async fn ask(&mut self, method: &str, path: &str, headers: &str) -> Answer {
        self.send(&authorized(method, path, headers)).await;
        self.answer(method == "HEAD").await
    }

    /// Reads one answer; after a `HEAD`, without a body.
    pub(crate) async fn answer(&mut self, head_only: bool) -> Answer {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.0.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        let status = head[9..12].parse().unwrap();
        let mut answer = Answer { status, head, body: Vec::new() };
        if !head_only && status != 304 {
            let length: usize = answer.header("content-length").expect("every body has a length").parse().unwrap();
            answer.body.resize(length, 0);
            self.0.read_exact(&mut answer.body).await.unwrap();
        }
        answer
    }
}

pub(crate) fn authorized(method: &str, path: &str, headers: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: origin\r\nAuthorization: Bearer {SECRET}\r\n{headers}\r\n")
}
