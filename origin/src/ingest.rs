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
    title::{Title, TitleId, TitleKind},
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
    pub genres: Vec<String>,
    pub year: Option<u16>,
    /// Of the original: a language tag (BCP 47).
    pub language: Option<String>,
    pub kind: Option<TitleKind>,
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
        let Ingest { title, description, cast, rating, genres, year, language, kind, .. } = ingest;
        return Ok(Title { id, title, description, cast, rating, genres, year, language, kind, ..published });
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
        genres: ingest.genres,
        year: ingest.year,
        language: ingest.language,
        kind: ingest.kind,
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::package::Tool;

    /// Ingests a real film of a second with other tools than those on `PATH`, and returns why it failed.
    async fn failure(tools: impl FnOnce(&Path) -> Tools) -> String {
        let folder = tempfile::tempdir().unwrap();
        let input = folder.path().join("film.mp4");
        crate::demo_clip(&input, 1).await.unwrap();
        let tools = tools(folder.path());
        let store = FileStore::open(&folder.path().join("state")).unwrap();
        let request = Ingest { input: input.clone(), title: "t".into(), ..Ingest::default() };
        let error = ingest_with(&tools, &store, request, &mut |_| ()).await.unwrap_err().to_string();
        for left in ["titles", "fingerprints", "staging"] {
            let names = fs::read_dir(folder.path().join("state").join(left)).unwrap();
            assert_eq!(names.filter(|name| name.as_ref().unwrap().file_name() != ".lock").count(), 0, "{left}");
        }
        error.strip_prefix(&format!("cannot package {}: ", input.display())).unwrap_or(&error).to_owned()
    }

    fn script(folder: &Path, text: &str) -> Tool {
        let path = folder.join("tool");
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Tool(path)
    }

    #[tokio::test]
    async fn missing_tools_are_named_with_the_remedy() {
        let install = "is not installed or not on PATH: install it with `apt-get install ffmpeg`";
        let error = failure(|_| Tools { ffprobe: Tool("/nowhere/ffprobe".into()), ..Tools::default() }).await;
        assert_eq!(error, format!("/nowhere/ffprobe {install}"));
        let error = failure(|_| Tools { ffmpeg: Tool("/nowhere/ffmpeg".into()), ..Tools::default() }).await;
        assert_eq!(error, format!("/nowhere/ffmpeg {install}"));
    }

    #[tokio::test]
    async fn tools_that_die_lie_or_give_up_publish_nothing() {
        let with = |text: &'static str| move |folder: &Path| Tools { ffmpeg: script(folder, text), ..Tools::default() };
        let error = failure(with("mkdir -p v360; echo x > v360/00001.m4s; kill -9 $$")).await;
        assert!(error.contains("was killed by signal 9"), "{error}");
        let error = failure(with("echo '[x @ 0x1] No space left on device' >&2; exit 1")).await;
        assert!(error.ends_with("/tool: No space left on device"), "{error}");
        let error = failure(with("exit 0")).await;
        assert_eq!(error, "ffmpeg found no picture in it for v360");
        let error = failure(with("echo nonsense > v360/00001.m4s")).await;
        assert!(error.starts_with("ffmpeg made what cannot be published: v360/00001.m4s is not a proper segment"), "{error}");
        let error = failure(|folder| Tools { ffprobe: script(folder, "echo nonsense"), ..Tools::default() }).await;
        assert!(error.starts_with("it is not a video that ffprobe can read: "), "{error}");
    }

    #[test]
    fn ids_are_made_of_any_title() {
        let fingerprint = Digest::of(b"");
        for (title, id) in [
            ("Big Buck Bunny!", "big-buck-bunny-e3b0c442"),
            ("  Die 7. Welle -- Teil 2", "die-7-welle-teil-2-e3b0c442"),
            ("Ünïcode 東京", "n-code-e3b0c442"),
            ("東京", "e3b0c442"),
            ("", "e3b0c442"),
        ] {
            assert_eq!(id_for(title, fingerprint).as_str(), id);
        }
        assert_eq!(id_for(&"x y".repeat(100), fingerprint).as_str().len(), SLUG_BYTES_MAX + 9);
    }
}
