//! Where bytes are kept for good. This module has the words that any store speaks, [`mod@file`] the store that is a directory.
//!
//! A store knows titles and objects; it knows no HTTP and no media. What it hands out is whole: a title is published in
//! one step or not at all, and an object's bytes have the length and the entity tag that were announced, or reading fails.

pub mod file;
mod object;
mod staging;

use std::{
    fmt::Write as _,
    io,
    path::{Path, PathBuf},
};

use wire::{
    object::{Digest, ObjectPath},
    title::TitleObject,
};

pub use file::FileStore;
pub use object::{Object, Pieces};

/// How long an object's bytes stay what they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// For ever: the path names the bytes.
    Immutable,
    /// Whole seconds; then it is worth asking again.
    Seconds(u32),
}

/// An object as it is announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    pub bytes: u64,
    /// Strong, quotes included.
    pub etag: String,
    pub content_type: String,
    pub freshness: Freshness,
}

/// Why an object or a title cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No such object or title.
    #[error("there is no {0}")]
    NotFound(String),
    /// What is on the disk is not what was published; the disk's fault, or somebody's who changed it.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged { path: PathBuf, reason: String },
    /// The disk or the system says no.
    #[error("cannot use {}: {reason}", path.display())]
    Io { path: PathBuf, reason: io::Error },
    /// The runtime ends.
    #[error("larder is stopping")]
    Stopped,
}

/// The digest that names a title: of all its objects' paths, lengths and digests, sorted by path.
pub fn content_digest(objects: &[TitleObject]) -> Digest {
    let mut sorted: Vec<_> = objects.iter().collect();
    sorted.sort_unstable_by_key(|object| &object.path);
    let mut lines = String::new();
    for TitleObject { path, bytes, digest, .. } in sorted {
        let _ = writeln!(lines, "{path}\t{bytes}\t{digest}");
    }
    Digest::of(lines.as_bytes())
}

/// Splits `/titles/<digest>/<path>`.
pub(crate) fn title_path(path: &ObjectPath) -> Option<(Digest, &str)> {
    let (digest, object) = path.relative().strip_prefix("titles/")?.split_once('/')?;
    Some((digest.parse().ok()?, object))
}

/// The content type for a file's name.
pub(crate) fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map_or("", |(_, extension)| extension).to_ascii_lowercase().as_str() {
        "m3u8" => "application/vnd.apple.mpegurl",
        "mpd" => "application/dash+xml",
        "mp4" | "m4s" | "m4v" => "video/mp4",
        "m4a" => "audio/mp4",
        "ts" => "video/mp2t",
        "webm" => "video/webm",
        "vtt" => "text/vtt",
        "jpg" | "jpeg" => "image/jpeg",
        "png" => "image/png",
        "webp" => "image/webp",
        "json" => "application/json",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> StoreError + use<> {
    let path = path.to_owned();
    move |reason| StoreError::Io { path, reason }
}

/// That `what` does not exist, if this is what `reason` says.
fn missing_or(path: &Path, what: &str, reason: io::Error) -> StoreError {
    match reason.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => StoreError::NotFound(what.to_owned()),
        _ => io_error(path)(reason),
    }
}

/// Runs `work`, which uses files, beside the runtime's own threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, StoreError> + Send + 'static) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(StoreError::Stopped),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(path: &str, digest: Digest) -> TitleObject {
        TitleObject { path: path.into(), bytes: 3, digest, content_type: "x".into() }
    }

    #[test]
    fn a_title_is_named_by_its_sorted_objects() {
        let (a, b) = (object("a/1", Digest::of(b"abc")), object("b", Digest::of(b"xyz")));
        let lines = format!("a/1\t3\t{}\nb\t3\t{}\n", Digest::of(b"abc"), Digest::of(b"xyz"));
        assert_eq!(content_digest(&[b.clone(), a.clone()]), Digest::of(lines.as_bytes()));
        assert_ne!(content_digest(&[a.clone(), b]), content_digest(&[a.clone(), object("b", Digest::of(b"abc"))]));
        assert_ne!(content_digest(&[a]), content_digest(&[]));
    }

    #[test]
    fn title_paths_have_a_digest_and_a_rest() {
        let digest = Digest::of(b"");
        let path = |path: String| ObjectPath::new(path).unwrap();
        assert_eq!(title_path(&path(format!("/titles/{digest}/v720/init.mp4"))), Some((digest, "v720/init.mp4")));
        for other in [format!("/titles/{digest}"), "/titles/abc/x".into(), format!("/files/{digest}/x"), "/titles".into()] {
            assert_eq!(title_path(&path(other.clone())), None, "{other}");
        }
    }
}
