//! One read, write or sync, from the call to its end. It owns the memory throughout; whoever awaits it may leave at any time.

use std::{
    io,
    ops::Range,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::device::DeviceFile;
use crate::slab::{IoBuf, UNIT_BYTES};

/// How often an operation is tried again after EINTR and EAGAIN.
const INTERRUPTS_MAX: u32 = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    Write,
    /// fdatasync(2)
    Sync,
}

/// How it ends for who awaits it.
pub(super) type Outcome = oneshot::Receiver<io::Result<IoBuf>>;

pub(super) struct Operation {
    kind: Kind,
    under_way: UnderWay,
    /// Where on the device `rest` begins.
    at: u64,
    /// What is still to be done, within `buf`.
    rest: Range<usize>,
    buf: IoBuf,
    interrupts_left: u32,
    began: Instant,
    /// Its place among those that a driver has under way at once.
    place: Option<OwnedSemaphorePermit>,
    /// `None` after [`Self::abandon`].
    reply: Option<oneshot::Sender<io::Result<IoBuf>>>,
}

pub(super) enum Step {
    /// The rest is to be done in the same way.
    Again,
    Over(io::Result<()>),
}

impl Operation {
    /// All of `buf`; `at` is a multiple of 4 KiB.
    pub(super) fn new(kind: Kind, device: &Arc<DeviceFile>, at: u64, mut buf: IoBuf) -> (Self, Outcome) {
        assert!(at.is_multiple_of(UNIT_BYTES as u64), "a position is a multiple of 4 KiB");
        if kind == Kind::Read {
            // It panics on memory that others may be reading.
            buf.as_mut_slice();
        }
        let (reply, outcome) = oneshot::channel();
        let operation = Self {
            kind,
            under_way: UnderWay::new(device, if kind == Kind::Read { buf.len() } else { 0 }),
            at,
            rest: 0..buf.len(),
            buf,
            interrupts_left: INTERRUPTS_MAX,
            began: Instant::now(),
            place: None,
            reply: Some(reply),
        };
        (operation, outcome)
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    pub(super) fn device(&self) -> &Arc<DeviceFile> {
        &self.under_way.device
    }

    /// Where on the device the rest is.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// What is still to be done, within [`Self::buf`].
    pub(super) fn rest(&self) -> Range<usize> {
        self.rest.clone()
    }

    pub(super) fn buf(&self) -> &IoBuf {
        &self.buf
    }

    pub(super) fn buf_mut(&mut self) -> &mut IoBuf {
        &mut self.buf
    }

    pub(super) fn take_place(&mut self, place: OwnedSemaphorePermit) {
        self.place = Some(place);
    }

    /// The device is asked now.
    pub(super) fn begin(&mut self) {
        self.began = Instant::now();
    }

    /// Whether anyone would see what it reads.
    pub(super) fn is_awaited(&self) -> bool {
        self.reply.as_ref().is_some_and(|reply| !reply.is_closed())
    }

    /// What the device did of the rest, in bytes.
    pub(super) fn advance(&mut self, did: io::Result<usize>) -> Step {
        match did {
            Ok(_) if self.kind == Kind::Sync => Step::Over(Ok(())),
            Ok(bytes) => self.advance_by(bytes.min(self.rest.len())),
            Err(error) if is_interrupt(&error) && self.interrupts_left > 0 => {
                self.interrupts_left -= 1;
                Step::Again
            }
            Err(error) => Step::Over(Err(error)),
        }
    }

    fn advance_by(&mut self, bytes: usize) -> Step {
        let counters = &self.device().counters;
        let counter = if self.kind == Kind::Read { &counters.bytes_read } else { &counters.bytes_written };
        counter.fetch_add(bytes as u64, Ordering::Relaxed);
        // Direct I/O goes on at a whole unit only; a file's end within a unit is found when the next attempt brings none.
        let whole = bytes / UNIT_BYTES * UNIT_BYTES;
        self.rest.start += whole;
        self.at += whole as u64;
        match self.kind {
            _ if self.rest.is_empty() => Step::Over(Ok(())),
            _ if whole > 0 => Step::Again,
            Kind::Read => Step::Over(Err(io::ErrorKind::UnexpectedEof.into())),
            Kind::Write | Kind::Sync => Step::Over(Err(io::ErrorKind::WriteZero.into())),
        }
    }

    /// It is over: everything is given back, then whoever awaits it is told.
    pub(super) fn finish(mut self, outcome: io::Result<()>) {
        let reply = self.reply.take();
        let (kind, began) = (self.kind, self.began);
        let Self { under_way, buf, place, .. } = self;
        under_way.device.counters.count(kind, began, outcome.is_ok());
        drop((under_way, place));
        if let Some(reply) = reply {
            // Nobody may be there any more; then the buffer is dropped here.
            let _ = reply.send(outcome.map(|()| buf));
        }
    }

    /// Tells whoever awaits it that its end will not be known. The device may still use the memory, so this frees nothing.
    pub(super) fn abandon(&mut self, error: io::Error) {
        if let Some(reply) = self.reply.take() {
            let _ = reply.send(Err(error));
        }
    }
}

fn is_interrupt(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock)
}

impl super::device::Counters {
    fn count(&self, kind: Kind, began: Instant, is_ok: bool) {
        match kind {
            Kind::Read => self.reads.count(began.elapsed()),
            Kind::Write => self.writes.count(began.elapsed()),
            Kind::Sync => {}
        }
        if !is_ok {
            self.errors.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Counted as under way on its device.
struct UnderWay {
    device: Arc<DeviceFile>,
    bytes_reading: u64,
}

impl UnderWay {
    fn new(device: &Arc<DeviceFile>, bytes_reading: usize) -> Self {
        let bytes_reading = bytes_reading as u64;
        device.counters.depth.fetch_add(1, Ordering::Relaxed);
        device.counters.bytes_reading.fetch_add(bytes_reading, Ordering::Relaxed);
        Self { device: device.clone(), bytes_reading }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.device.counters.depth.fetch_sub(1, Ordering::Relaxed);
        self.device.counters.bytes_reading.fetch_sub(self.bytes_reading, Ordering::Relaxed);
    }
}
