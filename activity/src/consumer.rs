//! The thread that folds the log: each fold keeps its place, and writes it together with what it knows.
//!
//! A checkpoint is one file that is replaced whole: the log's id, the place, and the fold as of that place. After a crash a fold goes on from
//! its last checkpoint and sees the events since then once more, for the first time as far as it knows: exactly once into what is
//! known. What folds write besides, the files of closed hours, is the same again when it is written again.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::RwLock;

use crate::{
    counters::Counters,
    files,
    fold::{
        Fold,
        hours::{self, Hourly},
        popularity::Popularity,
        quality::Qualities,
        together::Together,
        trending::Trending,
    },
    log::{Frame, LogError, LogId, Progress, Reader, crc},
    pack::{Damaged, Unpack},
};

const MARK: &[u8; 8] = b"LARDERCP";
/// Mark, version, CRC-32C, log, place.
const HEAD_BYTES: usize = 8 + 4 + 4 + 16 + 8;
/// How long to wait before the log is read again after it could not be.
const RETRY: Duration = Duration::from_secs(5);

/// How far the consumers are.
#[derive(Debug, Default)]
pub(crate) struct Places {
    folds: AtomicU64,
    lake: AtomicU64,
}

impl Places {
    pub(crate) fn set_lake(&self, place: u64) {
        self.lake.store(place, Ordering::Release);
    }

    fn set_folds(&self, place: u64) {
        self.folds.store(place, Ordering::Release);
    }

    /// The place before which nobody needs anything.
    pub(crate) fn least(&self) -> u64 {
        self.folds.load(Ordering::Acquire).min(self.lake.load(Ordering::Acquire))
    }
}

/// A fold and its place.
#[derive(Debug)]
struct Kept<F> {
    fold: Arc<RwLock<F>>,
    path: PathBuf,
    place: u64,
    /// The place of the last checkpoint.
    saved: u64,
}

impl<F: Fold> Kept<F> {
    /// Goes on from the checkpoint in `folder`, or begins with `oldest`.
    fn open(folder: &Path, log: LogId, oldest: u64, newest: u64) -> io::Result<Self> {
        let path = folder.join(format!("{}.checkpoint", F::NAME));
        let read = match fs::read(&path) {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let found = read.as_deref().map(|bytes| parse::<F>(bytes, log, newest));
        let (fold, place) = match found {
            Some(Ok(found)) => found,
            Some(Err(why)) => {
                tracing::warn!(path = %path.display(), why, "a fold of the activity log begins anew from what the log still has");
                (F::default(), oldest)
            }
            None => (F::default(), oldest),
        };
        Ok(Self { fold: Arc::new(RwLock::new(fold)), path, place, saved: place })
    }

    fn checkpoint(&mut self, log: LogId) -> io::Result<u64> {
        if self.place == self.saved {
            return Ok(0);
        }
        let mut bytes = vec![0; HEAD_BYTES];
        bytes[16..32].copy_from_slice(&log);
        bytes[32..40].copy_from_slice(&self.place.to_le_bytes());
        self.fold.read().save(&mut bytes);
        let crc = crc(&bytes[16..]);
        bytes[..8].copy_from_slice(MARK);
        bytes[8..12].copy_from_slice(&F::VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        files::replace(&self.path, &mut OpenOptions::new(), |file| file.write_all(&bytes))?;
        self.saved = self.place;
        Ok(bytes.len() as u64)
    }
}

/// Reads a checkpoint.
fn parse<F: Fold>(bytes: &[u8], log: LogId, newest: u64) -> Result<(F, u64), &'static str> {
    let Some((head, rest)) = bytes.split_at_checked(HEAD_BYTES) else { return Err("its checkpoint is cut short") };
    if &head[..8] != MARK || head[12..16] != crc(&bytes[16..]).to_le_bytes() {
        return Err("its checkpoint is damaged");
    }
    if head[8..12] != F::VERSION.to_le_bytes() {
        return Err("its checkpoint is of another version");
    }
    if head[16..32] != log {
        return Err("its checkpoint is of another log");
    }
    let place = u64::from_le_bytes(head[32..40].try_into().expect("eight bytes"));
    if place > newest {
        return Err("its checkpoint is ahead of the log, which was moved back");
    }
    let mut unpack = Unpack::new(rest, F::NAME);
    match F::load(&mut unpack) {
        Ok(fold) if unpack.is_empty() => Ok((fold, place)),
        Ok(_) | Err(Damaged { .. }) => Err("its checkpoint cannot be read"),
    }
}

/// Writes the hours of a fold that are over.
fn close_hours<F: Hourly>(folder: &Path, kept: &Kept<F>) -> io::Result<()> {
    loop {
        let Some(hour) = kept.fold.read().closing() else { return Ok(()) };
        hours::write(folder, hour, &*kept.fold.read())?;
        kept.fold.write().forget_hour(hour);
    }
}

/// All folds.
#[derive(Debug)]
pub(crate) struct Consumer {
    popularity: Kept<Popularity>,
    trending: Kept<Trending>,
    together: Kept<Together>,
    quality: Kept<Qualities>,
    hours: PathBuf,
    log: LogId,
    reader: Reader,
}

impl Consumer {
    /// Goes on where `folder` says, in the log that is in `log_folder`.
    pub(crate) fn open(
        folder: &Path,
        log_folder: &Path,
        log: LogId,
        (oldest, newest): (u64, u64),
        users_max: usize,
    ) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let together = Kept::<Together>::open(folder, log, oldest, newest)?;
        together.fold.write().set_users_max(users_max);
        let mut consumer = Self {
            popularity: Kept::open(folder, log, oldest, newest)?,
            trending: Kept::open(folder, log, oldest, newest)?,
            together,
            quality: Kept::open(folder, log, oldest, newest)?,
            hours: folder.join("hours"),
            log,
            reader: Reader::new(log_folder.to_owned(), 0),
        };
        consumer.reader = Reader::new(log_folder.to_owned(), consumer.place());
        Ok(consumer)
    }

    pub(crate) fn popularity(&self) -> Arc<RwLock<Popularity>> {
        Arc::clone(&self.popularity.fold)
    }

    pub(crate) fn trending(&self) -> Arc<RwLock<Trending>> {
        Arc::clone(&self.trending.fold)
    }

    pub(crate) fn together(&self) -> Arc<RwLock<Together>> {
        Arc::clone(&self.together.fold)
    }

    pub(crate) fn quality(&self) -> Arc<RwLock<Qualities>> {
        Arc::clone(&self.quality.fold)
    }

    pub(crate) fn hours(&self) -> &Path {
        &self.hours
    }

    /// The place of the fold that is furthest behind.
    fn place(&self) -> u64 {
        [self.popularity.place, self.trending.place, self.together.place, self.quality.place].into_iter().min().unwrap_or(0)
    }

    /// The place before which no fold needs anything after a crash.
    fn saved(&self) -> u64 {
        [self.popularity.saved, self.trending.saved, self.together.saved, self.quality.saved].into_iter().min().unwrap_or(0)
    }

    /// Folds what is synced, one frame. False when there is none.
    pub(crate) fn step(&mut self, progress: &Progress, counters: &Counters) -> Result<bool, LogError> {
        let Self { popularity, trending, together, quality, reader, .. } = self;
        let Some(frame) = reader.next(progress.now())? else { return Ok(false) };
        fold_frame(&frame, (popularity, trending, together, quality));
        counters.folded.add(u64::from(frame.head.events));
        counters.fold_place.set(frame.head.next());
        counters.lost.set(self.reader.lost());
        counters.late.set(self.popularity.fold.read().late());
        let closed = close_hours(&self.hours, &self.popularity).and_then(|()| close_hours(&self.hours, &self.quality));
        if let Err(error) = closed {
            // They stay open, and are written with the next frame.
            tracing::warn!(folder = %self.hours.display(), %error, "cannot write what is known of an hour");
        }
        Ok(true)
    }

    /// Makes what is known, and the places, outlast a crash.
    pub(crate) fn checkpoint(&mut self, places: &Places, counters: &Counters) {
        let log = self.log;
        let written = (|| {
            let bytes = [
                self.popularity.checkpoint(log)?,
                self.trending.checkpoint(log)?,
                self.together.checkpoint(log)?,
                self.quality.checkpoint(log)?,
            ];
            Ok::<u64, io::Error>(bytes.iter().sum())
        })();
        match written {
            Ok(0) => {}
            Ok(bytes) => {
                counters.checkpoints.add(1);
                counters.checkpoint_bytes.set(bytes);
            }
            Err(error) => tracing::warn!(%error, "cannot write a checkpoint of what is known of viewers' activity"),
        }
        places.set_folds(self.saved());
    }

    /// Runs until the log says that no more will come.
    pub(crate) fn run(mut self, progress: &Progress, places: &Places, counters: &Counters, every: Duration) {
        places.set_folds(self.saved());
        let mut saved_at = Instant::now();
        loop {
            let patience = match self.step(progress, counters) {
                Ok(true) => Duration::ZERO,
                Ok(false) if progress.is_stopped() => break,
                Ok(false) => every.saturating_sub(saved_at.elapsed()),
                Err(error) => {
                    tracing::error!(%error, "cannot read the activity log");
                    if progress.is_stopped() {
                        break;
                    }
                    progress.wait(RETRY, |_| false);
                    continue;
                }
            };
            if saved_at.elapsed() >= every {
                self.checkpoint(places, counters);
                saved_at = Instant::now();
            }
            if !patience.is_zero() {
                let place = self.reader.place();
                progress.wait(patience, |synced| synced.newest > place);
            }
        }
        self.checkpoint(places, counters);
    }
}

type All<'k> = (&'k mut Kept<Popularity>, &'k mut Kept<Trending>, &'k mut Kept<Together>, &'k mut Kept<Qualities>);

/// Gives each event of a frame to the folds that have not seen it.
fn fold_frame(frame: &Frame<'_>, (popularity, trending, together, quality): All<'_>) {
    let written_ms = frame.head.written_ms;
    // Locked for a chunk at a time, as whoever asks waits for it.
    let read = frame.chunks(|chunk| {
        let mut a = popularity.fold.write();
        let mut b = trending.fold.write();
        let mut c = together.fold.write();
        let mut d = quality.fold.write();
        chunk.each(|number, event| {
            if number >= popularity.place {
                a.fold(event, written_ms);
            }
            if number >= trending.place {
                b.fold(event, written_ms);
            }
            if number >= together.place {
                c.fold(event, written_ms);
            }
            if number >= quality.place {
                d.fold(event, written_ms);
            }
        })
    });
    if let Err(error) = read {
        tracing::warn!(first = frame.head.first, %error, "a part of the activity log is passed over");
    }
    let next = frame.head.next();
    for place in [&mut popularity.place, &mut trending.place, &mut together.place, &mut quality.place] {
        *place = (*place).max(next);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::fold::tests::saved;

    impl Consumer {
        /// All that is known, byte for byte.
        pub(crate) fn known(&self) -> Vec<Vec<u8>> {
            vec![
                saved(&*self.popularity.fold.read()),
                saved(&*self.trending.fold.read()),
                saved(&*self.together.fold.read()),
                saved(&*self.quality.fold.read()),
            ]
        }

        /// Folds all that is synced.
        pub(crate) fn catch_up(&mut self, progress: &Progress) {
            while self.step(progress, &Counters::default()).unwrap() {}
        }
    }
}
