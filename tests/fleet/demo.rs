//! The demo as a newcomer starts it, and what a test needs to know of it.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde::Deserialize;
use wire::title::Title;

/// What `larder demo --json` says once it is up.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Ready {
    pub(crate) control: String,
    pub(crate) title: String,
    pub(crate) state: PathBuf,
    pub(crate) ca: PathBuf,
    pub(crate) spki: String,
    pub(crate) edges: Vec<String>,
}

/// A demo that runs; ended on drop.
pub(crate) struct Demo {
    child: Child,
    _turn: File,
    pub(crate) ready: Ready,
}

/// The state directory that the tests share, so that the clip is packaged once; and the right to run a demo in it, which is one test's at a
/// time, whether tests are threads or processes.
pub(crate) fn state() -> (PathBuf, File) {
    let state = Path::new(env!("CARGO_TARGET_TMPDIR")).join("demo");
    fs::create_dir_all(&state).expect("a directory");
    let turn = File::create(state.with_extension("turn")).expect("a file");
    turn.lock().expect("a turn");
    (state, turn)
}

impl Demo {
    pub(crate) fn start() -> Self {
        let (state, turn) = state();
        let mut child = Command::new(env!("CARGO_BIN_EXE_larder"))
            .args(["demo", "--json", "--state"])
            .arg(state)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let out = BufReader::new(child.stdout.take().expect("piped"));
        for line in out.lines() {
            let line = line.expect("text");
            if let Ok(ready) = serde_json::from_str(&line) {
                return Self { child, _turn: turn, ready };
            }
        }
        panic!("the demo ended before it was ready: {:?}", child.wait());
    }
}

impl Demo {
    /// Where the key is that signs the demo's tokens.
    pub(crate) fn signing_key(&self) -> PathBuf {
        self.ready.state.join("signing.jwk")
    }

    /// The title as the origin stored it.
    pub(crate) fn stored_title(&self) -> Title {
        let titles = fs::read_dir(self.ready.state.join("origin/titles")).expect("the origin's titles");
        titles
            .map(|folder| fs::read(folder.expect("a folder").path().join(".title.json")).expect("a published title"))
            .map(|json| serde_json::from_slice::<Title>(&json).expect("a title"))
            .find(|title| title.id.as_str() == self.ready.title)
            .expect("the demo's title is published")
    }

    /// The first-ranked signed URL of a segment of the best video rendition, from control's API.
    pub(crate) fn cdn_url(&self, segment: u32) -> String {
        let answer = self.control(&format!("/videos/{}/cdn-url?segment={segment}", self.ready.title));
        answer["urls"][0].as_str().unwrap_or_else(|| panic!("a URL in {answer}")).to_owned()
    }

    /// Control's answer to a GET, over HTTP/1.0: the body is all that follows the head.
    pub(crate) fn control(&self, path: &str) -> serde_json::Value {
        let addr = self.ready.control.trim_start_matches("http://").trim_end_matches('/');
        let mut stream = TcpStream::connect(addr).expect("control listens");
        write!(stream, "GET {path} HTTP/1.0\r\nhost: {addr}\r\n\r\n").expect("writes");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{error} in {head}\n\n{body}"))
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}
