//! Reading from a place: frames in order, damaged ones passed over and counted.

use std::{fs::File, io, path::PathBuf};

use super::{
    LogError, Synced,
    frame::Frame,
    segment::{self, At, HEADER_BYTES},
};

/// A reader of the log. Opens files by itself, so it needs no writer.
#[derive(Debug)]
pub(crate) struct Reader {
    folder: PathBuf,
    /// The number of the event that comes next.
    place: u64,
    open: Option<Open>,
    buffer: Vec<u8>,
    /// Events that were passed over, because their frames are damaged or their segments gone.
    lost: u64,
}

#[derive(Debug)]
struct Open {
    first: u64,
    file: File,
    offset: u64,
}

impl Reader {
    /// A reader that goes on at `place`.
    pub(crate) const fn new(folder: PathBuf, place: u64) -> Self {
        Self { folder, place, open: None, buffer: Vec::new(), lost: 0 }
    }

    pub(crate) const fn place(&self) -> u64 {
        self.place
    }

    /// How many events were passed over so far.
    pub(crate) const fn lost(&self) -> u64 {
        self.lost
    }

    /// The frame that holds the next event; its first events may be before the place. `None` when all that is synced was read.
    pub(crate) fn next(&mut self, synced: Synced) -> Result<Option<Frame<'_>>, LogError> {
        while self.place < synced.newest {
            let Some(open) = &mut self.open else {
                self.enter()?;
                continue;
            };
            let fault = |source| LogError::File { path: segment::path(&self.folder, open.first), doing: "read", source };
            let is_live = open.first == synced.segment;
            if is_live && open.offset >= synced.end {
                // It was damaged up to here.
                self.lose_up_to(synced.newest);
                break;
            }
            match segment::head(&open.file, open.offset).map_err(fault)? {
                Some(head) if head.next() <= self.place => open.offset += head.frame_bytes(),
                Some(head) => {
                    let is_whole =
                        matches!(segment::frame(&open.file, open.offset, &mut self.buffer).map_err(fault)?, At::Frame(_));
                    open.offset += head.frame_bytes();
                    if is_whole {
                        self.lose_up_to(head.first);
                        self.place = head.next();
                        return Ok(Some(Frame { head, payload: &self.buffer }));
                    }
                }
                None => match segment::next_head(&open.file, open.offset, self.place).map_err(fault)? {
                    Some(offset) => open.offset = offset,
                    None if is_live => open.offset = synced.end,
                    None => self.leave()?,
                },
            }
        }
        Ok(None)
    }

    /// Opens the segment that has the next event, or the first one after it.
    fn enter(&mut self) -> Result<(), LogError> {
        let fault = |source| LogError::Folder { path: self.folder.clone(), source };
        let firsts = segment::list(&self.folder).map_err(fault)?;
        let at = firsts.partition_point(|first| *first <= self.place).saturating_sub(1);
        let Some(first) = firsts.get(at).copied() else {
            return Err(fault(io::Error::new(io::ErrorKind::NotFound, "there is no segment in it")));
        };
        self.open_segment(first)
    }

    /// Goes on to the segment after the open one.
    fn leave(&mut self) -> Result<(), LogError> {
        let fault = |source| LogError::Folder { path: self.folder.clone(), source };
        let here = self.open.as_ref().map_or(0, |open| open.first);
        let firsts = segment::list(&self.folder).map_err(fault)?;
        match firsts.into_iter().find(|first| *first > here) {
            Some(first) => self.open_segment(first),
            None => Err(fault(io::Error::new(io::ErrorKind::NotFound, format!("the segment after {here:020}.log is missing")))),
        }
    }

    fn open_segment(&mut self, first: u64) -> Result<(), LogError> {
        let path = segment::path(&self.folder, first);
        match File::open(&path) {
            Ok(file) => {
                self.lose_up_to(first);
                self.open = Some(Open { first, file, offset: HEADER_BYTES });
                Ok(())
            }
            Err(source) => Err(LogError::File { path, doing: "open", source }),
        }
    }

    fn lose_up_to(&mut self, place: u64) {
        if place > self.place {
            self.lost += place - self.place;
            self.place = place;
        }
    }
}
