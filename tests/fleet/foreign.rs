//! Clients that are not ours, against the demo: a signed segment arrives over HTTP/3, and a token that is wrong in any way does not.

use std::{path::PathBuf, process::Command};

use crate::demo::Demo;

/// The interpreter with the foreign HTTP/3 client, set up by `make test`.
fn python() -> PathBuf {
    let set = std::env::var_os("LARDER_TEST_PYTHON");
    set.expect("LARDER_TEST_PYTHON names a Python with curl_cffi; `make test` sets both up").into()
}

#[test]
fn a_foreign_http3_client_gets_the_stored_bytes_and_only_with_the_right_token() {
    let demo = Demo::start();
    let output = Command::new(python())
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/foreign/fetch.py"))
        .arg(serde_json::to_string(&demo.ready).expect("JSON"))
        .output()
        .expect("python runs");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{out}");
    assert!(output.status.success(), "{out}\n{err}");
}
