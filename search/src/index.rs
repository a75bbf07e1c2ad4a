//! The index: opened or made, kept up to date, searched.
//!
//! It holds nothing that the catalogue does not: whatever is wrong with it, it is made anew, and its owner then applies the whole
//! catalogue. Many search at the same time while one applies changes; changes are seen when [`Index::apply`] returns.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::{Mutex, RwLock};
use tantivy::{
    IndexReader, IndexSettings, IndexWriter, ReloadPolicy, TantivyError,
    indexer::IndexWriterOptions,
    merge_policy::{LogMergePolicy, NoMergePolicy},
};

use crate::{
    document::{Document, Fields, register_tokenizers},
    find::{Answer, Scratch, SearchError, find},
    folder::{Folder, Held},
    popularity::Popularity,
    query::Query,
    view::View,
};

/// Changes whenever an index of an earlier version must not be used any more: when words are cut, placed or kept differently.
const FORMAT: &str = "larder 1";
/// What documents take in memory before they are written; tantivy takes no less.
const WRITER_BYTES: usize = 15_000_000;
/// Segments of a size that are merged to one.
const MERGED_TOGETHER: usize = 6;
/// Of a segment's titles, those that are gone before it is written anew.
const GONE_RATIO_MAX: f32 = 0.3;
/// How often all segments are tried to be merged. Merges that were on their way take some away meanwhile, at most once each.
const COMPACT_ATTEMPTS_MAX: usize = 8;
/// Snapshots of popularity that cursors can go on with.
const POPULARITIES_KEPT: usize = 4;
/// Scratches that are kept for the next searches.
const SCRATCHES_KEPT: usize = 8;

/// An index of titles.
pub struct Index {
    fields: Fields,
    folder: Folder,
    /// There until the index is dropped.
    writer: Mutex<Option<IndexWriter>>,
    reader: IndexReader,
    view: RwLock<Arc<View>>,
    /// The newest first, never empty.
    popularities: RwLock<VecDeque<Arc<Popularity>>>,
    scratches: Mutex<Vec<Scratch>>,
    /// Let go after the last write.
    _held: Option<Held>,
}

/// What [`Index::open`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// A good index, as it was left.
    Kept,
    /// Nothing: there is an empty one now.
    Created,
    /// One that could not be used, for this reason: there is an empty one now.
    Replaced(String),
}

/// A change of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The title is as this says, whether or not it was there before.
    Put(Box<Document>),
    /// The title of this id is gone.
    Remove(String),
}

/// Why there is no index, or why it does not change any more.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The directory.
    #[error("cannot use the search index in {}: {source}", path.display())]
    Folder { path: PathBuf, source: io::Error },
    /// What is in it, or writing to it.
    #[error("the search index failed: {0}")]
    Failed(#[from] TantivyError),
    /// Reading it.
    #[error("the search index cannot be read: {0}")]
    Unreadable(#[from] io::Error),
}

impl Index {
    /// Opens the index in the directory `path`, which is made when missing. What is there and cannot be used (another version,
    /// damaged, not an index) is replaced by an empty index.
    pub fn open(path: &Path) -> Result<(Self, Opened), IndexError> {
        let failed = |source| IndexError::Folder { path: path.to_owned(), source };
        let (folder, held) = Folder::open(path).map_err(failed)?;
        if folder.is_empty() {
            return Ok((Self::create(folder, Some(held))?, Opened::Created));
        }
        match Self::usable(&folder) {
            Ok(index) => Ok((Self::start(folder, Some(held), index)?, Opened::Kept)),
            Err(why) => {
                let folder = folder.emptied().map_err(failed)?;
                Ok((Self::create(folder, Some(held))?, Opened::Replaced(why)))
            }
        }
    }

    /// An empty index without a directory.
    pub fn in_memory() -> Result<Self, IndexError> {
        Self::create(Folder::in_memory(), None)
    }

    /// The index in `folder`, or why it cannot be used.
    fn usable(folder: &Folder) -> Result<tantivy::Index, String> {
        if !tantivy::Index::exists(folder).map_err(|error| error.to_string())? {
            return Err("other files were there".into());
        }
        let index = tantivy::Index::open(folder.clone()).map_err(|error| format!("it could not be opened: {error}"))?;
        let format = index.load_metas().map_err(|error| error.to_string())?.payload;
        if format.as_deref() != Some(FORMAT) || index.schema() != Fields::new().1 {
            return Err(format!("it has the format {:?}, not {FORMAT:?}", format.unwrap_or_default()));
        }
        let damaged = index.validate_checksum().map_err(|error| format!("it could not be read: {error}"))?;
        match damaged.iter().next() {
            Some(file) => Err(format!("the file {} was damaged", file.display())),
            None => Ok(index),
        }
    }

    fn create(folder: Folder, held: Option<Held>) -> Result<Self, IndexError> {
        let index = tantivy::Index::create(folder.clone(), Fields::new().1, IndexSettings::default())?;
        let index = Self::start(folder, held, index)?;
        index.apply([])?;
        Ok(index)
    }

    fn start(folder: Folder, held: Option<Held>, index: tantivy::Index) -> Result<Self, IndexError> {
        register_tokenizers(&index);
        let (fields, _) = Fields::new();
        let options = IndexWriterOptions::builder()
            .num_worker_threads(1)
            .num_merge_threads(1)
            .memory_budget_per_thread(WRITER_BYTES)
            .build();
        let writer = index.writer_with_options(options)?;
        writer.set_merge_policy(Box::new(merges()));
        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
        let view = View::new(reader.searcher(), &fields, None)?;
        Ok(Self {
            fields,
            folder,
            writer: Mutex::new(Some(writer)),
            reader,
            view: RwLock::new(Arc::new(view)),
            popularities: RwLock::new(VecDeque::from([Arc::default()])),
            scratches: Mutex::default(),
            _held: held,
        })
    }

    /// Applies changes in their order, all of them or, when it fails, none; then searches see them. After a failure the index
    /// can still be searched, and must be opened anew before it can change again.
    pub fn apply(&self, changes: impl IntoIterator<Item = Change>) -> Result<(), IndexError> {
        let mut writer = self.writer.lock();
        let writer = writer.as_mut().expect(WRITER);
        for change in changes {
            match change {
                Change::Put(document) => {
                    writer.delete_term(self.fields.named(&document.id));
                    writer.add_document(self.fields.document(&document))?;
                }
                Change::Remove(id) => {
                    writer.delete_term(self.fields.named(&id));
                }
            }
        }
        commit(writer)?;
        self.look_again()
    }

    /// Makes one segment of many, which is searched faster: after many changes. If that fails the index is as good as before.
    pub fn compact(&self) -> Result<(), IndexError> {
        let mut writer = self.writer.lock();
        let writer = writer.as_mut().expect(WRITER);
        // No others begin while this is tried.
        writer.set_merge_policy(Box::new(NoMergePolicy));
        let merged = merge_all(writer);
        writer.set_merge_policy(Box::new(merges()));
        merged?;
        self.look_again()
    }

    fn look_again(&self) -> Result<(), IndexError> {
        self.reader.reload()?;
        let view = View::new(self.reader.searcher(), &self.fields, Some(&self.view()))?;
        *self.view.write() = Arc::new(view);
        Ok(())
    }

    fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.read())
    }

    /// Answers a query. Sync, and bounded by the query's `until` and by how much one search looks at; call it where blocking is
    /// allowed.
    pub fn search(&self, query: &Query) -> Result<Answer, SearchError> {
        let (view, current) = (self.view(), Arc::clone(&self.popularities.read()[0]));
        let older = |epoch| self.popularities.read().iter().find(|popularity| popularity.epoch == epoch).cloned();
        let mut scratch = self.scratches.lock().pop().unwrap_or_default();
        let answer = find(&view, query, &current, older, &mut scratch);
        let mut scratches = self.scratches.lock();
        if scratches.len() < SCRATCHES_KEPT {
            scratches.push(scratch);
        }
        answer
    }

    /// Takes a new snapshot of how popular titles are, by id; only the order of the scores counts. Searches that began on an
    /// earlier snapshot go on with it for a few snapshots more.
    pub fn set_popularity<'a>(&self, scores: impl IntoIterator<Item = (&'a str, f32)>) {
        let popularity = Arc::new(Popularity::new(scores));
        let mut popularities = self.popularities.write();
        if popularities[0].epoch != popularity.epoch {
            popularities.push_front(popularity);
            popularities.truncate(POPULARITIES_KEPT);
        }
    }

    /// Every title's stamp, by id: what the index has, to be compared with the catalogue.
    pub fn stamps(&self) -> Result<BTreeMap<String, u64>, IndexError> {
        let view = self.view();
        let mut stamps = BTreeMap::new();
        for segment in &view.segments {
            for doc in segment.docs() {
                stamps.insert(segment.id(doc)?, segment.stamp(doc));
            }
        }
        Ok(stamps)
    }

    /// How many titles it has.
    pub fn titles(&self) -> u64 {
        self.view().titles()
    }

    /// How many segments it has: a search looks at each.
    pub fn segments(&self) -> usize {
        self.view().segments.len()
    }

    /// Whether it has a directory, and so outlasts the process.
    pub fn is_kept(&self) -> bool {
        self.folder.is_kept()
    }

    /// What it takes in memory, and as much in its directory.
    pub fn bytes(&self) -> usize {
        self.folder.bytes()
    }
}

/// Why there is a writer.
const WRITER: &str = "it is taken when the index is dropped, and then nobody asks";

impl Drop for Index {
    /// Waits for merges, so that nothing is written when somebody else may.
    fn drop(&mut self) {
        if let Some(writer) = self.writer.get_mut().take()
            && let Err(error) = writer.wait_merging_threads()
        {
            tracing::debug!(%error, "the search index did not end its merges");
        }
    }
}

/// When a few segments become one by themselves.
fn merges() -> LogMergePolicy {
    let mut merges = LogMergePolicy::default();
    merges.set_min_num_segments(MERGED_TOGETHER);
    merges.set_del_docs_ratio_before_merge(GONE_RATIO_MAX);
    merges
}

fn merge_all(writer: &mut IndexWriter) -> Result<(), TantivyError> {
    let mut attempts = 1;
    loop {
        let segments = writer.index().searchable_segment_ids()?;
        if segments.len() < 2 {
            break;
        }
        match writer.merge(&segments).wait() {
            Ok(_) => break,
            Err(error) if attempts == COMPACT_ATTEMPTS_MAX => return Err(error),
            // A merge that was on its way has taken some of them.
            Err(_) => attempts += 1,
        }
    }
    writer.garbage_collect_files().wait()?;
    Ok(())
}

fn commit(writer: &mut IndexWriter) -> Result<(), TantivyError> {
    let mut prepared = writer.prepare_commit()?;
    prepared.set_payload(FORMAT);
    prepared.commit()?;
    Ok(())
}
