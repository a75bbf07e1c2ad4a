//! Answers kept under idempotency keys: a partition a caller.

use rusqlite::{OptionalExtension as _, params};
use wire::object::Digest;

use super::{Db, DbError, integer, json, unsigned};

/// Rows that are removed in one transaction, so that others write in between.
const PRUNED_MAX: u32 = 10_000;

/// Which answer: whose, of what, under which key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct AnswerKey {
    pub(crate) caller: String,
    /// Method and path.
    pub(crate) route: String,
    pub(crate) key: String,
}

/// An answer as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeptAnswer {
    /// Of the request that it answers.
    pub(crate) fingerprint: Digest,
    pub(crate) expires_at_ms: u64,
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// What is known of a key.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    Answer(KeptAnswer),
    /// Nothing, and the caller has this many others.
    Nothing {
        others: u32,
    },
}

impl Db {
    /// The answer that is kept under `key` and good at `now_ms`; without one, how many others the caller has, counted up to `others_max`.
    pub(crate) async fn answer(&self, key: AnswerKey, now_ms: u64, others_max: u32) -> Result<Kept, DbError> {
        self.read(move |db| {
            let row = db
                .prepare_cached(
                    "SELECT fingerprint, expires_at_ms, status, headers, body FROM answers
                     WHERE caller = ? AND route = ? AND key = ? AND expires_at_ms > ?",
                )?
                .query_row(params![key.caller, key.route, key.key, integer(now_ms)], |row| {
                    let digest: [u8; 32] = row.get(0)?;
                    Ok((digest, row.get(1)?, row.get(2)?, row.get::<_, String>(3)?, row.get(4)?))
                })
                .optional()?;
            if let Some((fingerprint, expires_at_ms, status, headers, body)) = row {
                let headers = serde_json::from_str(&headers).map_err(DbError::damaged("kept answer"))?;
                let fingerprint = Digest::from(fingerprint);
                return Ok(Kept::Answer(KeptAnswer {
                    fingerprint,
                    expires_at_ms: unsigned(expires_at_ms),
                    status,
                    headers,
                    body,
                }));
            }
            let others = db
                .prepare_cached("SELECT count(*) FROM (SELECT 1 FROM answers WHERE caller = ? AND expires_at_ms > ? LIMIT ?)")?
                .query_row(params![key.caller, integer(now_ms), others_max], |row| row.get(0))?;
            Ok(Kept::Nothing { others })
        })
        .await
    }

    /// Keeps an answer, in place of one that has expired.
    pub(crate) async fn keep_answer(&self, key: AnswerKey, answer: KeptAnswer) -> Result<(), DbError> {
        self.write(move |db| {
            db.prepare_cached(
                "INSERT OR REPLACE INTO answers (caller, route, key, fingerprint, expires_at_ms, status, headers, body)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![
                key.caller,
                key.route,
                key.key,
                answer.fingerprint.as_bytes(),
                integer(answer.expires_at_ms),
                answer.status,
                json(&answer.headers),
                answer.body
            ])?;
            Ok(())
        })
        .await
    }

    /// Removes what has expired. Gives how many are left.
    pub(crate) async fn prune_answers(&self, now_ms: u64) -> Result<u64, DbError> {
        loop {
            let (removed, left) = self
                .write(move |db| {
                    let removed = db
                        .prepare_cached(
                            "DELETE FROM answers WHERE (caller, route, key) IN
                             (SELECT caller, route, key FROM answers WHERE expires_at_ms <= ? ORDER BY expires_at_ms LIMIT ?)",
                        )?
                        .execute(params![integer(now_ms), PRUNED_MAX])?;
                    let left: i64 = db
                        .prepare_cached("SELECT count(*) FROM answers INDEXED BY answers_expiring WHERE expires_at_ms > ?")?
                        .query_row([integer(now_ms)], |row| row.get(0))?;
                    Ok((removed, unsigned(left)))
                })
                .await?;
            if removed < PRUNED_MAX as usize {
                return Ok(left);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(caller: &str, key: &str) -> AnswerKey {
        AnswerKey { caller: caller.into(), route: "PUT /x".into(), key: key.into() }
    }

    #[tokio::test]
    async fn an_answer_is_kept_until_it_expires() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(&dir.path().join("control.db")).unwrap();
        let answer = KeptAnswer {
            fingerprint: Digest::of(b"asked"),
            expires_at_ms: 100,
            status: 201,
            headers: vec![("location".into(), "/x".into())],
            body: b"{}".into(),
        };
        assert_eq!(db.answer(key("a", "1"), 0, 10).await.unwrap(), Kept::Nothing { others: 0 });
        for number in 0..3 {
            db.keep_answer(key("a", &number.to_string()), answer.clone()).await.unwrap();
        }
        assert_eq!(db.answer(key("a", "1"), 99, 10).await.unwrap(), Kept::Answer(answer.clone()));
        assert_eq!(db.answer(key("a", "9"), 99, 10).await.unwrap(), Kept::Nothing { others: 3 });
        assert_eq!(db.answer(key("a", "9"), 99, 2).await.unwrap(), Kept::Nothing { others: 2 }, "counted no farther");
        assert_eq!(db.answer(key("b", "1"), 99, 10).await.unwrap(), Kept::Nothing { others: 0 }, "another caller has his own");
        assert_eq!(db.answer(key("a", "1"), 100, 10).await.unwrap(), Kept::Nothing { others: 0 });
        let later = KeptAnswer { expires_at_ms: 200, ..answer };
        db.keep_answer(key("a", "1"), later.clone()).await.unwrap();
        assert_eq!(db.prune_answers(150).await.unwrap(), 1);
        assert_eq!(db.answer(key("a", "1"), 150, 10).await.unwrap(), Kept::Answer(later));
    }
}
