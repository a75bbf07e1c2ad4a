//! Where control keeps things: one embedded SQLite database, reached by key.
//!
//! The boundary that a distributed engine will stand behind. Every question names one key (a title's id, an edge's id)
//! or walks one index; none joins partitions. SQLite is asked on blocking threads: one connection writes, a few read,
//! and nobody waits for one of them longer than a deadline.

mod answers;
mod audit;
mod backup;
mod edges;
mod purges;
mod sites;
mod titles;
mod viewers;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rusqlite::{Connection, TransactionBehavior};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{JoinError, spawn_blocking},
};

use crate::resilience::{
    dependency::{Dependency, Unavailable},
    waits::Waits,
};
pub(crate) use answers::{AnswerKey, Kept, KeptAnswer};
pub(crate) use audit::{AuditRow, Deed};
pub use backup::{Backup, BackupError, BackupStep, back_up};
pub(crate) use edges::KeptEdge;
pub(crate) use purges::KeptPurge;
pub(crate) use titles::{Amended, At, Condition, Found, Put, Removed};
pub(crate) use viewers::{Due, DuePlace, Viewer, Viewers};

/// The schema's history. Version N of a database is the first N of these; released ones never change.
const MIGRATIONS: &[&str] = &[
    include_str!("db/migrations/0001-titles.sql"),
    include_str!("db/migrations/0002-identity.sql"),
    include_str!("db/migrations/0003-viewers.sql"),
    include_str!("db/migrations/0004-search.sql"),
    include_str!("db/migrations/0005-steering.sql"),
];
/// The file in the state directory.
pub(crate) const DATABASE: &str = "control.db";
/// Connections that read at the same time.
const READERS: usize = 4;
/// How long to wait for a lock that another process (an operator's shell, a backup) holds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a read may take, its turn included. Longer than another process may hold a lock.
const READ_DEADLINE: Duration = Duration::from_secs(6);
/// How long a write may wait for its turn. Once begun it is waited for: whoever keeps something of what it changes must know that it was done.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);
/// Reads, and writes, at the same time, those that wait for a connection included.
const CALLS_MAX: usize = 1024;
/// Prepared statements kept by each connection: more than there are in this module.
const STATEMENTS_MAX: usize = 128;

/// The database. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Db {
    writer: Arc<Lane>,
    readers: Arc<Lane>,
    guards: Arc<Guards>,
}

/// How long reads and writes are waited for, and by how many.
struct Guards {
    reads: Dependency,
    writes: Dependency,
    /// From when a read is asked for until it begins.
    waits: Waits,
}

impl Db {
    /// Opens or makes the database at `path` and brings it to this version's schema.
    pub(crate) fn open(path: &Path) -> Result<Self, DatabaseError> {
        let fault = |source| DatabaseError::Unusable { path: path.to_owned(), source };
        let mut writer = connect(path).map_err(fault)?;
        let version: u32 = writer.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(fault)?;
        let known = MIGRATIONS.len() as u32;
        if version > known {
            return Err(DatabaseError::Newer { path: path.to_owned(), version, known });
        }
        migrate(&mut writer, version, MIGRATIONS).map_err(fault)?;
        // What is deleted is written over: it may be what someone watched.
        writer.pragma_update(None, "secure_delete", true).map_err(fault)?;
        let readers = (0..READERS).map(|_| reader(path)).collect::<Result<_, _>>().map_err(fault)?;
        let guards = Guards {
            reads: Dependency::new("reads of the database", READ_DEADLINE, CALLS_MAX),
            writes: Dependency::new("writes to the database", WRITE_DEADLINE, CALLS_MAX),
            waits: Waits::default(),
        };
        Ok(Self { writer: Lane::of(vec![writer]), readers: Lane::of(readers), guards: Arc::new(guards) })
    }

    async fn read<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut Connection) -> Result<T, DbError> + Send + 'static,
    ) -> Result<T, DbError> {
        let (asked, guards) = (Instant::now(), Arc::clone(&self.guards));
        let ask = move |connection: &mut Connection| {
            guards.waits.add(asked.elapsed());
            ask(connection)
        };
        let turn_and_answer = async { Lane::run(&self.readers, Lane::turn(&self.readers).await, ask).await };
        Ok(self.guards.reads.call(turn_and_answer).await?)
    }

    async fn write<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut Connection) -> Result<T, DbError> + Send + 'static,
    ) -> Result<T, DbError> {
        let turn = Lane::turn(&self.writer);
        Ok(self.guards.writes.call_in_turn(turn, |turn| Lane::run(&self.writer, turn, ask)).await?)
    }

    /// What stands between requests and the database.
    pub(crate) fn dependencies(&self) -> [&Dependency; 2] {
        [&self.guards.reads, &self.guards.writes]
    }

    /// How long reads waited before they began, at least, since this was asked last.
    pub(crate) fn take_shortest_wait(&self) -> Duration {
        self.guards.waits.take_shortest()
    }

    /// Whether the database answers.
    pub(crate) async fn ping(&self) -> Result<(), DbError> {
        self.read(|db| Ok(db.query_row("SELECT 1", [], |_| Ok(()))?)).await
    }
}

fn connect(path: &Path) -> Result<Connection, rusqlite::Error> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // With WAL, only FULL keeps a transaction that was answered with success through a power cut.
    connection.pragma_update(None, "synchronous", "FULL")?;
    Ok(connection)
}

fn reader(path: &Path) -> Result<Connection, rusqlite::Error> {
    let connection = connect(path)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

/// Applies those of `migrations` that a database of `version` lacks, each step wholly or not at all.
fn migrate(connection: &mut Connection, version: u32, migrations: &[&str]) -> Result<(), rusqlite::Error> {
    for (to, migration) in (1_u32..).zip(migrations).skip(version as usize) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(migration)?;
        transaction.pragma_update(None, "user_version", to)?;
        transaction.commit()?;
    }
    Ok(())
}

/// A few connections, and as many permits.
struct Lane {
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
}

impl Lane {
    fn of(connections: Vec<Connection>) -> Arc<Self> {
        Arc::new(Self { permits: Arc::new(Semaphore::new(connections.len())), idle: Mutex::new(connections) })
    }

    /// Waits until a connection is idle.
    async fn turn(lane: &Arc<Self>) -> OwnedSemaphorePermit {
        Arc::clone(&lane.permits).acquire_owned().await.expect("the semaphore is never closed")
    }

    /// Runs `ask` on an idle connection on a blocking thread. Once begun it ends, whether or not anyone still waits.
    async fn run<T: Send + 'static>(
        lane: &Arc<Self>,
        turn: OwnedSemaphorePermit,
        ask: impl FnOnce(&mut Connection) -> Result<T, DbError> + Send + 'static,
    ) -> Result<T, DbError> {
        let lane = Arc::clone(lane);
        spawn_blocking(move || {
            let _turn = turn;
            let mut leased = Leased { connection: lane.idle.lock().pop(), lane: &lane };
            ask(leased.connection.as_mut().expect("there are as many connections as permits"))
        })
        .await?
    }
}

/// Gives its connection back even if the asker panics.
struct Leased<'a> {
    connection: Option<Connection>,
    lane: &'a Lane,
}

impl Drop for Leased<'_> {
    fn drop(&mut self) {
        self.lane.idle.lock().extend(self.connection.take());
    }
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("text and numbers always become JSON")
}

/// SQLite's integers are signed. Catalogued numbers are checked to be far smaller; anything else is as good as the largest.
fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Back from [`integer`].
fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// Why the database cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// Made by a later version of Larder.
    #[error(
        "the database {} has schema version {version}, this Larder knows versions up to {known}: run the version that made it, or a newer one",
        path.display()
    )]
    Newer { path: PathBuf, version: u32, known: u32 },
    /// Not a database, damaged, locked, or on a disk that fails.
    #[error("cannot use the database {}: {source}", path.display())]
    Unusable { path: PathBuf, source: rusqlite::Error },
}

/// Why a question to the database has no answer; for the log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DbError {
    #[error("the database failed: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// A row that this code never wrote.
    #[error("the database holds a damaged {what}: {why}")]
    Damaged { what: &'static str, why: String },
    #[error("a question to the database did not end: {0}")]
    Stopped(#[from] JoinError),
    /// It was not asked, or is too slow. For viewers.
    #[error("{0}")]
    Unavailable(String),
}

impl From<Unavailable<Self>> for DbError {
    fn from(unavailable: Unavailable<Self>) -> Self {
        match unavailable {
            Unavailable::Failed(error) => error,
            other => Self::Unavailable(other.to_string()),
        }
    }
}

impl DbError {
    /// For `map_err` on what is read back.
    fn damaged<E: ToString>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |error| Self::Damaged { what, why: error.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_database_of_a_later_version_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.db");
        drop(Db::open(&path).unwrap());
        Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
        let error = Db::open(&path).err().unwrap();
        let latest = MIGRATIONS.len() as u32;
        assert!(matches!(error, DatabaseError::Newer { version: 99, known, .. } if known == latest));
        assert!(error.to_string().ends_with(&format!(
            "has schema version 99, this Larder knows versions up to {latest}: run the version that made it, or a newer one"
        )));
    }

    #[tokio::test]
    async fn a_database_of_the_first_version_is_brought_up_with_all_that_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.db");
        let mut first = connect(&path).unwrap();
        migrate(&mut first, 0, &MIGRATIONS[..1]).unwrap();
        first
            .execute_batch(
                r#"INSERT INTO titles VALUES ('demo', 'The Demo', 'About.', '["Ada"]', NULL, 12000, 1000, '/titles/x', 'f', 'm.m3u8', 'm.mpd',
                   'p.jpg', 's.vtt', '[]', 'the demo about. ada');
                   INSERT INTO fingerprints VALUES ('f', 'demo');
                   INSERT INTO segments VALUES ('demo', 'v720', 1, 0, 4000, 'v720/1.m4s');
                   INSERT INTO edges VALUES ('e1', 'site-1', 'https://e1.example', '0.1.0');"#,
            )
            .unwrap();
        drop(first);

        let db = Db::open(&path).unwrap();
        let version: u32 = db.read(|db| Ok(db.pragma_query_value(None, "user_version", |row| row.get(0))?)).await.unwrap();
        assert_eq!(version as usize, MIGRATIONS.len());
        let title = db.title("demo".parse().unwrap()).await.unwrap().unwrap();
        assert_eq!((title.summary.title.as_str(), title.summary.created_at_ms), ("The Demo", 1000));
        assert_eq!((title.summary.genres.len(), title.summary.kind, title.summary.stamp), (0, None, 0));
        let segment = db.segment("demo".parse().unwrap(), "v720".into(), At::Number(1)).await.unwrap();
        assert!(matches!(segment, Found::Segment { number: 1, .. }));
        assert_eq!(db.edges().await.unwrap()[0].id.as_str(), "e1");
        let holders = db.read(|db| {
            Ok(db.query_row("SELECT fingerprint || ' ' || title_id FROM sources", [], |row| row.get::<_, String>(0))?)
        });
        assert_eq!(holders.await.unwrap(), "f demo");
        drop(db);
        Db::open(&path).unwrap();
    }

    #[test]
    fn a_step_that_fails_leaves_the_database_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let mut db = connect(&dir.path().join("control.db")).unwrap();
        migrate(&mut db, 0, &["CREATE TABLE a (x)", "CREATE TABLE b (x); CREATE TABLE a (x)"]).unwrap_err();
        let version: u32 = db.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
        assert_eq!(version, 1);
        assert!(!db.table_exists(None, "b").unwrap());
    }

    #[test]
    fn a_file_that_is_no_database_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.db");
        std::fs::write(&path, "x".repeat(4096)).unwrap();
        let error = Db::open(&path).err().unwrap().to_string();
        assert!(error.starts_with(&format!("cannot use the database {}: ", path.display())), "{error}");
    }

    #[tokio::test]
    async fn a_question_that_panics_gives_its_connection_back() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(&dir.path().join("control.db")).unwrap();
        for _ in 0..=READERS {
            let outcome = db.read::<()>(|_| panic!("on purpose")).await;
            assert!(matches!(outcome, Err(DbError::Stopped(_))));
        }
        db.ping().await.unwrap();
    }

    #[tokio::test]
    async fn readers_cannot_write() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(&dir.path().join("control.db")).unwrap();
        let outcome = db.read(|db| Ok(db.execute("DELETE FROM titles", [])?)).await;
        assert!(matches!(outcome, Err(DbError::Sqlite(_))));
    }
}
