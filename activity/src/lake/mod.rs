//! The lake: closed segments of the log as Parquet files, `date=2026-11-21/hour=09/<number of its first event>.parquet`, for any engine.
//!
//! Files stay in a folder of the machine's, or are handed to a [`Store`] under the same names, and then the folder has only the one that is on its
//! way. They never change once they have their name. The hour is when events came, in UTC, so it is complete a segment's age after its end.
//! The names follow from the log alone: a segment that is converted again after a crash makes the same files, so an event is in the lake once.

mod columns;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write as _},
    mem,
    path::{Path, PathBuf},
    time::Duration,
};

use columns::{Row, Rows};
use parquet::{errors::ParquetError, file::writer::SerializedFileWriter};

use crate::{
    consumer::Places,
    counters::Counters,
    files,
    log::{self, LogError, LogId, Progress, Reader, Synced, crc},
    now_ms,
    time::{DAY_MS, HOUR_MS, date_and_hour},
};

/// Rows that are in memory before they are written: about 30 MB.
const ROWS_MAX: usize = 1 << 17;
/// How long to wait before a segment is tried again that could not be converted.
const RETRY: Duration = Duration::from_secs(30);

/// Where files go for good that do not stay in the folder.
pub trait Store: Send {
    /// Puts what `file` has there, under `name` and in place of what has that name, and returns when it outlasts a crash. Called by a thread of
    /// its own, and called again when it failed.
    fn put(&self, name: &str, file: &Path) -> io::Result<()>;
}

/// What goes to the lake, and how far it is.
pub(crate) struct Lake {
    folder: PathBuf,
    store: Option<Box<dyn Store>>,
    log_folder: PathBuf,
    log: LogId,
    place_path: PathBuf,
    /// The first event that is not in the lake. Always the first of a segment.
    place: u64,
    retention: Option<Duration>,
}

/// Why a segment could not be converted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LakeError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("cannot write {}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("cannot write {}: {source}", path.display())]
    Parquet { path: PathBuf, source: ParquetError },
    #[error("cannot store {name}: {source}")]
    Store { name: String, source: io::Error },
    #[error("it was stopped")]
    Stopped,
}

impl Lake {
    /// Goes on where `place_path` says.
    pub(crate) fn open(
        folder: PathBuf,
        place_path: PathBuf,
        log_folder: PathBuf,
        log: LogId,
        (oldest, newest): (u64, u64),
        retention: Option<Duration>,
    ) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        let place = match fs::read(&place_path) {
            Ok(bytes) => parse_place(&bytes, log).filter(|place| (oldest..=newest).contains(place)).unwrap_or(oldest),
            Err(error) if error.kind() == io::ErrorKind::NotFound => oldest,
            Err(error) => return Err(error),
        };
        Ok(Self { folder, store: None, log_folder, log, place_path, place, retention })
    }

    /// From now on files go to `store`. What is too old there is the store's own business.
    pub(crate) fn set_store(&mut self, store: Box<dyn Store>) {
        self.store = Some(store);
        self.retention = None;
    }

    pub(crate) const fn place(&self) -> u64 {
        self.place
    }

    /// Converts closed segments until the log says that no more will come.
    pub(crate) fn run(mut self, progress: &Progress, places: &Places, counters: &Counters) {
        counters.lake_place.set(self.place);
        while !progress.is_stopped() {
            let place = self.place;
            let synced = progress.wait(RETRY, |synced| synced.segment > place);
            let converted = self.convert(synced, progress, counters);
            self.forget(now_ms());
            match converted {
                Ok(true) => {
                    places.set_lake(self.place);
                    counters.lake_place.set(self.place);
                }
                Ok(false) | Err(LakeError::Stopped) => {}
                // A store that gives up because everything stops.
                Err(LakeError::Store { .. }) if progress.is_stopped() => {}
                Err(error) => {
                    counters.lake_failures.add(1);
                    tracing::error!(%error, "a segment of the activity log does not get into the lake; it is kept and tried again");
                    progress.wait(RETRY, |_| false);
                }
            }
        }
    }

    /// Converts the next closed segment. False when there is none.
    pub(crate) fn convert(&mut self, synced: Synced, progress: &Progress, counters: &Counters) -> Result<bool, LakeError> {
        let firsts =
            log::segments(&self.log_folder).map_err(|source| LakeError::File { path: self.log_folder.clone(), source })?;
        let Some(end) = firsts.into_iter().find(|first| *first > self.place && *first <= synced.segment) else {
            return Ok(false);
        };
        let closed = Synced { newest: end, ..synced };
        let mut reader = Reader::new(self.log_folder.clone(), self.place);
        let mut rows = Rows::new();
        let mut open: Option<OpenFile> = None;
        while let Some(frame) = reader.next(closed)? {
            if progress.is_stopped() {
                return Err(LakeError::Stopped);
            }
            let hour = frame.head.written_ms / HOUR_MS;
            if let Some(done) = open.take_if(|open| open.hour != hour) {
                self.finish(done, &mut rows, counters)?;
            }
            let file = match &mut open {
                Some(file) => file,
                None => open.insert(OpenFile::create(&self.folder, self.store.is_some(), hour, frame.head.first, &rows)?),
            };
            let written_ms = frame.head.written_ms;
            let read = frame.each(|number, event| rows.push(&Row { number, written_ms, event }));
            if let Err(error) = read {
                tracing::warn!(first = frame.head.first, %error, "a part of the activity log is not in the lake");
            }
            file.rows += u64::from(frame.head.events);
            if rows.count() >= ROWS_MAX {
                file.flush(&mut rows)?;
            }
        }
        if let Some(done) = open {
            self.finish(done, &mut rows, counters)?;
        }
        self.place = end;
        self.save_place().map_err(|source| LakeError::File { path: self.place_path.clone(), source })?;
        Ok(true)
    }

    /// Gives a file its name, here or in the store.
    fn finish(&self, file: OpenFile, rows: &mut Rows, counters: &Counters) -> Result<(), LakeError> {
        let done = file.finish(rows)?;
        if let Some(store) = &self.store {
            let put = store.put(&done.name, &done.path);
            // What is not there is made again from the log, and what a crash leaves here is written over then.
            fs::remove_file(&done.path).map_err(|source| LakeError::File { path: done.path.clone(), source })?;
            put.map_err(|source| LakeError::Store { name: done.name, source })?;
        }
        counters.lake_rows.add(done.rows);
        counters.lake_files.add(1);
        counters.lake_bytes.add(done.bytes);
        Ok(())
    }

    fn save_place(&self) -> io::Result<()> {
        let mut bytes = self.log.to_vec();
        bytes.extend(self.place.to_le_bytes());
        bytes.extend(crc(&bytes).to_le_bytes());
        files::replace(&self.place_path, &mut OpenOptions::new(), |file| file.write_all(&bytes))
    }

    /// Removes days that are wholly older than the retention.
    pub(crate) fn forget(&self, now_ms: u64) {
        let Some(retention) = self.retention else { return };
        let retention_ms = u64::try_from(retention.as_millis()).unwrap_or(u64::MAX);
        // The last moment of a day that may go is older than the retention.
        let Some(kept_from_ms) = now_ms.checked_sub(retention_ms) else { return };
        let (kept_from, _) = date_and_hour(kept_from_ms / DAY_MS * DAY_MS);
        let days = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        for day in days {
            let name = day.file_name();
            let date = name.to_str().and_then(|name| name.strip_prefix("date=")).filter(|date| is_date(date));
            // Dates of this form are in order as texts.
            if date.is_some_and(|date| date < kept_from.as_str()) {
                match fs::remove_dir_all(day.path()) {
                    Ok(()) => tracing::info!(path = %day.path().display(), "a day of the lake was removed"),
                    Err(error) => tracing::warn!(path = %day.path().display(), %error, "cannot remove a day of the lake"),
                }
            }
        }
    }
}

fn is_date(text: &str) -> bool {
    text.len() == 10
        && text.bytes().enumerate().all(|(at, byte)| if at == 4 || at == 7 { byte == b'-' } else { byte.is_ascii_digit() })
}

fn parse_place(bytes: &[u8], log: LogId) -> Option<u64> {
    let (rest, sum) = bytes.split_at_checked(24)?;
    let is_ours = rest[..16] == log && *sum == crc(rest).to_le_bytes();
    is_ours.then(|| u64::from_le_bytes(rest[16..].try_into().expect("eight bytes")))
}

/// A file that does not have its name yet. One that is not finished is removed.
struct OpenFile {
    writer: Option<SerializedFileWriter<BufWriter<File>>>,
    beside: PathBuf,
    path: PathBuf,
    /// In the lake.
    name: String,
    hour: u64,
    rows: u64,
}

/// A file that is whole and synced.
struct Done {
    path: PathBuf,
    name: String,
    rows: u64,
    bytes: u64,
}

impl OpenFile {
    /// One that only passes through the folder stands in it without folders of its own.
    fn create(lake: &Path, passes: bool, hour: u64, first: u64, rows: &Rows) -> Result<Self, LakeError> {
        let (date, of_day) = date_and_hour(hour * HOUR_MS);
        let name = format!("date={date}/hour={of_day:02}/{first:020}.parquet");
        let path = if passes { lake.join(format!("{first:020}.parquet")) } else { lake.join(&name) };
        let beside = files::beside(&path);
        let made = (|| {
            let folder = path.parent().unwrap_or(lake);
            fs::create_dir_all(folder)?;
            if !passes {
                // The folders above are new with the first file of a day.
                [lake, folder.parent().unwrap_or(lake)].into_iter().try_for_each(files::sync_folder)?;
            }
            File::create(&beside)
        })();
        let file = made.map_err(|source| LakeError::File { path: path.clone(), source })?;
        let writer = rows.file(BufWriter::with_capacity(1 << 20, file));
        let writer = writer.map_err(|source| LakeError::Parquet { path: path.clone(), source })?;
        Ok(Self { writer: Some(writer), beside, path, name, hour, rows: 0 })
    }

    fn flush(&mut self, rows: &mut Rows) -> Result<(), LakeError> {
        let writer = self.writer.as_mut().expect("it is taken only at the end");
        rows.flush(writer).map_err(|source| LakeError::Parquet { path: self.path.clone(), source })
    }

    fn finish(mut self, rows: &mut Rows) -> Result<Done, LakeError> {
        if rows.count() > 0 {
            self.flush(rows)?;
        }
        let writer = self.writer.take().expect("it is taken only here");
        let buffer = writer.into_inner().map_err(|source| LakeError::Parquet { path: self.path.clone(), source })?;
        let named = (|| {
            let file = buffer.into_inner().map_err(io::IntoInnerError::into_error)?;
            file.sync_all()?;
            files::rename(&self.beside, &self.path)?;
            Ok(file.metadata()?.len())
        })();
        let bytes = named.map_err(|source| LakeError::File { path: self.path.clone(), source })?;
        Ok(Done { path: mem::take(&mut self.path), name: mem::take(&mut self.name), rows: self.rows, bytes })
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        // After its renaming there is nothing there.
        let _ = fs::remove_file(&self.beside);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };

    use parking_lot::Mutex;

    use super::*;
    use crate::{
        codec::Encoder,
        event::{Event, Kind},
        log::Log,
        time::parse_rfc3339,
    };

    /// A log of three closed segments and an open one, over two hours and the end of a day, with five events each.
    fn log(folder: &Path) -> Log {
        let mut log = Log::open(&folder.join("log"), 1 << 20, 0).unwrap().0;
        let at = |text: &str| parse_rfc3339(text).unwrap();
        for times in [
            ["2026-11-21T22:10:00Z", "2026-11-21T22:20:00Z"],
            ["2026-11-21T22:30:00Z", "2026-11-21T23:10:00Z"],
            ["2026-11-21T23:50:00Z", "2026-11-22T00:10:00Z"],
            ["2026-11-22T00:20:00Z", "2026-11-22T00:30:00Z"],
        ] {
            log.roll().unwrap();
            for (events, now_ms) in [3, 2].into_iter().zip(times.map(at)) {
                let mut encoder = Encoder::new(now_ms, 0);
                (0..events).for_each(|_| encoder.put(&Event::of(Kind::Play, now_ms)));
                let mut payload = Vec::new();
                encoder.finish().put(&mut payload);
                log.append(&payload, events, now_ms).unwrap();
            }
        }
        log
    }

    fn open(folder: &Path, log: &Log) -> Lake {
        let (lake, place) = (folder.join("lake"), folder.join("place"));
        let retention = Some(Duration::from_secs(86_400));
        Lake::open(lake, place, log.folder().to_owned(), log.id(), (log.oldest(), log.newest()), retention).unwrap()
    }

    /// Names and contents.
    type Files = Vec<(String, Vec<u8>)>;

    /// Every file of the lake.
    fn files(folder: &Path) -> Files {
        let mut files = Files::new();
        let mut folders = vec![folder.join("lake")];
        while let Some(next) = folders.pop() {
            for entry in fs::read_dir(next).unwrap().flatten() {
                match entry.file_type().unwrap().is_dir() {
                    true => folders.push(entry.path()),
                    false => {
                        let name = entry.path().strip_prefix(folder.join("lake")).unwrap().display().to_string();
                        files.push((name, fs::read(entry.path()).unwrap()));
                    }
                }
            }
        }
        files.sort();
        files
    }

    #[test]
    fn closed_segments_become_files_by_the_hour_and_the_same_ones_again_after_a_crash() {
        let dir = tempfile::tempdir().unwrap();
        let log = log(dir.path());
        let (progress, counters) = (log.progress(), Counters::default());
        let mut lake = open(dir.path(), &log);
        while lake.convert(progress.now(), &progress, &counters).unwrap() {}
        let first = files(dir.path());
        let names: Vec<&str> = first.iter().map(|(name, _)| name.as_str()).collect();
        let expected = [
            "date=2026-11-21/hour=22/00000000000000000000.parquet",
            "date=2026-11-21/hour=22/00000000000000000005.parquet",
            "date=2026-11-21/hour=23/00000000000000000008.parquet",
            "date=2026-11-21/hour=23/00000000000000000010.parquet",
            "date=2026-11-22/hour=00/00000000000000000013.parquet",
        ];
        assert_eq!(names, expected);
        assert_eq!(
            (lake.place(), counters.lake_rows.now(), counters.lake_files.now()),
            (15, 15, 5),
            "the open one is not there yet"
        );
        // As if the crash had come before the place was written.
        let mut again = Lake { place: 5, ..open(dir.path(), &log) };
        while again.convert(progress.now(), &progress, &counters).unwrap() {}
        assert!(files(dir.path()) == first);
        assert_eq!(open(dir.path(), &log).place(), 15);
        fs::write(dir.path().join("place"), "damaged").unwrap();
        assert_eq!(open(dir.path(), &log).place(), 0, "all that the log still has is written again");
    }

    /// A store that fails the first time, as stores do.
    struct Failing {
        put: Arc<Mutex<Files>>,
        failures_left: AtomicU32,
    }

    impl Store for Failing {
        fn put(&self, name: &str, file: &Path) -> io::Result<()> {
            let left = self.failures_left.load(Ordering::Relaxed);
            if left > 0 {
                self.failures_left.store(left - 1, Ordering::Relaxed);
                return Err(io::Error::other("it is away"));
            }
            self.put.lock().push((name.to_owned(), fs::read(file)?));
            Ok(())
        }
    }

    #[test]
    fn a_store_gets_the_same_files_and_the_folder_keeps_none() {
        let (in_folder, in_store) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let log = log(in_folder.path());
        let (progress, counters) = (log.progress(), Counters::default());
        let mut lake = open(in_folder.path(), &log);
        while lake.convert(progress.now(), &progress, &counters).unwrap() {}
        let expected = files(in_folder.path());

        let put = Arc::new(Mutex::new(Vec::new()));
        let mut lake = open(in_store.path(), &log);
        lake.set_store(Box::new(Failing { put: Arc::clone(&put), failures_left: AtomicU32::new(1) }));
        let failed = lake.convert(progress.now(), &progress, &counters).unwrap_err();
        let name = &expected[0].0;
        assert_eq!((failed.to_string(), lake.place()), (format!("cannot store {name}: it is away"), 0));
        assert!(files(in_store.path()).is_empty());
        while lake.convert(progress.now(), &progress, &counters).unwrap() {}
        assert!(*put.lock() == expected && files(in_store.path()).is_empty());
        assert_eq!(open(in_store.path(), &log).place(), 15);
    }

    #[test]
    fn days_that_are_too_old_go_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let log = log(dir.path());
        let lake = open(dir.path(), &log);
        for name in ["date=2026-11-19", "date=2026-11-20", "date=2026-11-21", "date=latest", "notes", "date=2026-11-1x"] {
            fs::create_dir_all(dir.path().join("lake").join(name).join("hour=00")).unwrap();
        }
        let left = || {
            let mut left: Vec<_> =
                fs::read_dir(dir.path().join("lake")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            left.sort();
            left
        };
        // The end of the 20th was less than a day ago, then a day.
        lake.forget(parse_rfc3339("2026-11-21T23:59:59Z").unwrap());
        assert_eq!(left(), ["date=2026-11-1x", "date=2026-11-20", "date=2026-11-21", "date=latest", "notes"]);
        lake.forget(parse_rfc3339("2026-11-22T00:00:00Z").unwrap());
        assert_eq!(left(), ["date=2026-11-1x", "date=2026-11-21", "date=latest", "notes"]);
        assert!(date_and_hour(0).0 == "1970-01-01" && is_date("1970-01-01"));
        lake.forget(0);
        assert_eq!(left().len(), 4);
    }
}
