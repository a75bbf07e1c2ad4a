//! Queries as people type them: a title's name with one human mistake, drawn by a seed.
//!
//! What is looked for is drawn by hours watched for one half and evenly for the other. What is typed is one name of the title
//! (many have two), in lower case, without punctuation, a year, and often the season; of a show without its season the most
//! watched one is meant. Then comes one mistake: a letter left out, typed twice, swapped with the next, or the key beside it;
//! accents left out; typing not finished; no article; two words as one. Letters that begin the query stay right.
//!
//! Left out are queries that nobody could understand: those that are no unmistaken name of three titles which are watched as much or more.

use std::collections::HashMap;

use super::titles::Watched;

/// A mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mistake {
    Drop,
    Double,
    Swap,
    Neighbour,
    Accents,
    Prefix,
    Article,
    Joined,
}

impl Mistake {
    pub const ALL: [Self; 8] =
        [Self::Drop, Self::Double, Self::Swap, Self::Neighbour, Self::Accents, Self::Prefix, Self::Article, Self::Joined];
    /// Those that are a typo.
    pub const TYPOS: [Self; 4] = [Self::Drop, Self::Double, Self::Swap, Self::Neighbour];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Double => "double",
            Self::Swap => "swap",
            Self::Neighbour => "neighbour",
            Self::Accents => "accents",
            Self::Prefix => "prefix",
            Self::Article => "article",
            Self::Joined => "joined",
        }
    }
}

/// What was typed, and the number of the title that was meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Typed {
    pub text: String,
    pub meant: usize,
    pub mistake: Mistake,
}

/// Someone who looks for titles.
pub struct Typist<'a> {
    titles: &'a [Watched],
    /// Sums of hours up to each title, to draw by.
    hours: Vec<u64>,
    /// What may be typed for each title, its number, most watched first.
    names: Vec<(String, usize)>,
    /// The most watched title of each show.
    shows: HashMap<String, usize>,
    state: u64,
}

impl<'a> Typist<'a> {
    pub fn new(titles: &'a [Watched], seed: u64) -> Self {
        let mut sum = 0;
        let hours = titles.iter().map(|title| {
            sum += title.hours;
            sum
        });
        let mut by_hours: Vec<usize> = (0..titles.len()).collect();
        by_hours.sort_by_key(|n| (std::cmp::Reverse(titles[*n].hours), *n));
        let mut shows = HashMap::new();
        for n in &by_hours {
            for name in names(&titles[*n].title) {
                shows.entry(typed(without_season(name))).or_insert(*n);
            }
        }
        let of = |n: usize| names(&titles[n].title).flat_map(move |name| [(typed(name), n), (typed(without_season(name)), n)]);
        let names = by_hours.iter().flat_map(|n| of(*n)).collect();
        Self { titles, hours: hours.collect(), names, shows, state: seed }
    }

    /// The next query with one of `mistakes`.
    pub fn next_of(&mut self, mistakes: &[Mistake]) -> Typed {
        loop {
            let mistake = mistakes[self.below(mistakes.len())];
            let by_hours = self.below(2) == 0;
            if let Some(typed) = self.attempt(mistake, by_hours) {
                return typed;
            }
        }
    }

    fn attempt(&mut self, mistake: Mistake, by_hours: bool) -> Option<Typed> {
        let drawn = if by_hours {
            let all = *self.hours.last()?;
            let at = self.random() % all.max(1);
            self.hours.partition_point(|hours| *hours <= at)
        } else {
            self.below(self.titles.len())
        };
        let names: Vec<&str> = names(&self.titles[drawn].title).collect();
        // The name in the catalogue's own language four times of five.
        let name = names[if names.len() > 1 && self.below(5) == 0 { 1 } else { 0 }];
        let shorter = without_season(name);
        let (intended, meant) = if shorter != name && self.below(2) == 0 {
            let intended = typed(shorter);
            let meant = *self.shows.get(&intended)?;
            (intended, meant)
        } else {
            (typed(name), drawn)
        };
        let text = self.mistaken(&intended, mistake)?;
        if text.chars().count() < 3 || text == intended && mistake != Mistake::Prefix {
            return None;
        }
        let understood = if mistake == Mistake::Prefix { &text } else { &intended };
        self.is_clear(understood, meant, mistake == Mistake::Prefix).then_some(Typed { text, meant, mistake })
    }

    /// Whether fewer than three other titles that are watched as much are named so.
    fn is_clear(&self, text: &str, meant: usize, begins: bool) -> bool {
        let mut others: Vec<usize> = Vec::new();
        for (name, n) in &self.names {
            if self.titles[*n].hours < self.titles[meant].hours {
                break;
            }
            let named = *n != meant && if begins { name.starts_with(text) } else { name == text };
            if named && !others.contains(n) {
                others.push(*n);
            }
        }
        others.len() < 3
    }

    fn mistaken(&mut self, intended: &str, mistake: Mistake) -> Option<String> {
        let chars: Vec<char> = intended.chars().collect();
        // Letters of longer words, the first letter of all left alone.
        let in_long_word = |at: usize| {
            let begin = chars[..at].iter().rposition(|c| *c == ' ').map_or(0, |space| space + 1);
            let end = chars[at..].iter().position(|c| *c == ' ').map_or(chars.len(), |space| at + space);
            end - begin >= 4
        };
        let letters: Vec<usize> = (1..chars.len()).filter(|at| chars[*at].is_alphabetic() && in_long_word(*at)).collect();
        let mut with = chars.clone();
        match mistake {
            Mistake::Drop => {
                with.remove(self.one_of(&letters)?);
            }
            Mistake::Double => {
                let at = self.one_of(&letters)?;
                with.insert(at, chars[at]);
            }
            Mistake::Swap => {
                let swappable = |at: &usize| letters.contains(&(at + 1)) && chars[*at] != chars[at + 1];
                let at = self.one_of(&letters.iter().copied().filter(swappable).collect::<Vec<_>>())?;
                with.swap(at, at + 1);
            }
            Mistake::Neighbour => {
                let at =
                    self.one_of(&letters.iter().copied().filter(|at| chars[*at].is_ascii_lowercase()).collect::<Vec<_>>())?;
                let beside = beside(chars[at]);
                with[at] = beside[self.below(beside.len())];
            }
            Mistake::Accents => return Some(intended.chars().map(without_accent).collect()),
            Mistake::Prefix => {
                let least = (chars.len() * 6 / 10).max(4);
                if least + 1 >= chars.len() {
                    return None;
                }
                with.truncate(least + self.below(chars.len() - least));
            }
            Mistake::Article => {
                let (first, rest) = intended.split_once(' ')?;
                return ["the", "a", "an", "la", "el", "los", "las", "le", "les", "der", "die", "das", "o", "il"]
                    .contains(&first)
                    .then(|| rest.to_owned());
            }
            Mistake::Joined => {
                let spaces: Vec<usize> = (0..chars.len()).filter(|at| chars[*at] == ' ').collect();
                with.remove(self.one_of(&spaces)?);
            }
        }
        Some(with.into_iter().collect::<String>().trim().to_owned())
    }

    fn one_of(&mut self, places: &[usize]) -> Option<usize> {
        if places.is_empty() { None } else { Some(places[self.below(places.len())]) }
    }

    fn below(&mut self, end: usize) -> usize {
        (self.random() % end.max(1) as u64) as usize
    }

    /// SplitMix64 (Steele, Lea, Flood 2014): the same numbers for a seed on any machine and with any version of any library.
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// The names of a title: many have that of the catalogue's language and that of their own.
fn names(title: &str) -> impl Iterator<Item = &str> {
    title.split(" // ")
}

/// "Wednesday" of "Wednesday: Season 1".
fn without_season(name: &str) -> &str {
    const SEASONS: [&str; 8] =
        [": Season ", ": Limited Series", ": Part ", ": Volume ", ": Temporada ", ": Miniserie", ": 시즌 ", ": 리미티드 시리즈"];
    let at = SEASONS.iter().filter_map(|season| name.find(season)).min();
    at.map_or(name, |at| &name[..at])
}

/// A name as it is typed.
fn typed(name: &str) -> String {
    // "(2013)" is nothing that people type.
    let name = match (name.rfind(" ("), name.ends_with(')')) {
        (Some(at), true) => &name[..at],
        _ => name,
    };
    let lower = name.to_lowercase();
    let kept = lower.chars().filter(|c| !matches!(c, '\'' | '’' | '.' | '!' | '?' | '"'));
    let spaced: String = kept.map(|c| if c.is_alphanumeric() || c == '&' || !c.is_ascii() { c } else { ' ' }).collect();
    spaced.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The keys beside a letter on a QWERTY keyboard.
fn beside(letter: char) -> Vec<char> {
    const ROWS: [&str; 3] = ["qwertyuiop", "asdfghjkl", "zxcvbnm"];
    for (n, row) in ROWS.iter().enumerate() {
        if let Some(at) = row.find(letter) {
            let key = |n: usize, at: usize| ROWS.get(n).and_then(|row| row[at.min(row.len())..].chars().next());
            let left = at.checked_sub(1).and_then(|at| key(n, at));
            return [left, key(n, at + 1), key(n + 1, at), n.checked_sub(1).and_then(|n| key(n, at))]
                .into_iter()
                .flatten()
                .collect();
        }
    }
    vec![letter]
}

/// Latin letters as they are typed without accents.
fn without_accent(c: char) -> char {
    match c {
        'á' | 'à' | 'â' | 'ä' | 'ã' | 'å' | 'ā' | 'ă' | 'ą' => 'a',
        'é' | 'è' | 'ê' | 'ë' | 'ě' | 'ē' | 'ę' => 'e',
        'í' | 'ì' | 'î' | 'ï' | 'ī' | 'ı' => 'i',
        'ó' | 'ò' | 'ô' | 'ö' | 'õ' | 'ø' | 'ō' | 'ő' => 'o',
        'ú' | 'ù' | 'û' | 'ü' | 'ū' | 'ů' | 'ű' => 'u',
        'ç' | 'ć' | 'č' => 'c',
        'ñ' | 'ń' | 'ň' => 'n',
        'š' | 'ś' | 'ş' | 'ș' => 's',
        'ž' | 'ź' | 'ż' => 'z',
        'ł' => 'l',
        'ğ' => 'g',
        'ý' => 'y',
        'ř' => 'r',
        'ť' | 'ț' | 'ţ' => 't',
        'đ' | 'ď' => 'd',
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(title: &str, hours: u64) -> Watched {
        Watched { title: title.into(), hours }
    }

    #[test]
    fn names_are_typed_plainly() {
        assert_eq!(typed("Grey's Anatomy: Season 2 (2005)"), "greys anatomy season 2");
        assert_eq!(without_season("Physical: 100: Season 1"), "Physical: 100");
        assert_eq!(beside('a'), ['s', 'z', 'q']);
    }

    #[test]
    fn a_seed_types_the_same_and_only_what_can_be_understood() {
        let titles = [
            watched("The Night Agent: Season 1", 800),
            watched("Lookalike: Season 3", 500),
            watched("Lookalike: Season 1", 400),
            watched("Über alles", 100),
            watched("Twin", 9),
            watched("Twin", 8),
            watched("Twin", 7),
            watched("Twin", 1),
        ];
        let draw = |seed| {
            let mut typist = Typist::new(&titles, seed);
            (0..200).map(|_| typist.next_of(&Mistake::ALL)).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        let drawn = draw(7);
        assert!(drawn.iter().all(|typed| typed.meant != 7), "three others are as good an answer");
        for mistake in Mistake::ALL {
            assert!(drawn.iter().any(|typed| typed.mistake == mistake), "{mistake:?}");
        }
        assert!(
            drawn
                .iter()
                .all(|typed| !typed.text.starts_with("lookalike ") || !typed.text.ends_with("lookalike") || typed.meant == 1)
        );
    }
}
