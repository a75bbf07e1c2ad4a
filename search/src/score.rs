//! How well a title answers a query: a pure function of the query's words, the title's own words, and its popularity.
//!
//! Nothing here depends on which other titles there are, so that pages which are cut by score stay whole while titles come and
//! go. What does depend on others, how rare each of the query's words is, is found once and travels in the cursor.
//!
//! Terms are looked at in the query's order. For each, a title offers the places that may be meant; the best is kept.

use std::cmp::Reverse;

use crate::{popularity, words::Place};

/// A whole match in the best place.
pub(crate) const WHOLE: u32 = 1000;

/// What a word counts by where it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Title,
    /// Two neighbours of the title that the query has as one word.
    Joined,
    /// The first characters of a title's word.
    Starts,
    Cast,
    /// Genres, year, language.
    Tags,
    /// The description.
    About,
}

impl Source {
    /// In the order of their numbers.
    pub(crate) const ALL: [Self; 6] = [Self::Title, Self::Joined, Self::Starts, Self::Cast, Self::Tags, Self::About];

    const fn weight(self) -> u32 {
        match self {
            Self::Title => 1000,
            Self::Joined => 970,
            Self::Starts => 900,
            Self::Cast => 620,
            Self::Tags => 610,
            Self::About => 330,
        }
    }

    /// Whether the places of its words are kept.
    pub(crate) const fn has_places(self) -> bool {
        !matches!(self, Self::Tags | Self::About)
    }

    const fn is_title(self) -> bool {
        matches!(self, Self::Title | Self::Joined | Self::Starts)
    }

    /// How many of the title's words a match covers. A few letters may begin any word, and cover none.
    const fn words(self) -> u8 {
        match self {
            Self::Joined => 2,
            Self::Starts => 0,
            _ => 1,
        }
    }
}

/// How well a term of `term_chars` is met by a word with `typos` between them, in thousandths.
pub(crate) fn likeness(typos: u32, term_chars: usize, same_first: bool) -> u32 {
    let chars = term_chars.max(1) as u32;
    let lost = match typos {
        0 => 0,
        1 => 60 + 900 / chars,
        _ => 120 + 1900 / chars,
    };
    // People rarely mistake the first letter.
    WHOLE.saturating_sub(lost + if typos > 0 && !same_first { 40 } else { 0 })
}

/// How well a term that may not be finished is met by a longer word, in thousandths.
pub(crate) fn likeness_begun(typos: u32, term_chars: usize, word_chars: usize, same_first: bool) -> u32 {
    if word_chars <= term_chars + typos as usize {
        return likeness(typos, term_chars, same_first);
    }
    let typed = (80 * term_chars / word_chars.max(1)) as u32;
    likeness(typos, term_chars, same_first).saturating_sub(130 - typed)
}

/// A place in a title that a term may mean.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Offer {
    pub(crate) source: Source,
    /// In thousandths, before the source's weight.
    pub(crate) likeness: u32,
    /// The packed [`Place`], 0 where none is kept.
    pub(crate) place: u32,
    /// Whether it also meets the next term: the query has two words where the title has one.
    pub(crate) covers_next: bool,
}

/// What has been found in one title so far. Small, as there is one for every title of the index.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    /// Of this term: the best offer.
    best: Best,
    /// For the next term: what an offer for two covers.
    carried: Best,
    /// Where the term before ended, packed; 0 when it was not found in a place.
    before: u32,
    before_in_title: bool,
    /// Sum of the terms' weights times the worth of their best offers.
    met: u32,
    /// Sum of weights of terms that follow each other in the title.
    adjacent: u16,
    /// The part that the term before was in, and how many words of it are covered.
    part: u16,
    part_covered: u8,
    /// Words of the title that are covered, leading articles not counted.
    covered: u8,
    weight_before: u8,
    /// The number of the term that is being looked at, from 1; 0 when nothing was found yet.
    step: u8,
    /// The best covered part, in thousandths.
    part_best: u16,
    /// In thousandths: a term at the beginning of the title, or of a part of it.
    start: u16,
}

#[derive(Debug, Clone, Copy, Default)]
struct Best {
    place: u32,
    worth: u16,
    words: u8,
    in_title: bool,
    /// It stands right after what the term before was found in.
    adjacent: bool,
}

/// What a place that follows the term before is worth more, to choose among places.
const ADJACENT_WORTH: u16 = 40;

impl Best {
    /// A total order, so that it does not matter in which order offers come.
    fn is_beaten_by(&self, other: &Self) -> bool {
        let rank = |best: &Self| {
            let worth = best.worth + if best.adjacent { ADJACENT_WORTH } else { 0 };
            (worth, Reverse(best.place), best.in_title, best.words)
        };
        rank(other) > rank(self)
    }
}

impl Tally {
    /// Whether this title was looked at for term `step`; if not, it is from now on.
    pub(crate) fn enter(&mut self, step: u8) -> bool {
        if self.step == step {
            return false;
        }
        if self.step + 1 != step {
            // The term before was not found here.
            (self.before, self.weight_before) = (0, 0);
        }
        self.best = std::mem::take(&mut self.carried);
        self.step = step;
        true
    }

    /// Nothing was ever found.
    pub(crate) const fn is_fresh(&self) -> bool {
        self.step == 0
    }

    pub(crate) fn offer(&mut self, offer: &Offer) {
        let best = Best {
            worth: (offer.likeness * offer.source.weight() / WHOLE) as u16,
            place: offer.place,
            words: offer.source.words(),
            in_title: offer.source.is_title(),
            adjacent: self.before != 0 && offer.place == self.before + 1 && offer.source.is_title() == self.before_in_title,
        };
        if self.best.is_beaten_by(&best) {
            self.best = best;
        }
        // The next term stands where this one does: right after the one before, and it covers nothing more.
        let carried = Best { words: 0, adjacent: true, ..best };
        if offer.covers_next && self.carried.is_beaten_by(&carried) {
            self.carried = carried;
        }
    }

    /// Whether an offer for two terms was taken, so that the next term has something even if nothing else is found.
    pub(crate) const fn carries(&self) -> bool {
        self.carried.worth > 0
    }

    /// Ends the term, which has `weight`.
    pub(crate) fn end(&mut self, weight: u8) {
        let best = self.best;
        self.met += u32::from(weight) * u32::from(best.worth);
        if best.adjacent {
            self.adjacent += u16::from(weight.min(self.weight_before));
        }
        self.before = if best.place == 0 { 0 } else { best.place + u32::from(best.words.saturating_sub(1)) };
        self.before_in_title = best.in_title;
        self.weight_before = weight;
        if let (true, Some(place)) = (best.in_title, Place::unpacked(best.place)) {
            self.cover(place, best.words);
        }
    }

    fn cover(&mut self, place: Place, words: u8) {
        if place.number() <= 1 {
            self.start = self.start.max(if place.part() == 0 { WHOLE } else { WHOLE / 2 } as u16);
        }
        // A leading article covers nothing, alone or joined with the word after it.
        let words = if place.number() == 0 { words.saturating_sub(1) } else { words };
        let part = place.part() as u16;
        if self.part != part {
            (self.part, self.part_covered) = (part, 0);
        }
        self.covered += words;
        self.part_covered += words;
        self.part_best = self.part_best.max((u32::from(self.part_covered) * WHOLE / place.of().max(1)).min(WHOLE) as u16);
    }

    /// How much of the query is met: thousandths times the sum of weights.
    pub(crate) const fn met(&self) -> u32 {
        self.met
    }

    /// The score without popularity: how much is met first, then how the words stand in the title. `title_words` without leading
    /// articles.
    pub(crate) fn score(&self, terms: &Weights, title_words: u32) -> u32 {
        let met = self.met.checked_div(terms.all).unwrap_or(0);
        let adjacent = (u32::from(self.adjacent) * WHOLE).checked_div(terms.adjacent).unwrap_or(0);
        let covered = (u32::from(self.covered) * WHOLE / title_words.max(1)).min(WHOLE);
        let in_order = terms.adjacent == 0 || adjacent == WHOLE;
        let exact = if met == WHOLE && covered == WHOLE && in_order { WHOLE } else { 0 };
        met * MET
            + adjacent * ADJACENT
            + u32::from(self.start) * START
            + u32::from(self.part_best) * PART
            + covered * COVERED
            + exact * EXACT
    }

    /// What `popularity` adds to a score.
    pub(crate) const fn score_of(popularity: u32) -> u32 {
        popularity * (WHOLE / popularity::MOST) * POPULAR
    }

    /// No score is higher.
    pub(crate) const SCORE_MAX: u32 = WHOLE * (MET + ADJACENT + START + PART + COVERED + EXACT + POPULAR);
}

/// What the parts of a score count.
const MET: u32 = 1000;
const ADJACENT: u32 = 90;
const START: u32 = 60;
const PART: u32 = 110;
const COVERED: u32 = 60;
const EXACT: u32 = 120;
const POPULAR: u32 = 230;

/// What each term of a query says, and sums of that.
#[derive(Debug, Clone)]
pub(crate) struct Weights {
    each: Vec<u8>,
    all: u32,
    adjacent: u32,
}

impl Weights {
    pub(crate) fn new(each: &[u8]) -> Self {
        let adjacent = each.windows(2).map(|pair| u32::from(pair[0].min(pair[1]))).sum();
        Self { each: each.to_vec(), all: each.iter().map(|weight| u32::from(*weight)).sum(), adjacent }
    }

    pub(crate) fn each(&self) -> impl Iterator<Item = u8> {
        self.each.iter().copied()
    }

    /// What a title must have met to have met `thousandths` of the query.
    pub(crate) const fn met(&self, thousandths: u32) -> u32 {
        self.all * thousandths
    }

    /// How much of the query `met` is, in thousandths, rounded down.
    pub(crate) fn thousandths(&self, met: u32) -> u32 {
        met.checked_div(self.all).unwrap_or(0)
    }
}

/// The weight of a term that is in `found` of `all` titles: how much it says (Spärck Jones 1972), 0 when it is in none.
pub(crate) fn weight(found: u64, all: u64) -> u8 {
    if found == 0 {
        return 0;
    }
    let says = (1.0 + all as f64 / found as f64).ln();
    (20.0 * says).round().clamp(1.0, 255.0) as u8
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::words::words;

    /// The places of a title's words.
    fn places(title: &str) -> Vec<u32> {
        words(title).into_iter().map(|word| word.place.packed()).collect()
    }

    /// The score of a title of `words` words for terms that are all found, each at one place.
    fn scored(found: &[(Source, u32, u32)], words: u32) -> u32 {
        let weights = Weights::new(&vec![100; found.len()]);
        let mut tally = Tally::default();
        for (step, (source, likeness, place)) in (1..).zip(found) {
            tally.enter(step);
            tally.offer(&Offer { source: *source, likeness: *likeness, place: *place, covers_next: false });
            tally.end(100);
        }
        tally.score(&weights, words)
    }

    #[test]
    fn the_better_a_title_is_met_the_higher_its_score() {
        let crown = places("The Crown: Season 1");
        let inside = places("As the Crow Flies");
        let scores = [
            scored(&[(Source::Title, WHOLE, crown[0]), (Source::Title, WHOLE, crown[1])], 1),
            scored(&[(Source::Title, WHOLE, crown[1])], 1),
            scored(&[(Source::Title, WHOLE, crown[1])], 3),
            scored(&[(Source::Title, likeness_begun(0, 3, 5, true), crown[1])], 3),
            scored(&[(Source::Title, likeness_begun(0, 3, 5, true), inside[2])], 4),
            scored(&[(Source::Title, likeness(1, 5, true), inside[2])], 4),
            scored(&[(Source::Title, likeness(2, 8, true), inside[2])], 4),
            scored(&[(Source::Cast, WHOLE, 65)], 4),
            scored(&[(Source::Tags, WHOLE, 0)], 4),
            scored(&[(Source::About, WHOLE, 0)], 4),
        ];
        assert!(scores[1..].is_sorted_by(|a, b| a > b), "{scores:?}");
        assert!(scores.iter().all(|score| score + Tally::score_of(popularity::MOST) <= Tally::SCORE_MAX));
        // The most popular title of all does not make up for where a word was found, but for the fourth typo's difference.
        assert!(scores[7] + Tally::score_of(popularity::MOST) < scores[2]);
    }

    #[test]
    fn a_typo_costs_more_in_a_short_word_and_at_its_beginning() {
        assert!(likeness(1, 4, true) < likeness(1, 9, true));
        assert!(likeness(2, 8, true) < likeness(1, 8, true));
        assert!(likeness(1, 6, false) < likeness(1, 6, true));
        assert_eq!(likeness_begun(1, 5, 5, true), likeness(1, 5, true), "a word that is all there was not begun");
        assert!(likeness_begun(0, 3, 12, true) < likeness_begun(0, 3, 4, true));
    }

    #[test]
    fn two_words_for_one_of_the_title_are_both_met() {
        let (place, weights) = (places("Spiderman Returns"), Weights::new(&[50, 50, 50]));
        let mut tally = Tally::default();
        tally.enter(1);
        tally.offer(&Offer { source: Source::Title, likeness: 960, place: place[0], covers_next: true });
        tally.end(50);
        assert!(tally.carries());
        tally.enter(2);
        tally.end(50);
        assert!(!tally.carries());
        tally.enter(3);
        tally.offer(&Offer { source: Source::Title, likeness: WHOLE, place: place[1], covers_next: false });
        tally.end(50);
        assert_eq!(weights.thousandths(tally.met()), (960 + 960 + 1000) / 3);
        assert_eq!((tally.covered, tally.adjacent), (2, 100), "one after the other, nothing counted twice");
    }

    #[test]
    fn rare_words_weigh_more_and_unknown_ones_nothing() {
        assert!(weight(1, 10_000) > weight(100, 10_000) && weight(100, 10_000) > weight(9000, 10_000));
        assert_eq!((weight(0, 10_000), weight(1, u64::MAX) > 0), (0, true));
    }

    proptest! {
        #[test]
        fn it_does_not_matter_in_which_order_offers_come(
            steps in prop::collection::vec(prop::collection::vec((0_usize..Source::ALL.len(), 1_u32..=1000, 0_u32..8, any::<bool>()), 0..6), 1..5),
        ) {
            let tally = |backwards: bool| {
                let mut tally = Tally::default();
                for (step, offers) in (1..).zip(&steps) {
                    let mut offers = offers.clone();
                    if backwards {
                        offers.reverse();
                    }
                    if offers.is_empty() && !tally.carries() {
                        continue;
                    }
                    tally.enter(step);
                    for (source, likeness, number, covers_next) in offers {
                        let source = Source::ALL[source];
                        // Place 65 is the first word of a title of one word.
                        let place = if source.has_places() { 64 + number } else { 0 };
                        tally.offer(&Offer { source, likeness, place, covers_next });
                    }
                    tally.end(10 + step);
                }
                tally
            };
            prop_assert_eq!(format!("{:?}", tally(false)), format!("{:?}", tally(true)));
        }
    }
}
