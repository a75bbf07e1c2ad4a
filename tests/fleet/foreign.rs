//! A client that is not ours, against the demo: a signed segment arrives over HTTP/3, and no token that is wrong in any way brings one.

use std::{
    fs,
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tempfile::TempDir;
use wire::{
    object::{Digest, ObjectPath},
    title::Title,
    token::{Algorithm, Claims, SigningKey, in_path, sign},
};

use crate::{
    demo::Demo,
    support::{EdgeFiles, Role, free_port, write_origin_files},
};

/// What `tests/foreign/fetch.py` says of one URL.
#[derive(Debug, Deserialize)]
struct Answer {
    protocol: String,
    status: u16,
    bytes: u64,
    digest: Digest,
    headers: std::collections::HashMap<String, String>,
    text: Option<String>,
}

#[test]
fn a_foreign_http3_client_gets_the_stored_bytes_and_only_with_the_right_token() {
    let demo = Demo::start();
    let title: Title = demo.stored_title();
    let path = title.root.join(&title.renditions[0].segments[0].path).expect("a path");
    let stored = title.objects.iter().find(|object| object.path == title.renditions[0].segments[0].path).expect("listed");
    let good = demo.cdn_url(1);
    let edge = demo.ready.edges.iter().find(|edge| good.starts_with(*edge)).expect("the URL is on an edge of the demo");

    let key = SigningKey::from_jwk(&fs::read_to_string(demo.signing_key()).expect("the demo's key")).expect("a key");
    let stranger = SigningKey::generate(Algorithm::EdDsa, key.kid()).expect("a key");
    let unknown = SigningKey::generate(Algorithm::EdDsa, "unknown").expect("a key");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let elsewhere = ObjectPath::new("/titles/elsewhere").expect("a path");
    let signed = |key: &SigningKey, root: &ObjectPath, expires: u64, not_before: Option<u64>| {
        let issuer = Some("larder-demo".to_owned());
        let claims = Claims { iss: issuer, nbf: not_before, ..Claims::for_tree(root, expires) };
        in_path(edge, &sign(key, &claims).expect("signs"), &path)
    };
    let (later, day) = (now + 3600, 86_400);
    let wrong = [
        ("tampered", tampered(&good)),
        ("expired", signed(&key, &title.root, now - day, None)),
        ("for another path", signed(&key, &elsewhere, later, None)),
        ("by an unknown key", signed(&unknown, &title.root, later, None)),
        ("by a stranger's key under a known name", signed(&stranger, &title.root, later, None)),
        ("from a clock that is ahead", signed(&key, &title.root, now + 2 * day, Some(now + day))),
        ("missing", format!("{edge}{path}")),
    ];
    let mut urls = vec![good, signed(&key, &title.root, later, None)];
    urls.extend(wrong.iter().map(|(_, url)| url.clone()));
    let answers = fetch(&demo, &urls);

    for answer in &answers[..2] {
        assert_eq!((answer.status, answer.protocol.as_str()), (200, "h3"), "{answer:?}");
        assert_eq!((answer.bytes, answer.digest), (stored.bytes, stored.digest));
        assert_eq!(answer.headers["etag"], stored.digest.etag());
    }
    for ((what, _), answer) in wrong.iter().zip(&answers[2..]) {
        assert_eq!((answer.status, answer.protocol.as_str()), (403, "h3"), "token {what}: {answer:?}");
        assert!(answer.headers.contains_key("larder-reason"), "token {what}: {answer:?}");
        let text = answer.text.clone().unwrap_or_default() + &format!("{:?}", answer.headers);
        for secret in ["exp", "kid", "signature", "cdniuc", "iss", title.root.as_str()] {
            let said = text.replace("expose-headers", "").contains(secret);
            assert!(!said, "token {what}: the answer says {secret:?}: {text}");
        }
    }
}

/// Against `larder edge` as a process: handshake, Retry, resumption, 0-RTT (which is not offered), key update, a port that changes midway,
/// and version negotiation.
#[test]
fn a_foreign_quic_client_and_an_edge_agree_on_what_quic_is() {
    const PATH: &str = "/files/object.bin";
    let dirs = [tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory")];
    let [plenty, scarce] = dirs.each_ref().map(TempDir::path);
    let ports: [u16; 3] = std::array::from_fn(|_| free_port());
    let object: Vec<u8> = (0..6_000_000_u32).map(|at| (at * 31 + at / 251) as u8).collect();
    fs::create_dir_all(plenty.join("origin/files")).expect("a folder");
    fs::write(plenty.join("origin").join(&PATH[1..]), &object).expect("writes");
    write_origin_files(plenty, ports[0]);
    for (dir, port, more) in [(plenty, ports[1], ""), (scarce, ports[2], "[limits]\nconnections = 4")] {
        let cache = format!("ram = \"64MiB\"\n{more}");
        EdgeFiles { port, admin_port: 0, origin_port: ports[0], open_paths: &["/files/"], cache: &cache }.write(dir);
    }
    // One certificate, so that one trust will do.
    for name in ["edge.crt", "edge.key"] {
        fs::copy(plenty.join(name), scarce.join(name)).expect("copies");
    }
    let origin = Role::start("origin", &plenty.join("origin.toml"));
    let edges = [plenty, scarce].map(|dir| Role::start("edge", &dir.join("edge.toml")));

    let asked = json!({ "ca": plenty.join("edge.crt"), "port": ports[1], "scarce_port": ports[2], "path": PATH });
    let mut told: Value = python("interop.py", &asked);
    let answer = json!({ "status": 200, "bytes": object.len(), "digest": Digest::of(&object) });
    for (what, more) in [
        ("handshake", json!({ "alpn": "h3", "retry": false })),
        ("retry", json!({ "retry": true })),
        ("resumption", json!({ "first": false, "resumed": true, "early_bytes": 0 })),
        ("early_data", json!({ "sent": true, "accepted": false })),
        ("key_update", json!({ "same": true, "followed": 3 })),
        ("rebinding", json!({ "midway": true, "moved": true })),
        ("migration", json!({ "midway": true, "moved": true })),
        ("negotiation", json!({ "negotiated": true })),
    ] {
        let mut expected = answer.clone();
        expected.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        assert_eq!(told[what].take(), expected, "{what}");
    }
    let by_hand = json!({ "version": "00000000", "swapped": true, "offers_1": true, "offers_unknown": false });
    assert_eq!(told["negotiation_by_hand"], by_hand);
    for edge in edges {
        assert!(edge.stop().success());
    }
    assert!(origin.stop().success());
}

/// `url` with the last character of its token's payload changed, to another of the same alphabet.
fn tampered(url: &str) -> String {
    let dot = url.find("eyJ").and_then(|start| url[start..].find('.').map(|dot| start + dot)).expect("a token");
    let payload_end = dot + 1 + url[dot + 1..].find('.').expect("a signature follows");
    let mut bytes = url.as_bytes().to_vec();
    let at = payload_end - 5;
    bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
    String::from_utf8(bytes).expect("ASCII")
}

fn fetch(demo: &Demo, urls: &[String]) -> Vec<Answer> {
    python("fetch.py", &json!({ "ca": demo.ready.ca, "urls": urls }))
}

/// What a script of `tests/foreign` prints when it is asked.
fn python<T: DeserializeOwned>(script: &str, asked: &Value) -> T {
    let python = std::env::var_os("LARDER_TEST_PYTHON").map(PathBuf::from);
    let python = python.expect("LARDER_TEST_PYTHON names a Python with tests/foreign/requirements.txt; `make test` sets up both");
    let mut child = Command::new(python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/foreign/").to_owned() + script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python starts");
    child.stdin.take().expect("piped").write_all(asked.to_string().as_bytes()).expect("python reads");
    let output = child.wait_with_output().expect("python ends");
    assert!(output.status.success(), "{script} failed");
    serde_json::from_slice(&output.stdout).expect("the script prints JSON")
}
