//! A real browser plays the demo's title over HTTP/3.

use std::{fs, path::Path, process::Command};

use crate::demo::Demo;

#[test]
fn the_page_plays_ten_seconds_in_chromium_with_every_segment_over_h3() {
    let demo = Demo::start();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let artifacts = root.join("artifacts");
    fs::create_dir_all(&artifacts).expect("a folder");
    let edges: Vec<_> = demo.ready.edges.iter().map(|edge| edge.trim_start_matches("https://")).collect();
    let output = Command::new("node")
        .arg(root.join("tests/browser/play.mjs"))
        .args(["--control", &demo.ready.control, "--edge", &edges.join(","), "--spki", &demo.ready.spki, "--artifacts"])
        .arg(&artifacts)
        .output()
        .expect("node runs; `make test` installs it");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{out}{err}");
    assert!(output.status.success(), "{out}\n{err}");
    let last: serde_json::Value = serde_json::from_str(out.lines().last().unwrap_or_default()).expect("a JSON line");
    assert_eq!(last["ok"], true, "{last}");
    assert!(last["playedSeconds"].as_f64().is_some_and(|seconds| seconds >= 10.0), "{last}");
    assert_eq!(last["protocols"], serde_json::json!(["h3"]), "{last}");
}
