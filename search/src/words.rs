//! Texts as words: titles and queries are cut and folded by the same rules, so that they meet.
//!
//! Folded: decomposed (NFKD, Unicode Standard Annex 15), without the marks that people leave out when they type (accents,
//! Hebrew points, Arabic harakat), in lower case, and letters that have no decomposition (ß, ø, ł, æ …) as they are typed
//! without their key. Hangul stays decomposed: one wrong jamo is one wrong character, and a syllable half typed is a prefix.
//! Han and kana are written without spaces, so each character is a word.

use std::{iter, mem};

use unicode_normalization::{UnicodeNormalization as _, char::is_combining_mark};

/// Characters of a word; what is longer is cut.
const WORD_CHARS_MAX: usize = 40;
/// Words of a text; what follows is not looked at.
const WORDS_MAX: usize = 2000;
/// Bits of a place for the number of the word in its part, and for how many words the part has.
const PLACE_BITS: u32 = 6;
/// The last place of a part; longer ones go on as the next part.
const PLACE_MAX: u32 = (1 << PLACE_BITS) - 1;

/// First words that people leave out, in the languages that have them. In lower case and folded.
const ARTICLES: &[&str] = &[
    "a", "an", "das", "de", "den", "der", "det", "die", "een", "ein", "eine", "el", "gli", "het", "il", "la", "las", "le", "les",
    "lo", "los", "o", "os", "the", "um", "uma", "un", "una", "une",
];

/// A folded word, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) text: String,
    pub(crate) place: Place,
}

/// Where a word stands in a title. A title has parts ("Queen Charlotte: A Bridgerton Story" has two), numbered from 0. In a part
/// words are numbered from 1, but a leading article has number 0; `of` is the number of the last one. Packed so that the next
/// word of the same part has the next number, and later words larger ones; 0 is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place(u32);

impl Place {
    const fn new(part: u32, of: u32, number: u32) -> Self {
        Self(part << (2 * PLACE_BITS) | of << PLACE_BITS | number)
    }

    pub(crate) const fn packed(self) -> u32 {
        self.0
    }

    /// Back from [`packed`](Self::packed); `None` for 0.
    pub(crate) const fn unpacked(packed: u32) -> Option<Self> {
        if packed == 0 { None } else { Some(Self(packed)) }
    }

    pub(crate) const fn part(self) -> u32 {
        self.0 >> (2 * PLACE_BITS)
    }

    /// Words in the part, a leading article not counted.
    pub(crate) const fn of(self) -> u32 {
        self.0 >> PLACE_BITS & PLACE_MAX
    }

    /// The word's number in its part; 0 is a leading article.
    pub(crate) const fn number(self) -> u32 {
        self.0 & PLACE_MAX
    }
}

/// The words of `text` in order.
pub(crate) fn words(text: &str) -> Vec<Word> {
    let mut words = Vec::new();
    let mut part = 0;
    let mut cut = cut(text).into_iter().peekable();
    while let Some(first) = cut.next() {
        let mut texts = vec![first.text];
        while let Some(next) = cut.next_if(|next| next.after != Break::Part && texts.len() < PLACE_MAX as usize) {
            texts.push(next.text);
        }
        let first_number = u32::from(texts.len() == 1 || !ARTICLES.contains(&texts[0].as_str()));
        let of = texts.len() as u32 + first_number - 1;
        words.extend((first_number..).zip(texts).map(|(number, text)| Word { text, place: Place::new(part, of, number) }));
        part += 1;
    }
    words
}

/// How many words a title has, leading articles not counted.
pub(crate) fn count(words: &[Word]) -> u64 {
    words.iter().filter(|word| word.place.number() > 0).count() as u64
}

/// Neighbours written as one word, at the place of the first.
pub(crate) fn joined(words: &[Word]) -> Vec<Word> {
    let spaced = words.windows(2).filter(|pair| !pair.iter().any(|word| is_unspaced(&word.text)));
    spaced.map(|pair| Word { text: format!("{}{}", pair[0].text, pair[1].text), place: pair[0].place }).collect()
}

/// The first characters of each word, one to [`STARTS_CHARS_MAX`]: what short beginnings are looked up by.
pub(crate) fn starts(words: &[Word]) -> Vec<Word> {
    let of = |word: &Word| {
        let ends = word.text.char_indices().map(|(at, c)| at + c.len_utf8()).take(STARTS_CHARS_MAX);
        let (text, place) = (word.text.clone(), word.place);
        ends.map(move |end| Word { text: text[..end].to_owned(), place }).collect::<Vec<_>>()
    };
    words.iter().filter(|word| !is_unspaced(&word.text)).flat_map(of).collect()
}

/// The longest beginning that [`starts`] gives.
pub(crate) const STARTS_CHARS_MAX: usize = 3;

/// What a text is sorted by: its words, a leading article left out.
pub(crate) fn sorted_by(text: &str) -> String {
    let words = words(text);
    let kept = words.iter().filter(|word| word.place != Place::new(0, word.place.of(), 0));
    let mut key = String::new();
    for word in kept {
        if key.len() + word.text.len() >= SORTED_BY_BYTES_MAX {
            break;
        }
        key.push_str(&word.text);
        key.push(' ');
    }
    key.truncate(key.trim_end().len());
    key
}

/// The longest that [`sorted_by`] gives.
pub(crate) const SORTED_BY_BYTES_MAX: usize = 120;

/// One value of a filter, folded: words with single spaces.
pub(crate) fn folded(text: &str) -> String {
    words(text).into_iter().map(|word| word.text).collect::<Vec<_>>().join(" ")
}

/// Whether a text ends in the middle of a word, as far as one can tell.
pub(crate) fn ends_open(text: &str) -> bool {
    text.chars().next_back().is_some_and(|c| !c.is_whitespace())
}

/// What separates a word from the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Break {
    None,
    Dot,
    Space,
    /// What separates the parts of a title.
    Part,
}

struct Piece {
    text: String,
    after: Break,
}

/// Cuts and folds.
fn cut(text: &str) -> Vec<Piece> {
    let mut cutter = Cutter::new();
    for original in text.chars().filter(|c| !matches!(c, '™' | '®' | '©')) {
        for c in iter::once(original).nfkd().filter(|c| !is_left_out(*c)) {
            cutter.take(c);
        }
    }
    cutter.end_word(Break::None);
    if cutter.pieces.is_empty() {
        // "???" is somebody's title.
        let text: String = text.split_whitespace().flat_map(str::chars).take(WORD_CHARS_MAX).collect();
        return if text.is_empty() { Vec::new() } else { vec![Piece { text, after: Break::None }] };
    }
    acronyms(cutter.pieces)
}

struct Cutter {
    pieces: Vec<Piece>,
    /// The word that is being read, maybe empty yet.
    word: Piece,
    chars: usize,
    /// A dash with white space on both sides separates parts, any other separates words.
    dash_after_space: bool,
}

impl Cutter {
    const fn new() -> Self {
        Self { pieces: Vec::new(), word: Piece { text: String::new(), after: Break::None }, chars: 0, dash_after_space: false }
    }

    /// The next decomposed character.
    fn take(&mut self, c: char) {
        let mut dash_after_space = false;
        match c {
            '\'' | '\u{2018}' | '\u{2019}' | '\u{2bc}' | '\u{200b}'..='\u{200d}' => {}
            '-' | '\u{2010}'..='\u{2015}' => {
                dash_after_space = self.word.text.is_empty() && self.word.after >= Break::Space;
                self.end_word(Break::Space);
            }
            '&' => {
                self.end_word(Break::Space);
                self.word.text.push_str("and");
                self.end_word(Break::Space);
            }
            c if is_unspaced_char(c) => {
                self.end_word(Break::None);
                self.word.text.push(c);
                self.end_word(Break::None);
            }
            c if is_combining_mark(c) && self.word.text.is_empty() => {
                // A voiced kana is a kana and a mark.
                if let Some(before) = self.pieces.last_mut().filter(|_| self.word.after == Break::None) {
                    before.text.push(c);
                }
            }
            c if c.is_alphanumeric() || is_combining_mark(c) => {
                if self.chars < WORD_CHARS_MAX {
                    self.chars += fold_into(&mut self.word.text, c);
                }
            }
            '.' => self.end_word(Break::Dot),
            ':' | '/' | '|' | '(' | ')' | '[' | ']' | '{' | '}' | ';' | '~' | '\u{301c}' | '\n' => self.end_word(Break::Part),
            c if c.is_whitespace() && self.dash_after_space => self.end_word(Break::Part),
            _ => self.end_word(Break::Space),
        }
        self.dash_after_space = dash_after_space;
    }

    /// Ends the word, if there is one; `after` stands before the next.
    fn end_word(&mut self, after: Break) {
        if self.word.text.is_empty() {
            self.word.after = self.word.after.max(after);
        } else if self.pieces.len() < WORDS_MAX {
            self.pieces.push(mem::replace(&mut self.word, Piece { text: String::new(), after }));
        }
        self.chars = 0;
    }
}

/// "S.W.A.T." is "swat".
fn acronyms(pieces: Vec<Piece>) -> Vec<Piece> {
    let is_letter = |text: &str| text.chars().count() == 1 && text.chars().all(char::is_alphabetic) && !is_unspaced(text);
    let mut out: Vec<Piece> = Vec::with_capacity(pieces.len());
    let mut letters = false;
    for piece in pieces {
        let letter = is_letter(&piece.text);
        match out.last_mut() {
            Some(last) if letters && letter && piece.after == Break::Dot => last.text.push_str(&piece.text),
            _ => {
                letters = letter;
                out.push(piece);
            }
        }
    }
    out
}

/// Adds the folded `c`; how many characters that is.
fn fold_into(word: &mut String, c: char) -> usize {
    let instead = match c {
        'ß' | 'ẞ' => "ss",
        'ø' | 'Ø' => "o",
        'đ' | 'Đ' | 'ð' | 'Ð' => "d",
        'ł' | 'Ł' => "l",
        'æ' | 'Æ' => "ae",
        'œ' | 'Œ' => "oe",
        'þ' | 'Þ' => "th",
        'ħ' | 'Ħ' => "h",
        'ŋ' | 'Ŋ' => "n",
        'ı' => "i",
        'ς' => "σ",
        _ => {
            word.extend(c.to_lowercase());
            return 1;
        }
    };
    word.push_str(instead);
    instead.len()
}

/// Marks that people leave out when they type: combining accents, Hebrew points, Arabic harakat and tatweel.
const fn is_left_out(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{36f}' | '\u{591}'..='\u{5c7}' | '\u{64b}'..='\u{65f}' | '\u{670}' | '\u{640}')
}

/// Han and kana. Halfwidth kana and compatibility characters are decomposed to these before.
const fn is_unspaced_char(c: char) -> bool {
    matches!(
        c,
        '\u{3041}'..='\u{3096}' | '\u{30a1}'..='\u{30fa}' | '\u{30fc}' | '\u{31f0}'..='\u{31ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}'
            | '\u{20000}'..='\u{3ffff}'
    )
}

pub(crate) fn is_unspaced(word: &str) -> bool {
    word.chars().next().is_some_and(is_unspaced_char)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<String> {
        words(text).into_iter().map(|word| word.text).collect()
    }

    #[test]
    fn what_people_type_and_what_stands_in_titles_is_folded_to_the_same() {
        for (typed, title) in [
            ("ubermut", "Übermut"),
            ("STRASSE", "straße"),
            ("smorrebrod", "Smørrebrød"),
            ("la casa de papel", "La Casa de  Papel"),
            ("greys anatomy", "Grey’s Anatomy"),
            ("swat", "S.W.A.T."),
            ("ginny and georgia", "Ginny & Georgia"),
            ("spider man", "Spider-Man"),
            ("mr robot", "Mr. Robot"),
            ("lodz", "Łódź"),
            ("еще", "Ещё"),
            ("ｆｕｌｌ ｗｉｄｔｈ", "Full Width"),
            ("محمد", "مُحَمَّد"),
            ("netflix", "Netflix™"),
        ] {
            assert_eq!(texts(typed), texts(title), "{title}");
        }
        assert_eq!(texts("   "), Vec::<String>::new());
        assert_eq!(texts(" ?! ?"), ["?!?"]);
    }

    #[test]
    fn a_syllable_that_is_being_typed_is_a_beginning() {
        let (whole, begun) = (texts("글로리"), texts("글로ㄹ"));
        assert!(whole[0].starts_with(&begun[0]) && whole[0] != begun[0]);
    }

    #[test]
    fn han_and_kana_are_words_of_one_character() {
        assert_eq!(texts("紅の豚").len(), 3);
        let voiced = texts("ガンダム");
        assert_eq!(voiced.len(), 4, "a voiced kana is one: {voiced:?}");
        assert!(joined(&words("紅の豚")).is_empty() && starts(&words("紅の豚")).is_empty());
    }

    #[test]
    fn places_say_part_number_and_length() {
        let places = |text: &str| {
            let place = |word: Word| (word.place.part(), word.place.number(), word.place.of());
            words(text).into_iter().map(place).collect::<Vec<_>>()
        };
        assert_eq!(places("Queen Charlotte: A Bridgerton Story"), [(0, 1, 2), (0, 2, 2), (1, 0, 2), (1, 1, 2), (1, 2, 2)]);
        assert_eq!(places("The"), [(0, 1, 1)]);
        assert_eq!(places("Kill Bill - Vol.2 (2004)"), [(0, 1, 2), (0, 2, 2), (1, 1, 2), (1, 2, 2), (2, 1, 1)]);
        assert_eq!(places("Hope // 소원"), [(0, 1, 1), (1, 1, 1)]);
        let long = words(&"x ".repeat(100));
        assert!(long.windows(2).all(|pair| pair[0].place < pair[1].place), "they only grow");
        assert_eq!((long[62].place.number(), long[63].place.part()), (63, 1));
        assert_eq!(count(&words("The Crown: Season 1")), 3);
    }

    #[test]
    fn neighbours_are_joined() {
        let text = |word: Word| word.text;
        assert_eq!(
            joined(&words("The Night Agent: Season 1")).into_iter().map(text).collect::<Vec<_>>(),
            ["thenight", "nightagent", "agentseason", "season1"]
        );
        assert_eq!(starts(&words("Öz 1")).into_iter().map(text).collect::<Vec<_>>(), ["o", "oz", "1"]);
    }

    #[test]
    fn a_leading_article_does_not_decide_the_order() {
        assert_eq!(sorted_by("The Crown: Season 1"), "crown season 1");
        assert_eq!(sorted_by("Überall: The End"), "uberall the end");
        assert!(sorted_by(&"x".repeat(30).repeat(20)).len() <= SORTED_BY_BYTES_MAX);
        assert_eq!(folded("Sci-Fi &  Fantasy"), "sci fi and fantasy");
    }

    proptest::proptest! {
        #[test]
        fn any_text_has_words_in_order(text in "\\PC{0,60}|[a-z :/.\\-&'がか가ㄱé一]{0,60}") {
            let words = words(&text);
            proptest::prop_assert!(words.windows(2).all(|pair| pair[0].place < pair[1].place));
            proptest::prop_assert!(words.iter().all(|word| !word.text.is_empty() && word.place.number() <= word.place.of()));
            proptest::prop_assert_eq!(words.is_empty(), text.trim().is_empty());
            for word in starts(&words).iter().chain(&joined(&words)) {
                proptest::prop_assert!(!word.text.is_empty());
            }
            sorted_by(&text);
        }
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(words(&"a ".repeat(5000)).len(), WORDS_MAX);
        assert_eq!(texts(&"x".repeat(300)), ["x".repeat(WORD_CHARS_MAX)]);
    }
}
