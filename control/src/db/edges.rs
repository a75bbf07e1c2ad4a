//! Registered edges, by id, and what operators want of them.

use rusqlite::params;
use wire::report::Registration;

use super::{Db, DbError};
use crate::fleet::EdgeId;

/// A registered edge as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeptEdge {
    pub(crate) id: EdgeId,
    pub(crate) registration: Registration,
    pub(crate) is_drained: bool,
    /// The number of the last purge that it has carried out, with all before it.
    pub(crate) purged_to: u64,
}

impl Db {
    /// Every registered edge; asked once, when control starts.
    pub(crate) async fn edges(&self) -> Result<Vec<KeptEdge>, DbError> {
        self.read(|db| {
            let mut select = db.prepare_cached("SELECT id, site, url, version, prefixes, drained, purged_to FROM edges")?;
            let mut rows = select.query([])?;
            let mut edges = Vec::new();
            while let Some(row) = rows.next()? {
                let (id, prefixes): (String, String) = (row.get(0)?, row.get(4)?);
                edges.push(KeptEdge {
                    id: id.parse().map_err(DbError::damaged("edge"))?,
                    registration: Registration {
                        site: row.get(1)?,
                        url: row.get(2)?,
                        version: row.get(3)?,
                        prefixes: serde_json::from_str(&prefixes).map_err(DbError::damaged("edge"))?,
                    },
                    is_drained: row.get(5)?,
                    purged_to: super::unsigned(row.get(6)?),
                });
            }
            Ok(edges)
        })
        .await
    }

    /// Keeps an edge's registration, in place of an earlier one. Gives the number up to which it has carried out purges: none of one whose
    /// name is new, as it may have been here before under it, and hold what was purged since.
    pub(crate) async fn put_edge(&self, id: EdgeId, registration: Registration) -> Result<u64, DbError> {
        self.write(move |db| {
            let Registration { site, url, version, prefixes } = registration;
            let purged_to: i64 = db
                .prepare_cached(
                    "INSERT INTO edges (id, site, url, version, prefixes) VALUES (?, ?, ?, ?, ?)
                     ON CONFLICT (id) DO UPDATE SET site = excluded.site, url = excluded.url, version = excluded.version,
                     prefixes = excluded.prefixes RETURNING purged_to",
                )?
                .query_row(params![id.as_str(), site, url, version, super::json(&prefixes)], |row| row.get(0))?;
            Ok(super::unsigned(purged_to))
        })
        .await
    }

    /// Keeps whether operators want nobody sent to the edge.
    pub(crate) async fn drain_edge(&self, id: EdgeId, is_drained: bool) -> Result<(), DbError> {
        self.write(move |db| {
            db.prepare_cached("UPDATE edges SET drained = ? WHERE id = ?")?.execute(params![is_drained, id.as_str()])?;
            Ok(())
        })
        .await
    }

    /// Keeps that the edge has carried out all purges up to this number.
    pub(crate) async fn edge_purged(&self, id: EdgeId, number: u64) -> Result<(), DbError> {
        self.write(move |db| {
            db.prepare_cached("UPDATE edges SET purged_to = ? WHERE id = ?")?
                .execute(params![super::integer(number), id.as_str()])?;
            Ok(())
        })
        .await
    }

    /// Forgets an edge.
    pub(crate) async fn remove_edge(&self, id: EdgeId) -> Result<(), DbError> {
        self.write(move |db| {
            db.prepare_cached("DELETE FROM edges WHERE id = ?")?.execute([id.as_str()])?;
            Ok(())
        })
        .await
    }
}
