//! Segments: files of frames, named by the number of their first event.
//!
//! ```text
//! mark "LARDERAL" · version (u32) · CRC-32C of what follows (u32) · log (16 random bytes) · number of the first event (u64) ·
//! when it was made (u64, ms) · zero (16) · frames
//! ```

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use super::frame::{Frame, HEAD_BYTES, Head, crc};
use crate::files::sync_folder;

const MARK: [u8; 8] = *b"LARDERAL";
const VERSION: u32 = 1;
/// Bytes before the first frame.
pub(crate) const HEADER_BYTES: u64 = 64;

/// So much of a file is looked through at a time.
const SCAN_BYTES: usize = 1 << 20;

/// What tells one log from another.
pub(crate) type LogId = [u8; 16];

/// A segment's first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) log: LogId,
    pub(crate) first: u64,
    pub(crate) made_ms: u64,
}

/// What the first bytes of a file are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Begins {
    Segment(Header),
    /// A segment of a version that is not known here.
    Version(u32),
    /// A header that was not written to its end, or rotted.
    Torn,
    /// Something that is not ours.
    Foreign,
}

impl Header {
    fn to_bytes(self) -> [u8; HEADER_BYTES as usize] {
        let mut bytes = [0; HEADER_BYTES as usize];
        bytes[16..32].copy_from_slice(&self.log);
        bytes[32..40].copy_from_slice(&self.first.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.made_ms.to_le_bytes());
        let crc = crc(&bytes[16..]);
        bytes[..8].copy_from_slice(&MARK);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the header of `file`.
    pub(crate) fn read(file: &File) -> io::Result<Begins> {
        let mut bytes = [0; HEADER_BYTES as usize];
        let read = read_up_to(file, &mut bytes, 0)?;
        if !MARK.starts_with(&bytes[..read.min(8)]) && bytes[..read].iter().any(|byte| *byte != 0) {
            return Ok(Begins::Foreign);
        }
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        if read < bytes.len() || bytes[..8] != MARK || (word(8) == VERSION && word(12) != crc(&bytes[16..])) {
            return Ok(Begins::Torn);
        }
        if word(8) != VERSION {
            return Ok(Begins::Version(word(8)));
        }
        let log = bytes[16..32].try_into().expect("sixteen bytes");
        Ok(Begins::Segment(Self { log, first: long(32), made_ms: long(40) }))
    }
}

/// The path of the segment that begins with event `first`.
pub(crate) fn path(folder: &Path, first: u64) -> PathBuf {
    folder.join(format!("{first:020}.log"))
}

/// The first events of all segments of a folder, in order.
pub(crate) fn list(folder: &Path) -> io::Result<Vec<u64>> {
    let mut firsts = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let first = name.to_str().and_then(|name| name.strip_suffix(".log")).filter(|name| name.len() == 20);
        firsts.extend(first.and_then(|first| first.parse::<u64>().ok()));
    }
    firsts.sort_unstable();
    Ok(firsts)
}

/// Makes a segment that outlasts a loss of power before anything is in it.
pub(crate) fn create(folder: &Path, header: Header) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(path(folder, header.first))?;
    file.write_all_at(&header.to_bytes(), 0)?;
    file.sync_all()?;
    sync_folder(folder)?;
    Ok(file)
}

/// Reads as much of `buffer` as the file has from `offset`.
fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match file.read_at(&mut buffer[read..], offset + read as u64) {
            Ok(0) => break,
            Ok(n) => read += n,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

/// What stands at a place of a segment.
#[derive(Debug)]
pub(crate) enum At<'b> {
    /// A whole frame.
    Frame(Frame<'b>),
    /// A head whose payload is not what was written, or not there to its end.
    Damaged(Head),
    /// No frame.
    Nothing,
}

/// Reads the head at `offset`.
pub(crate) fn head(file: &File, offset: u64) -> io::Result<Option<Head>> {
    let mut bytes = [0; HEAD_BYTES];
    let read = read_up_to(file, &mut bytes, offset)?;
    Ok(if read == HEAD_BYTES { Head::parse(&bytes) } else { None })
}

/// Where the next head stands, after bytes from `offset` on that are none: they rotted, or nobody wrote more. Its first event is `next` or one
/// after it, and not so far after it that those between would not have had room.
pub(crate) fn next_head(file: &File, offset: u64, next: u64) -> io::Result<Option<u64>> {
    let mut bytes = vec![0; SCAN_BYTES];
    let mut at = offset;
    loop {
        let read = read_up_to(file, &mut bytes, at)?;
        for (n, candidate) in bytes[..read].windows(HEAD_BYTES).enumerate() {
            let here = at + n as u64;
            let candidate = candidate.try_into().expect("windows have this size");
            let fits = |head: Head| head.first >= next && head.first - next <= here - offset;
            if Head::parse(candidate).is_some_and(fits) {
                return Ok(Some(here));
            }
        }
        if read < SCAN_BYTES {
            return Ok(None);
        }
        at += (SCAN_BYTES - HEAD_BYTES + 1) as u64;
    }
}

/// Reads what stands at `offset`, into `buffer`.
pub(crate) fn frame<'b>(file: &File, offset: u64, buffer: &'b mut Vec<u8>) -> io::Result<At<'b>> {
    let Some(head) = head(file, offset)? else { return Ok(At::Nothing) };
    buffer.resize(head.payload_bytes, 0);
    let read = read_up_to(file, buffer, offset + HEAD_BYTES as u64)?;
    if read < buffer.len() || crc(buffer) != head.payload_crc {
        return Ok(At::Damaged(head));
    }
    Ok(At::Frame(Frame { head, payload: buffer }))
}
