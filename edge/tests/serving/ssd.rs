//! An edge with devices: what RAM does not hold, what outlasts a restart, and what a device takes with it when it fails.

use std::{
    collections::HashSet,
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use edge::http::{Protocol, client::Connection};
use futures_util::future::join_all;
use http::{Method, StatusCode};
use serde_json::Value;

use crate::{
    admin::{HOST, JSON, tell},
    origin::Object,
    support::{Running, SLICE, ask, get, start_of, with_devices},
};

/// A record's slice and its head, in bytes.
const RECORD: u64 = (SLICE + 4096) as u64;
const SSD: &str = "edge-a; hit; detail=ssd";

fn path(number: usize) -> String {
    format!("/titles/t/{number:05}.m4s")
}

/// Objects of so many bytes, each with bytes of its own, known to the origin.
fn put(edge: &Running, count: usize, length: usize) -> Vec<Object> {
    let object = |number| Object { etag: format!("\"n{number}\""), ..Object::new(length + number, number as u64) };
    let objects: Vec<_> = (0..count).map(object).collect();
    for (number, object) in objects.iter().enumerate() {
        edge.origin.put(&path(number), object.clone());
    }
    objects
}

/// Reads them all, one after the other, and waits after each until all so far is on SSD.
async fn fill(edge: &Running, connection: &Connection, objects: &[Object]) {
    let mut slices = 0;
    for (number, object) in objects.iter().enumerate() {
        let answer = get(connection, &edge.signed(&path(number))).await;
        assert!(answer.body == *object.bytes && answer.header("cache-status").contains("fwd=miss"), "{number}: {answer:.200?}");
        slices += object.bytes.len().div_ceil(SLICE) as u64;
        edge.metric_becomes("larder_edge_ssd_slices", slices).await;
    }
}

#[tokio::test]
async fn what_left_ram_is_a_hit_on_ssd_and_outlasts_a_restart_without_an_origin() {
    let mut edge = start_of(&with_devices("4MiB", 3), "").await;
    let objects = put(&edge, 24, 3 * SLICE + 1000);
    fill(&edge, &edge.connect(Protocol::Http3).await, &objects).await;
    let asked = edge.origin.asked().len();
    assert_eq!(asked, 24 * 4);

    edge.origin.go_away().await;
    for is_started_again in [false, true] {
        if is_started_again {
            edge.start_again().await;
        }
        for protocol in Protocol::ALL {
            let connection = edge.connect(protocol).await;
            let mut from_ssd = 0;
            for (number, object) in objects.iter().enumerate() {
                let answer = get(&connection, &edge.signed(&path(number))).await;
                assert!(answer.body == *object.bytes && !answer.is_broken, "{protocol:?} {number} {:?}", answer.headers);
                assert!(answer.header("cache-status").starts_with("edge-a; hit; detail="), "{answer:.200?}");
                assert_eq!((answer.header("etag"), answer.header("content-type")), (object.etag.as_str(), "video/mp4"));
                from_ssd += usize::from(answer.header("cache-status") == SSD);
            }
            // RAM has room for less than three of them.
            assert!(from_ssd >= 20, "{from_ssd} of 24 from SSD, {protocol:?}, {is_started_again}");
            let range = format!("bytes={}-{}", SLICE - 10, 2 * SLICE + 9);
            let answer = ask(&connection, Method::GET, &edge.signed(&path(3)), &[("range", &range)]).await;
            assert_eq!(answer.status, StatusCode::PARTIAL_CONTENT);
            assert!(answer.body == objects[3].bytes[SLICE - 10..2 * SLICE + 10], "{protocol:?}");
        }
    }
    assert_eq!(edge.origin.asked().len(), asked, "nobody was asked again");
    assert!(edge.metric("larder_edge_bytes_total{tier=\"ssd\"}").await > 0);
    assert_eq!(edge.metric("larder_edge_ssd_rejected_total").await, 0);
    edge.stop().await;
}

#[tokio::test]
async fn a_device_of_the_least_size_that_the_configuration_takes_is_used() {
    let least = "ram = \"4MiB\", slice = \"256KiB\", segment = \"1MiB\", state_dir = \"DIR/state\", devices = [{ path = \"DIR/least\", size = \"9MiB\" }]";
    let edge = start_of(least, "").await;
    let objects = put(&edge, 8, SLICE - 8);
    fill(&edge, &edge.connect(Protocol::Http2).await, &objects).await;
    edge.stop().await;
}

#[tokio::test]
async fn a_device_that_loses_its_bytes_under_load_costs_no_viewer_anything() {
    a_device_fails_under_load(|device| {
        OpenOptions::new().write(true).open(device).and_then(|file| file.set_len(0)).expect("cut")
    })
    .await;
}

#[tokio::test]
async fn a_device_that_returns_noise_under_load_costs_no_viewer_anything() {
    a_device_fails_under_load(|device| {
        let file = OpenOptions::new().write(true).open(device).expect("a file");
        let noise: Vec<u8> = (0..1_u32 << 20).map(|at| (at.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect();
        (0..64).for_each(|mib| file.write_all_at(&noise, mib << 20).expect("noise"));
    })
    .await;
}

/// Thirty viewers read what three devices hold while `break_it` is done to one of them.
async fn a_device_fails_under_load(break_it: fn(&Path)) {
    const OBJECTS: usize = 60;
    const VIEWERS: usize = 30;
    /// How many objects each of them reads.
    const EACH: usize = 20;
    let mut edge = start_of(&with_devices("16MiB", 3), "").await;
    let objects = put(&edge, OBJECTS, 3 * SLICE - OBJECTS);
    fill(&edge, &edge.connect(Protocol::Http2).await, &objects).await;
    let on_it = device(&edge, 1).await["bytes_written"].as_u64().expect("a number") / RECORD;
    assert!((1..3 * OBJECTS as u64).contains(&on_it), "three devices share the objects: {on_it}");
    assert_eq!(on_it % 3, 0, "an object is on one device");
    let asked_before = edge.origin.asked().len();

    let mut connections = Vec::new();
    for protocol in Protocol::ALL.into_iter().cycle().take(VIEWERS) {
        connections.push(edge.connect(protocol).await);
    }
    let answered = AtomicUsize::new(0);
    let viewers = connections.iter().enumerate().map(async |(viewer, connection)| {
        for turn in 0..EACH {
            let number = (viewer * 7 + turn * 11) % OBJECTS;
            let answer = get(connection, &edge.signed(&path(number))).await;
            assert!(
                answer.status == StatusCode::OK && answer.body == *objects[number].bytes && !answer.is_broken,
                "{number} for viewer {viewer}: {} {:?}, {} bytes",
                answer.status,
                answer.headers,
                answer.body.len()
            );
            // In the midst of it.
            if answered.fetch_add(1, Ordering::Relaxed) == VIEWERS * EACH / 4 {
                break_it(&edge.path("device-1"));
            }
        }
    });
    join_all(viewers).await;
    drop(connections);

    let given_up = format!("larder_edge_device_given_up{{device=\"{}\"}}", edge.path("device-1").display());
    assert_eq!(edge.metric(&given_up).await, 1);
    let dead = device(&edge, 1).await;
    assert_eq!(dead["state"]["state"], "given_up", "{dead}");
    let reason = dead["state"]["reason"].as_str().expect("a reason").to_owned();
    for other in [0, 2] {
        assert_eq!(device(&edge, other).await["state"]["state"], "serving");
    }

    // What the other devices hold was not asked for again, and what the dead one held comes to them.
    let connection = edge.connect(Protocol::Http1).await;
    let pass = async |connection: &Connection| {
        for (number, object) in objects.iter().enumerate() {
            assert!(get(connection, &edge.signed(&path(number))).await.body == *object.bytes);
            edge.metric_becomes("larder_edge_ssd_queued_bytes", 0).await;
        }
    };
    pass(&connection).await;
    let asked: HashSet<_> =
        edge.origin.asked().into_iter().skip(asked_before).map(|asked| (asked.path, asked.headers["range"].clone())).collect();
    assert!(!asked.is_empty() && asked.len() as u64 <= on_it, "{} asked again of {on_it} that are lost", asked.len());
    pass(&connection).await;
    let asked_after = edge.origin.asked().len();
    pass(&connection).await;
    assert_eq!(edge.origin.asked().len(), asked_after, "all of it is a hit again");

    edge.start_again().await;
    assert_eq!(edge.metric(&given_up).await, 1, "the verdict outlasts a restart");
    assert_eq!(device(&edge, 1).await["state"]["reason"], reason);
    let connection = edge.connect(Protocol::Http2).await;
    for (number, object) in objects.iter().enumerate() {
        assert!(get(&connection, &edge.signed(&path(number))).await.body == *object.bytes);
    }

    // An operator makes it good and takes it back; it is used again.
    fs::write(edge.path("device-1"), b"").expect("a blank file");
    let restore = format!("{{\"device\":\"{}\"}}", edge.path("device-1").display());
    let told = tell(&edge, "POST /cache/devices/restore", &[HOST, JSON], &restore).await;
    assert_eq!(told, (200, format!("{restore}\n")));
    assert_eq!((edge.metric(&given_up).await, device(&edge, 1).await["state"]["state"].clone()), (0, "serving".into()));
    let again = tell(&edge, "POST /cache/devices/restore", &[HOST, JSON], &restore).await;
    assert!(again.0 == 409 && again.1.contains("serves"), "{again:?}");
    let more: Vec<_> = (OBJECTS..OBJECTS + 20).map(|number| Object::new(SLICE, number as u64)).collect();
    for (number, object) in (OBJECTS..).zip(&more) {
        edge.origin.put(&path(number), object.clone());
        assert!(get(&connection, &edge.signed(&path(number))).await.body == *object.bytes);
        edge.metric_becomes("larder_edge_ssd_queued_bytes", 0).await;
    }
    let written = device(&edge, 1).await["bytes_written"].as_u64().expect("a number");
    assert!(written > RECORD, "{written} bytes written to the device that came back");
    edge.start_again().await;
    assert_eq!(edge.metric(&given_up).await, 0, "and that outlasts a restart, too");
    edge.stop().await;
}

/// How a device does.
async fn device(edge: &Running, number: usize) -> Value {
    let (status, told) = tell(edge, "GET /cache/devices", &[HOST], "").await;
    assert_eq!(status, 200);
    serde_json::from_str::<Value>(&told).expect("JSON")["devices"][number].take()
}
