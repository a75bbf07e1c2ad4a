//! What operators had purged, in order, and what edges could not do of it.

use rusqlite::{OptionalExtension as _, Row, params};
use wire::operate::What;

use super::{Db, DbError, integer, json, unsigned};

/// Purges that are kept. An edge that was away for more of them forgets all that it has.
const KEPT_MAX: u64 = 10_000;

/// One purge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeptPurge {
    pub(crate) number: u64,
    pub(crate) at_ms: u64,
    /// Of which edges: of this site, or this one, or all.
    pub(crate) site: Option<String>,
    pub(crate) edge: Option<String>,
    pub(crate) wanted: Vec<What>,
}

impl KeptPurge {
    /// Whether an edge has to carry it out.
    pub(crate) fn is_for(&self, edge: &str, site: &str) -> bool {
        self.site.as_deref().is_none_or(|wanted| wanted == site) && self.edge.as_deref().is_none_or(|wanted| wanted == edge)
    }
}

impl Db {
    /// Keeps a purge, whose `number` does not matter. Gives it.
    pub(crate) async fn add_purge(&self, purge: KeptPurge) -> Result<u64, DbError> {
        self.write(move |db| {
            let transaction = db.transaction()?;
            transaction
                .prepare_cached("INSERT INTO purges (at_ms, site, edge, wanted) VALUES (?, ?, ?, ?)")?
                .execute(params![integer(purge.at_ms), purge.site, purge.edge, json(&purge.wanted)])?;
            let number = unsigned(transaction.last_insert_rowid());
            let oldest = integer(number.saturating_sub(KEPT_MAX));
            transaction.prepare_cached("DELETE FROM purges WHERE number <= ?")?.execute([oldest])?;
            transaction.prepare_cached("DELETE FROM purge_errors WHERE number <= ?")?.execute([oldest])?;
            transaction.commit()?;
            Ok(number)
        })
        .await
    }

    /// The first and the last number that is kept.
    pub(crate) async fn purge_numbers(&self) -> Result<Option<(u64, u64)>, DbError> {
        self.read(|db| {
            let end = |order: &str| {
                db.prepare_cached(&format!("SELECT number FROM purges ORDER BY number {order} LIMIT 1"))?
                    .query_row([], |row| row.get(0))
                    .optional()
            };
            let (first, last): (Option<i64>, Option<i64>) = (end("ASC")?, end("DESC")?);
            Ok(first.map(unsigned).zip(last.map(unsigned)))
        })
        .await
    }

    /// Purges after this number, in order, at most so many.
    pub(crate) async fn purges_after(&self, number: u64, limit: usize) -> Result<Vec<KeptPurge>, DbError> {
        self.read(move |db| {
            let mut select = db.prepare_cached(
                "SELECT number, at_ms, site, edge, wanted FROM purges WHERE number > ? ORDER BY number LIMIT ?",
            )?;
            let mut rows = select.query(params![integer(number), integer(limit as u64)])?;
            let mut purges = Vec::new();
            while let Some(row) = rows.next()? {
                purges.push(purge(row)?);
            }
            Ok(purges)
        })
        .await
    }

    /// The purge with this number, and what edges could not do of it.
    pub(crate) async fn purge(&self, number: u64) -> Result<Option<(KeptPurge, Vec<(String, String)>)>, DbError> {
        self.read(move |db| {
            let number = integer(number);
            let mut select = db.prepare_cached("SELECT number, at_ms, site, edge, wanted FROM purges WHERE number = ?")?;
            let mut rows = select.query([number])?;
            let Some(found) = rows.next()?.map(purge).transpose()? else { return Ok(None) };
            let mut select = db.prepare_cached("SELECT edge, error FROM purge_errors WHERE number = ? ORDER BY edge")?;
            let errors = select.query_map([number], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(Some((found, errors.collect::<Result<_, _>>()?)))
        })
        .await
    }

    /// Keeps why an edge could not carry out a purge.
    pub(crate) async fn purge_failed(&self, number: u64, edge: String, error: String) -> Result<(), DbError> {
        self.write(move |db| {
            db.prepare_cached("INSERT OR REPLACE INTO purge_errors (number, edge, error) VALUES (?, ?, ?)")?.execute(params![
                integer(number),
                edge,
                error
            ])?;
            Ok(())
        })
        .await
    }
}

fn purge(row: &Row<'_>) -> Result<KeptPurge, DbError> {
    let wanted: String = row.get(4)?;
    Ok(KeptPurge {
        number: unsigned(row.get(0)?),
        at_ms: unsigned(row.get(1)?),
        site: row.get(2)?,
        edge: row.get(3)?,
        wanted: serde_json::from_str(&wanted).map_err(DbError::damaged("purge"))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(site: Option<&str>, edge: Option<&str>) -> KeptPurge {
        KeptPurge { number: 0, at_ms: 7, site: site.map(Into::into), edge: edge.map(Into::into), wanted: vec![What::All] }
    }

    #[tokio::test]
    async fn purges_are_kept_in_order_with_what_went_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(&dir.path().join("control.db")).unwrap();
        assert_eq!(db.purge_numbers().await.unwrap(), None);
        for site in [None, Some("berlin"), None] {
            db.add_purge(of(site, None)).await.unwrap();
        }
        assert_eq!(db.purge_numbers().await.unwrap(), Some((1, 3)));
        let after: Vec<_> = db.purges_after(1, 10).await.unwrap().into_iter().map(|purge| (purge.number, purge.site)).collect();
        assert_eq!(after, [(2, Some("berlin".into())), (3, None)]);
        assert_eq!(db.purges_after(0, 1).await.unwrap().len(), 1);
        db.purge_failed(2, "e1".into(), "no".into()).await.unwrap();
        let (found, errors) = db.purge(2).await.unwrap().unwrap();
        assert_eq!((found, errors), (KeptPurge { number: 2, ..of(Some("berlin"), None) }, vec![("e1".into(), "no".into())]));
        assert_eq!(db.purge(4).await.unwrap(), None);
    }

    #[test]
    fn a_purge_is_for_all_or_one_site_or_one_edge() {
        for (purge, is_for) in [
            (of(None, None), true),
            (of(Some("s"), None), true),
            (of(Some("t"), None), false),
            (of(None, Some("e")), true),
            (of(None, Some("f")), false),
        ] {
            assert_eq!(purge.is_for("e", "s"), is_for, "{purge:?}");
        }
    }
}
