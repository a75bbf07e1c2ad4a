//! `larder replay` as an operator meets it.

use std::fmt::Write as _;

use serde_json::Value;

use crate::cli::{folder, words};

/// A hundred objects of 2 MB, asked for one after the other, twice.
fn trace() -> String {
    (0..200).fold("time,object,kilobytes\n".to_owned(), |mut trace, at| {
        writeln!(trace, "{at},film-{},2000", at % 100).expect("writes");
        trace
    })
}

#[test]
fn a_trace_is_replayed_through_both_tiers() {
    let dir = folder([("trace.csv", &trace())]);
    let file = dir.path().join("trace.csv").display().to_string();
    let replayed = |arguments: &str| {
        let said = words(&format!("replay {file} --json {arguments}"));
        assert_eq!(said.code, Some(0), "{said:?}");
        said.json()
    };
    let all = replayed("--ram 1GiB");
    for (member, value) in [("requests", 200), ("objects", 100), ("bytes", 400_000_000), ("firstRequests", 100)] {
        assert_eq!(all[member], value, "{all}");
    }
    assert_eq!(
        (&all["byteHitRatio"], &all["objectHitRatioRam"], &all["bytesOrigin"]),
        (&0.5.into(), &0.5.into(), &200_000_000.into())
    );

    let none = replayed("--ram 0");
    assert_eq!((&none["byteHitRatio"], &none["writeAmplification"]), (&0.0.into(), &Value::Null));

    let both = replayed("--ram 16MiB --ssd 1GiB");
    assert_eq!(both["objectHitRatio"], 0.5, "{both}");
    assert!(both["byteHitRatioSsd"].as_f64().is_some_and(|ratio| ratio > 0.4), "{both}");
    assert_eq!(both["writeAmplification"], 1.0);

    assert_eq!(replayed("--limit 100")["byteHitRatio"], 0.0);

    let text = words(&format!("replay {file} --ram 16MiB --ssd 1GiB"));
    for words in ["first requests: 50.00 % of all", "RAM 16MiB", "together", "from the origin              0.2 GB"] {
        assert!(text.out.contains(words), "{words:?} is not in {}", text.out);
    }
}

#[test]
fn policies_are_compared_side_by_side() {
    let dir = folder([("trace.csv", &trace())]);
    let file = dir.path().join("trace.csv").display().to_string();
    let said = words(&format!("replay {file} --compare --sizes 128MiB,1GiB --segment 8MiB --json"));
    assert_eq!(said.code, Some(0), "{said:?}");
    let sizes = said.json()["sizes"].as_array().expect("sizes").clone();
    assert_eq!(sizes.len(), 2);
    for size in &sizes {
        let policies = size["policies"].as_array().expect("policies");
        let names: Vec<_> = policies.iter().filter_map(|standing| standing["policy"].as_str()).collect();
        assert_eq!(names, ["lru", "fifo", "s3fifo", "sieve", "lfu", "ram", "ssd", "farthest"]);
    }
    let ratio = |size: usize, policy: usize| sizes[size]["policies"][policy]["byteHitRatio"].as_f64().expect("a ratio");
    assert!((0..8).all(|policy| ratio(1, policy) == 0.5), "all fits: {sizes:?}");
    assert_eq!(ratio(0, 0), 0.0, "a loop that does not fit is nothing to LRU");
    assert!(ratio(0, 7) > 0.3, "who knows the future keeps what fits");

    let table = words(&format!("replay {file} --compare --ssd 1GiB"));
    for words in ["hit ratio of bytes", "farthest", "1GiB", "write amplification of ssd: 1GiB 1.00"] {
        assert!(table.out.contains(words), "{words:?} is not in {}", table.out);
    }
}

#[test]
fn what_cannot_be_replayed_is_named() {
    let dir = folder([("short.csv", "1,a,1\n2,b\n"), ("empty.csv", ""), ("trace.csv", &trace())]);
    let at = |name: &str| dir.path().join(name).display().to_string();
    words(&format!("replay {}", at("short.csv")))
        .failed(1, &["short.csv: line 2: expected time,object,kilobytes, found \"2,b\""]);
    words(&format!("replay {}", at("empty.csv"))).failed(1, &["empty.csv holds no requests"]);
    words(&format!("replay {}", at("missing.csv"))).failed(1, &["missing.csv", "No such file"]);
    for (arguments, word) in [
        ("--ssd 64MiB", "less than eight segments"),
        ("--slice 100KiB", "--slice is a power of two"),
        ("--segment 1MiB", "four slices"),
        ("--compare --sizes 5GiB,10MiB", "10MiB is less than"),
        ("--sizes 5GiB", "--compare"),
        ("--policy best", "s3fifo"),
        ("--ram much", "KiB"),
    ] {
        words(&format!("replay {} {arguments}", at("trace.csv"))).failed(2, &[word]);
    }
}
