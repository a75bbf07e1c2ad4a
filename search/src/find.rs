//! One search: terms → the words they may mean → the titles that have them → the best ones, filtered, after the cursor.
//!
//! Words and titles that are looked at are counted and bounded, and so is the time: a search that runs out of either answers with
//! what it has, and says so.

use std::{collections::BinaryHeap, io, time::Instant};

use tantivy::{
    DocId, DocSet as _, TERMINATED,
    columnar::StrColumn,
    postings::{Postings as _, TermInfo},
    schema::IndexRecordOption,
};

use crate::{
    cursor::{Cursor, Rank},
    filter::{Counts, Facets, Sieve},
    popularity::{MOST, Popularity},
    query::{LIMIT_MAX, Query, Sort, Term, terms},
    score::{Offer, Source, Tally, WHOLE, Weights, weight},
    view::{Segment, View, text},
    vocabulary::Tolerance,
    words::STARTS_CHARS_MAX,
};

/// Places of words that one search looks at.
const POSTINGS_MAX: u64 = 8_000_000;
/// A result meets at least this much of what the best one meets of the query, in thousandths.
const FLOOR: u32 = 600;
/// The largest time that a rank can hold, in milliseconds: the year 2039 and, past that, all the same.
const TIME_BITS: u32 = 41;

/// What a search found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Ids, best first.
    pub ids: Vec<String>,
    /// How many results there are on all pages.
    pub found: u64,
    /// When they were asked for.
    pub facets: Option<Facets>,
    /// Where the next page begins; `None` after the last one.
    pub next: Option<Cursor>,
    /// Whether the search came to its end. If not, it found some of what there is.
    pub whole: bool,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// The cursor belongs to another query.
    #[error("the cursor belongs to another search: text, filters and order must stay the same from page to page")]
    OtherSearch,
    /// The index is damaged.
    #[error("the index cannot be read: {0}")]
    Unreadable(#[from] io::Error),
}

/// What searches work with and leave behind for the next one.
#[derive(Default)]
pub(crate) struct Scratch {
    tallies: Vec<Tally>,
    touched: Vec<DocId>,
    /// Titles that the term in hand, or the one before by an offer for two, may mean.
    now: Vec<DocId>,
    next: Vec<DocId>,
    places: Vec<u32>,
}

/// Answers `query`. `current` is the popularity of now, `popularity` finds the one that a cursor names.
pub(crate) fn find(
    view: &View,
    query: &Query,
    current: &Popularity,
    popularity: impl FnOnce(u64) -> Option<std::sync::Arc<Popularity>>,
    scratch: &mut Scratch,
) -> Result<Answer, SearchError> {
    let terms = terms(&query.text);
    let digest = query.digest(&terms);
    let after = query.after.as_ref();
    if after.is_some_and(|after| after.query != digest || after.weights.len() != terms.len()) {
        return Err(SearchError::OtherSearch);
    }
    let older = after.filter(|after| after.epoch != current.epoch).and_then(|after| popularity(after.epoch));
    let popularity = older.as_deref().unwrap_or(current);

    let mut search = Search { query, terms: &terms, budget: Budget { postings: POSTINGS_MAX, until: query.until, spent: false } };
    let (candidates, weights, floor) = if terms.is_empty() {
        (search.all(view), Vec::new(), 0)
    } else {
        let meant = search.expand(view)?;
        let weights = after.map_or_else(|| search.weigh(view, &meant), |after| after.weights.clone());
        let (candidates, floor) = search.tally(view, &meant, &Weights::new(&weights), after.map(|after| after.floor), scratch)?;
        (candidates, weights, floor)
    };
    let mut counts = Counts::default();
    let limit = query.limit.clamp(1, LIMIT_MAX);
    let mut page = Page::default();
    for (n, (segment, candidates)) in view.segments.iter().zip(candidates).enumerate() {
        page.take(&search, n, segment, &candidates, popularity, limit, &mut counts)?;
    }

    page.ranked.sort();
    let more = page.ranked.len() > limit;
    page.ranked.truncate(limit);
    let next = page.ranked.last().filter(|_| more).map(|last| Cursor {
        query: digest,
        epoch: popularity.epoch,
        floor,
        weights,
        last: last.rank.clone(),
    });
    let ids = page.ranked.iter().map(|ranked| view.segments[ranked.segment].id(ranked.doc)).collect::<Result<_, _>>()?;
    let whole = !search.budget.spent;
    Ok(Answer { ids, found: page.found, facets: query.facets.then(|| counts.facets()), next, whole })
}

/// What a search may still do.
struct Budget {
    postings: u64,
    until: Instant,
    spent: bool,
}

impl Budget {
    fn spend(&mut self, postings: u64) -> bool {
        self.postings = self.postings.saturating_sub(postings);
        self.spent |= self.postings == 0 || Instant::now() >= self.until;
        !self.spent
    }
}

/// A word of a dictionary that a term may mean.
struct Meant {
    source: Source,
    info: TermInfo,
    likeness: u32,
    covers_next: bool,
}

/// What each term may mean in one segment.
type Meanings = Vec<Vec<Meant>>;

/// A title that has words of the query.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    doc: DocId,
    /// How much of the query it meets, in thousandths times the sum of weights.
    met: u32,
    /// Its score but for popularity.
    score: u32,
}

struct Search<'a> {
    query: &'a Query,
    terms: &'a [Term],
    budget: Budget,
}

impl Search<'_> {
    /// Every title.
    fn all(&self, view: &View) -> Vec<Vec<Candidate>> {
        view.segments.iter().map(|segment| segment.docs().map(|doc| Candidate { doc, met: 0, score: 0 }).collect()).collect()
    }

    /// What the terms may mean, by segment and term.
    fn expand(&mut self, view: &View) -> io::Result<Vec<Meanings>> {
        let pair = |pair: &[Term]| Term::new(format!("{}{}", pair[0].text, pair[1].text), pair[1].open);
        let pairs: Vec<Term> = self.terms.windows(2).map(pair).collect();
        let mut segments = Vec::with_capacity(view.segments.len());
        for segment in &view.segments {
            let mut meanings: Meanings = Vec::with_capacity(self.terms.len());
            for (n, term) in self.terms.iter().enumerate() {
                let mut meant = Vec::new();
                for source in Source::ALL {
                    if let Some(tolerance) = tolerance(term, source) {
                        self.look_up(segment, source, term, tolerance, false, &mut meant)?;
                    }
                }
                if let Some(pair) = pairs.get(n) {
                    self.look_up(segment, Source::Title, pair, pair_tolerance(pair), true, &mut meant)?;
                }
                meanings.push(meant);
            }
            segments.push(meanings);
        }
        Ok(segments)
    }

    fn look_up(
        &mut self,
        segment: &Segment,
        source: Source,
        term: &Term,
        tolerance: Tolerance,
        covers_next: bool,
        meant: &mut Vec<Meant>,
    ) -> io::Result<()> {
        if !self.budget.spend(0) {
            return Ok(());
        }
        let (words, mut read) = (segment.dictionary(source).terms(), Ok(()));
        segment.vocabulary(source).look_up(term, tolerance, |word, likeness| {
            let likeness = if covers_next { likeness * PAIR_LIKENESS / WHOLE } else { likeness };
            match words.get(word) {
                Ok(info) => meant.extend(info.map(|info| Meant { source, info, likeness, covers_next })),
                Err(error) => read = Err(error),
            }
        });
        read
    }

    /// What each term says, by how many titles have what it is most like.
    fn weigh(&self, view: &View, segments: &[Meanings]) -> Vec<u8> {
        let titles = view.titles();
        let weigh = |n: usize| {
            let meant = || segments.iter().flat_map(|meanings| &meanings[n]);
            let best = meant().map(|meant| meant.likeness).max().unwrap_or(0);
            let found = meant().filter(|meant| meant.likeness == best).map(|meant| u64::from(meant.info.doc_freq)).sum::<u64>();
            weight(found.min(titles), titles)
        };
        (0..self.terms.len()).map(weigh).collect()
    }

    /// The titles that meet enough of the query, by segment, and how much that is: what an earlier page had, or else a share of
    /// what the best title meets.
    fn tally(
        &mut self,
        view: &View,
        segments: &[Meanings],
        weights: &Weights,
        floor: Option<u16>,
        scratch: &mut Scratch,
    ) -> io::Result<(Vec<Vec<Candidate>>, u16)> {
        let mut found = Vec::with_capacity(segments.len());
        let mut lowest = floor.map_or(1, u32::from);
        for (segment, meanings) in view.segments.iter().zip(segments) {
            self.tally_segment(segment, meanings, weights, scratch)?;
            let there = || {
                scratch.touched.iter().filter(|doc| segment.is_there(**doc)).map(|doc| (*doc, &scratch.tallies[*doc as usize]))
            };
            if floor.is_none() {
                let best = there().map(|(_, tally)| tally.met()).max().unwrap_or(0);
                lowest = lowest.max(weights.thousandths(best) * FLOOR / WHOLE);
            }
            let enough = there().filter(|(_, tally)| tally.met() >= weights.met(lowest));
            let candidate = |(doc, tally): (DocId, &Tally)| {
                let score = tally.score(weights, segment.words(doc));
                Candidate { doc, met: tally.met(), score }
            };
            found.push(enough.map(candidate).collect::<Vec<_>>());
        }
        for candidates in &mut found {
            candidates.retain(|candidate| candidate.met >= weights.met(lowest));
        }
        Ok((found, lowest as u16))
    }

    fn tally_segment(
        &mut self,
        segment: &Segment,
        meanings: &Meanings,
        weights: &Weights,
        scratch: &mut Scratch,
    ) -> io::Result<()> {
        scratch.clear();
        scratch.tallies.resize(scratch.tallies.len().max(segment.docs_end() as usize), Tally::default());
        for (step, (meant, weight)) in (1..).zip(meanings.iter().zip(weights.each())) {
            scratch.begin(step);
            for meant in meant {
                if !self.budget.spend(meant.info.doc_freq.into()) {
                    break;
                }
                scratch.look_at(segment, step, meant)?;
            }
            scratch.end(weight);
        }
        Ok(())
    }

    /// What `candidate` is ordered by, the name of a title apart.
    fn number(&self, segment: &Segment, candidate: &Candidate, popularity: u32) -> u64 {
        let time_max = (1 << TIME_BITS) - 1;
        let age = time_max - segment.created_at_ms(candidate.doc).min(time_max);
        match self.query.sort {
            Sort::Relevance if !self.terms.is_empty() => {
                let score = candidate.score + Tally::score_of(popularity);
                u64::from(Tally::SCORE_MAX.saturating_sub(score)) << TIME_BITS | age
            }
            Sort::Relevance | Sort::Popularity => u64::from(MOST.saturating_sub(popularity)) << TIME_BITS | age,
            Sort::Newest => age,
            Sort::Title => 0,
        }
    }
}

/// What two terms are worth where a title has one word, in thousandths.
const PAIR_LIKENESS: u32 = 960;

/// How far from `term` words may be in `source`; `None` when it is not looked for there.
fn tolerance(term: &Term, source: Source) -> Option<Tolerance> {
    let typos = term.typos();
    let long = term.chars > STARTS_CHARS_MAX;
    let begun = |typos: u8| (term.open && long).then_some(typos);
    Some(match source {
        Source::Title | Source::Cast => Tolerance { typos, begun: begun(if term.chars > 4 { typos.min(1) } else { 0 }) },
        Source::Joined if long => Tolerance { typos: typos.min(1), begun: begun(0) },
        // Short beginnings are looked up, all words at once, and long ones are found among the words.
        Source::Starts if term.open && !long => Tolerance { typos: 0, begun: None },
        Source::Joined | Source::Starts => return None,
        Source::Tags | Source::About => Tolerance { typos: if term.chars > 5 { typos.min(1) } else { 0 }, begun: begun(0) },
    })
}

fn pair_tolerance(pair: &Term) -> Tolerance {
    Tolerance { typos: pair.typos().min(1), begun: (pair.open && pair.chars > STARTS_CHARS_MAX).then_some(0) }
}

impl Scratch {
    /// Forgets what was touched.
    fn clear(&mut self) {
        for doc in self.touched.drain(..) {
            self.tallies[doc as usize] = Tally::default();
        }
        self.now.clear();
        self.next.clear();
    }

    /// Begins the term number `step`.
    fn begin(&mut self, step: u8) {
        self.now.clear();
        std::mem::swap(&mut self.now, &mut self.next);
        for doc in &self.now {
            self.tallies[*doc as usize].enter(step);
        }
    }

    /// Offers all places of a word to its titles.
    fn look_at(&mut self, segment: &Segment, step: u8, meant: &Meant) -> io::Result<()> {
        let placed = meant.source.has_places();
        let option = if placed { IndexRecordOption::WithFreqsAndPositions } else { IndexRecordOption::Basic };
        let mut postings = segment.dictionary(meant.source).read_postings_from_terminfo(&meant.info, option)?;
        let mut offer = Offer { source: meant.source, likeness: meant.likeness, place: 0, covers_next: meant.covers_next };
        let mut doc = postings.doc();
        while doc != TERMINATED {
            let tally = &mut self.tallies[doc as usize];
            if tally.is_fresh() {
                self.touched.push(doc);
            }
            if tally.enter(step) {
                self.now.push(doc);
            }
            if placed {
                postings.positions(&mut self.places);
                for place in &self.places {
                    offer.place = *place;
                    tally.offer(&offer);
                }
            } else {
                tally.offer(&offer);
            }
            doc = postings.advance();
        }
        Ok(())
    }

    /// Ends the term.
    fn end(&mut self, weight: u8) {
        for doc in &self.now {
            let tally = &mut self.tallies[*doc as usize];
            tally.end(weight);
            if tally.carries() {
                self.next.push(*doc);
            }
        }
    }
}

/// The best results so far that come after the cursor.
#[derive(Default)]
struct Page {
    ranked: Vec<Ranked>,
    found: u64,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Ranked {
    rank: Rank,
    segment: usize,
    doc: DocId,
}

impl Page {
    /// Adds the best of a segment's candidates, up to one more than `limit`.
    #[expect(clippy::too_many_arguments, reason = "one loop that everything comes together in")]
    fn take(
        &mut self,
        search: &Search<'_>,
        n: usize,
        segment: &Segment,
        candidates: &[Candidate],
        popularity: &Popularity,
        limit: usize,
        counts: &mut Counts,
    ) -> io::Result<()> {
        let by_title = search.query.sort == Sort::Title;
        let after = search.query.after.as_ref().map(|after| &after.last);
        // In a segment, names are ordered by their numbers.
        let after = match after {
            Some(after) if by_title => Some((place_of(&segment.sorted_by, &after.name)?, after.key)),
            Some(after) => Some((after.number, after.key)),
            None => None,
        };
        let mut sieve = Sieve::new(segment, &search.query.filters, search.query.facets)?;
        let mut best = BinaryHeap::new();
        for candidate in candidates {
            if !sieve.passes(candidate.doc) {
                continue;
            }
            self.found += 1;
            let key = segment.key(candidate.doc);
            let number = match by_title {
                true => 2 * segment.sorted_by.ords().first(candidate.doc).unwrap_or_default() + 1,
                false => search.number(segment, candidate, popularity.of(key)),
            };
            if after.is_none_or(|after| (number, key) > after) {
                best.push((number, key, candidate.doc));
                if best.len() > limit + 1 {
                    best.pop();
                }
            }
        }
        sieve.add_to(counts)?;
        for (number, key, doc) in best {
            let rank = match by_title {
                true => Rank { name: text(&segment.sorted_by, number / 2)?, number: 0, key },
                false => Rank { name: String::new(), number, key },
            };
            self.ranked.push(Ranked { rank, segment: n, doc });
        }
        Ok(())
    }
}

/// Where `name` stands among a column's values: twice its number and one, or twice that of the next one if it is not there.
fn place_of(column: &StrColumn, name: &str) -> io::Result<u64> {
    let (mut low, mut high) = (0, column.num_terms() as u64);
    while low < high {
        let middle = (low + high) / 2;
        match text(column, middle)?.as_str().cmp(name) {
            std::cmp::Ordering::Less => low = middle + 1,
            std::cmp::Ordering::Equal => return Ok(2 * middle + 1),
            std::cmp::Ordering::Greater => high = middle,
        }
    }
    Ok(2 * low)
}
