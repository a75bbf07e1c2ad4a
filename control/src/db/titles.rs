//! Titles, by id. A title's row, segments and objects are one partition; who has a fingerprint is another.

use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};
use wire::{
    object::ObjectPath,
    title::{Rendition, Segment, Title, TitleId, TitleKind},
};

use super::{Db, DbError, integer, json, unsigned};
use crate::catalogue::{Cursor, Entry, Flaw, Metadata, Summary};

/// What became of a title that was put.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Put {
    Created,
    Replaced,
    /// Its fingerprint is that of these other titles; nothing was changed.
    Taken(Vec<TitleId>),
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

/// What became of a title whose words were to be changed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Amended {
    Done,
    NotThere,
    /// What was there was not as wanted; nothing was changed.
    Unwanted,
    /// What would have been there cannot be; nothing was changed.
    Flawed(Flaw),
}

/// What is to be said of a title, given what is said. Asked within its transaction.
pub(crate) type Amendment = Box<dyn FnOnce(&Metadata) -> Result<Metadata, Flaw> + Send>;

/// What a summary is read from, in the order that [`summary`] reads it.
const SUMMARY: &str =
    "id, title, description, cast_names, rating, genres, year, language, kind, duration_ms, created_at_ms, stamp";

/// Titles that are named to whoever wants to catalogue their source once more.
const DUPLICATES_NAMED_MAX: u32 = 10;

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
    /// Catalogues a checked title, in place of an earlier one of the same id, which keeps its date. Not if its source is another
    /// title's, unless this one was catalogued beside that before.
    pub(crate) async fn put_title(&self, title: Title, now_ms: u64, condition: Option<Condition>) -> Result<Put, DbError> {
        self.put(title, now_ms, condition, false).await
    }

    /// The same, also if its source is another title's.
    pub(crate) async fn put_duplicate(&self, title: Title, now_ms: u64, condition: Option<Condition>) -> Result<Put, DbError> {
        self.put(title, now_ms, condition, true).await
    }

    async fn put(&self, title: Title, now_ms: u64, condition: Option<Condition>, allow_duplicate: bool) -> Result<Put, DbError> {
        self.write(move |db| {
            let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            if !is_wanted(&transaction, &title.id, condition)? {
                return Ok(Put::Unwanted);
            }
            let put = put(&transaction, title, now_ms, allow_duplicate)?;
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

    /// Changes what is said of a title, and nothing else of it.
    pub(crate) async fn amend_title(
        &self,
        id: TitleId,
        amendment: Amendment,
        condition: Option<Condition>,
    ) -> Result<Amended, DbError> {
        self.write(move |db| {
            let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let Some(entry) = find(&transaction, &id)? else {
                return Ok(Amended::NotThere);
            };
            if condition.is_some_and(|condition| !condition(Some(&entry))) {
                return Ok(Amended::Unwanted);
            }
            let words = match amendment(&Metadata::catalogued(&entry.summary)) {
                Ok(words) => words,
                Err(flaw) => return Ok(Amended::Flawed(flaw)),
            };
            amend(&transaction, &id, &words, entry.summary.created_at_ms)?;
            transaction.commit()?;
            Ok(Amended::Done)
        })
        .await
    }

    /// A title without its segments and objects.
    pub(crate) async fn title(&self, id: TitleId) -> Result<Option<Entry>, DbError> {
        self.read(move |db| find(db, &id)).await
    }

    /// Several titles, each by its id, in the order of `ids`.
    pub(crate) async fn titles(&self, ids: Vec<TitleId>) -> Result<Vec<Option<Entry>>, DbError> {
        self.read(move |db| ids.iter().map(|id| find(db, id)).collect()).await
    }

    /// Up to `limit` titles, newest first, after `cursor`.
    pub(crate) async fn newest(&self, cursor: Option<Cursor>, limit: u32) -> Result<Vec<Summary>, DbError> {
        self.read(move |db| {
            let mut select = db.prepare_cached(&format!(
                "SELECT {SUMMARY} FROM titles WHERE ?1 IS NULL OR (created_at_ms, id) < (?1, ?2)
                 ORDER BY created_at_ms DESC, id DESC LIMIT ?3"
            ))?;
            let (before_ms, before_id) = cursor.map(|cursor| (integer(cursor.created_at_ms), cursor.id.to_string())).unzip();
            let mut rows = select.query(params![before_ms, before_id, limit])?;
            let mut titles = Vec::new();
            while let Some(row) = rows.next()? {
                titles.push(summary(row)?);
            }
            Ok(titles)
        })
        .await
    }

    /// Up to `limit` ids after `after` in their order, with the stamps of their titles.
    pub(crate) async fn stamps(&self, after: Option<TitleId>, limit: u32) -> Result<Vec<(TitleId, u64)>, DbError> {
        self.read(move |db| {
            let mut select = db.prepare_cached("SELECT id, stamp FROM titles WHERE id > ? ORDER BY id LIMIT ?")?;
            let after = after.as_ref().map_or("", TitleId::as_str);
            let rows = select.query_map(params![after, limit], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))?;
            rows.map(|row| {
                let (id, stamp) = row?;
                Ok((id.parse().map_err(DbError::damaged("title id"))?, unsigned(stamp)))
            })
            .collect()
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

    /// All segments of a rendition, in play order.
    pub(crate) async fn segments(&self, id: TitleId, rendition: String) -> Result<Vec<Segment>, DbError> {
        self.read(move |db| {
            let mut select = db.prepare_cached(
                "SELECT path, start_ms, duration_ms FROM segments WHERE title_id = ? AND rendition_id = ? ORDER BY number",
            )?;
            let segments = select.query_map(params![id.as_str(), rendition], |row| {
                Ok(Segment { path: row.get(0)?, start_ms: unsigned(row.get(1)?), duration_ms: unsigned(row.get(2)?) })
            })?;
            Ok(segments.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Of each of these renditions that there is, the paths of its first and last segment, and how many it has.
    pub(crate) async fn segment_ends(&self, id: TitleId, renditions: Vec<String>) -> Result<Vec<(String, String, u64)>, DbError> {
        self.read(move |db| {
            let mut ends = Vec::with_capacity(renditions.len());
            for rendition in renditions {
                let end = |order: &str| -> Result<Option<(String, i64)>, DbError> {
                    let statement = format!(
                        "SELECT path, number FROM segments WHERE title_id = ? AND rendition_id = ? ORDER BY number {order} LIMIT 1"
                    );
                    let key = params![id.as_str(), rendition];
                    Ok(db.prepare_cached(&statement)?.query_row(key, |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
                };
                if let (Some((first, _)), Some((last, count))) = (end("ASC")?, end("DESC")?) {
                    ends.push((first, last, unsigned(count)));
                }
            }
            Ok(ends)
        })
        .await
    }
}

fn find(db: &Connection, id: &TitleId) -> Result<Option<Entry>, DbError> {
    let mut select = db
        .prepare_cached(&format!("SELECT {SUMMARY}, root, hls, dash, poster, storyboard, renditions FROM titles WHERE id = ?"))?;
    let mut rows = select.query([id.as_str()])?;
    rows.next()?.map(entry).transpose()
}

fn is_wanted(transaction: &Transaction<'_>, id: &TitleId, condition: Option<Condition>) -> Result<bool, DbError> {
    condition.map_or(Ok(true), |condition| Ok(condition(find(transaction, id)?.as_ref())))
}

fn put(transaction: &Transaction<'_>, mut title: Title, now_ms: u64, allow_duplicate: bool) -> Result<Put, DbError> {
    let fingerprint = title.fingerprint.to_string();
    if !allow_duplicate {
        let others = others(transaction, &fingerprint, &title.id)?;
        if !others.is_empty() {
            return Ok(Put::Taken(others));
        }
    }
    let created_at_ms: Option<i64> = transaction
        .prepare_cached("SELECT created_at_ms FROM titles WHERE id = ?")?
        .query_row([title.id.as_str()], |row| row.get(0))
        .optional()?;
    let replaced = remove(transaction, &title.id)?;

    insert_parts(transaction, &title)?;
    title.renditions.iter_mut().for_each(|rendition| rendition.segments.clear());
    let created_at_ms = created_at_ms.map_or(now_ms, unsigned);
    let stamp = Metadata::of(&title).stamp(created_at_ms);
    transaction
        .prepare_cached("INSERT INTO sources (fingerprint, title_id) VALUES (?, ?)")?
        .execute(params![fingerprint, title.id.as_str()])?;
    transaction
        .prepare_cached(
            "INSERT INTO titles (id, title, description, cast_names, rating, genres, year, language, kind, duration_ms, created_at_ms, stamp,
             root, fingerprint, hls, dash, poster, storyboard, renditions)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            title.id.as_str(),
            title.title,
            title.description,
            json(&title.cast),
            title.rating,
            json(&title.genres),
            title.year,
            title.language,
            title.kind.map(TitleKind::as_str),
            integer(title.duration_ms),
            integer(created_at_ms),
            integer(stamp),
            title.root.as_str(),
            fingerprint,
            title.hls,
            title.dash,
            title.poster,
            title.storyboard,
            json(&title.renditions)
        ])?;
    Ok(if replaced { Put::Replaced } else { Put::Created })
}

/// The titles that are in the way of cataloguing a source as `id`: none if it is catalogued so already.
fn others(transaction: &Transaction<'_>, fingerprint: &str, id: &TitleId) -> Result<Vec<TitleId>, DbError> {
    let is_known = transaction
        .prepare_cached("SELECT 1 FROM sources WHERE fingerprint = ? AND title_id = ?")?
        .exists(params![fingerprint, id.as_str()])?;
    if is_known {
        return Ok(Vec::new());
    }
    let mut select =
        transaction.prepare_cached("SELECT title_id FROM sources WHERE fingerprint = ? ORDER BY title_id LIMIT ?")?;
    let rows = select.query_map(params![fingerprint, DUPLICATES_NAMED_MAX], |row| row.get::<_, String>(0))?;
    rows.map(|id| id?.parse().map_err(DbError::damaged("title id"))).collect()
}

fn amend(transaction: &Transaction<'_>, id: &TitleId, words: &Metadata, created_at_ms: u64) -> Result<(), DbError> {
    transaction
        .prepare_cached(
            "UPDATE titles SET title = ?, description = ?, cast_names = ?, rating = ?, genres = ?, year = ?, language = ?, kind = ?, stamp = ?
             WHERE id = ?",
        )?
        .execute(params![
            words.title,
            words.description,
            json(&words.cast),
            words.rating,
            json(&words.genres),
            words.year,
            words.language,
            words.kind.map(TitleKind::as_str),
            integer(words.stamp(created_at_ms)),
            id.as_str()
        ])?;
    Ok(())
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
    transaction
        .prepare_cached("DELETE FROM sources WHERE fingerprint = ? AND title_id = ?")?
        .execute(params![fingerprint, id.as_str()])?;
    transaction.prepare_cached("DELETE FROM segments WHERE title_id = ?")?.execute([id.as_str()])?;
    transaction.prepare_cached("DELETE FROM objects WHERE title_id = ?")?.execute([id.as_str()])?;
    Ok(true)
}

/// From the columns of [`SUMMARY`].
fn summary(row: &Row<'_>) -> Result<Summary, DbError> {
    let names = |column: usize, what| {
        let names = row.get_ref(column)?.as_str().map_err(DbError::damaged(what))?;
        serde_json::from_str(names).map_err(DbError::damaged(what))
    };
    let kind = row.get::<_, Option<String>>(8)?.map(|kind| kind.parse().map_err(DbError::damaged("kind"))).transpose()?;
    Ok(Summary {
        id: row.get::<_, String>(0)?.parse().map_err(DbError::damaged("title id"))?,
        title: row.get(1)?,
        description: row.get(2)?,
        cast: names(3, "cast")?,
        rating: row.get(4)?,
        genres: names(5, "list of genres")?,
        year: row.get(6)?,
        language: row.get(7)?,
        kind,
        duration_ms: unsigned(row.get(9)?),
        created_at_ms: unsigned(row.get(10)?),
        stamp: unsigned(row.get(11)?),
    })
}

/// From those and what stands behind them.
fn entry(row: &Row<'_>) -> Result<Entry, DbError> {
    let renditions: Vec<Rendition> =
        serde_json::from_str(row.get_ref(17)?.as_str().map_err(DbError::damaged("list of renditions"))?)
            .map_err(DbError::damaged("list of renditions"))?;
    Ok(Entry {
        summary: summary(row)?,
        root: ObjectPath::new(row.get::<_, String>(12)?).map_err(DbError::damaged("root"))?,
        hls: row.get(13)?,
        dash: row.get(14)?,
        poster: row.get(15)?,
        storyboard: row.get(16)?,
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

    async fn ids(db: &Db, cursor: Option<&Cursor>, limit: u32) -> Vec<String> {
        let titles = db.newest(cursor.cloned(), limit).await.unwrap();
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
        assert_eq!(db.put_title(same_source.clone(), 2, None).await.unwrap(), Put::Taken(vec![id("one")]));
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
    async fn a_source_is_catalogued_twice_only_if_that_is_wanted() {
        let (_dir, db) = open();
        let of_one = |name: &str| Title { fingerprint: title("one").fingerprint, ..title(name) };
        db.put_title(title("one"), 1, None).await.unwrap();
        assert_eq!(db.put_duplicate(of_one("two"), 2, None).await.unwrap(), Put::Created);
        assert_eq!(db.put_title(of_one("three"), 3, None).await.unwrap(), Put::Taken(vec![id("one"), id("two")]));
        // What was wanted once need not be said again.
        assert_eq!(db.put_title(of_one("two"), 4, None).await.unwrap(), Put::Replaced);
        assert_eq!(db.put_title(title("one"), 5, None).await.unwrap(), Put::Replaced);
        // Each goes for itself.
        assert_eq!(db.remove_title(id("one"), None).await.unwrap(), Removed::Done);
        assert_eq!(db.put_title(of_one("three"), 6, None).await.unwrap(), Put::Taken(vec![id("two")]));
        assert_eq!(db.remove_title(id("two"), None).await.unwrap(), Removed::Done);
        assert_eq!(db.put_title(of_one("three"), 7, None).await.unwrap(), Put::Created);
    }

    #[tokio::test]
    async fn pages_neither_repeat_nor_skip_while_titles_come_and_go() {
        let (_dir, db) = open();
        for (n, name) in ["a", "b", "c", "d", "e"].into_iter().enumerate() {
            // Two of one millisecond: the id decides between them.
            db.put_title(title(name), [10, 20, 20, 30, 40][n], None).await.unwrap();
        }
        let first = db.newest(None, 2).await.unwrap();
        assert_eq!(ids(&db, None, 2).await, ["e", "d"]);
        let cursor = Cursor::after(&first[1]);
        db.put_title(title("newest"), 50, None).await.unwrap();
        db.put_title(title("e"), 60, None).await.unwrap();
        db.remove_title(id("d"), None).await.unwrap();
        assert_eq!(ids(&db, Some(&cursor), 10).await, ["c", "b", "a"]);
        assert_eq!(ids(&db, None, 10).await, ["newest", "e", "c", "b", "a"], "a replaced title keeps its place");
    }

    #[tokio::test]
    async fn words_are_changed_alone_and_with_them_the_stamp() {
        let (_dir, db) = open();
        db.put_title(title("demo"), 1000, None).await.unwrap();
        let before = db.title(id("demo")).await.unwrap().unwrap();
        let year =
            |year: u16| -> Amendment { Box::new(move |words| Ok(Metadata { year: Some(year), kind: None, ..words.clone() })) };
        assert_eq!(db.amend_title(id("other"), year(2001), None).await.unwrap(), Amended::NotThere);
        let never: Condition = Box::new(|_| false);
        assert_eq!(db.amend_title(id("demo"), year(2001), Some(never)).await.unwrap(), Amended::Unwanted);
        let flaw = Flaw { pointer: "/year".into(), detail: "no".into() };
        let refused: Amendment = Box::new({
            let flaw = flaw.clone();
            move |_| Err(flaw)
        });
        assert_eq!(db.amend_title(id("demo"), refused, None).await.unwrap(), Amended::Flawed(flaw));
        assert_eq!(db.title(id("demo")).await.unwrap().as_ref(), Some(&before));
        assert_eq!(db.amend_title(id("demo"), year(2001), None).await.unwrap(), Amended::Done);
        let after = db.title(id("demo")).await.unwrap().unwrap();
        assert_ne!(after.summary.stamp, before.summary.stamp);
        let expected = Summary { year: Some(2001), kind: None, stamp: after.summary.stamp, ..before.summary.clone() };
        assert_eq!(after, Entry { summary: expected, ..before });
        assert!(matches!(db.segment(id("demo"), "v720".into(), At::Number(1)).await.unwrap(), Found::Segment { .. }));
    }

    #[tokio::test]
    async fn stamps_are_walked_in_the_order_of_ids() {
        let (_dir, db) = open();
        for name in ["c", "a", "b"] {
            db.put_title(title(name), 1, None).await.unwrap();
        }
        let first = db.stamps(None, 2).await.unwrap();
        let rest = db.stamps(Some(first[1].0.clone()), 2).await.unwrap();
        let ids: Vec<_> = first.iter().chain(&rest).map(|(id, _)| id.as_str().to_owned()).collect();
        assert_eq!(ids, ["a", "b", "c"]);
        for (id, stamp) in first {
            assert_eq!(db.title(id).await.unwrap().unwrap().summary.stamp, stamp);
        }
        let again = db.stamps(None, 1).await.unwrap();
        db.put_title(title("a"), 2, None).await.unwrap();
        assert_eq!(db.stamps(None, 1).await.unwrap(), again, "the same words at the same place have the same stamp");
        let several = db.titles(vec![id("b"), id("unknown"), id("a")]).await.unwrap();
        let names: Vec<_> = several.iter().map(|entry| entry.as_ref().map(|entry| entry.summary.id.as_str())).collect();
        assert_eq!(names, [Some("b"), None, Some("a")]);
    }
}
