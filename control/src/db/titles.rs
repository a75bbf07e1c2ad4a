//! Titles, by id. A title's row, segments and objects are one partition; who holds a fingerprint is another.

use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};
use wire::{
    object::ObjectPath,
    title::{Rendition, Segment, Title, TitleId},
};

use super::{Db, DbError, integer, json, unsigned};
use crate::catalogue::{Cursor, Entry, Summary, folded};

/// What became of a title that was put.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Put {
    Created,
    Replaced,
    /// Its fingerprint is this other title's; nothing was changed.
    Taken(TitleId),
    /// What was there was not as wanted; nothing was changed.
    Unwanted,
}

/// What became of a title that was to be removed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Removed {
    Done,
    NotThere,
    /// What was there was not as wanted; nothing was changed.
    Unwanted,
}

/// Whether a write may be done, given what is there. Asked within its transaction.
pub(crate) type Condition = Box<dyn FnOnce(Option<&Entry>) -> bool + Send>;

/// Which segment of a rendition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    /// By its number, from 1.
    Number(u32),
    /// The one that plays at this time, or the last one before.
    TimeMs(u64),
}

/// A segment that was looked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Segment {
        number: u32,
        segment: Segment,
    },
    /// The rendition has this many, and the one looked for is not among them.
    Beyond {
        count: u32,
    },
}

impl Db {
    /// Catalogues a checked title, in place of an earlier one of the same id, which keeps its date.
    pub(crate) async fn put_title(&self, title: Title, now_ms: u64, condition: Option<Condition>) -> Result<Put, DbError> {
        self.write(move |db| {
            let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            if !is_wanted(&transaction, &title.id, condition)? {
                return Ok(Put::Unwanted);
            }
            let put = put(&transaction, title, now_ms)?;
            transaction.commit()?;
            Ok(put)
        })
        .await
    }

    /// Removes a title with all that belongs to it.
    pub(crate) async fn remove_title(&self, id: TitleId, condition: Option<Condition>) -> Result<Removed, DbError> {
        self.write(move |db| {
            let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            if !is_wanted(&transaction, &id, condition)? {
                return Ok(Removed::Unwanted);
            }
            let was_there = remove(&transaction, &id)?;
            transaction.commit()?;
            Ok(if was_there { Removed::Done } else { Removed::NotThere })
        })
        .await
    }

    /// A title without its segments and objects.
    pub(crate) async fn title(&self, id: TitleId) -> Result<Option<Entry>, DbError> {
        self.read(move |db| find(db, &id)).await
    }

    /// Up to `limit` titles, newest first, after `cursor`; only those that have `query` in title, description or cast.
    pub(crate) async fn titles(
        &self,
        query: Option<String>,
        cursor: Option<Cursor>,
        limit: u32,
    ) -> Result<Vec<Summary>, DbError> {
        self.read(move |db| {
            // `instr` finds text as it is written: it has no wildcards that would need escaping.
            let mut select = db.prepare_cached(
                "SELECT id, title, description, cast_names, rating, duration_ms, created_at_ms FROM titles
                 WHERE (?1 IS NULL OR (created_at_ms, id) < (?1, ?2)) AND (?3 IS NULL OR instr(searched, ?3) > 0)
                 ORDER BY created_at_ms DESC, id DESC LIMIT ?4",
            )?;
            let (before_ms, before_id) = cursor.map(|cursor| (integer(cursor.created_at_ms), cursor.id.to_string())).unzip();
            let mut rows = select.query(params![before_ms, before_id, query.as_deref().map(folded), limit])?;
            let mut titles = Vec::new();
            while let Some(row) = rows.next()? {
                titles.push(summary(row)?);
            }
            Ok(titles)
        })
        .await
    }

    /// How many titles there are.
    pub(crate) async fn titles_count(&self) -> Result<u64, DbError> {
        self.read(|db| Ok(unsigned(db.prepare_cached("SELECT count(*) FROM titles")?.query_one([], |row| row.get(0))?))).await
    }

    /// One segment of a title's rendition.
    pub(crate) async fn segment(&self, id: TitleId, rendition: String, at: At) -> Result<Found, DbError> {
        self.read(move |db| {
            let (condition, value) = match at {
                At::Number(number) => ("number = ?", i64::from(number)),
                At::TimeMs(ms) => ("start_ms <= ?", integer(ms)),
            };
            let segment = db
                .prepare_cached(&format!(
                    "SELECT number, path, start_ms, duration_ms FROM segments
                     WHERE title_id = ? AND rendition_id = ? AND {condition} ORDER BY number DESC LIMIT 1"
                ))?
                .query_row(params![id.as_str(), rendition, value], |row| {
                    let segment =
                        Segment { path: row.get(1)?, start_ms: unsigned(row.get(2)?), duration_ms: unsigned(row.get(3)?) };
                    Ok(Found::Segment { number: row.get(0)?, segment })
                })
                .optional()?;
            if let Some(found) = segment {
                return Ok(found);
            }
            let count = db
                .prepare_cached("SELECT coalesce(max(number), 0) FROM segments WHERE title_id = ? AND rendition_id = ?")?
                .query_row(params![id.as_str(), rendition], |row| row.get(0))?;
            Ok(Found::Beyond { count })
        })
        .await
    }
}

fn find(db: &Connection, id: &TitleId) -> Result<Option<Entry>, DbError> {
    let mut select = db.prepare_cached(
        "SELECT id, title, description, cast_names, rating, duration_ms, created_at_ms, root, hls, dash, poster, storyboard, renditions
         FROM titles WHERE id = ?",
    )?;
    let mut rows = select.query([id.as_str()])?;
    rows.next()?.map(entry).transpose()
}

fn is_wanted(transaction: &Transaction<'_>, id: &TitleId, condition: Option<Condition>) -> Result<bool, DbError> {
    condition.map_or(Ok(true), |condition| Ok(condition(find(transaction, id)?.as_ref())))
}

fn put(transaction: &Transaction<'_>, mut title: Title, now_ms: u64) -> Result<Put, DbError> {
    let fingerprint = title.fingerprint.to_string();
    let holder: Option<String> = transaction
        .prepare_cached("SELECT title_id FROM fingerprints WHERE fingerprint = ?")?
        .query_row([&fingerprint], |row| row.get(0))
        .optional()?;
    if let Some(holder) = holder.filter(|holder| holder != title.id.as_str()) {
        return Ok(Put::Taken(holder.parse().map_err(DbError::damaged("fingerprint"))?));
    }
    let created_at_ms: Option<i64> = transaction
        .prepare_cached("SELECT created_at_ms FROM titles WHERE id = ?")?
        .query_row([title.id.as_str()], |row| row.get(0))
        .optional()?;
    let replaced = remove(transaction, &title.id)?;

    insert_parts(transaction, &title)?;
    title.renditions.iter_mut().for_each(|rendition| rendition.segments.clear());
    let searched = format!("{}\n{}\n{}", folded(&title.title), folded(&title.description), folded(&title.cast.join(" ")));
    transaction
        .prepare_cached("INSERT INTO fingerprints (fingerprint, title_id) VALUES (?, ?)")?
        .execute(params![fingerprint, title.id.as_str()])?;
    transaction
        .prepare_cached(
            "INSERT INTO titles (id, title, description, cast_names, rating, duration_ms, created_at_ms, root, fingerprint, hls, dash, poster,
             storyboard, renditions, searched) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            title.id.as_str(),
            title.title,
            title.description,
            json(&title.cast),
            title.rating,
            integer(title.duration_ms),
            created_at_ms.unwrap_or(integer(now_ms)),
            title.root.as_str(),
            fingerprint,
            title.hls,
            title.dash,
            title.poster,
            title.storyboard,
            json(&title.renditions),
            searched
        ])?;
    Ok(if replaced { Put::Replaced } else { Put::Created })
}

fn insert_parts(transaction: &Transaction<'_>, title: &Title) -> Result<(), DbError> {
    let mut segment = transaction.prepare_cached(
        "INSERT INTO segments (title_id, rendition_id, number, start_ms, duration_ms, path) VALUES (?, ?, ?, ?, ?, ?)",
    )?;
    for rendition in &title.renditions {
        for (number, part) in (1_i64..).zip(&rendition.segments) {
            segment.execute(params![
                title.id.as_str(),
                rendition.id,
                number,
                integer(part.start_ms),
                integer(part.duration_ms),
                part.path
            ])?;
        }
    }
    let mut object =
        transaction.prepare_cached("INSERT INTO objects (title_id, path, bytes, digest, content_type) VALUES (?, ?, ?, ?, ?)")?;
    for part in &title.objects {
        object.execute(params![title.id.as_str(), part.path, integer(part.bytes), part.digest.to_string(), part.content_type])?;
    }
    Ok(())
}

fn remove(transaction: &Transaction<'_>, id: &TitleId) -> Result<bool, DbError> {
    let fingerprint: Option<String> = transaction
        .prepare_cached("DELETE FROM titles WHERE id = ? RETURNING fingerprint")?
        .query_row([id.as_str()], |row| row.get(0))
        .optional()?;
    let Some(fingerprint) = fingerprint else {
        return Ok(false);
    };
    transaction.prepare_cached("DELETE FROM fingerprints WHERE fingerprint = ?")?.execute([fingerprint])?;
    transaction.prepare_cached("DELETE FROM segments WHERE title_id = ?")?.execute([id.as_str()])?;
    transaction.prepare_cached("DELETE FROM objects WHERE title_id = ?")?.execute([id.as_str()])?;
    Ok(true)
}

/// Columns 0 to 6, as both SELECTs have them.
fn summary(row: &Row<'_>) -> Result<Summary, DbError> {
    Ok(Summary {
        id: row.get::<_, String>(0)?.parse().map_err(DbError::damaged("title id"))?,
        title: row.get(1)?,
        description: row.get(2)?,
        cast: serde_json::from_str(row.get_ref(3)?.as_str().map_err(DbError::damaged("cast"))?)
            .map_err(DbError::damaged("cast"))?,
        rating: row.get(4)?,
        duration_ms: unsigned(row.get(5)?),
        created_at_ms: unsigned(row.get(6)?),
    })
}

fn entry(row: &Row<'_>) -> Result<Entry, DbError> {
    let renditions: Vec<Rendition> =
        serde_json::from_str(row.get_ref(12)?.as_str().map_err(DbError::damaged("list of renditions"))?)
            .map_err(DbError::damaged("list of renditions"))?;
    Ok(Entry {
        summary: summary(row)?,
        root: ObjectPath::new(row.get::<_, String>(7)?).map_err(DbError::damaged("root"))?,
        hls: row.get(8)?,
        dash: row.get(9)?,
        poster: row.get(10)?,
        storyboard: row.get(11)?,
        renditions,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::tests::title;

    fn open() -> (tempfile::TempDir, Db) {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(&dir.path().join("control.db")).unwrap();
        (dir, db)
    }

    fn id(text: &str) -> TitleId {
        text.parse().unwrap()
    }

    async fn ids(db: &Db, query: Option<&str>, cursor: Option<&Cursor>, limit: u32) -> Vec<String> {
        let titles = db.titles(query.map(str::to_owned), cursor.cloned(), limit).await.unwrap();
        titles.into_iter().map(|summary| summary.id.to_string()).collect()
    }

    #[tokio::test]
    async fn a_title_comes_back_as_it_was_put() {
        let (_dir, db) = open();
        let published = title("demo");
        assert_eq!(db.put_title(published.clone(), 1000, None).await.unwrap(), Put::Created);
        let entry = db.title(id("demo")).await.unwrap().unwrap();
        assert_eq!(
            (&entry.summary.title, &entry.summary.cast, entry.summary.created_at_ms),
            (&published.title, &published.cast, 1000)
        );
        assert_eq!((&entry.root, &entry.hls), (&published.root, &published.hls));
        let renditions: Vec<_> = published.renditions.iter().map(|r| Rendition { segments: Vec::new(), ..r.clone() }).collect();
        assert_eq!(entry.renditions, renditions);
        assert_eq!(db.title(id("other")).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_write_that_wants_another_title_changes_nothing() {
        let (_dir, db) = open();
        let if_missing = || -> Option<Condition> { Some(Box::new(|entry| entry.is_none())) };
        let if_called = |name: &'static str| -> Option<Condition> {
            Some(Box::new(move |entry| entry.is_some_and(|entry| entry.summary.title == name)))
        };
        assert_eq!(db.put_title(title("demo"), 1, if_called("x")).await.unwrap(), Put::Unwanted);
        assert_eq!(db.put_title(title("demo"), 1, if_missing()).await.unwrap(), Put::Created);
        assert_eq!(db.put_title(title("demo"), 1, if_missing()).await.unwrap(), Put::Unwanted);
        assert_eq!(db.remove_title(id("demo"), if_called("x")).await.unwrap(), Removed::Unwanted);
        assert!(db.title(id("demo")).await.unwrap().is_some());
        assert_eq!(db.remove_title(id("demo"), if_called("The Title demo")).await.unwrap(), Removed::Done);
    }

    #[tokio::test]
    async fn segments_are_found_by_number_and_by_time() {
        let (_dir, db) = open();
        let published = title("demo");
        db.put_title(published.clone(), 1000, None).await.unwrap();
        let segment = async |rendition: &str, at| db.segment(id("demo"), rendition.into(), at).await.unwrap();
        let second = Found::Segment { number: 2, segment: published.renditions[0].segments[1].clone() };
        assert_eq!(segment("v720", At::Number(2)).await, second);
        assert_eq!(segment("v720", At::TimeMs(4000)).await, second);
        assert_eq!(segment("v720", At::TimeMs(7999)).await, second);
        assert!(matches!(segment("a1", At::TimeMs(u64::MAX)).await, Found::Segment { number: 3, .. }));
        assert_eq!(segment("v720", At::Number(0)).await, Found::Beyond { count: 3 });
        assert_eq!(segment("v720", At::Number(4)).await, Found::Beyond { count: 3 });
        assert_eq!(segment("v9", At::Number(1)).await, Found::Beyond { count: 0 });
    }

    #[tokio::test]
    async fn a_fingerprint_belongs_to_one_title_until_that_is_gone() {
        let (_dir, db) = open();
        db.put_title(title("one"), 1, None).await.unwrap();
        let same_source = Title { fingerprint: title("one").fingerprint, ..title("two") };
        assert_eq!(db.put_title(same_source.clone(), 2, None).await.unwrap(), Put::Taken(id("one")));
        assert_eq!(db.title(id("two")).await.unwrap(), None);
        assert_eq!(db.put_title(title("one"), 3, None).await.unwrap(), Put::Replaced);
        // Another source under the same id lets the fingerprint go, and so does removal.
        let other_source = Title { fingerprint: title("new").fingerprint, ..title("one") };
        assert_eq!(db.put_title(other_source, 4, None).await.unwrap(), Put::Replaced);
        assert_eq!(db.put_title(same_source.clone(), 5, None).await.unwrap(), Put::Created);
        assert_eq!(db.remove_title(id("two"), None).await.unwrap(), Removed::Done);
        assert_eq!(db.remove_title(id("two"), None).await.unwrap(), Removed::NotThere);
        assert_eq!(db.segment(id("two"), "v720".into(), At::Number(1)).await.unwrap(), Found::Beyond { count: 0 });
        assert_eq!(db.put_title(title("one"), 6, None).await.unwrap(), Put::Replaced);
        assert_eq!(db.titles_count().await.unwrap(), 1);
    }

    #[tokio::test]
    async fn pages_neither_repeat_nor_skip_while_titles_come_and_go() {
        let (_dir, db) = open();
        for (n, name) in ["a", "b", "c", "d", "e"].into_iter().enumerate() {
            // Two of one millisecond: the id decides between them.
            db.put_title(title(name), [10, 20, 20, 30, 40][n], None).await.unwrap();
        }
        let first = db.titles(None, None, 2).await.unwrap();
        assert_eq!(ids(&db, None, None, 2).await, ["e", "d"]);
        let cursor = Cursor::after(&first[1]);
        db.put_title(title("newest"), 50, None).await.unwrap();
        db.put_title(title("e"), 60, None).await.unwrap();
        db.remove_title(id("d"), None).await.unwrap();
        assert_eq!(ids(&db, None, Some(&cursor), 10).await, ["c", "b", "a"]);
        assert_eq!(ids(&db, None, None, 10).await, ["newest", "e", "c", "b", "a"], "a replaced title keeps its place");
    }

    #[tokio::test]
    async fn search_matches_text_not_patterns() {
        let (_dir, db) = open();
        db.put_title(
            Title { title: "100% Übermut".into(), description: "x_y".into(), cast: vec!["Zoë Ö'Hara".into()], ..title("one") },
            1,
            None,
        )
        .await
        .unwrap();
        db.put_title(Title { title: "Plain".into(), cast: vec![], ..title("two") }, 2, None).await.unwrap();
        for (query, found) in [
            ("übermut", &["one"][..]),
            ("ÜBER", &["one"]),
            ("%", &["one"]),
            ("_", &["one"]),
            ("zoë  ö'HARA", &["one"]),
            ("about NOTHING", &["two"]),
            ("pla%", &[]),
            ("'; DROP TABLE titles; --", &[]),
            ("", &["two", "one"]),
        ] {
            assert_eq!(ids(&db, Some(query), None, 10).await, found, "{query}");
        }
    }
}
