//! The audit log: what operators did, in order. A row is written before the deed and has its outcome afterwards.

use rusqlite::params;

use super::{Db, DbError, integer, unsigned};
use crate::identity::operators::Operator;

/// The most rows that are kept, whatever their age.
const ROWS_MAX: i64 = 1_000_000;
/// Rows that are removed in one transaction, so that others write in between.
const PRUNED_MAX: u32 = 10_000;

/// What an operator is about to do.
#[derive(Debug, Clone)]
pub(crate) struct Deed {
    pub(crate) at_ms: u64,
    pub(crate) operator: Operator,
    pub(crate) address: String,
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
}

/// A row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AuditRow {
    pub(crate) id: i64,
    pub(crate) at_ms: u64,
    pub(crate) operator: String,
    pub(crate) role: String,
    pub(crate) address: String,
    pub(crate) method: String,
    pub(crate) target: String,
    /// None where the answer was never made: control ended, or the deed took too long.
    pub(crate) status: Option<u16>,
}

impl Db {
    /// Appends a row, and gives its id.
    pub(crate) async fn begin_audit(&self, deed: Deed) -> Result<i64, DbError> {
        self.write(move |db| {
            let Deed { at_ms, operator, address, method, target } = deed;
            db.prepare_cached("INSERT INTO audit (at_ms, operator, role, address, method, target) VALUES (?, ?, ?, ?, ?, ?)")?
                .execute(params![integer(at_ms), operator.name.as_str(), operator.role.name(), address, method, target])?;
            Ok(db.last_insert_rowid())
        })
        .await
    }

    /// Adds what came of it.
    pub(crate) async fn end_audit(&self, id: i64, status: u16) -> Result<(), DbError> {
        self.write(move |db| {
            db.prepare_cached("UPDATE audit SET status = ? WHERE id = ?")?.execute(params![status, id])?;
            Ok(())
        })
        .await
    }

    /// Up to `limit` rows, newest first, before the row `before`.
    pub(crate) async fn audit(&self, before: Option<i64>, limit: u32) -> Result<Vec<AuditRow>, DbError> {
        self.read(move |db| {
            let mut select = db.prepare_cached(
                "SELECT id, at_ms, operator, role, address, method, target, status FROM audit WHERE id < ? ORDER BY id DESC LIMIT ?",
            )?;
            let rows = select.query_map(params![before.unwrap_or(i64::MAX), limit], |row| {
                Ok(AuditRow {
                    id: row.get(0)?,
                    at_ms: unsigned(row.get(1)?),
                    operator: row.get(2)?,
                    role: row.get(3)?,
                    address: row.get(4)?,
                    method: row.get(5)?,
                    target: row.get(6)?,
                    status: row.get(7)?,
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Removes rows from before `oldest_ms`, and the oldest of too many. Gives how many.
    pub(crate) async fn prune_audit(&self, oldest_ms: u64) -> Result<usize, DbError> {
        let mut pruned = 0;
        loop {
            let removed = self
                .write(move |db| {
                    let old = db
                        .prepare_cached(
                            "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at_ms < ? ORDER BY at_ms LIMIT ?)",
                        )?
                        .execute(params![integer(oldest_ms), PRUNED_MAX])?;
                    let latest: i64 =
                        db.prepare_cached("SELECT coalesce(max(id), 0) FROM audit")?.query_row([], |row| row.get(0))?;
                    let excess = db
                        .prepare_cached("DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE id <= ? ORDER BY id LIMIT ?)")?
                        .execute(params![latest.saturating_sub(ROWS_MAX), PRUNED_MAX])?;
                    Ok(old + excess)
                })
                .await?;
            pruned += removed;
            if removed < PRUNED_MAX as usize {
                return Ok(pruned);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::operators::Role;

    fn deed(at_ms: u64) -> Deed {
        Deed {
            at_ms,
            operator: Operator { name: "ada".parse().unwrap(), role: Role::Operator },
            address: "192.0.2.1".into(),
            method: "PUT".into(),
            target: format!("/videos/{at_ms}"),
        }
    }

    #[tokio::test]
    async fn rows_are_read_newest_first_and_the_old_ones_go() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(&dir.path().join("control.db")).unwrap();
        for at_ms in 1..=5 {
            let id = db.begin_audit(deed(at_ms)).await.unwrap();
            if at_ms != 3 {
                db.end_audit(id, 200 + at_ms as u16).await.unwrap();
            }
        }
        let page = db.audit(None, 3).await.unwrap();
        assert_eq!(
            page.iter().map(|row| (row.at_ms, row.status)).collect::<Vec<_>>(),
            [(5, Some(205)), (4, Some(204)), (3, None)]
        );
        assert_eq!((page[0].operator.as_str(), page[0].role.as_str(), page[0].target.as_str()), ("ada", "operator", "/videos/5"));
        let rest = db.audit(Some(page[2].id), 10).await.unwrap();
        assert_eq!(rest.iter().map(|row| row.at_ms).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(db.prune_audit(4).await.unwrap(), 3);
        assert_eq!(db.audit(None, 10).await.unwrap().len(), 2);
        assert_eq!(db.prune_audit(100).await.unwrap(), 2);
        assert_eq!(db.begin_audit(deed(6)).await.unwrap(), 6, "an id is never used twice");
    }
}
