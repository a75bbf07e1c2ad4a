//! The words of one dictionary, as they are looked through for what a term may mean: itself, what begins with it, what differs by
//! a few typos.
//!
//! A typo is one character too many, missing, or wrong, or two neighbours swapped (restricted Damerau-Levenshtein distance). Every
//! word has the set of its characters as a bit mask, and words stand by their length, so that nearly all of them are passed over
//! with a few instructions each; the rest are compared. That takes a tenth of what an automaton takes that walks the dictionary
//! (`docs/decisions`), for some tens of bytes a word.

use std::{io, ops::Range};

use tantivy::index::InvertedIndexReader;

use crate::{
    query::Term,
    score::{WHOLE, likeness, likeness_begun},
};

/// Words that one term may mean; more are not looked at.
const WORDS_MAX: usize = 4000;
/// Characters of a word that are compared.
const CHARS_MAX: usize = 96;
/// Characters at a word's beginning that have a mask of their own.
const HEAD_CHARS: usize = 8;
/// Typos that any term may have.
const TYPOS_MAX: usize = 2;

/// How far from a term words may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tolerance {
    /// Typos in a finished word.
    pub(crate) typos: u8,
    /// Typos in the beginning of a longer word; `None` when longer words do not count.
    pub(crate) begun: Option<u8>,
}

/// The words of one dictionary.
pub(crate) struct Vocabulary {
    /// All words, in order and without anything between them.
    text: String,
    /// Where each ends.
    ends: Vec<u32>,
    /// The words' numbers, shorter words first.
    by_length: Vec<u32>,
    /// Where words of each length begin in `by_length`.
    lengths: [u32; CHARS_MAX + 2],
    /// Of each word in `by_length`: the characters in it.
    masks: Vec<u64>,
    /// And those in its beginning.
    heads: Vec<u64>,
}

impl Vocabulary {
    pub(crate) fn read(dictionary: &InvertedIndexReader) -> io::Result<Self> {
        let mut words = dictionary.terms().stream()?;
        let (mut text, mut ends) = (String::new(), Vec::with_capacity(dictionary.terms().num_terms()));
        while words.advance() {
            text.push_str(str::from_utf8(words.key()).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?);
            ends.push(u32::try_from(text.len()).map_err(|_| io::Error::other("the words of a dictionary are more than 4 GiB"))?);
        }
        Ok(Self::of(text, ends))
    }

    fn of(text: String, ends: Vec<u32>) -> Self {
        let mut by_length: Vec<u32> = (0..ends.len() as u32).collect();
        let length = |number: u32| word(&text, &ends, number).chars().count().min(CHARS_MAX);
        by_length.sort_by_cached_key(|number| length(*number));
        let mut lengths = [0; CHARS_MAX + 2];
        for number in &by_length {
            lengths[length(*number) + 1] += 1;
        }
        for n in 1..lengths.len() {
            lengths[n] += lengths[n - 1];
        }
        let masks = by_length.iter().map(|number| mask(word(&text, &ends, *number).chars())).collect();
        let heads = by_length.iter().map(|number| mask(word(&text, &ends, *number).chars().take(HEAD_CHARS))).collect();
        Self { text, ends, by_length, lengths, masks, heads }
    }

    fn word(&self, number: u32) -> &str {
        word(&self.text, &self.ends, number)
    }

    /// Gives `found` each word that `term` may mean, and how like it is, in thousandths. A word can come twice.
    pub(crate) fn look_up(&self, term: &Term, tolerance: Tolerance, mut found: impl FnMut(&str, u32)) {
        let at = self.partition(|word| word < term.text.as_str());
        let is_there = (at as usize) < self.ends.len() && self.word(at) == term.text;
        if is_there {
            found(&term.text, WHOLE);
        }
        let mut left = WORDS_MAX;
        let mut take = |number: u32, likeness: u32| {
            if !is_there || number != at {
                found(self.word(number), likeness);
                left = left.saturating_sub(1);
            }
            left > 0
        };
        if tolerance.begun == Some(0) {
            let words = at..self.ends.len() as u32;
            for number in words.take_while(|number| self.word(*number).starts_with(&term.text)) {
                let chars = self.word(number).chars().count();
                if !take(number, likeness_begun(0, term.chars, chars, true)) {
                    return;
                }
            }
        }
        if tolerance.typos > 0 {
            self.look_through(term, tolerance, &mut take);
        }
    }

    fn look_through(&self, term: &Term, tolerance: Tolerance, take: &mut impl FnMut(u32, u32) -> bool) {
        let (typos, begun) =
            (usize::from(tolerance.typos).min(TYPOS_MAX), tolerance.begun.map(usize::from).filter(|begun| *begun > 0));
        let mut chars = ['\0'; CHARS_MAX];
        let term_chars = decoded(&term.text, &mut chars);
        let wanted = mask(term_chars.iter().copied());
        let mut word_chars = ['\0'; CHARS_MAX];
        // Whole words, with typos on either side.
        for at in self.of_lengths(term.chars.saturating_sub(typos), Some(term.chars + typos)) {
            let all = self.masks[at];
            if has_more_bits(wanted & !all, typos) || has_more_bits(all & !wanted, typos) {
                continue;
            }
            let number = self.by_length[at];
            let word = decoded(self.word(number), &mut word_chars);
            if let Some(typos) = distance(term_chars, word, typos, false)
                && !take(number, likeness(typos as u32, term.chars, word.first() == term_chars.first()))
            {
                return;
            }
        }
        let Some(begun) = begun else {
            return;
        };
        // What is longer, with typos in what was typed.
        let masks = if term.chars + begun <= HEAD_CHARS { &self.heads } else { &self.masks };
        for at in self.of_lengths(term.chars.saturating_sub(begun), None) {
            if has_more_bits(wanted & !masks[at], begun) {
                continue;
            }
            let number = self.by_length[at];
            let word = decoded(self.word(number), &mut word_chars);
            if let Some(typos) = distance(term_chars, word, begun, true)
                && !take(number, likeness_begun(typos as u32, term.chars, word.len(), word.first() == term_chars.first()))
            {
                return;
            }
        }
    }

    /// The first word for which `before` does not hold.
    fn partition(&self, before: impl Fn(&str) -> bool) -> u32 {
        let (mut low, mut high) = (0, self.ends.len() as u32);
        while low < high {
            let middle = low + (high - low) / 2;
            if before(self.word(middle)) { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// Where words of `least` to `most` characters are in `by_length`.
    fn of_lengths(&self, least: usize, most: Option<usize>) -> Range<usize> {
        let begin = |length: usize| self.lengths[length.min(CHARS_MAX + 1)] as usize;
        begin(least)..most.map_or(self.by_length.len(), |most| begin(most + 1))
    }
}

fn word<'a>(text: &'a str, ends: &[u32], number: u32) -> &'a str {
    let n = number as usize;
    let begin = if n == 0 { 0 } else { ends[n - 1] };
    &text[begin as usize..ends[n] as usize]
}

/// Which characters there are: Latin letters and digits have a bit each, all others share the rest.
fn mask(chars: impl Iterator<Item = char>) -> u64 {
    chars.fold(0, |mask, c| {
        let bit = match c {
            'a'..='z' => c as u32 - 'a' as u32,
            '0'..='9' => 26 + c as u32 - '0' as u32,
            _ => 36 + c as u32 % 28,
        };
        mask | 1 << bit
    })
}

/// Whether more than `most` bits (of two at most) are set.
const fn has_more_bits(mut mask: u64, most: usize) -> bool {
    let mut n = 0;
    while n < most && n < TYPOS_MAX {
        mask &= mask.wrapping_sub(1);
        n += 1;
    }
    mask != 0
}

fn decoded<'a>(word: &str, chars: &'a mut [char; CHARS_MAX]) -> &'a [char] {
    let mut count = 0;
    for (to, c) in chars.iter_mut().zip(word.chars()) {
        *to = c;
        count += 1;
    }
    &chars[..count]
}

/// How many typos are between `term` and `word`, or the best beginning of `word`; `None` when they are more than `most`.
fn distance(term: &[char], word: &[char], most: usize, begun: bool) -> Option<usize> {
    if term.len() > word.len() + most || (!begun && word.len() > term.len() + most) {
        return None;
    }
    // Row i has the typos between the first i characters of the term and the first j of the word. Only |i - j| <= most counts:
    // what lies right beside that is `far`, and what lies further out is never read.
    let far = most as u8 + 1;
    let mut rows = [[0_u8; CHARS_MAX + 2]; 3];
    for (j, typos) in (0..).zip(&mut rows[0][..=most + 1]) {
        *typos = far.min(j);
    }
    for i in 1..=term.len() {
        let (least, last) = (i.saturating_sub(most).max(1), (i + most).min(word.len()));
        let [now, before, two_before] = [i % 3, (i + 2) % 3, (i + 1) % 3];
        rows[now][least - 1] = if least == 1 { far.min(i as u8) } else { far };
        for j in least..=last {
            let wrong = rows[before][j - 1] + u8::from(term[i - 1] != word[j - 1]);
            let mut typos = wrong.min(rows[before][j] + 1).min(rows[now][j - 1] + 1);
            if i > 1 && j > 1 && term[i - 1] == word[j - 2] && term[i - 2] == word[j - 1] {
                typos = typos.min(rows[two_before][j - 2] + 1);
            }
            rows[now][j] = typos.min(far);
        }
        rows[now][last + 1] = far;
    }
    let last = &rows[term.len() % 3];
    let ends =
        if begun { term.len().saturating_sub(most)..(term.len() + most).min(word.len()) + 1 } else { word.len()..word.len() + 1 };
    last[ends].iter().min().filter(|typos| **typos < far).map(|typos| usize::from(*typos))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vocabulary(words: &[&str]) -> Vocabulary {
        let mut sorted = words.to_vec();
        sorted.sort_unstable();
        let mut text = String::new();
        let ends = sorted.iter().map(|word| {
            text.push_str(word);
            text.len() as u32
        });
        let ends = ends.collect();
        Vocabulary::of(text, ends)
    }

    fn meant(vocabulary: &Vocabulary, term: &str, tolerance: Tolerance) -> Vec<String> {
        let mut meant = Vec::new();
        vocabulary.look_up(&Term::new(term.into(), true), tolerance, |word, likeness| {
            meant.push((std::cmp::Reverse(likeness), word.to_owned()));
        });
        meant.sort();
        meant.dedup_by(|a, b| a.1 == b.1);
        meant.into_iter().map(|(_, word)| word).collect()
    }

    #[test]
    fn a_term_means_itself_what_begins_with_it_and_what_is_near() {
        let words = vocabulary(&["crow", "crown", "crowned", "clown", "brown", "corn", "owl", "корона", "corona"]);
        let whole = |typos| Tolerance { typos, begun: None };
        assert_eq!(meant(&words, "crown", whole(0)), ["crown"]);
        assert_eq!(meant(&words, "crown", whole(1)), ["crown", "clown", "crow", "brown"]);
        assert_eq!(meant(&words, "corwn", whole(1)), ["corn", "crown"], "neighbours swapped are one typo");
        assert_eq!(meant(&words, "crown", whole(2)).len(), 6);
        assert_eq!(meant(&words, "crow", Tolerance { typos: 0, begun: Some(0) }), ["crow", "crown", "crowned"]);
        assert_eq!(meant(&words, "corwn", Tolerance { typos: 1, begun: Some(1) }), ["corn", "corona", "crown", "crowned"]);
        assert_eq!(meant(&words, "корана", whole(1)), ["корона"]);
        assert_eq!(meant(&words, "zzz", whole(1)), Vec::<String>::new());
        assert_eq!(meant(&vocabulary(&[]), "any", whole(1)), Vec::<String>::new());
    }

    /// The definition, without any short cut.
    fn by_definition(a: &[char], b: &[char]) -> usize {
        let mut table = vec![vec![0; b.len() + 1]; a.len() + 1];
        for i in 0..=a.len() {
            for j in 0..=b.len() {
                table[i][j] = if i == 0 || j == 0 {
                    i + j
                } else {
                    let mut typos = (table[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]))
                        .min(table[i - 1][j] + 1)
                        .min(table[i][j - 1] + 1);
                    if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                        typos = typos.min(table[i - 2][j - 2] + 1);
                    }
                    typos
                };
            }
        }
        table[a.len()][b.len()]
    }

    proptest::proptest! {
        #[test]
        fn distances_are_as_defined(a in "[abc]{0,8}", b in "[abc]{0,9}", most in 0_usize..3) {
            let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
            let whole = by_definition(&a, &b);
            proptest::prop_assert_eq!(distance(&a, &b, most, false), (whole <= most).then_some(whole));
            let begun = (0..=b.len()).map(|end| by_definition(&a, &b[..end])).min().unwrap();
            proptest::prop_assert_eq!(distance(&a, &b, most, true), (begun <= most).then_some(begun));
        }

        #[test]
        fn nothing_near_is_passed_over(term in "[a-dé]{3,7}", words in proptest::collection::btree_set("[a-dé]{1,9}", 0..40), most in 1_u8..3) {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let chars = |word: &str| word.chars().collect::<Vec<_>>();
            let near = |word: &&&str| distance(&chars(&term), &chars(word), most.into(), false).is_some();
            let expected: std::collections::BTreeSet<String> = words.iter().filter(near).map(|word| (*word).to_owned()).collect();
            let found = meant(&vocabulary(&words), &term, Tolerance { typos: most, begun: None });
            proptest::prop_assert_eq!(found.into_iter().collect::<std::collections::BTreeSet<_>>(), expected);
        }
    }
}
