//! Finds titles by their words: typos, half-typed words, accents, order and spaces forgiven; ranked, filtered, counted, paged.
//!
//! Start at [`Index`]. Knows words and the numbers of titles; no HTTP, no database, no clock but the deadline it is given. The
//! index is tantivy's (dictionaries, places of words, columns, segments that are merged); what a title is worth for a query is
//! decided in `score`, a pure function.

mod cursor;
mod document;
mod filter;
mod find;
mod folder;
mod index;
mod language;
mod popularity;
mod query;
mod score;
mod view;
mod vocabulary;
mod words;

pub use cursor::{Cursor, NotACursor};
pub use document::Document;
pub use filter::Facets;
pub use find::{Answer, SearchError};
pub use index::{Change, Index, IndexError, Opened};
pub use query::{Filters, LIMIT_MAX, QUERY_CHARS_MAX, Query, Sort, TERMS_MAX};
