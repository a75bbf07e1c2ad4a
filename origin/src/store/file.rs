//! A store that is a directory:
//!
//! ```text
//! titles/<digest>/…             a published title; its name is the digest of all its objects
//! titles/<digest>/.title.json   what it is (wire::title::Title)
//! files/…                       files that an operator puts there, served as they are
//! fingerprints/<digest>         a hint: source and settings → title; the truth is in titles/
//! staging/<random>/             titles in the making; staging/.lock is held, shared, as long as one is
//! ```
//!
//! Publishing: every staged file is synced while it is digested, then the folders, then one rename moves the title to its
//! place. A crash before the rename leaves a folder in `staging`, which the next [`FileStore::open`] that finds nobody at
//! work removes; a crash after it leaves a whole title. Titles are never changed afterwards.

use std::{
    collections::{HashMap, VecDeque},
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use wire::{
    object::{Digest, ObjectPath},
    title::{Title, TitleObject},
};

use super::{
    Described, Freshness, StoreError, blocking, content_digest, content_type, io_error, missing_or,
    object::{Object, Opened},
    staging::{Sealed, Staging, digest_of, sweep},
    title_path,
};

/// `.title.json` of a film of ten hours with ten renditions has 20 MB.
const TITLE_BYTES_MAX: u64 = 64 << 20;
/// Titles whose list of objects is kept in memory.
const TITLES_CACHED_MAX: usize = 64;
/// How long an operator's file may be believed unchanged.
const FILES_FRESH_S: u32 = 60;

const TITLE_FILE: &str = ".title.json";

/// The store. Clones are the same store.
#[derive(Debug, Clone)]
pub struct FileStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Absolute, without symbolic links.
    root: PathBuf,
    titles: Mutex<TitleCache>,
}

/// The directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot use the state directory: {}: {reason}; make it readable and writable for the user that runs larder, \
     or name another directory as state_dir",
    path.display()
)]
pub struct OpenError {
    pub path: PathBuf,
    pub reason: io::Error,
}

impl FileStore {
    /// Opens the store in `state_dir`, which is made if it is missing, and removes what killed ingests left behind.
    pub fn open(state_dir: &Path) -> Result<Self, OpenError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |reason| OpenError { path, reason }
        };
        for folder in ["titles", "files", "fingerprints", "staging"] {
            let folder = state_dir.join(folder);
            fs::create_dir_all(&folder).map_err(at(&folder))?;
            fs::read_dir(&folder).map_err(at(&folder))?;
        }
        let root = state_dir.canonicalize().map_err(at(state_dir))?;
        let staging = root.join("staging");
        sweep(&staging).map_err(at(&staging))?;
        Ok(Self { inner: Arc::new(Inner { root, titles: Mutex::default() }) })
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.inner.root.join(name)
    }

    fn title_folder(&self, digest: Digest) -> PathBuf {
        self.folder("titles").join(digest.to_string())
    }

    /// The object at `path`, open for reading.
    pub async fn find(&self, path: &ObjectPath) -> Result<Object, StoreError> {
        let (store, path) = (self.clone(), path.clone());
        blocking(move || match title_path(&path) {
            Some((digest, object)) => store.find_in_title(digest, object),
            None => store.find_file(&path),
        })
        .await
    }

    fn find_in_title(&self, digest: Digest, object: &str) -> Result<Object, StoreError> {
        let index = self.index(digest)?;
        let known = index.get(object).ok_or_else(|| StoreError::NotFound(format!("/titles/{digest}/{object}")))?;
        let path = self.title_folder(digest).join(object);
        let opened = Opened::new(&path)?;
        if opened.bytes != known.bytes {
            let reason = format!("it has {} bytes instead of {}", opened.bytes, known.bytes);
            return Err(StoreError::Damaged { path, reason });
        }
        let described = Described {
            bytes: known.bytes,
            etag: known.digest.etag(),
            content_type: known.content_type.clone(),
            freshness: Freshness::Immutable,
        };
        Ok(Object::new(described, opened))
    }

    /// An operator's file. Symbolic links are followed as long as they stay below `files`.
    fn find_file(&self, path: &ObjectPath) -> Result<Object, StoreError> {
        let not_found = || StoreError::NotFound(path.to_string());
        let files = self.folder("files");
        if !path.relative().starts_with("files/") {
            return Err(not_found());
        }
        let file = self.inner.root.join(path.relative());
        let real = file.canonicalize().map_err(|reason| missing_or(&file, path.as_str(), reason))?;
        if !real.starts_with(&files) {
            tracing::warn!(path = %file.display(), "a link leads out of the state directory and is not followed");
            return Err(not_found());
        }
        // A pipe would block whoever opens it.
        if !real.metadata().map_err(|reason| missing_or(&real, path.as_str(), reason))?.is_file() {
            return Err(not_found());
        }
        let opened = Opened::new(&real)?;
        let described = Described {
            bytes: opened.bytes,
            etag: format!("\"{:x}-{:x}-{:x}\"", opened.bytes, opened.modified_ns, opened.inode),
            content_type: content_type(path.as_str()).to_owned(),
            freshness: Freshness::Seconds(FILES_FRESH_S),
        };
        Ok(Object::new(described, opened))
    }

    /// The objects of a title by path, from memory if it was asked for lately.
    fn index(&self, digest: Digest) -> Result<Arc<TitleIndex>, StoreError> {
        if let Some(index) = self.inner.titles.lock().find(digest) {
            return Ok(index);
        }
        let objects = self.read_title(digest)?.objects;
        let index: Arc<TitleIndex> = Arc::new(objects.into_iter().map(|object| (object.path.clone(), object)).collect());
        self.inner.titles.lock().insert(digest, index.clone());
        Ok(index)
    }

    /// The title named by `digest`.
    pub async fn title(&self, digest: Digest) -> Result<Title, StoreError> {
        let store = self.clone();
        blocking(move || store.read_title(digest)).await
    }

    fn read_title(&self, digest: Digest) -> Result<Title, StoreError> {
        let path = self.title_folder(digest).join(TITLE_FILE);
        let file = File::open(&path).map_err(|reason| missing_or(&path, &format!("/titles/{digest}"), reason))?;
        let mut json = Vec::new();
        file.take(TITLE_BYTES_MAX).read_to_end(&mut json).map_err(io_error(&path))?;
        let title: Title = serde_json::from_slice(&json)
            .map_err(|reason| StoreError::Damaged { path: path.clone(), reason: reason.to_string() })?;
        if content_digest(&title.objects) != digest {
            return Err(StoreError::Damaged { path, reason: "its objects are not those of the title's digest".into() });
        }
        Ok(title)
    }

    /// All published titles, by digest.
    pub async fn titles(&self) -> Result<Vec<Digest>, StoreError> {
        let folder = self.folder("titles");
        blocking(move || {
            let entries = fs::read_dir(&folder).map_err(io_error(&folder))?;
            let mut titles: Vec<Digest> = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
            titles.sort_unstable();
            Ok(titles)
        })
        .await
    }

    /// Reads a title's objects and compares their digests: the paths of those that are damaged or missing.
    pub async fn verify(&self, digest: Digest) -> Result<Vec<String>, StoreError> {
        let store = self.clone();
        blocking(move || {
            let (title, folder) = (store.read_title(digest)?, store.title_folder(digest));
            let damaged = |object: &TitleObject| {
                let found = File::open(folder.join(&object.path)).and_then(|file| digest_of(&file));
                found.ok() != Some((object.digest, object.bytes))
            };
            Ok(title.objects.into_iter().filter(damaged).map(|object| object.path).collect())
        })
        .await
    }

    /// The title that was made of a source with these settings, if it is published and still whole.
    pub(crate) async fn made_from(&self, fingerprint: Digest) -> Result<Option<Title>, StoreError> {
        let store = self.clone();
        blocking(move || {
            let hint = store.folder("fingerprints").join(fingerprint.to_string());
            let Ok(digest) = fs::read_to_string(&hint) else { return Ok(None) };
            let Ok(digest) = digest.trim().parse() else { return Ok(None) };
            Ok(store.read_title(digest).ok().filter(|title| store.is_whole(digest, title)))
        })
        .await
    }

    /// Whether all files of a title are there with their lengths.
    fn is_whole(&self, digest: Digest, title: &Title) -> bool {
        let folder = self.title_folder(digest);
        title
            .objects
            .iter()
            .all(|object| fs::metadata(folder.join(&object.path)).is_ok_and(|file| file.is_file() && file.len() == object.bytes))
    }

    /// A folder to make a title in.
    pub(crate) async fn stage(&self) -> Result<Staging, StoreError> {
        let staging = self.folder("staging");
        blocking(move || Staging::new(&staging)).await
    }

    /// Publishes a title whose objects are those of `sealed`. If it is published already, that is as good.
    pub(crate) async fn publish(&self, sealed: Sealed, title: Title, made_from: Digest) -> Result<Title, StoreError> {
        let store = self.clone();
        blocking(move || {
            store.rename_into_place(&sealed, &title)?;
            store.remember(made_from, sealed.digest)?;
            Ok(title)
        })
        .await
    }

    fn rename_into_place(&self, sealed: &Sealed, title: &Title) -> Result<(), StoreError> {
        let staged = sealed.staging.folder();
        let json = serde_json::to_vec(title)
            .map_err(|error| StoreError::Damaged { path: staged.to_owned(), reason: error.to_string() })?;
        let file = staged.join(TITLE_FILE);
        fs::write(&file, json).and_then(|()| File::open(&file)?.sync_all()).map_err(io_error(&file))?;
        File::open(staged).and_then(|folder| folder.sync_all()).map_err(io_error(staged))?;

        let (titles, place) = (self.folder("titles"), self.title_folder(sealed.digest));
        if place.exists() {
            if self.read_title(sealed.digest).is_ok_and(|title| self.is_whole(sealed.digest, &title)) {
                return Ok(());
            }
            // Somebody removed files of it: what is left makes room for the same bytes, whole.
            let aside = staged.with_extension("damaged");
            fs::rename(&place, &aside).map_err(io_error(&place))?;
            fs::remove_dir_all(&aside).map_err(io_error(&aside))?;
        }
        fs::rename(staged, &place).map_err(io_error(&place))?;
        File::open(&titles).and_then(|folder| folder.sync_all()).map_err(io_error(&titles))
    }

    fn remember(&self, made_from: Digest, title: Digest) -> Result<(), StoreError> {
        let hint = self.folder("fingerprints").join(made_from.to_string());
        let new = hint.with_extension("new");
        fs::write(&new, format!("{title}\n")).and_then(|()| fs::rename(&new, &hint)).map_err(io_error(&hint))
    }
}

type TitleIndex = HashMap<String, TitleObject>;

/// The titles asked for lately; the one that came first goes first.
#[derive(Debug, Default)]
struct TitleCache {
    titles: HashMap<Digest, Arc<TitleIndex>>,
    order: VecDeque<Digest>,
}

impl TitleCache {
    fn find(&self, digest: Digest) -> Option<Arc<TitleIndex>> {
        self.titles.get(&digest).cloned()
    }

    fn insert(&mut self, digest: Digest, index: Arc<TitleIndex>) {
        if self.titles.insert(digest, index).is_none() {
            self.order.push_back(digest);
        }
        if self.order.len() > TITLES_CACHED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.titles.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use futures_util::StreamExt as _;

    use super::*;
    use crate::store::object::PIECE_BYTES;

    /// Publishes a title of a few small objects.
    async fn publish(store: &FileStore, objects: &[(&str, &[u8])], made_from: Digest) -> Title {
        let sealed = staged(store, objects).await.seal().await.unwrap();
        let title = title(&sealed, made_from);
        store.publish(sealed, title, made_from).await.unwrap()
    }

    async fn staged(store: &FileStore, objects: &[(&str, &[u8])]) -> Staging {
        let staging = store.stage().await.unwrap();
        for (path, bytes) in objects {
            let file = staging.folder().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, bytes).unwrap();
        }
        staging
    }

    fn title(sealed: &Sealed, made_from: Digest) -> Title {
        Title {
            id: "t".parse().unwrap(),
            title: "T".into(),
            description: String::new(),
            cast: vec![],
            rating: None,
            genres: vec![],
            year: None,
            language: None,
            kind: None,
            duration_ms: 1,
            root: ObjectPath::new(format!("/titles/{}", sealed.digest)).unwrap(),
            fingerprint: made_from,
            hls: "x".into(),
            dash: "x".into(),
            poster: "x".into(),
            storyboard: "x".into(),
            renditions: vec![],
            objects: sealed.objects.clone(),
        }
    }

    fn store() -> (tempfile::TempDir, FileStore) {
        let directory = tempfile::tempdir().unwrap();
        let store = FileStore::open(directory.path()).unwrap();
        (directory, store)
    }

    fn path(path: impl Into<String>) -> ObjectPath {
        ObjectPath::new(path).unwrap()
    }

    async fn bytes_of(object: Object, range: Range<u64>) -> Result<Vec<u8>, StoreError> {
        let mut pieces = object.read(range);
        let mut bytes = Vec::new();
        while let Some(piece) = pieces.next().await {
            bytes.extend_from_slice(&piece?);
        }
        Ok(bytes)
    }

    fn staged_folders(directory: &Path) -> Vec<String> {
        let names = fs::read_dir(directory.join("staging")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name != ".lock").collect()
    }

    #[tokio::test]
    async fn a_published_title_is_found_read_and_verified() {
        let (directory, store) = store();
        let long: Vec<u8> = (0..2 * PIECE_BYTES + 5).map(|n| n as u8).collect();
        let made_from = Digest::of(b"source");
        let title = publish(&store, &[("v720/00001.m4s", &long), ("a1/init.mp4", b"sound")], made_from).await;

        let digest = content_digest(&title.objects);
        assert_eq!(store.titles().await.unwrap(), [digest]);
        assert_eq!(store.title(digest).await.unwrap(), title);
        assert_eq!(store.made_from(made_from).await.unwrap(), Some(title.clone()));
        assert_eq!(store.made_from(Digest::of(b"other")).await.unwrap(), None);
        assert_eq!(store.verify(digest).await.unwrap(), [""; 0]);
        assert!(staged_folders(directory.path()).is_empty());

        let object = store.find(&title.root.join("v720/00001.m4s").unwrap()).await.unwrap();
        assert_eq!(
            *object.described(),
            Described {
                bytes: long.len() as u64,
                etag: Digest::of(&long).etag(),
                content_type: "video/mp4".into(),
                freshness: Freshness::Immutable
            }
        );
        let range = 7..2 * PIECE_BYTES + 3;
        assert_eq!(bytes_of(object, range.clone()).await.unwrap(), long[range.start as usize..range.end as usize]);
        let sound = store.find(&title.root.join("a1/init.mp4").unwrap()).await.unwrap();
        assert_eq!(sound.described().content_type, "audio/mp4");
        assert!(matches!(store.find(&title.root.join("v720").unwrap()).await, Err(StoreError::NotFound(_))));
    }

    #[tokio::test]
    async fn publishing_again_is_harmless_and_heals() {
        let (directory, store) = store();
        let objects: [(&str, &[u8]); 2] = [("a", b"1"), ("b", b"2")];
        let made_from = Digest::of(b"source");
        let title = publish(&store, &objects, made_from).await;
        assert_eq!(publish(&store, &objects, made_from).await, title);

        let folder = directory.path().join(title.root.relative());
        fs::write(folder.join("a"), b"longer").unwrap();
        let digest = content_digest(&title.objects);
        assert_eq!(store.verify(digest).await.unwrap(), ["a"]);
        let damaged = store.find(&title.root.join("a").unwrap()).await.unwrap_err();
        assert!(damaged.to_string().ends_with("is damaged: it has 6 bytes instead of 1"), "{damaged}");
        assert_eq!(store.made_from(made_from).await.unwrap(), None);

        publish(&store, &objects, made_from).await;
        assert_eq!(store.verify(digest).await.unwrap(), [""; 0]);
        assert!(staged_folders(directory.path()).is_empty());
    }

    #[tokio::test]
    async fn what_was_not_published_vanishes() {
        let (directory, store) = store();
        drop(staged(&store, &[("x/y", b"1")]).await);
        assert!(staged_folders(directory.path()).is_empty());

        let at_work = staged(&store, &[("x/y", b"1")]).await;
        FileStore::open(directory.path()).unwrap();
        assert!(at_work.folder().join("x/y").exists(), "an ingest at work is left alone");
        // A killed one leaves its folder, and no lock.
        let killed = at_work.folder().to_owned();
        drop(at_work);
        fs::create_dir_all(killed.join("x")).unwrap();
        FileStore::open(directory.path()).unwrap();
        assert!(staged_folders(directory.path()).is_empty());
        assert_eq!(store.titles().await.unwrap(), []);
    }

    #[tokio::test]
    async fn a_crash_at_any_step_of_publishing_leaves_all_or_nothing() {
        let (directory, store) = store();
        let sealed = staged(&store, &[("a", b"1")]).await.seal().await.unwrap();
        let (digest, title) = (sealed.digest, title(&sealed, Digest::of(b"s")));
        // Everything up to the rename happens in staging: a reader sees no title.
        fs::write(sealed.staging.folder().join(TITLE_FILE), serde_json::to_vec(&title).unwrap()).unwrap();
        assert!(matches!(store.find(&title.root.join("a").unwrap()).await, Err(StoreError::NotFound(_))));
        // The rename alone, without the hint that follows, makes it whole.
        store.rename_into_place(&sealed, &title).unwrap();
        assert_eq!(store.title(digest).await.unwrap(), title);
        assert_eq!(store.verify(digest).await.unwrap(), [""; 0]);
        assert_eq!(store.made_from(Digest::of(b"s")).await.unwrap(), None);
        drop(sealed);
        assert_eq!(store.verify(digest).await.unwrap(), [""; 0]);
        drop(directory);
    }

    #[tokio::test]
    async fn a_title_file_that_lies_is_not_believed() {
        let (directory, store) = store();
        let title = publish(&store, &[("a", b"1")], Digest::of(b"s")).await;
        let file = directory.path().join(title.root.relative()).join(TITLE_FILE);
        let lie = fs::read_to_string(&file).unwrap().replace("\"bytes\":1", "\"bytes\":2");
        fs::write(&file, lie).unwrap();
        let error = store.find(&title.root.join("a").unwrap()).await.unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    }

    #[tokio::test]
    async fn files_change_their_tag_and_links_do_not_lead_out() {
        let (directory, store) = store();
        let files = directory.path().join("files");
        fs::write(files.join("a.txt"), b"one").unwrap();
        fs::create_dir(files.join("folder")).unwrap();
        std::os::unix::fs::symlink("a.txt", files.join("inside.txt")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", files.join("passwd")).unwrap();
        std::os::unix::fs::symlink("..", files.join("up")).unwrap();
        fs::write(directory.path().join("secret"), b"").unwrap();
        let etag = async |name: &str| store.find(&path(format!("/files/{name}"))).await.map(|o| o.described().etag.clone());
        let before = etag("a.txt").await.unwrap();
        assert_eq!(etag("inside.txt").await.unwrap(), before);
        fs::write(files.join("a.new"), b"two").unwrap();
        fs::rename(files.join("a.new"), files.join("a.txt")).unwrap();
        assert_ne!(etag("a.txt").await.unwrap(), before);
        for name in ["passwd", "folder", "none", "a.txt/x", "up/secret"] {
            assert!(matches!(etag(name).await, Err(StoreError::NotFound(_))), "{name}");
        }
        for other in ["/files", "/titles", "/staging/x", "/fingerprints/x"] {
            assert!(matches!(store.find(&path(other)).await, Err(StoreError::NotFound(_))), "{other}");
        }
    }

    #[tokio::test]
    async fn bytes_that_change_under_a_reader_end_in_an_error() {
        let (directory, store) = store();
        let file = directory.path().join("files/a");
        fs::write(&file, vec![1; 100]).unwrap();
        let object = store.find(&path("/files/a")).await.unwrap();
        File::options().write(true).open(&file).unwrap().set_len(50).unwrap();
        let error = bytes_of(object, 0..100).await.unwrap_err();
        assert!(error.to_string().ends_with("is damaged: it was changed while it was read"), "{error}");
    }

    #[tokio::test]
    async fn the_cache_of_titles_is_bounded() {
        let (_directory, store) = store();
        for n in 0..TITLES_CACHED_MAX as u64 + 3 {
            let title = publish(&store, &[("a", &n.to_be_bytes())], Digest::of(&n.to_be_bytes())).await;
            store.find(&title.root.join("a").unwrap()).await.unwrap();
        }
        let titles = store.inner.titles.lock();
        assert_eq!((titles.titles.len(), titles.order.len()), (TITLES_CACHED_MAX, TITLES_CACHED_MAX));
    }

    #[test]
    fn a_directory_that_cannot_be_used_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, b"").unwrap();
        let error = FileStore::open(&file).unwrap_err().to_string();
        let expected = format!("cannot use the state directory: {}/titles: Not a directory", file.display());
        assert!(error.starts_with(&expected), "{error}");
        assert!(error.ends_with("or name another directory as state_dir"), "{error}");
    }
}
