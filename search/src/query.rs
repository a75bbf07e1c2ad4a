//! What is asked, and what of it is looked for.

use std::{ops::RangeInclusive, time::Instant};

use xxhash_rust::xxh3::Xxh3;

use crate::{Cursor, words};

/// Characters of a query that are looked at; callers refuse longer ones before.
pub const QUERY_CHARS_MAX: usize = 200;
/// Words of a query that are looked for; what follows is left out.
pub const TERMS_MAX: usize = 20;
/// Results of one page at most.
pub const LIMIT_MAX: usize = 1000;

/// A question to the index.
#[derive(Debug, Clone)]
pub struct Query {
    /// Free text as it was typed, maybe half-way; without words it means every title.
    pub text: String,
    pub filters: Filters,
    pub sort: Sort,
    /// Where the page before ended.
    pub after: Option<Cursor>,
    /// How many results, from 1 to [`LIMIT_MAX`].
    pub limit: usize,
    /// Whether to count values of filters.
    pub facets: bool,
    /// When to answer with what was found until then.
    pub until: Instant,
}

/// What results must have. Of several values of one filter one is enough; an empty list allows all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters {
    /// Compared without case and accents.
    pub genres: Vec<String>,
    pub years: Vec<RangeInclusive<u16>>,
    /// Language ranges: "en" allows "en" and "en-GB" (RFC 4647, section 3.3.1).
    pub languages: Vec<String>,
    pub kinds: Vec<String>,
}

/// What comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sort {
    /// What answers the text best; of equals the most popular. Without text as [`Sort::Popularity`].
    Relevance,
    Popularity,
    Newest,
    /// By the title's folded words, without a leading article.
    Title,
}

/// One word of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Term {
    pub(crate) text: String,
    pub(crate) chars: usize,
    /// It may be the beginning of a longer word: nothing was typed after it.
    pub(crate) open: bool,
}

impl Term {
    pub(crate) fn new(text: String, open: bool) -> Self {
        Self { chars: text.chars().count(), text, open }
    }

    /// How many typos it may have: numbers mean what they are, and few letters with typos could be anything.
    pub(crate) fn typos(&self) -> u8 {
        let numbers = self.text.chars().filter(|c| c.is_numeric()).count();
        match self.chars {
            _ if numbers == self.chars || words::is_unspaced(&self.text) => 0,
            0..=2 => 0,
            3 if numbers > 0 => 0,
            _ if numbers > 0 => 1,
            3..=5 => 1,
            _ => 2,
        }
    }
}

/// The words that `text` asks for.
pub(crate) fn terms(text: &str) -> Vec<Term> {
    let text: String = text.chars().take(QUERY_CHARS_MAX).collect();
    let open = words::ends_open(&text);
    let mut words = words::words(&text);
    words.truncate(TERMS_MAX);
    let last = words.len();
    words.into_iter().zip(1..).map(|(word, n)| Term::new(word.text, open && n == last)).collect()
}

impl Query {
    /// What a cursor belongs to: the same for queries that have the same results in the same order.
    pub(crate) fn digest(&self, terms: &[Term]) -> u64 {
        let mut hash = Xxh3::new();
        let mut add = |what: &str, text: &str| {
            hash.update(what.as_bytes());
            hash.update(&(text.len() as u64).to_le_bytes());
            hash.update(text.as_bytes());
        };
        for term in terms {
            add(if term.open { "open" } else { "term" }, &term.text);
        }
        self.filters.genres.iter().for_each(|genre| add("genre", &words::folded(genre)));
        self.filters.years.iter().for_each(|years| add("years", &format!("{years:?}")));
        self.filters.languages.iter().for_each(|language| add("language", &language.to_ascii_lowercase()));
        self.filters.kinds.iter().for_each(|kind| add("kind", &kind.to_ascii_lowercase()));
        add("sort", &format!("{:?}", self.sort));
        hash.digest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_word_may_be_unfinished() {
        let open = |text: &str| terms(text).into_iter().map(|term| (term.text, term.open)).collect::<Vec<_>>();
        assert_eq!(open("The nig"), [("the".into(), false), ("nig".into(), true)]);
        assert_eq!(open("The nig "), [("the".into(), false), ("nig".into(), false)]);
        assert_eq!(open("  "), []);
        assert_eq!(open(&"word ".repeat(100)).len(), TERMS_MAX);
    }

    #[test]
    fn short_words_and_numbers_are_meant_as_typed() {
        let typos = |text: &str| Term::new(text.into(), false).typos();
        assert_eq!([typos("it"), typos("the"), typos("crown"), typos("crowns")], [0, 1, 1, 2]);
        assert_eq!([typos("2023"), typos("mp3"), typos("sense8"), typos("豚")], [0, 0, 1, 0]);
    }
}
