//! Collects `web/dist`, the built player, into a table that `src/player.rs` embeds. Without it the table is empty.

use std::{
    env,
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

fn main() {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("player_files.rs");
    let dist = manifest.join("../web/dist");

    // Cargo treats a watched path that is missing as always changed and would rebuild this crate every time; an empty
    // folder (which git ignores) keeps it quiet. Where it cannot be made, the rebuilds are the price.
    let _ = fs::create_dir_all(&dist);
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", dist.display());

    let mut files = Vec::new();
    collect(&dist, "", &mut files).unwrap_or_else(|error| panic!("cannot read {}: {error}", dist.display()));
    files.sort();

    let mut table = String::from("&[\n");
    for (path, file) in files {
        writeln!(table, "    ({path:?}, include_bytes!({file:?})),").expect("a String takes all");
    }
    table.push_str("]\n");
    fs::write(&out, table).unwrap_or_else(|error| panic!("cannot write {}: {error}", out.display()));
}

/// Every file below `folder`, with its URL path.
fn collect(folder: &Path, prefix: &str, files: &mut Vec<(String, PathBuf)>) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let path = format!("{prefix}/{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), &path, files)?;
        } else {
            files.push((path, entry.path().canonicalize()?));
        }
    }
    Ok(())
}
