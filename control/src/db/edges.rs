//! Registered edges, by id.

use rusqlite::params;
use wire::report::Registration;

use super::{Db, DbError};
use crate::fleet::EdgeId;

impl Db {
    /// Every registered edge; asked once, when control starts.
    pub(crate) async fn edges(&self) -> Result<Vec<(EdgeId, Registration)>, DbError> {
        self.read(|db| {
            let mut select = db.prepare_cached("SELECT id, site, url, version FROM edges")?;
            let rows = select.query_map([], |row| {
                Ok((row.get::<_, String>(0)?, Registration { site: row.get(1)?, url: row.get(2)?, version: row.get(3)? }))
            })?;
            rows.map(|row| {
                let (id, registration) = row?;
                Ok((id.parse().map_err(DbError::damaged("edge"))?, registration))
            })
            .collect()
        })
        .await
    }

    /// Keeps an edge's registration, in place of an earlier one.
    pub(crate) async fn put_edge(&self, id: EdgeId, registration: Registration) -> Result<(), DbError> {
        self.write(move |db| {
            db.prepare_cached("INSERT OR REPLACE INTO edges (id, site, url, version) VALUES (?, ?, ?, ?)")?.execute(params![
                id.as_str(),
                registration.site,
                registration.url,
                registration.version
            ])?;
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
