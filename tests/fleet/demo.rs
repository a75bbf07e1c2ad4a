//! The demo as a newcomer starts it, and what a test needs to know of it.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::OnceLock,
};

use serde::{Deserialize, Serialize};

/// What `larder demo --json` says once it is up.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ready {
    pub control: String,
    pub title: String,
    pub state: PathBuf,
    pub ca: PathBuf,
    pub spki: String,
    pub edges: Vec<String>,
}

/// A demo that runs; ended on drop.
pub struct Demo {
    child: Child,
    pub ready: Ready,
}

/// The state directory that the tests share, so that the clip is packaged once.
pub fn state() -> PathBuf {
    static STATE: OnceLock<PathBuf> = OnceLock::new();
    STATE.get_or_init(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("demo")).clone()
}

impl Demo {
    pub fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_larder"))
            .args(["demo", "--json", "--state"])
            .arg(state())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let out = BufReader::new(child.stdout.take().expect("piped"));
        for line in out.lines() {
            let line = line.expect("text");
            if let Ok(ready) = serde_json::from_str(&line) {
                return Self { child, ready };
            }
        }
        panic!("the demo ended before it was ready: {:?}", child.wait());
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}
