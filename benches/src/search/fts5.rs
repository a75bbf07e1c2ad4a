//! The peer: SQLite's full-text search, in memory, ordered by its BM25 and the same popularity.

use parking_lot::Mutex;
use rusqlite::{Connection, params};

use super::titles::Watched;

/// How FTS5 cuts titles, and so what a query may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tokenizer {
    /// Words without accents; every word of a query is the beginning of one.
    Words,
    /// Three characters each; any of the query's.
    Trigrams,
}

/// A table, with a connection for each of the threads that ask.
pub struct Fts5 {
    tokenizer: Tokenizer,
    connections: Mutex<Vec<Connection>>,
    dir: tempfile::TempDir,
}

impl Fts5 {
    pub fn new(titles: &[Watched], tokenizer: Tokenizer) -> rusqlite::Result<Self> {
        let dir = tempfile::tempdir().map_err(|_| rusqlite::Error::InvalidQuery)?;
        let mut connection = Connection::open(dir.path().join("fts5.db"))?;
        let how = match tokenizer {
            Tokenizer::Words => "tokenize = 'unicode61 remove_diacritics 2', prefix = '2 3'",
            Tokenizer::Trigrams => "tokenize = 'trigram remove_diacritics 1'",
        };
        connection.execute_batch(&format!("CREATE VIRTUAL TABLE titles USING fts5(title, popularity UNINDEXED, {how});"))?;
        let mut by_hours: Vec<usize> = (0..titles.len()).collect();
        by_hours.sort_by_key(|n| std::cmp::Reverse(titles[*n].hours));
        let transaction = connection.transaction()?;
        for (rank, n) in by_hours.into_iter().enumerate() {
            let popularity = 1.0 - (rank as f64 + 1.0).ln() / (titles.len() as f64 + 1.0).ln();
            transaction.prepare_cached("INSERT INTO titles (rowid, title, popularity) VALUES (?, ?, ?)")?.execute(params![
                n as i64,
                titles[n].title,
                popularity
            ])?;
        }
        transaction.execute("INSERT INTO titles (titles) VALUES ('optimize')", [])?;
        transaction.commit()?;
        Ok(Self { tokenizer, connections: Mutex::new(vec![connection]), dir })
    }

    /// The numbers of the first titles that are found.
    pub fn ask(&self, text: &str, limit: usize) -> rusqlite::Result<Vec<usize>> {
        let connection = self.connections.lock().pop();
        let connection = connection.map_or_else(|| self.connect(), Ok)?;
        let found = self.ask_on(&connection, text, limit);
        self.connections.lock().push(connection);
        found
    }

    fn connect(&self) -> rusqlite::Result<Connection> {
        let connection = Connection::open(self.dir.path().join("fts5.db"))?;
        // All of it fits.
        connection.pragma_update(None, "cache_size", -64_000)?;
        Ok(connection)
    }

    fn ask_on(&self, connection: &Connection, text: &str, limit: usize) -> rusqlite::Result<Vec<usize>> {
        let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
        let expression = match self.tokenizer {
            Tokenizer::Words => text.split_whitespace().map(|word| format!("{}*", quoted(word))).collect::<Vec<_>>().join(" "),
            Tokenizer::Trigrams => {
                let chars: Vec<char> = text.chars().collect();
                chars.windows(3).map(|three| quoted(&three.iter().collect::<String>())).collect::<Vec<_>>().join(" OR ")
            }
        };
        if expression.is_empty() {
            return Ok(Vec::new());
        }
        let mut select = connection
            .prepare_cached("SELECT rowid FROM titles WHERE titles MATCH ? ORDER BY bm25(titles) * (1.0 + popularity) LIMIT ?")?;
        let rows = select.query_map(params![expression, limit as i64], |row| row.get::<_, i64>(0))?;
        rows.map(|row| row.map(|n| n as usize)).collect()
    }
}
