//! The log: every event that was taken, in one order, durable before its sender is told so. `docs/activity.md` has the format.
//!
//! Verbs: [`Log::append`], [`Reader::next`] from a place, [`Log::oldest`], [`Log::newest`]. A *place* is the number of the event that comes next.
//! The writer is one thread, so there is one order; readers see only what was synced. Nothing here knows what events mean. A
//! distributed log would stand where this struct does.

mod frame;
mod reader;
mod segment;

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use parking_lot::{Condvar, Mutex};

pub(crate) use frame::{Frame, PAYLOAD_BYTES_MAX, crc};
use frame::{HEAD_BYTES, Head};
pub(crate) use reader::Reader;
use segment::{At, Begins, HEADER_BYTES, Header};
pub(crate) use segment::{LogId, list as segments};

use crate::files::sync_folder;

/// Which of the old segments may go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retention {
    /// Segments that were closed longer ago.
    pub(crate) age_max: Duration,
    /// The oldest, while all together have more.
    pub(crate) bytes_max: u64,
}

/// The writer's end.
#[derive(Debug)]
pub(crate) struct Log {
    folder: PathBuf,
    id: LogId,
    segment_bytes: u64,
    /// Oldest first; the last one is open.
    segments: Vec<Segment>,
    file: File,
    /// The number of the next event.
    next: u64,
    /// Time never goes back in the log, whatever the clock does.
    written_ms: u64,
    /// After a failed sync nobody knows what is on the medium: nothing is written any more.
    has_failed: bool,
    frame: Vec<u8>,
    progress: Arc<Progress>,
}

#[derive(Debug, Clone, Copy)]
struct Segment {
    first: u64,
    made_ms: u64,
    bytes: u64,
}

/// What was found when a log was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Recovered {
    /// Bytes that were cut off the end: of frames that had not been written whole, and so were never acknowledged.
    pub(crate) cut_bytes: u64,
}

impl Log {
    /// Opens the log in `folder`, or makes one. What a crash left half written at its end is cut off.
    pub(crate) fn open(folder: &Path, segment_bytes: u64, now_ms: u64) -> Result<(Self, Recovered), LogError> {
        let fault = |source| LogError::Folder { path: folder.to_owned(), source };
        fs::create_dir_all(folder).map_err(fault)?;
        let mut firsts = segment::list(folder).map_err(fault)?;
        let mut recovered = Recovered::default();
        let mut segments = Vec::new();
        let mut last = None;
        while let Some(first) = firsts.pop() {
            let path = segment::path(folder, first);
            let fault = |doing, source| LogError::File { path: path.clone(), doing, source };
            let is_last = last.is_none();
            let file = OpenOptions::new().read(true).write(is_last).open(&path).map_err(|error| fault("open", error))?;
            let header = match Header::read(&file).map_err(|error| fault("read", error))? {
                Begins::Segment(header) if header.first == first => header,
                // Its making was cut short, so there is nothing in it.
                Begins::Torn if is_last && file.metadata().is_ok_and(|data| data.len() <= HEADER_BYTES) => {
                    recovered.cut_bytes += file.metadata().map_err(|error| fault("read", error))?.len();
                    fs::remove_file(&path).map_err(|error| fault("remove", error))?;
                    continue;
                }
                Begins::Version(version) => return Err(LogError::Version { path, version }),
                Begins::Segment(_) | Begins::Torn | Begins::Foreign => return Err(LogError::Foreign { path }),
            };
            if is_last {
                let end = end(&file, first).map_err(|error| fault("read", error))?;
                let bytes = file.metadata().map_err(|error| fault("read", error))?.len();
                if bytes > end.offset {
                    recovered.cut_bytes += bytes - end.offset;
                    file.set_len(end.offset).and_then(|()| file.sync_all()).map_err(|error| fault("cut", error))?;
                }
                segments.push(Segment { first, made_ms: header.made_ms, bytes: end.offset });
                last = Some((file, header, end));
            } else {
                let bytes = file.metadata().map_err(|error| fault("read", error))?.len();
                segments.push(Segment { first, made_ms: header.made_ms, bytes });
            }
        }
        segments.reverse();
        let (file, id, next, written_ms) = match last {
            Some((file, header, end)) => (file, header.log, end.next, end.written_ms.max(header.made_ms)),
            None => {
                let mut id = LogId::default();
                SystemRandom::new().fill(&mut id).map_err(|_| fault(io::Error::other("the system has no randomness")))?;
                let file = segment::create(folder, Header { log: id, first: 0, made_ms: now_ms }).map_err(fault)?;
                segments.push(Segment { first: 0, made_ms: now_ms, bytes: HEADER_BYTES });
                (file, id, 0, now_ms)
            }
        };
        let open = segments.last().expect("there is one");
        let progress = Arc::new(Progress::new(Synced { newest: next, segment: open.first, end: open.bytes }));
        let (folder, frame) = (folder.to_owned(), Vec::new());
        let log = Self { folder, id, segment_bytes, segments, file, next, written_ms, has_failed: false, frame, progress };
        Ok((log, recovered))
    }

    /// What tells this log from others.
    pub(crate) const fn id(&self) -> LogId {
        self.id
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The number of the oldest event that is kept.
    pub(crate) fn oldest(&self) -> u64 {
        self.segments[0].first
    }

    /// The number after the newest event.
    pub(crate) const fn newest(&self) -> u64 {
        self.next
    }

    /// Bytes of all segments.
    pub(crate) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    pub(crate) fn segments_count(&self) -> usize {
        self.segments.len()
    }

    /// How far it is synced, for readers.
    pub(crate) fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// Writes a frame and syncs it. When this returns, its events outlast a loss of power.
    pub(crate) fn append(&mut self, payload: &[u8], events: u32, now_ms: u64) -> Result<(), LogError> {
        if self.has_failed {
            return Err(LogError::Failed);
        }
        assert!(payload.len() <= PAYLOAD_BYTES_MAX, "the writer makes no larger groups");
        self.written_ms = self.written_ms.max(now_ms);
        let head = Head {
            payload_bytes: payload.len(),
            events,
            payload_crc: crc(payload),
            first: self.next,
            written_ms: self.written_ms,
        };
        let open = *self.last();
        if open.bytes > HEADER_BYTES && open.bytes + head.frame_bytes() > self.segment_bytes {
            self.roll()?;
        }
        self.frame.clear();
        self.frame.reserve(HEAD_BYTES + payload.len());
        self.frame.extend(head.to_bytes());
        self.frame.extend(payload);
        let open = *self.last();
        if let Err(source) = self.file.write_all_at(&self.frame, open.bytes) {
            // What was written of it goes, so that the next frame stands where this one would have.
            self.has_failed = self.file.set_len(open.bytes).is_err();
            return Err(self.fault("write", source));
        }
        if let Err(source) = self.file.sync_data() {
            self.has_failed = true;
            return Err(self.fault("sync", source));
        }
        self.segments.last_mut().expect("there is one").bytes += head.frame_bytes();
        self.next = head.next();
        self.publish();
        Ok(())
    }

    /// Begins a new segment, so that readers of closed ones have all there is. Nothing happens when the open one is empty.
    pub(crate) fn roll(&mut self) -> Result<(), LogError> {
        if self.last().bytes == HEADER_BYTES {
            return Ok(());
        }
        let header = Header { log: self.id, first: self.next, made_ms: self.written_ms };
        let path = segment::path(&self.folder, self.next);
        self.file = match segment::create(&self.folder, header) {
            Ok(file) => file,
            Err(source) => {
                // Half a segment would be in the way of the next attempt.
                let _ = fs::remove_file(&path);
                return Err(LogError::File { path, doing: "make", source });
            }
        };
        self.segments.push(Segment { first: self.next, made_ms: header.made_ms, bytes: HEADER_BYTES });
        self.publish();
        Ok(())
    }

    /// How long the open segment has been open, if there is anything in it.
    pub(crate) fn open_for(&self, now_ms: u64) -> Option<Duration> {
        let open = self.last();
        (open.bytes > HEADER_BYTES).then(|| Duration::from_millis(now_ms.saturating_sub(open.made_ms)))
    }

    /// Removes closed segments that nobody needs: all their events are before `needed`, and they are too old or there are too many.
    /// Says how many.
    pub(crate) fn forget(&mut self, needed: u64, retention: Retention, now_ms: u64) -> Result<usize, LogError> {
        let mut removed = 0;
        while let [oldest, next, ..] = self.segments[..] {
            let is_old = u128::from(now_ms.saturating_sub(next.made_ms)) > retention.age_max.as_millis();
            if next.first > needed || !(is_old || self.bytes() > retention.bytes_max) {
                break;
            }
            let path = segment::path(&self.folder, oldest.first);
            if let Err(source) = fs::remove_file(&path)
                && source.kind() != io::ErrorKind::NotFound
            {
                return Err(LogError::File { path, doing: "remove", source });
            }
            self.segments.remove(0);
            removed += 1;
        }
        if removed > 0 {
            sync_folder(&self.folder).map_err(|source| LogError::Folder { path: self.folder.clone(), source })?;
        }
        Ok(removed)
    }

    fn last(&self) -> &Segment {
        self.segments.last().expect("there is one")
    }

    fn fault(&self, doing: &'static str, source: io::Error) -> LogError {
        LogError::File { path: segment::path(&self.folder, self.last().first), doing, source }
    }

    fn publish(&self) {
        let open = self.last();
        self.progress.reach(Synced { newest: self.next, segment: open.first, end: open.bytes });
    }
}

/// Where the last segment ends.
#[derive(Debug, Clone, Copy)]
struct End {
    offset: u64,
    next: u64,
    written_ms: u64,
}

/// Walks a segment to the end of its last whole frame. What is damaged and followed by a whole frame rotted: a crash tears only the last, as each
/// frame was synced before the next was written. It stays, and readers pass it over.
fn end(file: &File, first: u64) -> io::Result<End> {
    let (mut end, mut offset, mut next) = (End { offset: HEADER_BYTES, next: first, written_ms: 0 }, HEADER_BYTES, first);
    let mut buffer = Vec::new();
    loop {
        match segment::frame(file, offset, &mut buffer)? {
            At::Frame(Frame { head, .. }) if head.first >= next => {
                (offset, next) = (offset + head.frame_bytes(), head.next());
                end = End { offset, next, written_ms: head.written_ms };
            }
            At::Damaged(head) if head.first >= next => (offset, next) = (offset + head.frame_bytes(), head.next()),
            _ => match segment::next_head(file, offset, next)? {
                Some(found) => offset = found,
                None => return Ok(end),
            },
        }
    }
}

/// How far the log is synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Synced {
    /// The number after the newest event.
    pub(crate) newest: u64,
    /// The first event of the open segment.
    pub(crate) segment: u64,
    /// Where the open segment ends.
    pub(crate) end: u64,
}

/// Tells readers how far the log is synced, and that no more will come.
#[derive(Debug)]
pub(crate) struct Progress {
    state: Mutex<(Synced, bool)>,
    changed: Condvar,
}

impl Progress {
    const fn new(synced: Synced) -> Self {
        Self { state: Mutex::new((synced, false)), changed: Condvar::new() }
    }

    fn reach(&self, synced: Synced) {
        self.state.lock().0 = synced;
        self.changed.notify_all();
    }

    /// Nobody needs to wait any more.
    pub(crate) fn stop(&self) {
        self.state.lock().1 = true;
        self.changed.notify_all();
    }

    pub(crate) fn now(&self) -> Synced {
        self.state.lock().0
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.state.lock().1
    }

    /// Waits until `is_enough`, or stop, or `patience` is over, and says how far it is.
    pub(crate) fn wait(&self, patience: Duration, is_enough: impl Fn(Synced) -> bool) -> Synced {
        let mut state = self.state.lock();
        self.changed.wait_while_for(&mut state, |(synced, stopped)| !*stopped && !is_enough(*synced), patience);
        state.0
    }
}

/// Why the log cannot be used, or an event not be kept.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Its folder cannot be made or read.
    #[error("cannot use the folder {} of the activity log: {source}", path.display())]
    Folder { path: PathBuf, source: io::Error },
    /// A segment cannot be read or written.
    #[error("cannot {doing} {}: {source}", path.display())]
    File { path: PathBuf, doing: &'static str, source: io::Error },
    /// A file that is named like a segment is none, or its head is damaged.
    #[error("{} is not a segment of the activity log, or its first {HEADER_BYTES} bytes are damaged: move it away to go on without it", path.display())]
    Foreign { path: PathBuf },
    /// Made by a later version of Larder.
    #[error("{} has version {version} of the activity log, this Larder knows version 1: run the version that made it, or a newer one", path.display())]
    Version { path: PathBuf, version: u32 },
    /// A sync failed before.
    #[error(
        "a sync of the activity log failed before, so that nobody knows what the medium holds: nothing is taken until control is started anew"
    )]
    Failed,
}

#[cfg(test)]
mod tests;
