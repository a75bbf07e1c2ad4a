//! `larder demo --once --json`: the main job, end to end, as the command itself judges it, and its answer judged here.

use std::{fs, path::Path, process::Command};

use serde_json::Value;

use crate::demo::state;

#[test]
fn the_whole_title_plays_twice_over_h3_with_every_byte_right_and_the_second_time_from_ram() {
    let (state, _turn) = state();
    for edge in ["edge-a", "edge-b"] {
        // A former run's edges may have left what they had. Where there was none there is nothing to remove.
        let _ = fs::remove_dir_all(state.join(edge));
        let _ = fs::remove_file(state.join(format!("{edge}.ssd")));
    }
    let cold = once(&state);
    let segments = cold["segments"].as_u64().expect("a number");
    assert!(segments >= 30, "a minute in segments of four seconds, picture and sound: {cold}");
    assert!(cold["bytes"].as_u64().is_some_and(|bytes| bytes > 1_000_000), "{cold}");
    assert!(count(&cold, "first_pass", "origin") >= segments, "the edge was empty: {cold}");
    // The same edges, stopped and started again.
    let warm = once(&state);
    assert!(count(&warm, "first_pass", "ssd") >= segments, "the edge kept what it had: {warm}");
    assert_eq!(count(&warm, "first_pass", "origin"), 0, "{warm}");
    for run in [cold, warm] {
        assert!(count(&run, "second_pass", "ram") >= segments, "{run}");
        for tier in ["ssd", "peer", "origin"] {
            assert_eq!(count(&run, "second_pass", tier), 0, "{run}");
        }
        assert!(run["ttfb_ms_p50"].as_f64().is_some_and(|ms| ms > 0.0), "{run}");
    }
}

/// What a run that ended well says last.
fn once(state: &Path) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_larder"))
        .args(["demo", "--once", "--json", "--state"])
        .arg(state)
        .output()
        .expect("the binary runs");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    let last: Value = serde_json::from_str(out.lines().last().unwrap_or_default()).expect("a JSON line");
    assert_eq!((&last["ok"], &last["protocol"], &last["mismatches"]), (&true.into(), &"h3".into(), &0.into()), "{last}");
    last
}

fn count(run: &Value, pass: &str, tier: &str) -> u64 {
    run[pass][tier].as_u64().unwrap_or_else(|| panic!("{pass}.{tier} in {run}"))
}
