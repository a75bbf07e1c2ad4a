//! What is left in the directory is used, or replaced when it cannot be.

use std::{fs, path::Path};

use search::{Change, Index, IndexError, Opened};
use tempfile::TempDir;

use crate::titles::{found, put, titled};

fn filled() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (index, opened) = Index::open(dir.path()).unwrap();
    assert_eq!(opened, Opened::Created);
    index.apply([put(titled("a", "The Night Agent")), put(titled("b", "High Noon"))]).unwrap();
    index.apply([Change::Remove("b".into()), put(titled("c", "Noon Wine"))]).unwrap();
    dir
}

/// Opens, and says what was found there.
fn opened(dir: &Path) -> Opened {
    let (index, opened) = Index::open(dir).unwrap();
    let titles = index.stamps().unwrap().into_keys().collect::<Vec<_>>();
    match &opened {
        Opened::Kept => {
            assert_eq!(titles, ["a", "c"]);
            assert_eq!((found(&index, "nihgt"), found(&index, "noon")), (vec!["a".into()], vec!["c".into()]));
        }
        Opened::Created | Opened::Replaced(_) => assert!(titles.is_empty()),
    }
    // Whatever was there, it works now.
    index.apply([put(titled("new", "Brand New"))]).unwrap();
    assert_eq!(found(&index, "brand"), ["new"]);
    index.apply([Change::Remove("new".into())]).unwrap();
    opened
}

#[test]
fn an_index_is_there_after_a_restart() {
    let dir = filled();
    for _ in 0..3 {
        assert_eq!(opened(dir.path()), Opened::Kept);
    }
}

#[test]
fn a_file_that_is_damaged_or_missing_makes_a_new_index() {
    let names: Vec<_> = fs::read_dir(filled().path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    let kinds = names.iter().filter_map(|path| path.extension()).collect::<std::collections::BTreeSet<_>>();
    assert!(kinds.len() > 4, "dictionaries, places, columns and so on: {kinds:?}");
    for kind in kinds {
        for spoil in [flip as fn(&Path), truncate, remove] {
            let dir = filled();
            for entry in fs::read_dir(dir.path()).unwrap() {
                let path = entry.unwrap().path();
                if path.extension() == Some(kind)
                    && path.file_name().is_some_and(|name| name != ".managed.json" && name != ".lock")
                {
                    spoil(&path);
                }
            }
            let opened = opened(dir.path());
            assert!(matches!(opened, Opened::Replaced(_)), "{kind:?}");
            assert_eq!(opened_again(dir.path()), Opened::Kept, "{kind:?}: and the new one stays");
        }
    }
}

fn opened_again(dir: &Path) -> Opened {
    Index::open(dir).unwrap().1
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

fn truncate(path: &Path) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}

fn remove(path: &Path) {
    fs::remove_file(path).unwrap();
}

#[test]
fn an_index_of_another_version_is_replaced() {
    let dir = filled();
    let meta = dir.path().join("meta.json");
    let text = fs::read_to_string(&meta).unwrap();
    assert!(text.contains("larder 1"));
    fs::write(&meta, text.replace("larder 1", "larder 0")).unwrap();
    let Opened::Replaced(why) = opened(dir.path()) else { panic!("it was used") };
    assert_eq!(why, "it has the format \"larder 0\", not \"larder 1\"");
}

#[test]
fn other_files_in_the_directory_do_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("folder")).unwrap();
    fs::write(dir.path().join("notes.txt"), "x").unwrap();
    assert!(matches!(opened(dir.path()), Opened::Replaced(_)));
    assert!(dir.path().join("folder").is_dir());
}

#[test]
fn one_directory_is_written_by_one() {
    let dir = filled();
    let (_index, _) = Index::open(dir.path()).unwrap();
    let error = Index::open(dir.path()).err().unwrap();
    assert!(matches!(error, IndexError::Folder { .. }));
    assert!(error.to_string().ends_with("another process has it open"), "{error}");
}

#[test]
fn a_directory_that_cannot_be_written_leaves_what_was_found() {
    let dir = filled();
    let (index, _) = Index::open(dir.path()).unwrap();
    fs::remove_dir_all(dir.path()).unwrap();
    assert!(index.apply([put(titled("new", "Brand New"))]).is_err());
    assert_eq!((found(&index, "night"), found(&index, "brand")), (vec!["a".into()], vec![]));
    let blocked = filled();
    let file = blocked.path().join("a-file");
    fs::write(&file, "x").unwrap();
    assert!(Index::open(&file).is_err());
}
