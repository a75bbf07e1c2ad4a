//! `larder control backup` as an operator runs it: beside a control that serves, and what comes of it serves again.

use std::{fs, path::Path};

use serde_json::Value;

use crate::{
    cli::words,
    support::{Role, free_port},
};

/// Writes what a control needs into `dir`, and gives its configuration's file.
fn configure(dir: &Path) -> std::path::PathBuf {
    for name in ["operator", "edge"] {
        fs::write(dir.join(name), format!("a-secret-for-{name}-that-only-a-test-knows")).expect("writes");
    }
    let key = words(&format!("sign --new-key EdDSA --kid test --out {0}/key --public-out {0}/keys.json", dir.display()));
    assert_eq!(key.code, Some(0), "{key:?}");
    let (config, d) = (dir.join("control.toml"), dir.display());
    let text = format!(
        "role = \"control\"\nlisten = \"127.0.0.1:{}\"\nstate_dir = \"{d}/state\"\ntoken_issuer = \"test\"\nsigning_key_file = \"{d}/key\"\n\
         operator_token_file = \"{d}/operator\"\nedge_token_file = \"{d}/edge\"\n",
        free_port()
    );
    fs::write(&config, text).expect("writes");
    config
}

#[test]
fn a_backup_is_made_beside_a_running_control_and_serves_when_it_is_put_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = configure(dir.path());
    let copy = dir.path().join("copy.db");
    let control = Role::start("control", &config);
    let backup = words(&format!("control backup --config {} --out {} --json", config.display(), copy.display()));
    assert_eq!(backup.code, Some(0), "{backup:?}");
    let said = backup.json();
    assert_eq!((&said["integrity"], &said["titles"]), (&Value::from("ok"), &Value::from(0)), "{said}");
    assert_eq!(said["bytes"], fs::metadata(&copy).expect("a file").len());
    let again = words(&format!("control backup --config {} --out {}", config.display(), copy.display()));
    again.failed(1, &["exists already"]);
    assert!(control.stop().success());

    let state = dir.path().join("state");
    for name in ["control.db", "control.db-wal", "control.db-shm"] {
        let _ = fs::remove_file(state.join(name));
    }
    fs::copy(&copy, state.join("control.db")).expect("copies");
    assert!(Role::start("control", &config).stop().success(), "it serves from the copy");
}

#[test]
fn what_is_asked_in_a_wrong_way_is_told() {
    words("control").failed(2, &["--config"]);
    words("control backup").failed(2, &["--out"]);
    words("control backup --config /nowhere.toml --out /nowhere.db").failed(1, &["cannot read the configuration /nowhere.toml"]);
}
