//! A copy of the database while it is in use, by SQLite's backup API.
//!
//! What always holds: the copy is one moment of the database, whoever writes meanwhile; a file under its final name is whole, on
//! disk and checked. While it is made, the write-ahead log cannot be cut and grows by what is written.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rusqlite::{
    Connection, OpenFlags,
    backup::{Backup as Copying, StepResult},
};

use super::{BUSY_TIMEOUT, DATABASE, MIGRATIONS};

/// Pages that are copied between two looks at the progress: a MiB.
const STEP_PAGES: i32 = 256;
/// How long to wait where the source is locked for a moment.
const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// A copy that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// How large it is.
    pub bytes: u64,
    /// The version of its schema.
    pub schema_version: u32,
    /// The titles in it.
    pub titles: u64,
    /// How long it took, the check included.
    pub took: Duration,
}

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackupStep {
    /// So many of all pages are copied.
    Copying { pages: u64, all: u64 },
    /// The copy is being read and checked.
    Checking,
}

/// Copies the database in `state_dir` to the file `out`, which must not exist, and checks the copy.
pub fn back_up(state_dir: &Path, out: &Path, mut report: impl FnMut(BackupStep)) -> Result<Backup, BackupError> {
    let begun = Instant::now();
    let from = state_dir.join(DATABASE);
    if fs::symlink_metadata(out).is_ok() {
        return Err(BackupError::Exists(out.to_owned()));
    }
    let source = |source| BackupError::Source { path: from.clone(), source };
    let database = Connection::open_with_flags(&from, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(source)?;
    database.busy_timeout(BUSY_TIMEOUT).map_err(source)?;
    let version: u32 = database.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(source)?;
    if !(1..=MIGRATIONS.len()).contains(&(version as usize)) {
        return Err(BackupError::Version { path: from, version });
    }
    let mut partial = out.as_os_str().to_owned();
    partial.push(".partial");
    let partial = Partial::new(partial.into())?;
    copy(&database, &partial, &from, &mut report)?;
    report(BackupStep::Checking);
    let titles = check(&partial.path)?;
    let bytes = partial.finish(out)?;
    Ok(Backup { bytes, schema_version: version, titles, took: begun.elapsed() })
}

fn copy(database: &Connection, partial: &Partial, from: &Path, report: &mut impl FnMut(BackupStep)) -> Result<(), BackupError> {
    let source = |source| BackupError::Source { path: from.to_owned(), source };
    let target = |source| BackupError::Target { path: partial.path.clone(), source };
    let mut copy = Connection::open(&partial.path).map_err(target)?;
    // With a transaction that reads, every step sees the same moment; without one, each write of another would begin the copy anew.
    database.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema;").map_err(source)?;
    {
        let copying = Copying::new(database, &mut copy).map_err(source)?;
        loop {
            let step = copying.step(STEP_PAGES).map_err(target)?;
            let progress = copying.progress();
            let all = u64::try_from(progress.pagecount).unwrap_or(0);
            report(BackupStep::Copying { pages: all.saturating_sub(u64::try_from(progress.remaining).unwrap_or(0)), all });
            match step {
                StepResult::Done => break,
                StepResult::More => {}
                // An operator's command, with nobody else on its thread.
                #[expect(clippy::disallowed_methods, reason = "no viewer waits on this thread")]
                _ => std::thread::sleep(BUSY_PAUSE),
            }
        }
    }
    // One file, without a log beside it.
    copy.pragma_update(None, "journal_mode", "DELETE").map_err(target)?;
    copy.close().map_err(|(_, error)| target(error))
}

/// Reads all of the copy. Gives how many titles are in it.
fn check(path: &Path) -> Result<u64, BackupError> {
    let target = |source| BackupError::Target { path: path.to_owned(), source };
    let copy = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(target)?;
    let found: String = copy.pragma_query_value(None, "integrity_check", |row| row.get(0)).map_err(target)?;
    if found != "ok" {
        return Err(BackupError::Damaged { path: path.to_owned(), found });
    }
    copy.query_row("SELECT count(*) FROM titles", [], |row| row.get(0)).map(super::unsigned).map_err(target)
}

/// A copy that is not finished; removed unless it is.
struct Partial {
    path: PathBuf,
}

impl Partial {
    /// Readable for its owner alone: people's data is in it.
    fn new(path: PathBuf) -> Result<Self, BackupError> {
        let unwritable = |source| BackupError::Out { path: path.clone(), source };
        let _ = fs::remove_file(&path);
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(unwritable)?;
        Ok(Self { path })
    }

    /// Puts it in its place, on disk for good. Gives how large it is.
    fn finish(self, out: &Path) -> Result<u64, BackupError> {
        let finish = || {
            let file = File::open(&self.path)?;
            file.sync_all()?;
            // Unlike a renamed file, a link never replaces what another command has made meanwhile.
            fs::hard_link(&self.path, out)?;
            let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            File::open(folder)?.sync_all()?;
            Ok(file.metadata()?.len())
        };
        finish().map_err(|source: io::Error| BackupError::Out { path: out.to_owned(), source })
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// It would replace something.
    #[error("{} exists already; say another name, so that no earlier backup is lost", .0.display())]
    Exists(PathBuf),
    /// The database cannot be read.
    #[error("cannot read the database {}: {source}", path.display())]
    Source { path: PathBuf, source: rusqlite::Error },
    /// The database is no one of ours.
    #[error("the database {} has schema version {version}, and this Larder knows 1 to {}", path.display(), MIGRATIONS.len())]
    Version { path: PathBuf, version: u32 },
    /// The copy cannot be written, or not be read back.
    #[error("cannot write the copy {}: {source}", path.display())]
    Target { path: PathBuf, source: rusqlite::Error },
    /// What was written is not what was read.
    #[error("the copy {} is damaged: {found}; check the database itself, and the disk", path.display())]
    Damaged { path: PathBuf, found: String },
    /// The file system refuses the file.
    #[error("cannot write {}: {source}", path.display())]
    Out { path: PathBuf, source: io::Error },
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::PermissionsExt as _,
        sync::atomic::{AtomicBool, Ordering},
    };

    use super::*;
    use crate::{catalogue::tests::title, db::Db};

    fn open(dir: &Path) -> Db {
        Db::open(&dir.join(DATABASE)).unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_copy_is_one_moment_of_a_database_that_is_written_meanwhile() {
        let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let db = open(dir.path());
        for n in 0..300 {
            db.put_title(title(&format!("before-{n}")), n, None).await.unwrap();
        }
        let stop = std::sync::Arc::new(AtomicBool::new(false));
        let writing = tokio::spawn({
            let (db, stop) = (db.clone(), stop.clone());
            async move {
                let mut n = 0;
                while !stop.load(Ordering::SeqCst) {
                    db.put_title(title(&format!("meanwhile-{n}")), 1000 + n, None).await.unwrap();
                    n += 1;
                }
                n
            }
        });
        let file = out.path().join("copy.db");
        let (from, to) = (dir.path().to_owned(), file.clone());
        let (backup, steps) = tokio::task::spawn_blocking(move || {
            let mut steps = Vec::new();
            (back_up(&from, &to, |step| steps.push(step)).unwrap(), steps)
        })
        .await
        .unwrap();
        stop.store(true, Ordering::SeqCst);
        let meanwhile = writing.await.unwrap();
        assert!(meanwhile > 0);
        assert!((300..=300 + meanwhile).contains(&backup.titles), "{backup:?} of {meanwhile}");
        assert_eq!(backup.schema_version as usize, MIGRATIONS.len());
        let metadata = fs::metadata(&file).unwrap();
        assert_eq!((metadata.len(), metadata.permissions().mode() & 0o777), (backup.bytes, 0o600));
        assert_eq!(steps.last(), Some(&BackupStep::Checking));
        let alls: std::collections::HashSet<_> = steps
            .iter()
            .filter_map(|step| match step {
                BackupStep::Copying { all, .. } => Some(*all),
                BackupStep::Checking => None,
            })
            .collect();
        assert_eq!(alls.len(), 1, "it never began anew");

        // What is in it is what stood there at that moment: titles in the order in which they came, none missing between, each whole.
        fs::create_dir(out.path().join("restored")).unwrap();
        fs::copy(&file, out.path().join("restored").join(DATABASE)).unwrap();
        let restored = open(&out.path().join("restored"));
        let titles = restored.newest(None, 100_000).await.unwrap();
        let newest = titles.first().unwrap().created_at_ms;
        let expected = if newest < 1000 { 300 } else { 300 + newest - 1000 + 1 };
        assert_eq!((titles.len() as u64, backup.titles), (expected, expected));
        let found = restored.segment(titles[0].id.clone(), "a1".into(), crate::db::At::Number(3)).await.unwrap();
        assert!(matches!(found, crate::db::Found::Segment { .. }));
        let left: Vec<_> = fs::read_dir(out.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "nothing half done is left: {left:?}");
    }

    #[test]
    fn what_cannot_be_copied_is_named_and_nothing_is_left() {
        let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let file = out.path().join("copy.db");
        let refused = |file: &Path| back_up(dir.path(), file, |_| {}).unwrap_err().to_string();
        assert!(refused(&file).starts_with("cannot read the database "));
        drop(open(dir.path()));
        fs::write(&file, "an earlier one").unwrap();
        assert!(refused(&file).ends_with("exists already; say another name, so that no earlier backup is lost"));
        assert_eq!(fs::read_to_string(&file).unwrap(), "an earlier one");
        assert!(refused(&out.path().join("none/copy.db")).contains("cannot write "));
        Connection::open(dir.path().join(DATABASE)).unwrap().pragma_update(None, "user_version", 99).unwrap();
        assert!(refused(&out.path().join("other.db")).contains("has schema version 99"));
        assert_eq!(fs::read_dir(out.path()).unwrap().count(), 1);
    }
}
