//! What is known of a title, and how the index keeps it.

use std::collections::BTreeSet;

use tantivy::{
    Index, TantivyDocument, Term,
    schema::{Field, IndexRecordOption, NumericOptions, Schema, TextFieldIndexing, TextOptions},
    tokenizer::{Token, TokenStream, Tokenizer},
};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    language,
    score::Source,
    words::{self, Word},
};

/// A title, as far as it can be searched for, filtered by, and ordered by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Document {
    /// Unique; what answers name it by.
    pub id: String,
    /// Changes whenever anything else here does.
    pub stamp: u64,
    pub title: String,
    pub description: String,
    pub cast: Vec<String>,
    pub genres: Vec<String>,
    /// When it came out.
    pub year: Option<u16>,
    /// Of the original, BCP 47.
    pub language: Option<String>,
    /// Film, episode, …
    pub kind: Option<String>,
    /// When it was catalogued, in milliseconds since 1970.
    pub created_at_ms: u64,
}

/// The number that stands for an id where a text would be too long: in ranks and cursors.
pub(crate) fn key(id: &str) -> u64 {
    xxh3_64(id.as_bytes())
}

/// Names of columns.
pub(crate) mod column {
    pub(crate) const ID: &str = "id";
    pub(crate) const KEY: &str = "key";
    pub(crate) const STAMP: &str = "stamp";
    pub(crate) const WORDS: &str = "words";
    pub(crate) const SORTED_BY: &str = "sorted_by";
    pub(crate) const GENRE: &str = "genre";
    pub(crate) const LANGUAGE: &str = "language";
    pub(crate) const KIND: &str = "kind";
    pub(crate) const YEAR: &str = "year";
    pub(crate) const CREATED: &str = "created";
}

/// The fields of the index.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields {
    id: Field,
    key: Field,
    stamp: Field,
    words: Field,
    sorted_by: Field,
    genre: Field,
    language: Field,
    kind: Field,
    year: Field,
    created: Field,
    /// Words of the title, with their places.
    title: Field,
    /// Neighbours in the title as one word.
    joined: Field,
    /// The first characters of the title's words.
    starts: Field,
    /// Words of the cast's names, with their places; each name is a part.
    cast: Field,
    /// Words of genres, year and language.
    tags: Field,
    /// Words of the description.
    about: Field,
}

impl Fields {
    pub(crate) fn new() -> (Self, Schema) {
        let mut schema = Schema::builder();
        let number = || NumericOptions::default().set_fast();
        let value = || TextOptions::default().set_fast("raw");
        let text = |shape: Shape, option| {
            let indexing =
                TextFieldIndexing::default().set_tokenizer(shape.name()).set_index_option(option).set_fieldnorms(false);
            TextOptions::default().set_indexing_options(indexing)
        };
        let placed = IndexRecordOption::WithFreqsAndPositions;
        let named =
            TextFieldIndexing::default().set_tokenizer("raw").set_index_option(IndexRecordOption::Basic).set_fieldnorms(false);
        let fields = Self {
            id: schema.add_text_field(column::ID, value().set_indexing_options(named)),
            key: schema.add_u64_field(column::KEY, number()),
            stamp: schema.add_u64_field(column::STAMP, number()),
            words: schema.add_u64_field(column::WORDS, number()),
            sorted_by: schema.add_text_field(column::SORTED_BY, value()),
            genre: schema.add_text_field(column::GENRE, value()),
            language: schema.add_text_field(column::LANGUAGE, value()),
            kind: schema.add_text_field(column::KIND, value()),
            year: schema.add_u64_field(column::YEAR, number()),
            created: schema.add_u64_field(column::CREATED, number()),
            title: schema.add_text_field("title", text(Shape::Words, placed)),
            joined: schema.add_text_field("joined", text(Shape::Joined, placed)),
            starts: schema.add_text_field("starts", text(Shape::Starts, placed)),
            cast: schema.add_text_field("cast", text(Shape::Words, placed)),
            tags: schema.add_text_field("tags", text(Shape::Words, IndexRecordOption::Basic)),
            about: schema.add_text_field("about", text(Shape::Words, IndexRecordOption::Basic)),
        };
        (fields, schema.build())
    }

    /// Where the words of a source are.
    pub(crate) const fn of(&self, source: Source) -> Field {
        match source {
            Source::Title => self.title,
            Source::Joined => self.joined,
            Source::Starts => self.starts,
            Source::Cast => self.cast,
            Source::Tags => self.tags,
            Source::About => self.about,
        }
    }

    /// What finds the document `id`, to remove it.
    pub(crate) fn named(&self, id: &str) -> Term {
        Term::from_field_text(self.id, id)
    }

    pub(crate) fn document(&self, document: &Document) -> TantivyDocument {
        let mut kept = TantivyDocument::default();
        kept.add_text(self.id, &document.id);
        kept.add_u64(self.key, key(&document.id));
        kept.add_u64(self.stamp, document.stamp);
        kept.add_u64(self.words, words::count(&words::words(&document.title)));
        kept.add_text(self.sorted_by, words::sorted_by(&document.title));
        let mut genres = BTreeSet::new();
        for genre in document.genres.iter().filter(|genre| genres.insert(words::folded(genre))) {
            kept.add_text(self.genre, genre);
        }
        if let Some(language) = &document.language {
            kept.add_text(self.language, language);
        }
        if let Some(kind) = &document.kind {
            kept.add_text(self.kind, kind);
        }
        if let Some(year) = document.year {
            kept.add_u64(self.year, year.into());
        }
        kept.add_u64(self.created, document.created_at_ms);
        for field in [self.title, self.joined, self.starts] {
            kept.add_text(field, &document.title);
        }
        kept.add_text(self.cast, document.cast.join("\n"));
        kept.add_text(self.tags, tags(document));
        kept.add_text(self.about, &document.description);
        kept
    }
}

/// What else is said of a title in a few words, to be looked for.
fn tags(document: &Document) -> String {
    let year = document.year.map(|year| year.to_string());
    let language = document.language.as_deref().map(language::names);
    let mut tags: Vec<&str> = document.genres.iter().map(String::as_str).collect();
    tags.extend(year.as_deref());
    tags.extend(language.iter().flatten());
    tags.join("\n")
}

/// Makes the ways of cutting texts known to an index.
pub(crate) fn register_tokenizers(index: &Index) {
    for shape in [Shape::Words, Shape::Joined, Shape::Starts] {
        index.tokenizers().register(shape.name(), shape);
    }
}

/// What is kept of the words of a text.
#[derive(Debug, Clone, Copy)]
enum Shape {
    Words,
    Joined,
    Starts,
}

impl Shape {
    const fn name(self) -> &'static str {
        match self {
            Self::Words => "words",
            Self::Joined => "joined",
            Self::Starts => "starts",
        }
    }
}

impl Tokenizer for Shape {
    type TokenStream<'a> = Tokens;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> Tokens {
        let words = words::words(text);
        let words = match self {
            Self::Words => words,
            Self::Joined => words::joined(&words),
            Self::Starts => words::starts(&words),
        };
        Tokens { words: words.into_iter(), token: Token::default() }
    }
}

struct Tokens {
    words: std::vec::IntoIter<Word>,
    token: Token,
}

impl TokenStream for Tokens {
    fn advance(&mut self) -> bool {
        let Some(word) = self.words.next() else {
            return false;
        };
        self.token = Token { position: word.place.packed() as usize, text: word.text, position_length: 1, ..Token::default() };
        true
    }

    fn token(&self) -> &Token {
        &self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        &mut self.token
    }
}
