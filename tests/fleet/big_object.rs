//! A 50 GB object goes through an edge that may use 256 MiB.

use std::{
    fs::{self, File},
    net::SocketAddr,
    os::unix::fs::FileExt,
    path::Path,
};

use edge::http::{Protocol, client::Connection};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use crate::support::{EdgeFiles, Role, connect, free_port, write_origin_files};

pub(crate) const LENGTH: u64 = 50_000_000_000;
/// A mark stands at every multiple of it, and at the very end; the rest is zeros.
const MARK_EVERY: u64 = 1 << 30;
const BUDGET_BYTES: u64 = 256 << 20;
/// What an edge may take beside its budget: the program, its threads, connections and their buffers.
const BESIDES_BYTES: u64 = 64 << 20;

#[test]
fn a_50_gb_object_streams_by_ranges_and_whole_within_the_edges_budget() {
    let dir = tempfile::tempdir().expect("a directory");
    let (origin_port, edge_port) = (free_port(), free_port());
    sparse_object(&dir.path().join("origin/files"));
    write_origin_files(dir.path(), origin_port);
    let cache = format!("ram = \"{BUDGET_BYTES}\"");
    let tls =
        EdgeFiles { port: edge_port, admin_port: 0, origin_port, open_paths: &["/files/"], cache: &cache }.write(dir.path());
    let origin = Role::start("origin", &dir.path().join("origin.toml"));
    let edge = Role::start("edge", &dir.path().join("edge.toml"));

    let addr = SocketAddr::from(([127, 0, 0, 1], edge_port));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        for protocol in [Protocol::Http3, Protocol::Http2, Protocol::Http1] {
            let connection = connect(protocol, addr, &tls).await;
            for start in [0, 7 * MARK_EVERY - 1_500_000, 40 * MARK_EVERY - 100, LENGTH - 3_000_000] {
                check_range(&connection, start, (start + 3_000_000).min(LENGTH)).await;
            }
        }
        check_whole(&connect(Protocol::Http1, addr, &tls).await).await;
    });

    let resident = edge.resident_bytes_max();
    println!("edge: {} MiB resident at most, budget {} MiB", resident >> 20, BUDGET_BYTES >> 20);
    assert!(resident < BUDGET_BYTES + BESIDES_BYTES, "{resident} bytes resident");
    assert!(edge.stop().success() && origin.stop().success());
}

pub(crate) fn sparse_object(folder: &Path) {
    fs::create_dir_all(folder).expect("a folder");
    let file = File::create(folder.join("huge.bin")).expect("a file");
    file.set_len(LENGTH).expect("a sparse file");
    for at in (0..LENGTH).step_by(MARK_EVERY as usize).chain([LENGTH - 8]) {
        file.write_all_at(&mark(at), at).expect("a mark");
    }
}

pub(crate) fn mark(at: u64) -> [u8; 8] {
    (at | 1 << 63).to_be_bytes()
}

/// Checks `bytes`, which stand at `at` in the object: the marks where they must be, zeros elsewhere.
pub(crate) fn check(bytes: &[u8], at: u64) {
    let mut expected = vec![0; bytes.len()];
    let end = at + bytes.len() as u64;
    let first = at.saturating_sub(7) / MARK_EVERY * MARK_EVERY;
    for start in (first..end).step_by(MARK_EVERY as usize).chain([LENGTH - 8]) {
        for (offset, byte) in mark(start).into_iter().enumerate() {
            let place = start + offset as u64;
            if (at..end).contains(&place) {
                expected[(place - at) as usize] = byte;
            }
        }
    }
    assert!(bytes == expected, "wrong bytes between {at} and {end}");
}

async fn check_range(connection: &Connection, start: u64, end: u64) {
    let mut headers = HeaderMap::new();
    let range = format!("bytes={start}-{}", end - 1);
    headers.insert(header::RANGE, HeaderValue::from_str(&range).expect("a header"));
    let (head, mut body) = connection.send(Method::GET, "127.0.0.1", "/files/huge.bin", headers).await.expect("an answer");
    assert_eq!(head.status, StatusCode::PARTIAL_CONTENT);
    assert_eq!(head.headers[header::CONTENT_RANGE], format!("bytes {start}-{}/{LENGTH}", end - 1));
    let mut at = start;
    while let Some(chunk) = body.next().await {
        let chunk = chunk.expect("bytes");
        check(&chunk, at);
        at += chunk.len() as u64;
    }
    assert_eq!(at, end);
}

async fn check_whole(connection: &Connection) {
    let (head, mut body) =
        connection.send(Method::GET, "127.0.0.1", "/files/huge.bin", HeaderMap::new()).await.expect("an answer");
    assert_eq!(head.status, StatusCode::OK);
    assert_eq!(head.headers[header::CONTENT_LENGTH], LENGTH.to_string());
    let mut at = 0;
    while let Some(chunk) = body.next().await {
        let chunk = chunk.expect("bytes");
        check(&chunk, at);
        at += chunk.len() as u64;
    }
    assert_eq!(at, LENGTH);
}
