//! One open device: its file, or a double in tests, and what was counted of it.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd, RawFd},
        unix::fs::{FileExt, OpenOptionsExt},
    },
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{latency::LatencyCounter, threads::Threads};
use crate::Latency;

/// What a device does. Positions and lengths are multiples of 4 KiB; reads and writes may be short, as pread(2) and pwrite(2) are.
pub(crate) trait Medium: Send + Sync {
    fn read_at(&self, at: u64, buf: &mut [u8]) -> io::Result<usize>;
    fn write_at(&self, at: u64, buf: &[u8]) -> io::Result<usize>;
    /// What was written is on the medium when it returns.
    fn sync(&self) -> io::Result<()>;
}

impl Medium for File {
    fn read_at(&self, at: u64, buf: &mut [u8]) -> io::Result<usize> {
        FileExt::read_at(self, buf, at)
    }

    fn write_at(&self, at: u64, buf: &[u8]) -> io::Result<usize> {
        FileExt::write_at(self, buf, at)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// One open device: a file or a block device.
pub(crate) struct DeviceFile {
    /// Of all that this process has opened.
    pub(super) number: u64,
    target: Target,
    is_direct: bool,
    pub(super) counters: Counters,
    pub(super) threads: Threads,
}

enum Target {
    File(File),
    #[cfg(test)]
    Double(Arc<dyn Medium>),
}

impl DeviceFile {
    /// Opens what is at `path`, past the page cache where its file system can do that.
    pub(crate) fn open(path: &Path) -> io::Result<Arc<Self>> {
        let open = |flags| OpenOptions::new().read(true).write(true).custom_flags(flags).open(path);
        match open(libc::O_DIRECT) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(Self::of(Target::File(open(0)?), false)),
            opened => Ok(Self::of(Target::File(opened?), true)),
        }
    }

    /// A file that was opened in some other way.
    #[cfg(test)]
    pub(super) fn opened(file: File) -> Arc<Self> {
        Self::of(Target::File(file), false)
    }

    /// A double for tests, which is driven by threads only.
    #[cfg(test)]
    pub(crate) fn double(medium: Arc<dyn Medium>) -> Arc<Self> {
        Self::of(Target::Double(medium), true)
    }

    fn of(target: Target, is_direct: bool) -> Arc<Self> {
        static OPENED: AtomicU64 = AtomicU64::new(0);
        let number = OPENED.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self { number, target, is_direct, counters: Counters::default(), threads: Threads::default() })
    }

    /// Whether it is read and written past the page cache.
    pub(crate) fn is_direct(&self) -> bool {
        self.is_direct
    }

    /// Operations that were asked for and are not over.
    pub(crate) fn depth(&self) -> u64 {
        self.counters.depth.load(Ordering::Relaxed)
    }

    /// Bytes of memory that reads under way have, also where nobody waits for them any more.
    pub(crate) fn bytes_reading(&self) -> u64 {
        self.counters.bytes_reading.load(Ordering::Relaxed)
    }

    /// What was counted since it was opened.
    pub(crate) fn counts(&self) -> DeviceCounts {
        self.counters.snapshot()
    }

    pub(super) fn medium(&self) -> &dyn Medium {
        match &self.target {
            Target::File(file) => file,
            #[cfg(test)]
            Target::Double(medium) => &**medium,
        }
    }

    /// What a ring reads and writes; `None` for a double.
    pub(super) fn fd(&self) -> Option<RawFd> {
        match &self.target {
            Target::File(file) => Some(file.as_raw_fd()),
            #[cfg(test)]
            Target::Double(_) => None,
        }
    }
}

impl Drop for DeviceFile {
    fn drop(&mut self) {
        self.threads.close();
    }
}

/// What was counted of a device since it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeviceCounts {
    /// Operations that were asked for and are not over, also where nobody waits for them any more.
    pub(crate) depth: u64,
    /// Bytes read.
    pub(crate) bytes_read: u64,
    /// Bytes written.
    pub(crate) bytes_written: u64,
    /// Operations that failed, an unexpected end of the device included.
    pub(crate) errors: u64,
    /// Reads, failed ones included, without the time before the device was asked.
    pub(crate) reads: Latency,
    /// Writes, likewise.
    pub(crate) writes: Latency,
}

#[derive(Default)]
pub(super) struct Counters {
    pub(super) depth: AtomicU64,
    pub(super) bytes_reading: AtomicU64,
    pub(super) bytes_read: AtomicU64,
    pub(super) bytes_written: AtomicU64,
    pub(super) errors: AtomicU64,
    pub(super) reads: LatencyCounter,
    pub(super) writes: LatencyCounter,
}

impl Counters {
    fn snapshot(&self) -> DeviceCounts {
        DeviceCounts {
            depth: self.depth.load(Ordering::Relaxed),
            bytes_read: self.bytes_read.load(Ordering::Relaxed),
            bytes_written: self.bytes_written.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            reads: self.reads.snapshot(),
            writes: self.writes.snapshot(),
        }
    }
}
