//! An object's bytes: opened once, described, and read in pieces of bounded size.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    ops::Range,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::Stream;
use tokio::task::JoinHandle;

use super::{Described, StoreError, io_error, missing_or};

/// How many bytes are read at a time, and so held in memory for one answer.
pub(super) const PIECE_BYTES: u64 = 512 << 10;

/// An object that was found.
#[derive(Debug)]
pub struct Object {
    described: Described,
    opened: Opened,
}

impl Object {
    pub(super) fn new(described: Described, opened: Opened) -> Self {
        Self { described, opened }
    }

    /// What it is.
    pub fn described(&self) -> &Described {
        &self.described
    }

    /// Its bytes in `range`, which must lie within the object, in pieces.
    pub fn read(self, range: Range<u64>) -> Pieces {
        Pieces { state: State::Resting(Box::new(Rest { opened: self.opened, at: None, range })) }
    }
}

/// An open file, and what it was when it was opened.
#[derive(Debug)]
pub(super) struct Opened {
    file: File,
    path: PathBuf,
    pub(super) bytes: u64,
    pub(super) modified_ns: i128,
    pub(super) inode: u64,
}

impl Opened {
    pub(super) fn new(path: &Path) -> Result<Self, StoreError> {
        let file = File::open(path).map_err(|reason| missing_or(path, &path.display().to_string(), reason))?;
        let metadata = file.metadata().map_err(io_error(path))?;
        if !metadata.is_file() {
            return Err(StoreError::Damaged { path: path.to_owned(), reason: "it is not a file".into() });
        }
        let modified_ns = modified_ns(&metadata);
        Ok(Self { file, path: path.to_owned(), bytes: metadata.len(), modified_ns, inode: metadata.ino() })
    }

    /// Whether nobody wrote to the file since it was opened.
    fn check_unchanged(&self) -> Result<(), StoreError> {
        let metadata = self.file.metadata().map_err(io_error(&self.path))?;
        match (metadata.len(), modified_ns(&metadata)) == (self.bytes, self.modified_ns) {
            true => Ok(()),
            false => Err(StoreError::Damaged { path: self.path.clone(), reason: "it was changed while it was read".into() }),
        }
    }
}

fn modified_ns(metadata: &fs::Metadata) -> i128 {
    i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec())
}

/// An object's bytes, read as they are asked for, one piece at a time. It ends with an error rather than with fewer bytes,
/// or with bytes of another version.
#[derive(Debug)]
pub struct Pieces {
    state: State,
}

#[derive(Debug)]
enum State {
    Resting(Box<Rest>),
    Reading(JoinHandle<Result<(Bytes, Box<Rest>), StoreError>>),
    Ended,
}

/// What is still to be read.
#[derive(Debug)]
struct Rest {
    opened: Opened,
    /// Where the file's cursor is, once it was set.
    at: Option<u64>,
    range: Range<u64>,
}

impl Rest {
    fn next_piece(mut self: Box<Self>) -> Result<(Bytes, Box<Self>), StoreError> {
        let file = &mut self.opened.file;
        if self.at != Some(self.range.start) {
            file.seek(SeekFrom::Start(self.range.start)).map_err(io_error(&self.opened.path))?;
        }
        let wanted = PIECE_BYTES.min(self.range.end - self.range.start);
        let mut piece = Vec::with_capacity(wanted as usize);
        file.take(wanted).read_to_end(&mut piece).map_err(io_error(&self.opened.path))?;
        self.opened.check_unchanged()?;
        if piece.len() as u64 != wanted {
            let reason = "it ends before its end".to_owned();
            return Err(StoreError::Damaged { path: self.opened.path, reason });
        }
        self.range.start += wanted;
        self.at = Some(self.range.start);
        Ok((piece.into(), self))
    }
}

impl Stream for Pieces {
    type Item = Result<Bytes, StoreError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match std::mem::replace(&mut self.state, State::Ended) {
                State::Ended => return Poll::Ready(None),
                State::Resting(rest) if rest.range.is_empty() => return Poll::Ready(None),
                State::Resting(rest) => {
                    self.state = State::Reading(tokio::task::spawn_blocking(move || rest.next_piece()));
                }
                State::Reading(mut reading) => {
                    let Poll::Ready(read) = Pin::new(&mut reading).poll(context) else {
                        self.state = State::Reading(reading);
                        return Poll::Pending;
                    };
                    return Poll::Ready(Some(match read {
                        Ok(Ok((piece, rest))) => {
                            self.state = State::Resting(rest);
                            Ok(piece)
                        }
                        Ok(Err(error)) => Err(error),
                        Err(_) => Err(StoreError::Stopped),
                    }));
                }
            }
        }
    }
}
