//! A few titles, and short ways to ask for them.

use std::time::{Duration, Instant};

use search::{Answer, Change, Document, Filters, Index, Query, Sort};

pub(crate) fn titled(id: &str, title: &str) -> Document {
    Document { id: id.into(), stamp: 1, title: title.into(), ..Document::default() }
}

pub(crate) fn put(document: Document) -> Change {
    Change::Put(Box::new(document))
}

/// An index in memory.
pub(crate) fn index(documents: impl IntoIterator<Item = Document>) -> Index {
    let index = Index::in_memory().unwrap();
    index.apply(documents.into_iter().map(put)).unwrap();
    index
}

/// A question without a deadline that could pass.
pub(crate) fn query(text: &str) -> Query {
    Query {
        text: text.into(),
        filters: Filters::default(),
        sort: Sort::Relevance,
        after: None,
        limit: 100,
        facets: false,
        until: Instant::now() + Duration::from_secs(3600),
    }
}

pub(crate) fn answer(index: &Index, query: &Query) -> Answer {
    let answer = index.search(query).unwrap();
    assert!(answer.whole);
    answer
}

/// The ids that a text finds, best first.
pub(crate) fn found(index: &Index, text: &str) -> Vec<String> {
    answer(index, &query(text)).ids
}
