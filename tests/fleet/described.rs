//! Control's description of its API, taken at its word by tools that are not ours: the description is valid, and nothing that it allows or
//! forbids brings a failure or an answer that it does not describe.

use std::{
    fs,
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::json;

use crate::{
    cli::words,
    support::{Role, free_port},
};

/// The same requests each time. Another number sends others.
const SEED: u32 = 1;
/// Requests that schemathesis makes up for each operation, besides those at the edges of its schemas.
const EXAMPLES: u32 = 20;

#[test]
fn foreign_tools_find_the_description_valid_and_every_answer_as_described() {
    let dir = tempfile::tempdir().expect("a directory");
    let (d, port) = (dir.path().display(), free_port());
    let key = words(&format!("sign --new-key EdDSA --kid test --out {d}/key --public-out {d}/keys.json"));
    assert_eq!(key.code, Some(0), "{key:?}");
    let (operator, edge) = ("a-secret-of-operators-for-a-test", "a-secret-of-edges-for-a-test");
    let k = BASE64_URL_SAFE_NO_PAD.encode([7; 32]);
    let viewers = json!({ "iss": "https://id.example", "aud": "larder", "kid": "viewers", "k": k });
    let files = [
        ("operator", operator.to_owned()),
        ("edge", edge.to_owned()),
        ("viewers.jwks", json!({ "keys": [{ "kty": "oct", "kid": "viewers", "k": k }] }).to_string()),
        (
            "control.toml",
            format!(
                "role = \"control\"\nlisten = \"127.0.0.1:{port}\"\nstate_dir = \"{d}/state\"\ntoken_issuer = \"test\"\n\
                 signing_key_file = \"{d}/key\"\noperator_token_file = \"{d}/operator\"\nedge_token_file = \"{d}/edge\"\n\
                 edge_timeout = \"1h\"\n\
                 [viewers]\njwks_file = \"{d}/viewers.jwks\"\nissuer = \"https://id.example\"\naudience = \"larder\"\n\
                 [limits]\nviewer_per_second = 0\noperator_per_second = 0\n"
            ),
        ),
    ];
    for (name, text) in files {
        fs::write(dir.path().join(name), text).expect("writes");
    }
    let control = Role::start("control", &dir.path().join("control.toml"));

    let python = std::env::var_os("LARDER_TEST_PYTHON").map(PathBuf::from);
    let python = python.expect("LARDER_TEST_PYTHON names a Python with schemathesis; `make test` sets up both");
    let mut child = Command::new(python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/foreign/described.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python starts");
    let asked = json!({
        "url": format!("http://127.0.0.1:{port}"), "operator": operator, "edge": edge, "viewers": viewers,
        "seed": SEED, "examples": EXAMPLES, "dir": dir.path(),
    });
    child.stdin.take().expect("piped").write_all(asked.to_string().as_bytes()).expect("python reads");
    let output = child.wait_with_output().expect("python ends");
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "an answer is not as described");
    assert!(said.contains("openapi-spec-validator: OpenAPI 3.1") && said.contains("not_a_server_error"));
    assert!(control.stop().success());
}
