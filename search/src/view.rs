//! What one search looks at: the index as of one moment, with its columns open.

use std::{io, sync::Arc};

use tantivy::{
    DocId, Searcher, SegmentReader,
    columnar::{Column, StrColumn},
    index::InvertedIndexReader,
};

use crate::{
    document::{Fields, column},
    score::Source,
    vocabulary::Vocabulary,
};

/// The index as of one moment.
pub(crate) struct View {
    pub(crate) segments: Vec<Segment>,
    /// Kept as long as its files are read.
    _searcher: Searcher,
}

/// One of its segments.
pub(crate) struct Segment {
    reader: SegmentReader,
    dictionaries: [Arc<InvertedIndexReader>; Source::ALL.len()],
    vocabularies: Arc<[Vocabulary; Source::ALL.len()]>,
    pub(crate) id: StrColumn,
    pub(crate) sorted_by: StrColumn,
    key: Column<u64>,
    stamp: Column<u64>,
    words: Column<u64>,
    created: Column<u64>,
    pub(crate) year: Column<u64>,
    /// `None` when no title of the segment has any.
    pub(crate) genre: Option<StrColumn>,
    pub(crate) language: Option<StrColumn>,
    pub(crate) kind: Option<StrColumn>,
}

impl View {
    /// Looks at the index anew; what `before` read of the same segments is not read again.
    pub(crate) fn new(searcher: Searcher, fields: &Fields, before: Option<&Self>) -> tantivy::Result<Self> {
        let same = |reader: &SegmentReader| {
            let same = before?.segments.iter().find(|segment| segment.reader.segment_id() == reader.segment_id())?;
            Some(Arc::clone(&same.vocabularies))
        };
        let open = |reader| Segment::new(reader, fields, same(reader));
        let segments = searcher.segment_readers().iter().map(open).collect::<Result<_, _>>()?;
        Ok(Self { segments, _searcher: searcher })
    }

    /// How many titles there are.
    pub(crate) fn titles(&self) -> u64 {
        self.segments.iter().map(|segment| u64::from(segment.reader.num_docs())).sum()
    }
}

impl Segment {
    fn new(
        reader: &SegmentReader,
        fields: &Fields,
        vocabularies: Option<Arc<[Vocabulary; Source::ALL.len()]>>,
    ) -> tantivy::Result<Self> {
        let [title, joined, starts, cast, tags, about] = Source::ALL.map(|source| reader.inverted_index(fields.of(source)));
        let dictionaries = [title?, joined?, starts?, cast?, tags?, about?];
        let vocabularies = match vocabularies {
            Some(vocabularies) => vocabularies,
            None => {
                let [title, joined, starts, cast, tags, about] =
                    dictionaries.each_ref().map(|dictionary| Vocabulary::read(dictionary));
                Arc::new([title?, joined?, starts?, cast?, tags?, about?])
            }
        };
        let columns = reader.fast_fields();
        let text = |name: &str| {
            columns.str(name)?.ok_or_else(|| tantivy::TantivyError::SchemaError(format!("a segment has no column {name:?}")))
        };
        Ok(Self {
            dictionaries,
            vocabularies,
            id: text(column::ID)?,
            sorted_by: text(column::SORTED_BY)?,
            key: columns.u64(column::KEY)?,
            stamp: columns.u64(column::STAMP)?,
            words: columns.u64(column::WORDS)?,
            created: columns.u64(column::CREATED)?,
            year: columns.column_opt(column::YEAR)?.unwrap_or_else(|| Column::build_empty_column(reader.max_doc())),
            genre: columns.str(column::GENRE)?,
            language: columns.str(column::LANGUAGE)?,
            kind: columns.str(column::KIND)?,
            reader: reader.clone(),
        })
    }

    pub(crate) fn dictionary(&self, source: Source) -> &InvertedIndexReader {
        &self.dictionaries[source as usize]
    }

    pub(crate) fn vocabulary(&self, source: Source) -> &Vocabulary {
        &self.vocabularies[source as usize]
    }

    /// One more than the largest number of a document.
    pub(crate) fn docs_end(&self) -> DocId {
        self.reader.max_doc()
    }

    pub(crate) fn is_there(&self, doc: DocId) -> bool {
        !self.reader.is_deleted(doc)
    }

    pub(crate) fn docs(&self) -> impl Iterator<Item = DocId> {
        (0..self.docs_end()).filter(|doc| self.is_there(*doc))
    }

    pub(crate) fn key(&self, doc: DocId) -> u64 {
        self.key.first(doc).unwrap_or_default()
    }

    pub(crate) fn stamp(&self, doc: DocId) -> u64 {
        self.stamp.first(doc).unwrap_or_default()
    }

    /// Words of the title, leading articles not counted.
    pub(crate) fn words(&self, doc: DocId) -> u32 {
        self.words.first(doc).unwrap_or_default() as u32
    }

    pub(crate) fn created_at_ms(&self, doc: DocId) -> u64 {
        self.created.first(doc).unwrap_or_default()
    }

    pub(crate) fn id(&self, doc: DocId) -> io::Result<String> {
        text(&self.id, self.id.ords().first(doc).unwrap_or_default())
    }
}

/// The value of a column that has the number `ord` in it.
pub(crate) fn text(column: &StrColumn, ord: u64) -> io::Result<String> {
    let mut text = String::new();
    match column.ord_to_str(ord, &mut text)? {
        true => Ok(text),
        false => Err(io::Error::new(io::ErrorKind::InvalidData, "a column has a value that it does not list")),
    }
}
