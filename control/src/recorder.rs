//! Writes the record of decisions ([`crate::steering::record`]) to files, in the background and within a limit of bytes.
//!
//! Whoever decides never waits for it: what cannot be taken is counted and left out. A file begins with the fleet, so each is a
//! record by itself; the oldest is removed when all together are too large.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Instant,
};

use parking_lot::Mutex;

use crate::steering::{
    decide::Rules,
    fleet::Snapshot,
    record::{Decision, Fleet, Line},
};

/// Lines that wait to be written.
const LINES_MAX: usize = 16_384;
/// Of all that may be kept, the part that one file may have: 1/8.
const FILES: u64 = 8;
/// A fleet is written again after so many decisions, however small its changes: reports and loads change all the time.
const FLEET_EVERY_MS: u64 = 1000;

/// What the writer is sent.
enum Entry {
    Line(Line),
    /// All before it is to be in the files.
    Flush(mpsc::SyncSender<()>),
}

/// Takes decisions to be written.
pub(crate) struct Recorder {
    entries: mpsc::SyncSender<Entry>,
    /// Parts of 2^64 of all sessions.
    share: u64,
    /// The fleet that was written last, and when.
    fleet: Mutex<Option<(Arc<Snapshot>, u64)>>,
    written: Arc<AtomicU64>,
    lost: AtomicU64,
}

impl Recorder {
    /// Writes to files in `folder`, which is made, at most `bytes_max` in all, of so much of all sessions.
    pub(crate) fn start(folder: PathBuf, bytes_max: u64, share: f64) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        let (entries, waiting) = mpsc::sync_channel(LINES_MAX);
        let written = Arc::<AtomicU64>::default();
        let mut writer = Writer { folder, bytes_max, file: None, fleet: None, written: Arc::clone(&written) };
        writer.prune()?;
        thread::Builder::new().name("recorder".into()).spawn(move || {
            // Ends when the recorder is dropped.
            for entry in waiting {
                let done = match entry {
                    Entry::Line(line) => writer.write(line),
                    Entry::Flush(flushed) => {
                        let done = writer.flush();
                        // Whoever asked may have stopped waiting.
                        let _ = flushed.send(());
                        done
                    }
                };
                if let Err(error) = done {
                    tracing::error!(%error, "decisions are not recorded");
                    writer.file = None;
                }
            }
        })?;
        let share = (share.clamp(0.0, 1.0) * u64::MAX as f64) as u64;
        Ok(Self { entries, share, fleet: Mutex::default(), written, lost: AtomicU64::new(0) })
    }

    /// Whether decisions of this session are recorded.
    pub(crate) fn wants(&self, session: u64) -> bool {
        session <= self.share
    }

    /// A decision was taken in the fleet of `snapshot`.
    pub(crate) fn record(&self, snapshot: &Arc<Snapshot>, rules: &Rules, now: Instant, now_ms: u64, decision: Decision) {
        // Decisions follow their fleet, so both are sent under one lock.
        let mut last = self.fleet.lock();
        let is_known = last.as_ref().is_some_and(|(known, at_ms)| {
            Arc::ptr_eq(known, snapshot) || at_ms + FLEET_EVERY_MS > now_ms && has_same_edges(known, snapshot)
        });
        if !is_known {
            if !self.send(Line::Fleet(Fleet::of(snapshot, rules, now, now_ms))) {
                return;
            }
            *last = Some((Arc::clone(snapshot), now_ms));
        }
        self.send(Line::Decision(decision));
    }

    fn send(&self, line: Line) -> bool {
        let is_sent = self.entries.try_send(Entry::Line(line)).is_ok();
        if !is_sent {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        is_sent
    }

    /// Waits until all that was recorded is in the files. Blocks.
    pub(crate) fn flush(&self) {
        let (flushed, done) = mpsc::sync_channel(1);
        if self.entries.send(Entry::Flush(flushed)).is_ok() {
            // An error means that the writer is gone, and has flushed before.
            let _ = done.recv();
        }
    }

    /// Lines written, and lines that there was no time for.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.written.load(Ordering::Relaxed), self.lost.load(Ordering::Relaxed))
    }
}

/// Whether a decision in one names the same edges in the other.
fn has_same_edges(a: &Snapshot, b: &Snapshot) -> bool {
    a.edges().len() == b.edges().len() && a.edges().iter().zip(b.edges()).all(|(a, b)| a.id == b.id && a.site == b.site)
}

struct Writer {
    folder: PathBuf,
    bytes_max: u64,
    file: Option<(io::BufWriter<fs::File>, u64)>,
    /// The last one, which the next file begins with.
    fleet: Option<String>,
    written: Arc<AtomicU64>,
}

impl Writer {
    fn write(&mut self, line: Line) -> io::Result<()> {
        let is_fleet = matches!(line, Line::Fleet(_));
        let mut text = serde_json::to_string(&line)?;
        text.push('\n');
        if self.file.as_ref().is_none_or(|(_, bytes)| *bytes >= self.bytes_max / FILES) {
            self.begin_file(!is_fleet)?;
        }
        if let Some((file, bytes)) = &mut self.file {
            file.write_all(text.as_bytes())?;
            *bytes += text.len() as u64;
            self.written.fetch_add(1, Ordering::Relaxed);
        }
        if is_fleet {
            self.fleet = Some(text);
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), |(file, _)| file.flush())
    }

    fn begin_file(&mut self, with_fleet: bool) -> io::Result<()> {
        self.flush()?;
        self.file = None;
        self.prune()?;
        let next = files(&self.folder)?.last().map_or(0, |(number, _)| number + 1);
        let mut file = io::BufWriter::new(fs::File::create(self.folder.join(format!("{next:010}.jsonl")))?);
        let mut bytes = 0;
        if let Some(fleet) = self.fleet.as_ref().filter(|_| with_fleet) {
            file.write_all(fleet.as_bytes())?;
            bytes = fleet.len() as u64;
        }
        self.file = Some((file, bytes));
        Ok(())
    }

    /// Removes the oldest files until there is room for one more.
    fn prune(&self) -> io::Result<()> {
        let files = files(&self.folder)?;
        let mut bytes: u64 = files.iter().map(|(_, bytes)| bytes).sum();
        for (number, of_file) in files {
            if bytes <= self.bytes_max - self.bytes_max / FILES {
                break;
            }
            fs::remove_file(self.folder.join(format!("{number:010}.jsonl")))?;
            bytes -= of_file;
        }
        Ok(())
    }
}

/// Numbers and sizes, the oldest first.
fn files(folder: &Path) -> io::Result<Vec<(u64, u64)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".jsonl")).and_then(|number| number.parse().ok());
        if let Some(number) = number {
            files.push((number, entry.metadata()?.len()));
        }
    }
    files.sort_unstable();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use wire::placement::{Key, Popularity, Weights};

    use super::*;
    use crate::steering::{
        decide::{Question, Ranking},
        fleet::{Edge, State},
    };

    fn snapshot(edges: &[&str]) -> Arc<Snapshot> {
        let edge = |id: &&str| Edge {
            id: (*id).into(),
            site: "berlin".into(),
            state: State::Ready,
            reported: None,
            load_permille: 0,
            weights: Weights { throughput: 1, storage: 1 },
        };
        Arc::new(Snapshot::new([], edges.iter().map(edge)).unwrap())
    }

    fn decision(at_ms: u64) -> Decision {
        let question =
            Question { announced: &[], place: None, title: Key::of(b"t"), popularity: Popularity::NONE, session: Key::of(b"s") };
        Decision::of(&question, &[], &Ranking { edges: vec![0], ..Ranking::default() }, at_ms)
    }

    /// The kinds of lines in each file.
    fn kinds(folder: &Path) -> Vec<String> {
        let of_line = |line: &str| match serde_json::from_str(line).unwrap() {
            Line::Fleet(_) => 'F',
            Line::Decision(_) => 'd',
        };
        let text = |(number, _)| fs::read_to_string(folder.join(format!("{number:010}.jsonl"))).unwrap();
        files(folder).unwrap().into_iter().map(|file| text(file).lines().map(of_line).collect()).collect()
    }

    #[test]
    fn decisions_stand_behind_the_fleet_that_they_were_taken_in() {
        let dir = tempfile::tempdir().unwrap();
        let recorder = Recorder::start(dir.path().join("decisions"), 1 << 20, 1.0).unwrap();
        let (now, rules) = (Instant::now(), Rules::default());
        let first = snapshot(&["a", "b"]);
        for (fleet, at_ms) in [
            (&first, 0),
            (&first, 5000),
            (&snapshot(&["a", "b"]), 500),
            (&snapshot(&["a", "c"]), 500),
            (&snapshot(&["a", "c"]), 501),
            (&snapshot(&["a", "c"]), 2000),
        ] {
            recorder.record(fleet, &rules, now, at_ms, decision(at_ms));
        }
        recorder.flush();
        assert_eq!(kinds(&dir.path().join("decisions")), ["FdddFddFd"]);
        assert_eq!(recorder.counts(), (9, 0));
    }

    #[test]
    fn files_are_bounded_and_each_begins_with_a_fleet() {
        const BYTES_MAX: u64 = 16 << 10;
        let dir = tempfile::tempdir().unwrap();
        let fleet = snapshot(&["a"]);
        for _ in 0..2 {
            let recorder = Recorder::start(dir.path().to_owned(), BYTES_MAX, 1.0).unwrap();
            for at_ms in 0..500 {
                recorder.record(&fleet, &Rules::default(), Instant::now(), at_ms, decision(at_ms));
            }
            recorder.flush();
        }
        let kinds = kinds(dir.path());
        assert!(kinds.len() > 4 && kinds.iter().all(|kinds| kinds.starts_with('F')), "{kinds:?}");
        let bytes: u64 = files(dir.path()).unwrap().iter().map(|(_, bytes)| bytes).sum();
        assert!(bytes <= BYTES_MAX + BYTES_MAX / FILES, "{bytes}");
    }

    #[test]
    fn a_share_of_the_sessions_is_recorded_whole() {
        let dir = tempfile::tempdir().unwrap();
        let wanted = |share: f64| {
            let recorder = Recorder::start(dir.path().to_owned(), 1 << 20, share).unwrap();
            (0..1000_u64).filter(|n| recorder.wants(Key::of(&n.to_le_bytes()).as_u64())).count()
        };
        assert_eq!((wanted(0.0), wanted(1.0)), (0, 1000));
        assert!((150..350).contains(&wanted(0.25)));
    }
}
