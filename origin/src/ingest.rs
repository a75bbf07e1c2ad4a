//! Ingest: a film's file becomes a published title, or nothing at all.
//!
//! `look (ffprobe) → fingerprint → already published? → stage → package → seal → publish`. Each arrow is a call; when one
//! fails, or the future is dropped, children are killed and the staging folder goes away.

use std::{
    fmt,
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use wire::{
    object::{Digest, Hasher, ObjectPath},
    title::{Title, TitleId},
};

use crate::{
    package::{self, PackageError, Tools},
    store::{FileStore, StoreError},
};

/// How much of a source is read between two reports of progress.
const PIECE_BYTES: u64 = 8 << 20;
/// How much of a title's text goes into an id that is made from it.
const SLUG_BYTES_MAX: usize = 48;

/// What is to be ingested.
#[derive(Debug, Clone, Default)]
pub struct Ingest {
    /// The film.
    pub input: PathBuf,
    /// Made from title and fingerprint when it is not given.
    pub id: Option<TitleId>,
    pub title: String,
    pub description: String,
    pub cast: Vec<String>,
    pub rating: Option<String>,
}

/// How far an ingest is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    pub step: Step,
    /// 0 to 1, where it is known.
    pub done: Option<f64>,
}

/// What an ingest does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Looking,
    Fingerprinting,
    Packaging,
    Publishing,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Looking => "looking",
            Self::Fingerprinting => "fingerprinting",
            Self::Packaging => "packaging",
            Self::Publishing => "publishing",
        })
    }
}

/// Why nothing was published.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The file, or the programs that work on it.
    #[error("cannot package {}: {reason}", input.display())]
    Package { input: PathBuf, reason: PackageError },
    /// The store.
    #[error("cannot publish {}: {reason}", input.display())]
    Store { input: PathBuf, reason: StoreError },
}

/// Packages and publishes a film. A source that was packaged before with the same settings is found by its fingerprint and
/// not packaged again; the title returned then has the objects that are published, and the words of this request.
pub async fn ingest(
    store: &FileStore,
    ingest: Ingest,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Title, IngestError> {
    ingest_with(&Tools::default(), store, ingest, progress).await
}

async fn ingest_with(
    tools: &Tools,
    store: &FileStore,
    ingest: Ingest,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Title, IngestError> {
    let package_error = |reason| IngestError::Package { input: ingest.input.clone(), reason };
    let store_error = |reason| IngestError::Store { input: ingest.input.clone(), reason };

    progress(Progress { step: Step::Looking, done: None });
    let source = SourceFile::open(&ingest.input).map_err(package_error)?;
    let probed = package::probe(tools, &source.path).await.map_err(package_error)?;
    let fingerprint = source.fingerprint(progress).await.map_err(package_error)?;
    let made_from = with_settings(fingerprint);
    if let Some(published) = store.made_from(made_from).await.map_err(store_error)? {
        let id = ingest.id.unwrap_or(published.id);
        let Ingest { title, description, cast, rating, .. } = ingest;
        return Ok(Title { id, title, description, cast, rating, ..published });
    }

    progress(Progress { step: Step::Packaging, done: None });
    let staging = store.stage().await.map_err(store_error)?;
    let report = |done| progress(Progress { step: Step::Packaging, done });
    let package = package::package(tools, &source.path, probed, staging.folder(), report).await.map_err(package_error)?;
    source.check_unchanged().map_err(package_error)?;

    progress(Progress { step: Step::Publishing, done: None });
    let sealed = staging.seal().await.map_err(store_error)?;
    let root = ObjectPath::new(format!("/titles/{}", sealed.digest)).expect("a digest is a safe path segment");
    let title = Title {
        id: ingest.id.unwrap_or_else(|| id_for(&ingest.title, fingerprint)),
        title: ingest.title,
        description: ingest.description,
        cast: ingest.cast,
        rating: ingest.rating,
        duration_ms: package.duration_ms,
        root,
        fingerprint,
        hls: package::MULTIVARIANT.into(),
        dash: package::DASH.into(),
        poster: package::POSTER.into(),
        storyboard: package::STORYBOARD.into(),
        renditions: package.renditions,
        objects: sealed.objects.clone(),
    };
    store.publish(sealed, title, made_from).await.map_err(|reason| IngestError::Store { input: source.path, reason })
}

/// The same source packaged in another way is another title.
fn with_settings(fingerprint: Digest) -> Digest {
    Digest::of(format!("{fingerprint} {}", package::SETTINGS_VERSION).as_bytes())
}

/// "Big Buck Bunny!" is "big-buck-bunny-" and the beginning of the fingerprint, so that two films of one name differ.
fn id_for(title: &str, fingerprint: Digest) -> TitleId {
    let mut slug = String::new();
    for c in title.chars().flat_map(char::to_lowercase) {
        match c {
            _ if slug.len() >= SLUG_BYTES_MAX => break,
            c if c.is_ascii_alphanumeric() => slug.push(c),
            _ if !slug.is_empty() && !slug.ends_with('-') => slug.push('-'),
            _ => {}
        }
    }
    if !slug.is_empty() && !slug.ends_with('-') {
        slug.push('-');
    }
    let id = format!("{slug}{}", &fingerprint.to_string()[..8]);
    id.parse().expect("letters, digits and dashes, at most 57, make an id")
}

/// A file that is read, and what it was at first.
struct SourceFile {
    /// Absolute.
    path: PathBuf,
    metadata: fs::Metadata,
}

impl SourceFile {
    fn open(input: &Path) -> Result<Self, PackageError> {
        let failed = |reason| PackageError::Io { path: input.to_owned(), reason };
        let path = std::path::absolute(input).map_err(failed)?;
        // Not opened before this is known: a pipe would block.
        let metadata = fs::metadata(&path).map_err(failed)?;
        if !metadata.is_file() {
            return Err(failed(io::Error::other("it is not a file")));
        }
        if metadata.len() == 0 {
            return Err(PackageError::NotVideo("it is empty".into()));
        }
        File::open(&path).map_err(failed)?;
        Ok(Self { path, metadata })
    }

    async fn fingerprint(&self, progress: &mut (dyn FnMut(Progress) + Send)) -> Result<Digest, PackageError> {
        let failed = |reason| PackageError::Io { path: self.path.clone(), reason };
        let mut reading = (File::open(&self.path).map_err(failed)?, Hasher::new());
        let (mut done, all) = (0, self.metadata.len());
        loop {
            progress(Progress { step: Step::Fingerprinting, done: Some((done as f64 / all as f64).min(1.0)) });
            let read = tokio::task::spawn_blocking(move || -> io::Result<_> {
                let (file, mut hasher) = reading;
                let mut piece = Vec::with_capacity(PIECE_BYTES as usize);
                (&file).take(PIECE_BYTES).read_to_end(&mut piece)?;
                hasher.update(&piece);
                Ok((piece.len() as u64, (file, hasher)))
            });
            let (bytes, next) = read.await.map_err(|_| PackageError::Stopped)?.map_err(failed)?;
            if bytes == 0 {
                return if done == all { Ok(next.1.finish()) } else { Err(PackageError::Changed) };
            }
            (reading, done) = (next, done + bytes);
        }
    }

    fn check_unchanged(&self) -> Result<(), PackageError> {
        let now = fs::metadata(&self.path).map_err(|reason| PackageError::Io { path: self.path.clone(), reason })?;
        match now.len() == self.metadata.len() && now.modified().ok() == self.metadata.modified().ok() {
            true => Ok(()),
            false => Err(PackageError::Changed),
        }
    }
}
