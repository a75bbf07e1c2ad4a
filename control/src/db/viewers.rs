//! What viewers did, by user: live views, packed views, marks. Keeps and finds; what it means is decided in `viewers`.

use rusqlite::{Connection, Row, Rows, TransactionBehavior, params};
use wire::title::TitleId;

use super::{Db, DbError, integer, unsigned};
use crate::{
    identity::user::UserId,
    viewers::{
        mark::{Mark, Opinion},
        memory::ForgottenId,
        pack::{PackHead, unpack},
        view::View,
    },
};

/// What of a period is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// Its live rows are to be packed.
    Packing = 0,
    /// Its packs are to be dropped.
    Dropping = 1,
}

/// A place in the list of what is due: period and user.
pub(crate) type DuePlace = (u64, UserId);

/// What is known of all viewers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Known {
    /// Up to which number of the journal everything is in the database.
    pub(crate) sequence: u64,
    /// Who was forgotten, and when.
    pub(crate) forgotten: Vec<(ForgottenId, u64)>,
}

impl Db {
    /// Asked once, when control starts.
    pub(crate) async fn viewers_known(&self) -> Result<Known, DbError> {
        self.read(|db| {
            let sequence = db.query_row("SELECT sequence FROM viewers_journal WHERE only = 0", [], |row| row.get(0))?;
            let mut select = db.prepare("SELECT digest, at_ms FROM forgotten_users")?;
            let forgotten = select.query_map([], |row| Ok((row.get(0)?, unsigned(row.get(1)?))))?;
            Ok(Known { sequence: unsigned(sequence), forgotten: forgotten.collect::<Result<_, _>>()? })
        })
        .await
    }

    /// Reads of a user's rows, all as of one moment.
    pub(crate) async fn read_viewer<T: Send + 'static>(
        &self,
        user: UserId,
        ask: impl FnOnce(&Viewer<'_>) -> Result<T, DbError> + Send + 'static,
    ) -> Result<T, DbError> {
        self.read(move |db| {
            let transaction = db.transaction()?;
            ask(&Viewer { db: &transaction, user: &user })
        })
        .await
    }

    /// Changes rows of viewers, wholly or not at all.
    pub(crate) async fn change_viewers<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Viewers<'_>) -> Result<T, DbError> + Send + 'static,
    ) -> Result<T, DbError> {
        self.write(move |db| {
            let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let changed = change(&Viewers { db: &transaction })?;
            transaction.commit()?;
            Ok(changed)
        })
        .await
    }

    /// Takes what was deleted out of the write-ahead log too, by beginning that anew. False while someone still reads from it.
    pub(crate) async fn truncate_log(&self) -> Result<bool, DbError> {
        self.write(|db| Ok(db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0))? == 0)).await
    }

    /// A number that says how large something is.
    #[cfg(any(test, feature = "synthetic"))]
    pub(crate) async fn weigh(&self, sql: &'static str) -> Result<f64, DbError> {
        self.read(move |db| Ok(db.query_one(sql, [], |row| row.get::<_, i64>(0))? as f64)).await
    }

    /// Up to `limit` users for whom something is due in periods below `before`, after `after`, in order.
    pub(crate) async fn viewers_due(
        &self,
        what: Due,
        before: u64,
        after: Option<DuePlace>,
        limit: u32,
    ) -> Result<Vec<DuePlace>, DbError> {
        self.read(move |db| {
            let (period, user) = after.map_or((0, String::new()), |(period, user)| (integer(period), user.to_string()));
            let mut select = db.prepare_cached(
                "SELECT period, user_id FROM views_due
                 WHERE what = ?1 AND period < ?2 AND (period, user_id) > (?3, ?4) ORDER BY period, user_id LIMIT ?5",
            )?;
            whole(select.query(params![what as u8, integer(before), period, user, limit])?, |row| {
                let user = row.get_ref(1)?.as_str().map_err(DbError::damaged("user"))?.parse();
                Ok((unsigned(row.get(0)?), user.map_err(DbError::damaged("user"))?))
            })
        })
        .await
    }
}

/// All viewers' rows, in one transaction that writes.
pub(crate) struct Viewers<'a> {
    db: &'a Connection,
}

impl<'a> Viewers<'a> {
    /// One of them.
    pub(crate) fn viewer(&self, user: &'a UserId) -> Viewer<'a> {
        Viewer { db: self.db, user }
    }

    /// Everything in the journal up to this number is in the database.
    pub(crate) fn set_sequence(&self, sequence: u64) -> Result<(), DbError> {
        let mut update = self.db.prepare_cached("UPDATE viewers_journal SET sequence = ? WHERE only = 0")?;
        update.execute([integer(sequence)])?;
        Ok(())
    }

    /// Someone was forgotten.
    pub(crate) fn put_forgotten(&self, id: &ForgottenId, at_ms: u64) -> Result<(), DbError> {
        let mut insert = self.db.prepare_cached(
            "INSERT INTO forgotten_users (digest, at_ms) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET at_ms = max(at_ms, ?2)",
        )?;
        insert.execute(params![id, integer(at_ms)])?;
        Ok(())
    }

    /// Who was forgotten before `at_ms` need not be remembered as such any more.
    pub(crate) fn drop_forgotten_before(&self, at_ms: u64) -> Result<(), DbError> {
        self.db.prepare_cached("DELETE FROM forgotten_users WHERE at_ms < ?")?.execute([integer(at_ms)])?;
        Ok(())
    }
}

/// One user's rows, in a transaction.
pub(crate) struct Viewer<'a> {
    db: &'a Connection,
    user: &'a UserId,
}

impl Viewer<'_> {
    /// Her live views.
    pub(crate) fn views(&self) -> Result<Vec<View>, DbError> {
        let mut select = self.db.prepare_cached(
            "SELECT title_id, begun_ms, last_ms, position_ms, furthest_ms, device FROM views WHERE user_id = ?",
        )?;
        whole(select.query([self.user.as_str()])?, view)
    }

    /// Her live views of one title.
    pub(crate) fn views_of(&self, title: &TitleId) -> Result<Vec<View>, DbError> {
        let mut select = self.db.prepare_cached(
            "SELECT title_id, begun_ms, last_ms, position_ms, furthest_ms, device FROM views WHERE user_id = ? AND title_id = ?",
        )?;
        whole(select.query([self.user.as_str(), title.as_str()])?, view)
    }

    /// Keeps a live view, in place of the one that began then.
    pub(crate) fn put_view(&self, view: &View) -> Result<(), DbError> {
        self.db
            .prepare_cached(
                "INSERT OR REPLACE INTO views (user_id, title_id, begun_ms, last_ms, position_ms, furthest_ms, device)
                 VALUES (?, ?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![
                self.user.as_str(),
                view.title.as_str(),
                integer(view.begun_ms),
                integer(view.last_ms),
                integer(view.position_ms),
                integer(view.furthest_ms),
                view.device.as_ref().map(|device| device.as_str()),
            ])?;
        Ok(())
    }

    /// Removes the live view of `title` that began then.
    pub(crate) fn remove_view(&self, title: &TitleId, begun_ms: u64) -> Result<(), DbError> {
        let mut delete = self.db.prepare_cached("DELETE FROM views WHERE user_id = ? AND title_id = ? AND begun_ms = ?")?;
        delete.execute(params![self.user.as_str(), title.as_str(), integer(begun_ms)])?;
        Ok(())
    }

    /// What is known of her packs that have views as late as `last_ms` or later, the newest first.
    pub(crate) fn packs(&self, last_ms: u64) -> Result<Vec<PackHead>, DbError> {
        let mut select = self.db.prepare_cached(
            "SELECT period, chunk, views, first_begun_ms, last_begun_ms, last_ms, titles FROM view_packs
             WHERE user_id = ? AND last_ms >= ? ORDER BY period DESC, chunk DESC",
        )?;
        let rows = select.query_map(params![self.user.as_str(), integer(last_ms)], |row| {
            let number = |column: usize| row.get(column).map(unsigned);
            Ok(PackHead {
                period: number(0)?,
                chunk: number(1)?,
                views: number(2)?,
                first_begun_ms: number(3)?,
                last_begun_ms: number(4)?,
                last_ms: number(5)?,
                titles: row.get(6)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// What is in one of her packs.
    pub(crate) fn unpacked(&self, pack: &PackHead) -> Result<Vec<View>, DbError> {
        let mut select = self.db.prepare_cached("SELECT data FROM view_packs WHERE user_id = ? AND period = ? AND chunk = ?")?;
        let mut rows = select.query(params![self.user.as_str(), integer(pack.period), integer(pack.chunk)])?;
        let Some(row) = rows.next()? else { return Ok(Vec::new()) };
        let data = row.get_ref(0)?.as_blob().map_err(DbError::damaged("pack of views"))?;
        unpack(data).map_err(DbError::damaged("pack of views"))
    }

    /// Keeps a pack, in place of one of that period and chunk.
    pub(crate) fn put_pack(&self, pack: &PackHead, data: &[u8]) -> Result<(), DbError> {
        self.db
            .prepare_cached(
                "INSERT OR REPLACE INTO view_packs (user_id, period, chunk, views, first_begun_ms, last_begun_ms, last_ms, titles, data)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![
                self.user.as_str(),
                integer(pack.period),
                integer(pack.chunk),
                integer(pack.views),
                integer(pack.first_begun_ms),
                integer(pack.last_begun_ms),
                integer(pack.last_ms),
                pack.titles,
                data,
            ])?;
        Ok(())
    }

    /// Removes all packs of a period.
    pub(crate) fn remove_packs(&self, period: u64) -> Result<(), DbError> {
        let mut delete = self.db.prepare_cached("DELETE FROM view_packs WHERE user_id = ? AND period = ?")?;
        delete.execute(params![self.user.as_str(), integer(period)])?;
        Ok(())
    }

    /// Notes that something will be due in a period, for so many views more. Says for how many it is now.
    pub(crate) fn note_due(&self, what: Due, period: u64, views: u64) -> Result<u64, DbError> {
        let mut insert = self.db.prepare_cached(
            "INSERT INTO views_due (user_id, what, period, views) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO UPDATE SET views = views + ?4 RETURNING views",
        )?;
        let views = insert.query_one(params![self.user.as_str(), what as u8, integer(period), integer(views)], |row| row.get(0));
        Ok(unsigned(views?))
    }

    /// It is done, or was not to be done.
    pub(crate) fn remove_due(&self, what: Due, period: u64) -> Result<(), DbError> {
        let mut delete = self.db.prepare_cached("DELETE FROM views_due WHERE user_id = ? AND what = ? AND period = ?")?;
        delete.execute(params![self.user.as_str(), what as u8, integer(period)])?;
        Ok(())
    }

    /// What she said of one title.
    pub(crate) fn mark(&self, title: &TitleId) -> Result<Option<Mark>, DbError> {
        let mut select = self
            .db
            .prepare_cached("SELECT title_id, opinion, opinion_ms, hidden_ms FROM marks WHERE user_id = ? AND title_id = ?")?;
        Ok(whole(select.query([self.user.as_str(), title.as_str()])?, mark)?.pop())
    }

    /// All that she said, title by title: up to `limit` after `after`.
    pub(crate) fn marks(&self, after: Option<&TitleId>, limit: usize) -> Result<Vec<Mark>, DbError> {
        let mut select = self.db.prepare_cached(
            "SELECT title_id, opinion, opinion_ms, hidden_ms FROM marks WHERE user_id = ? AND title_id > ? ORDER BY title_id LIMIT ?",
        )?;
        whole(select.query(params![self.user.as_str(), after.map_or("", TitleId::as_str), integer(limit as u64)])?, mark)
    }

    /// Titles that she has this opinion of, the newest first: up to `limit` before that time and title.
    pub(crate) fn marks_newest(
        &self,
        opinion: Opinion,
        before: Option<(u64, &TitleId)>,
        limit: usize,
    ) -> Result<Vec<Mark>, DbError> {
        let mut select = self.db.prepare_cached(
            "SELECT title_id, opinion, opinion_ms, hidden_ms FROM marks
             WHERE user_id = ?1 AND opinion = ?2 AND opinion <> 0 AND (opinion_ms, title_id) < (?3, ?4)
             ORDER BY opinion_ms DESC, title_id DESC LIMIT ?5",
        )?;
        let (before_ms, before_title) = before.map_or((i64::MAX, ""), |(ms, title)| (integer(ms), title.as_str()));
        let limit = integer(limit as u64);
        whole(select.query(params![self.user.as_str(), opinion.code(), before_ms, before_title, limit])?, mark)
    }

    /// Keeps what she said of a title, in place of what there was.
    pub(crate) fn put_mark(&self, mark: &Mark) -> Result<(), DbError> {
        self.db
            .prepare_cached(
                "INSERT OR REPLACE INTO marks (user_id, title_id, opinion, opinion_ms, hidden_ms) VALUES (?, ?, ?, ?, ?)",
            )?
            .execute(params![
                self.user.as_str(),
                mark.title.as_str(),
                mark.opinion.code(),
                integer(mark.opinion_ms),
                integer(mark.hidden_ms)
            ])?;
        Ok(())
    }

    /// Removes all of her rows, and the answers that are kept for her under idempotency keys.
    pub(crate) fn erase(&self) -> Result<(), DbError> {
        self.db.prepare_cached("DELETE FROM answers WHERE caller = ?")?.execute([format!("viewer {}", self.user)])?;
        for table in ["views", "view_packs", "views_due", "marks"] {
            self.db.prepare_cached(&format!("DELETE FROM {table} WHERE user_id = ?"))?.execute([self.user.as_str()])?;
        }
        Ok(())
    }
}

/// What the rows are. One that this code never wrote is told and left out: it must not keep others from being written or read.
fn whole<T>(mut rows: Rows<'_>, of: fn(&Row<'_>) -> Result<T, DbError>) -> Result<Vec<T>, DbError> {
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        match of(row) {
            Ok(good) => found.push(good),
            Err(error @ DbError::Damaged { .. }) => tracing::error!(%error, "a row of a viewer is left out"),
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn view(row: &Row<'_>) -> Result<View, DbError> {
    let number = |column: usize| row.get(column).map(unsigned);
    let device = row.get_ref(5)?.as_str_or_null().map_err(DbError::damaged("device"))?;
    Ok(View {
        title: title(row, 0)?,
        begun_ms: number(1)?,
        last_ms: number(2)?,
        position_ms: number(3)?,
        furthest_ms: number(4)?,
        device: device.map(str::parse).transpose().map_err(DbError::damaged("device"))?,
    })
}

fn mark(row: &Row<'_>) -> Result<Mark, DbError> {
    let opinion = Opinion::of_code(row.get(1)?).ok_or("no such code").map_err(DbError::damaged("opinion"))?;
    Ok(Mark { title: title(row, 0)?, opinion, opinion_ms: unsigned(row.get(2)?), hidden_ms: unsigned(row.get(3)?) })
}

fn title(row: &Row<'_>, column: usize) -> Result<TitleId, DbError> {
    row.get_ref(column)?.as_str().map_err(DbError::damaged("title id"))?.parse().map_err(DbError::damaged("title id"))
}
