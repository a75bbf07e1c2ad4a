//! Which results a filter lets through, and how many there are of each value.
//!
//! A value is counted among the results that all *other* filters let through: next to "drama" one reads how many comedies there
//! would be instead.

use std::{collections::BTreeMap, io};

use tantivy::{DocId, columnar::StrColumn};

use crate::{
    query::Filters,
    view::{Segment, text},
    words,
};

/// Values that are listed of each filter, the most frequent ones.
const VALUES_MAX: usize = 100;
/// Different values of one filter that a segment is read for; operators would have to catalogue nonsense to have more.
const KNOWN_MAX: u64 = 10_000;

/// How many results there are of each value, the most frequent first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facets {
    pub genres: Vec<(String, u64)>,
    pub years: Vec<(u16, u64)>,
    pub languages: Vec<(String, u64)>,
    pub kinds: Vec<(String, u64)>,
}

/// Counts over all segments.
#[derive(Default)]
pub(crate) struct Counts {
    genres: BTreeMap<String, Genre>,
    years: BTreeMap<u64, u64>,
    languages: BTreeMap<String, u64>,
    kinds: BTreeMap<String, u64>,
}

/// A genre that is written in several ways is one, shown as most titles write it.
#[derive(Default)]
struct Genre {
    count: u64,
    spellings: BTreeMap<String, u64>,
}

/// The filters, as far as they concern one segment.
pub(crate) struct Sieve<'a> {
    segment: &'a Segment,
    filters: &'a Filters,
    genres: Values<'a>,
    languages: Values<'a>,
    kinds: Values<'a>,
    years: BTreeMap<u64, u64>,
    counting: bool,
}

impl<'a> Sieve<'a> {
    pub(crate) fn new(segment: &'a Segment, filters: &'a Filters, counting: bool) -> io::Result<Self> {
        let genres: Vec<String> = filters.genres.iter().map(|genre| words::folded(genre)).collect();
        Ok(Self {
            segment,
            filters,
            genres: Values::new(segment.genre.as_ref(), counting, genres.is_empty(), |value| {
                genres.contains(&words::folded(value))
            })?,
            languages: Values::new(segment.language.as_ref(), counting, filters.languages.is_empty(), |value| {
                filters.languages.iter().any(|range| is_in_range(value, range))
            })?,
            kinds: Values::new(segment.kind.as_ref(), counting, filters.kinds.is_empty(), |value| {
                filters.kinds.iter().any(|kind| kind.eq_ignore_ascii_case(value))
            })?,
            years: BTreeMap::new(),
            counting,
        })
    }

    /// Whether `doc` passes; counts it where it is to be counted.
    pub(crate) fn passes(&mut self, doc: DocId) -> bool {
        let year = self.segment.year.first(doc);
        let years = &self.filters.years;
        let passed = [
            self.genres.allow(doc),
            self.languages.allow(doc),
            self.kinds.allow(doc),
            years.is_empty() || year.is_some_and(|year| years.iter().any(|range| year_in(range, year))),
        ];
        let failed = passed.iter().filter(|passed| !**passed).count();
        if self.counting {
            let counted = |n: usize| failed == 0 || (failed == 1 && !passed[n]);
            if counted(0) {
                self.genres.count(doc);
            }
            if counted(1) {
                self.languages.count(doc);
            }
            if counted(2) {
                self.kinds.count(doc);
            }
            if let Some(year) = year.filter(|_| counted(3)) {
                *self.years.entry(year).or_default() += 1;
            }
        }
        failed == 0
    }

    /// Adds what was counted.
    pub(crate) fn add_to(self, counts: &mut Counts) -> io::Result<()> {
        self.genres.add_to(|genre, count| {
            let kept = counts.genres.entry(words::folded(&genre)).or_default();
            kept.count += count;
            *kept.spellings.entry(genre).or_default() += count;
        })?;
        self.languages.add_to(|language, count| *counts.languages.entry(language).or_default() += count)?;
        self.kinds.add_to(|kind, count| *counts.kinds.entry(kind).or_default() += count)?;
        for (year, count) in self.years {
            *counts.years.entry(year).or_default() += count;
        }
        Ok(())
    }
}

impl Counts {
    pub(crate) fn facets(self) -> Facets {
        let spelt = |genre: Genre| {
            let most = genre.spellings.into_iter().max_by(|(a, a_count), (b, b_count)| a_count.cmp(b_count).then(b.cmp(a)));
            most.map(|(spelling, _)| (spelling, genre.count))
        };
        Facets {
            genres: most(self.genres.into_values().filter_map(spelt)),
            years: most(self.years.into_iter().map(|(year, count)| (u16::try_from(year).unwrap_or(u16::MAX), count))),
            languages: most(self.languages),
            kinds: most(self.kinds),
        }
    }
}

/// The most frequent first, of equals in their own order.
fn most<V: Ord>(counts: impl IntoIterator<Item = (V, u64)>) -> Vec<(V, u64)> {
    let mut counts: Vec<_> = counts.into_iter().filter(|(_, count)| *count > 0).collect();
    counts.sort_by(|(a, a_count), (b, b_count)| b_count.cmp(a_count).then_with(|| a.cmp(b)));
    counts.truncate(VALUES_MAX);
    counts
}

fn year_in(range: &std::ops::RangeInclusive<u16>, year: u64) -> bool {
    u16::try_from(year).is_ok_and(|year| range.contains(&year))
}

/// Basic filtering: "A language range matches a particular language tag if, in a case-insensitive comparison, it exactly equals
/// the tag, or if it exactly equals a prefix of the tag such that the first character following the prefix is "-"" (RFC 4647,
/// section 3.3.1).
fn is_in_range(tag: &str, range: &str) -> bool {
    let begins = tag.get(..range.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(range));
    begins && matches!(tag.as_bytes().get(range.len()), None | Some(b'-'))
}

/// A column of texts with one filter.
struct Values<'a> {
    column: Option<&'a StrColumn>,
    /// By the value's number; `None` when all are allowed.
    allowed: Option<Vec<bool>>,
    counts: Vec<u64>,
}

impl<'a> Values<'a> {
    fn new(column: Option<&'a StrColumn>, counting: bool, all: bool, allows: impl Fn(&str) -> bool) -> io::Result<Self> {
        let known = column.map_or(0, |column| (column.num_terms() as u64).min(KNOWN_MAX));
        let mut allowed = (!all).then(Vec::new);
        if let (Some(allowed), Some(column)) = (&mut allowed, column) {
            for ord in 0..known {
                allowed.push(allows(&text(column, ord)?));
            }
        }
        Ok(Self { column, allowed, counts: if counting { vec![0; known as usize] } else { Vec::new() } })
    }

    fn allow(&self, doc: DocId) -> bool {
        let Some(allowed) = &self.allowed else {
            return true;
        };
        let of = |column: &StrColumn| column.term_ords(doc).any(|ord| allowed.get(ord as usize).is_some_and(|allowed| *allowed));
        self.column.is_some_and(of)
    }

    fn count(&mut self, doc: DocId) {
        for ord in self.column.into_iter().flat_map(|column| column.term_ords(doc)) {
            if let Some(count) = self.counts.get_mut(ord as usize) {
                *count += 1;
            }
        }
    }

    fn add_to(self, mut add: impl FnMut(String, u64)) -> io::Result<()> {
        let Some(column) = self.column else {
            return Ok(());
        };
        for (ord, count) in (0..).zip(self.counts) {
            if count > 0 {
                add(text(column, ord)?, count);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn language_ranges_allow_what_rfc_4647_says() {
        for (tag, range, is) in
            [("en", "en", true), ("en-GB", "EN", true), ("eng", "en", false), ("e", "en", false), ("zh-Hant-TW", "zh-hant", true)]
        {
            assert_eq!(is_in_range(tag, range), is, "{tag} {range}");
        }
    }

    #[test]
    fn a_genre_is_shown_as_most_titles_write_it() {
        let mut counts = Counts::default();
        let spellings = BTreeMap::from([("Sci-Fi".to_owned(), 3), ("sci fi".to_owned(), 1)]);
        counts.genres.insert("sci fi".into(), Genre { count: 4, spellings });
        counts.genres.insert("drama".into(), Genre { count: 9, spellings: BTreeMap::from([("Drama".to_owned(), 9)]) });
        assert_eq!(counts.facets().genres, [("Drama".to_owned(), 9), ("Sci-Fi".to_owned(), 4)]);
    }
}
