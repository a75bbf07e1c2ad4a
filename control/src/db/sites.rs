//! Sites that came by the API, by name.

use rusqlite::params;

use super::{Db, DbError, integer, json, unsigned};
use crate::{sites::SiteRecord, steering::geo::Coordinates};

impl Db {
    /// Every site; asked once, when control starts.
    pub(crate) async fn sites(&self) -> Result<Vec<SiteRecord>, DbError> {
        self.read(|db| {
            let mut select = db.prepare_cached("SELECT name, latitude, longitude, cost, capacity, open, prefixes FROM sites")?;
            let mut rows = select.query([])?;
            let mut sites = Vec::new();
            while let Some(row) = rows.next()? {
                let (latitude, longitude): (Option<f64>, Option<f64>) = (row.get(1)?, row.get(2)?);
                let (capacity, prefixes): (Option<i64>, String) = (row.get(4)?, row.get(6)?);
                sites.push(SiteRecord {
                    name: row.get(0)?,
                    place: latitude.zip(longitude).and_then(|(latitude, longitude)| Coordinates::new(latitude, longitude)),
                    cost: row.get(3)?,
                    capacity_bits_per_second: capacity.map(unsigned),
                    open: row.get(5)?,
                    prefixes: serde_json::from_str(&prefixes).map_err(DbError::damaged("site"))?,
                });
            }
            Ok(sites)
        })
        .await
    }

    /// Keeps a site, in place of an earlier one.
    pub(crate) async fn put_site(&self, site: SiteRecord) -> Result<(), DbError> {
        self.write(move |db| {
            let SiteRecord { name, place, cost, capacity_bits_per_second, open, prefixes } = site;
            db.prepare_cached(
                "INSERT OR REPLACE INTO sites (name, latitude, longitude, cost, capacity, open, prefixes) VALUES (?, ?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![
                name,
                place.map(Coordinates::latitude),
                place.map(Coordinates::longitude),
                cost,
                capacity_bits_per_second.map(integer),
                open,
                json(&prefixes)
            ])?;
            Ok(())
        })
        .await
    }

    /// Forgets a site.
    pub(crate) async fn remove_site(&self, name: String) -> Result<(), DbError> {
        self.write(move |db| {
            db.prepare_cached("DELETE FROM sites WHERE name = ?")?.execute([name])?;
            Ok(())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_site_comes_back_as_it_was_put() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(&dir.path().join("control.db")).unwrap();
        let whole = SiteRecord {
            name: "berlin".into(),
            place: Coordinates::new(52.52, -13.4),
            cost: u32::MAX,
            capacity_bits_per_second: Some(40_000_000_000),
            open: false,
            prefixes: vec!["203.0.113.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
        };
        let bare = SiteRecord {
            name: "paris".into(),
            place: None,
            cost: 0,
            capacity_bits_per_second: None,
            open: true,
            prefixes: Vec::new(),
        };
        db.put_site(SiteRecord { name: "paris".into(), ..whole.clone() }).await.unwrap();
        db.put_site(whole.clone()).await.unwrap();
        db.put_site(bare.clone()).await.unwrap();
        assert_eq!(db.sites().await.unwrap(), [whole.clone(), bare]);
        db.remove_site("paris".into()).await.unwrap();
        assert_eq!(db.sites().await.unwrap(), [whole]);
    }
}
