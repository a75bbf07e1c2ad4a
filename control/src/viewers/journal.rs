//! The journal on disk: what viewers did since the database was last brought up to date.
//!
//! ```text
//! segment  head:  "LARDERVJ" · version u32 · CRC-32C u32 · number u64
//!          frame: "LVJF" · bytes u32 · first sequence u64 · records u32 · CRC-32C u32 · records
//!          frame …
//! ```
//!
//! Numbers are little-endian. One commit is one frame, synced before the next one is begun. So what follows a frame that is not whole was
//! never acknowledged, unless a whole frame follows: then the medium lost what it had synced, which is told. A frame's checksum covers the
//! number of its segment too, so that nothing of another file is taken for it.
//!
//! Each open begins a new segment, and segments go whole: once all that is in them is in the database. Records have numbers, the
//! *sequence*, that are never used twice; the database knows up to which one it has them, and what it has is not read again.
//!
//! Knows no database, no memory and no tasks; every call blocks.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use crc_fast::{CrcAlgorithm, Digest};

use super::record::Record;

const VERSION: u32 = 1;
const SEGMENT_MARK: [u8; 8] = *b"LARDERVJ";
const SEGMENT_HEAD_BYTES: usize = 24;
const FRAME_MARK: [u8; 4] = *b"LVJF";
const FRAME_HEAD_BYTES: usize = 24;
/// The most records of one commit. With the longest of all records they take 1.5 MB.
pub(crate) const FRAME_RECORDS_MAX: usize = 4096;
/// A longer segment is begun anew; a commit makes it longer by a frame at most.
pub(crate) const SEGMENT_BYTES_MAX: u64 = 64 << 20;

/// The open journal. One process has it.
pub(crate) struct Journal {
    dir: PathBuf,
    /// Locked as long as this is open.
    _lock: File,
    segment: Segment,
    next_sequence: u64,
}

/// The segment that is written to.
struct Segment {
    number: u64,
    file: File,
    bytes: u64,
    /// A write or a sync failed: nobody knows what is in it, so it gets no more frames.
    is_broken: bool,
}

/// What an open found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Recovered {
    pub(crate) segments: u64,
    /// Records that the database did not have yet.
    pub(crate) records: u64,
    /// Bytes at the ends of segments that belong to no whole frame: a commit that a crash cut off.
    pub(crate) torn_bytes: u64,
    /// Bytes between whole frames: what the medium lost.
    pub(crate) damaged_bytes: u64,
}

impl Journal {
    /// Opens or makes the journal in `dir` and hands out, in order, each record after `known_sequence`.
    pub(crate) fn open(dir: &Path, known_sequence: u64, mut each: impl FnMut(Record)) -> Result<(Self, Recovered), JournalError> {
        let fault = |source| JournalError::Unusable { path: dir.to_owned(), source };
        fs::create_dir_all(dir).map_err(fault)?;
        let lock = OpenOptions::new().write(true).create(true).truncate(false).open(dir.join("lock")).map_err(fault)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(JournalError::InUse { path: dir.to_owned() }),
            Err(fs::TryLockError::Error(source)) => return Err(fault(source)),
        }
        let mut recovered = Recovered::default();
        let mut last_sequence = known_sequence;
        let numbers = segments(dir).map_err(fault)?;
        for number in &numbers {
            let path = path(dir, *number);
            let fault = |source| JournalError::Unusable { path: path.clone(), source };
            let bytes = fs::read(&path).map_err(fault)?;
            let found = walk(&bytes, *number, |first, records| {
                for (sequence, record) in (first..).zip(records) {
                    last_sequence = last_sequence.max(sequence);
                    if sequence > known_sequence {
                        recovered.records += 1;
                        each(record);
                    }
                }
            });
            if let Found::Version(version) = found {
                return Err(JournalError::OtherVersion { path, version });
            }
            let (whole, damaged) = found.whole_and_damaged();
            let torn = bytes.len() as u64 - whole;
            if torn > 0 {
                tracing::info!(segment = %path.display(), bytes = torn, "a commit that was cut off is not in the journal");
                OpenOptions::new().write(true).open(&path).and_then(|file| cut(&file, whole)).map_err(fault)?;
            }
            if damaged > 0 {
                tracing::error!(segment = %path.display(), bytes = damaged, "the journal is damaged: what stood there is lost");
            }
            recovered.segments += 1;
            recovered.torn_bytes += torn;
            recovered.damaged_bytes += damaged;
        }
        let number = numbers.last().map_or(1, |last| last + 1);
        let segment = Segment::create(dir, number).map_err(fault)?;
        Ok((Self { dir: dir.to_owned(), _lock: lock, segment, next_sequence: last_sequence + 1 }, recovered))
    }

    /// Writes records as one commit and syncs it. If this fails nobody knows whether they will be there after a restart; what comes
    /// after is not concerned. Says how many bytes they took.
    ///
    /// # Panics
    /// If there are more records than [`FRAME_RECORDS_MAX`].
    pub(crate) fn commit(&mut self, records: &[Record]) -> io::Result<u64> {
        assert!(records.len() <= FRAME_RECORDS_MAX, "the caller commits fewer");
        if self.segment.is_broken || self.segment.bytes >= SEGMENT_BYTES_MAX {
            self.begin_segment()?;
        }
        let frame = frame(self.segment.number, self.next_sequence, records);
        // Also those that fail keep theirs: they may be on disk.
        self.next_sequence += records.len() as u64;
        self.segment.append(&frame)?;
        Ok(frame.len() as u64)
    }

    /// Begins a new segment. What was committed before is in segments below the number that this returns, and has sequences
    /// up to the one it returns.
    pub(crate) fn rotate(&mut self) -> io::Result<Sealed> {
        self.begin_segment()?;
        Ok(Sealed { below: self.segment.number, sequence: self.next_sequence - 1 })
    }

    fn begin_segment(&mut self) -> io::Result<()> {
        self.segment = Segment::create(&self.dir, self.segment.number + 1)?;
        Ok(())
    }
}

/// What was committed before a [`Journal::rotate`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sealed {
    below: u64,
    pub(crate) sequence: u64,
}

impl Sealed {
    /// Removes it from disk, the oldest first.
    pub(crate) fn remove(self, dir: &Path) -> io::Result<()> {
        for number in segments(dir)?.into_iter().filter(|number| *number < self.below) {
            fs::remove_file(path(dir, number))?;
        }
        File::open(dir)?.sync_all()
    }
}

impl Segment {
    /// Makes a segment that is there after a loss of power too. What an earlier attempt left of it is written over.
    fn create(dir: &Path, number: u64) -> io::Result<Self> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path(dir, number))?;
        file.write_all(&head(number))?;
        file.sync_all()?;
        File::open(dir)?.sync_all()?;
        Ok(Self { number, file, bytes: SEGMENT_HEAD_BYTES as u64, is_broken: false })
    }

    fn append(&mut self, frame: &[u8]) -> io::Result<()> {
        let appended = self.file.write_all(frame).and_then(|()| self.file.sync_data());
        self.is_broken = appended.is_err();
        self.bytes += frame.len() as u64;
        appended
    }
}

fn cut(file: &File, bytes: u64) -> io::Result<()> {
    file.set_len(bytes)?;
    file.sync_all()
}

fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:016}.journal"))
}

/// The numbers of the segments in `dir`, in order. Other files are left alone.
fn segments(dir: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".journal")?.parse().ok());
        numbers.extend(number.filter(|number| path(dir, *number).file_name() == Some(&name)));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn head(number: u64) -> [u8; SEGMENT_HEAD_BYTES] {
    let mut head = [0; SEGMENT_HEAD_BYTES];
    head[..8].copy_from_slice(&SEGMENT_MARK);
    head[8..12].copy_from_slice(&VERSION.to_le_bytes());
    head[16..].copy_from_slice(&number.to_le_bytes());
    let crc = crc(&[&head[..12], &head[16..]]);
    head[12..16].copy_from_slice(&crc.to_le_bytes());
    head
}

fn frame(segment: u64, first_sequence: u64, records: &[Record]) -> Vec<u8> {
    let mut frame = vec![0; FRAME_HEAD_BYTES];
    records.iter().for_each(|record| record.write(&mut frame));
    let bytes = u32::try_from(frame.len() - FRAME_HEAD_BYTES).expect("a few thousand records of a few hundred bytes");
    frame[..4].copy_from_slice(&FRAME_MARK);
    frame[4..8].copy_from_slice(&bytes.to_le_bytes());
    frame[8..16].copy_from_slice(&first_sequence.to_le_bytes());
    frame[16..20].copy_from_slice(&(records.len() as u32).to_le_bytes());
    let crc = crc(&[&segment.to_le_bytes(), &frame[4..20], &frame[FRAME_HEAD_BYTES..]]);
    frame[20..24].copy_from_slice(&crc.to_le_bytes());
    frame
}

fn crc(parts: &[&[u8]]) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    parts.iter().for_each(|part| digest.update(part));
    u32::try_from(digest.finalize()).expect("a CRC-32")
}

/// What a segment is.
enum Found {
    /// Up to where there are whole frames, and how many bytes between them are not.
    Frames { whole: u64, damaged: u64 },
    /// Of a version that is not known.
    Version(u32),
}

impl Found {
    fn whole_and_damaged(&self) -> (u64, u64) {
        match self {
            Self::Frames { whole, damaged } => (*whole, *damaged),
            Self::Version(_) => (0, 0),
        }
    }
}

/// Hands out the whole frames of a segment: the first sequence and the records.
fn walk(bytes: &[u8], number: u64, mut each: impl FnMut(u64, Vec<Record>)) -> Found {
    let Some(head_is) = bytes.get(..SEGMENT_HEAD_BYTES) else { return Found::Frames { whole: 0, damaged: 0 } };
    let version = u32::from_le_bytes(head_is[8..12].try_into().expect("4 bytes"));
    if head_is[..8] == SEGMENT_MARK
        && version != VERSION
        && crc(&[&head_is[..12], &head_is[16..]]).to_le_bytes() == head_is[12..16]
    {
        return Found::Version(version);
    }
    // A head that is not right says nothing: frames carry all that is needed.
    let is_headed = *head_is == head(number);
    let (mut whole, mut damaged) = if is_headed { (SEGMENT_HEAD_BYTES, 0) } else { (0, 0) };
    let mut at = SEGMENT_HEAD_BYTES;
    while at < bytes.len() {
        match read_frame(&bytes[at..], number) {
            Some((first, records, length)) => {
                damaged += at - whole;
                at += length;
                whole = at;
                each(first, records);
            }
            // Where it is not whole, the next one is looked for; there is none after what was cut off.
            None => at += 1,
        }
    }
    Found::Frames { whole: whole as u64, damaged: damaged as u64 }
}

/// The frame that `bytes` begins with, if it is whole: first sequence, records, length.
fn read_frame(bytes: &[u8], segment: u64) -> Option<(u64, Vec<Record>, usize)> {
    let head = bytes.get(..FRAME_HEAD_BYTES).filter(|head| head[..4] == FRAME_MARK)?;
    let u32_at = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("4 bytes"));
    let first = u64::from_le_bytes(head[8..16].try_into().expect("8 bytes"));
    let (length, count) = (u32_at(4) as usize, u32_at(16) as usize);
    let mut payload = bytes[FRAME_HEAD_BYTES..].get(..length)?;
    if crc(&[&segment.to_le_bytes(), &head[4..20], payload]) != u32_at(20) || count > FRAME_RECORDS_MAX {
        return None;
    }
    let records = (0..count).map(|_| Record::read(&mut payload)).collect::<Result<Vec<_>, _>>().ok()?;
    payload.is_empty().then_some((first, records, FRAME_HEAD_BYTES + length))
}

/// Why the journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JournalError {
    #[error("another process has the journal {}: stop it first", path.display())]
    InUse { path: PathBuf },
    #[error("{} has version {version} of the journal, this Larder knows version {VERSION}: run the version that made it, or a newer one", path.display())]
    OtherVersion { path: PathBuf, version: u32 },
    #[error("cannot use the journal {}: {source}", path.display())]
    Unusable { path: PathBuf, source: io::Error },
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;
    use crate::viewers::record::tests::watched;

    /// Records with these numbers as their time.
    fn records(numbers: Range<u64>) -> Vec<Record> {
        numbers.map(|n| watched("alice", "demo", n, n)).collect()
    }

    fn open(dir: &Path, known_sequence: u64) -> (Journal, Vec<Record>, Recovered) {
        let mut found = Vec::new();
        let (journal, recovered) = Journal::open(dir, known_sequence, |record| found.push(record)).unwrap();
        (journal, found, recovered)
    }

    #[test]
    fn what_was_committed_is_there_after_each_restart_until_it_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, found, _) = open(dir.path(), 0);
        assert_eq!(found, []);
        journal.commit(&records(1..4)).unwrap();
        journal.commit(&records(4..5)).unwrap();
        drop(journal);
        let (mut journal, found, recovered) = open(dir.path(), 0);
        assert_eq!((found, recovered.torn_bytes), (records(1..5), 0));
        let sealed = journal.rotate().unwrap();
        assert_eq!(sealed.sequence, 4);
        journal.commit(&records(5..6)).unwrap();
        drop(journal);
        // The database has them, and the files are still there.
        let (journal, found, recovered) = open(dir.path(), sealed.sequence);
        assert_eq!((found, recovered.segments), (records(5..6), 3));
        sealed.remove(dir.path()).unwrap();
        drop(journal);
        let (_, found, recovered) = open(dir.path(), sealed.sequence);
        assert_eq!((found, recovered.segments), (records(5..6), 2));
    }

    #[test]
    fn sequences_go_on_when_the_files_are_gone() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, ..) = open(dir.path(), 41);
        journal.commit(&records(0..1)).unwrap();
        assert_eq!(journal.rotate().unwrap().sequence, 42);
        drop(journal);
        assert_eq!(open(dir.path(), 42).1, [], "the database has it");
        assert_eq!(open(dir.path(), 41).1, records(0..1));
    }

    #[test]
    fn a_journal_that_is_torn_at_any_byte_keeps_what_was_committed_before() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, ..) = open(dir.path(), 0);
        let mut ends = vec![(SEGMENT_HEAD_BYTES as u64, 0)];
        for n in 0..4 {
            let bytes = journal.commit(&records(n * 2..n * 2 + 2)).unwrap();
            ends.push((ends.last().unwrap().0 + bytes, n * 2 + 2));
        }
        drop(journal);
        let whole = fs::read(path(dir.path(), 1)).unwrap();
        for length in 0..=whole.len() {
            for garbage in [&[][..], &[0x55; 40], &[0xff; 40], &FRAME_MARK] {
                let dir = tempfile::tempdir().unwrap();
                let mut torn = whole[..length].to_vec();
                torn.extend_from_slice(garbage);
                fs::write(path(dir.path(), 1), &torn).unwrap();
                let (end, count) = *ends.iter().rev().find(|(end, _)| *end <= length as u64).unwrap_or(&(0, 0));
                let (mut journal, found, recovered) = open(dir.path(), 0);
                assert_eq!(found, records(0..count), "torn at {length}");
                assert_eq!((recovered.torn_bytes, recovered.damaged_bytes), (torn.len() as u64 - end, 0), "torn at {length}");
                // And it goes on from there.
                journal.commit(&records(count..9)).unwrap();
                drop(journal);
                let (_, found, recovered) = open(dir.path(), 0);
                assert_eq!((found, recovered.torn_bytes), (records(0..9), 0), "torn at {length}");
            }
        }
    }

    #[test]
    fn a_byte_that_rots_costs_its_commit_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, ..) = open(dir.path(), 0);
        (0..3).for_each(|n| {
            journal.commit(&records(n..n + 1)).unwrap();
        });
        drop(journal);
        let whole = fs::read(path(dir.path(), 1)).unwrap();
        let frame = (whole.len() - SEGMENT_HEAD_BYTES) / 3;
        for at in 0..whole.len() {
            let dir = tempfile::tempdir().unwrap();
            let mut rotten = whole.clone();
            rotten[at] ^= 0x10;
            fs::write(path(dir.path(), 1), &rotten).unwrap();
            let (_, found, recovered) = open(dir.path(), 0);
            match at.checked_sub(SEGMENT_HEAD_BYTES) {
                None => assert_eq!((found, recovered.damaged_bytes), (records(0..3), SEGMENT_HEAD_BYTES as u64)),
                Some(at) if at / frame == 2 => {
                    assert_eq!((found, recovered.torn_bytes), (records(0..2), frame as u64), "as if cut off");
                }
                Some(at) => {
                    let lost = (at / frame) as u64;
                    let left: Vec<_> = records(0..3).into_iter().filter(|r| *r != records(lost..lost + 1)[0]).collect();
                    assert_eq!((found, recovered.damaged_bytes), (left, frame as u64));
                }
            }
        }
    }

    #[test]
    fn after_a_failed_write_the_next_commit_goes_to_a_new_segment() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, ..) = open(dir.path(), 0);
        journal.commit(&records(0..1)).unwrap();
        // A file that cannot be written.
        journal.segment.file = File::open(path(dir.path(), 1)).unwrap();
        journal.commit(&records(1..2)).unwrap_err();
        journal.commit(&records(2..3)).unwrap();
        assert_eq!(journal.rotate().unwrap().sequence, 3, "what failed keeps its sequence");
        drop(journal);
        assert_eq!(open(dir.path(), 0).1, [records(0..1), records(2..3)].concat());
    }

    #[test]
    fn segments_of_another_version_and_journals_in_use_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, ..) = open(dir.path(), 0);
        let error = Journal::open(dir.path(), 0, |_| ()).err().unwrap();
        assert!(matches!(error, JournalError::InUse { .. }), "{error}");
        drop(journal);
        let mut later = head(9);
        later[8] = 2;
        let sum = crc(&[&later[..12], &later[16..]]);
        later[12..16].copy_from_slice(&sum.to_le_bytes());
        fs::write(path(dir.path(), 9), later).unwrap();
        let error = Journal::open(dir.path(), 0, |_| ()).err().unwrap();
        assert!(matches!(error, JournalError::OtherVersion { version: 2, .. }), "{error}");
    }
}
