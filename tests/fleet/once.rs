//! `larder demo --once --json`: the main job, end to end, as the command itself judges it, and its answer judged here.

use std::process::Command;

use crate::demo::state;

#[test]
fn the_whole_title_plays_twice_over_h3_with_every_byte_right_and_the_second_time_from_ram() {
    let (state, _turn) = state();
    let output = Command::new(env!("CARGO_BIN_EXE_larder"))
        .args(["demo", "--once", "--json", "--state"])
        .arg(state)
        .output()
        .expect("the binary runs");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    let last: serde_json::Value = serde_json::from_str(out.lines().last().unwrap_or_default()).expect("a JSON line");
    assert_eq!((&last["ok"], &last["protocol"], &last["mismatches"]), (&true.into(), &"h3".into(), &0.into()), "{last}");
    let count = |pass: &str, tier: &str| last[pass][tier].as_u64().unwrap_or_else(|| panic!("{pass}.{tier} in {last}"));
    let segments = last["segments"].as_u64().expect("a number");
    assert!(segments >= 30, "a minute in segments of four seconds, picture and sound: {last}");
    assert!(last["bytes"].as_u64().is_some_and(|bytes| bytes > 1_000_000), "{last}");
    assert!(count("first_pass", "origin") >= segments, "the edge was empty: {last}");
    assert!(count("second_pass", "ram") >= segments, "{last}");
    for tier in ["ssd", "peer", "origin"] {
        assert_eq!(count("second_pass", tier), 0, "{last}");
    }
    assert!(last["ttfb_ms_p50"].as_f64().is_some_and(|ms| ms > 0.0), "{last}");
}
