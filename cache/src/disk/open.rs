//! From a configuration to a running SSD tier: the state directory, the devices, and what they hold.

use std::{
    fs::{self, OpenOptions},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{FileTypeExt, OpenOptionsExt},
    },
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::SystemTime,
};

use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    task::JoinSet,
};

use super::{
    DeviceConfig, Disk, DiskConfig,
    cut::Cut,
    device::{self, Fault, SEGMENTS_MIN, Volume},
    engine::{Counters, Engine, bytes_reading_max},
    far::Far,
    index::{DEVICES_MAX, Index},
    io::{DeviceFile, Io},
    layout::Superblock,
    recover::{Recovered, recover},
    state::{KnownDevice, Set, State, random},
    thread::{FoundDevice, Opened, Thread},
    write::Job,
};
use crate::{policy::Policy, purge::Purges, slab::Budget};

/// Slices that wait to be written hold at most so much memory, in bytes, and at most an eighth of the budget.
const QUEUE_BYTES_MAX: u64 = 256 << 20;

/// Why there is no SSD tier.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The configuration cannot work.
    #[error("{0}")]
    Config(String),
    /// The state directory.
    #[error("the cache's state directory: {0}")]
    State(String),
    /// A device that was never used before, and cannot be.
    #[error("the cache's device {}: {reason}", .path.display())]
    Device {
        /// Which.
        path: std::path::PathBuf,
        /// In words for the operator.
        reason: String,
    },
    /// The thread that writes.
    #[error("cannot start the thread that writes to devices: {0}")]
    Thread(io::Error),
}

impl Disk {
    /// What the state directory says, whoever has it open; `None` if it was never used.
    ///
    /// # Errors
    /// When the configuration cannot be used, or the directory cannot be read.
    pub(crate) fn known(config: &DiskConfig, slice_bytes: usize) -> Result<Option<Set>, DiskError> {
        check(config, slice_bytes)?;
        State::peek(&config.state_dir).map_err(DiskError::State)
    }

    /// Opens the devices, and finds what they hold. A device that was used before and cannot be opened is given up; the others serve.
    pub(crate) async fn open(
        config: DiskConfig,
        slice_bytes: usize,
        budget: &Arc<Budget>,
        budget_bytes: u64,
        purges: Arc<Purges>,
    ) -> Result<Arc<Self>, DiskError> {
        check(&config, slice_bytes)?;
        let state = State::open(&config.state_dir, &purges).map_err(DiskError::State)?;
        let set = state.set();
        let engine = Arc::new(Engine {
            slice_bytes,
            queue_bytes_max: QUEUE_BYTES_MAX.min(budget_bytes / 8).max(4 * slice_bytes as u64),
            purges,
            io: Io::new(config.io, budget.slots().clone()),
            state: Arc::new(state),
            seed: set.seed,
            set: set.bytes(),
            index: Index::default(),
            far: Far::default(),
            devices: config.devices.iter().map(|_| Arc::default()).collect(),
            sequence: AtomicU64::new(first_sequence()),
            counters: Counters::default(),
            bytes_reading_max: bytes_reading_max(budget_bytes, slice_bytes),
            written: Notify::new(),
            restoring: tokio::sync::Mutex::default(),
            verdicts: watch::Sender::default(),
            is_ending: AtomicBool::new(false),
            config,
        });
        let (writers, jobs): (Vec<_>, Vec<_>) = engine.devices.iter().map(|_| mpsc::unbounded_channel()).unzip();
        let (opened, is_open) = oneshot::channel();
        let thread = Thread::start(engine.clone(), jobs, opened).map_err(DiskError::Thread)?;
        let disk = Arc::new(Self { engine, writers, thread });
        let found = is_open.await.unwrap_or_else(|_| Err(DiskError::Thread(io::Error::other("it ended"))));
        if found.is_err() {
            // Whoever tries again finds the state directory free.
            disk.thread.ended().await;
        }
        for (at, found) in found? {
            // The writers live as long as `disk`.
            let _ = disk.writers[at].send(Job::TakeUp(found.volume, found.recovered));
        }
        Ok(disk)
    }
}

impl Engine {
    /// Opens all devices but those that were given up.
    pub(super) async fn open_devices(self: &Arc<Self>) -> Opened {
        let known = self.state.set().devices;
        let mut opening = JoinSet::new();
        for (at, config) in self.config.devices.iter().enumerate() {
            let before = known.iter().find(|known| known.path == config.path);
            self.devices[at].doubt_before(before.map_or(0, |known| known.doubted));
            if let Some(verdict) = before.and_then(|known| known.given_up.clone()) {
                tracing::warn!(device = %config.path.display(), reason = %verdict.reason, "a device stays given up until an operator takes it back");
                self.devices[at].stays_given_up(verdict);
                continue;
            }
            let engine = self.clone();
            opening.spawn(async move { (at, engine.try_device(at, false).await) });
        }
        let mut found = Vec::new();
        let mut oldest = None;
        while let Some(opened) = opening.join_next().await {
            let (at, opened) = opened.map_err(|error| DiskError::Thread(io::Error::other(error)))?;
            let path = self.config.devices[at].path.clone();
            let is_known = known.iter().any(|known| known.path == path);
            match opened {
                Ok((volume, recovered)) => {
                    oldest = oldest.into_iter().chain(recovered.oldest).min();
                    if !is_known && recovered.oldest.is_some() {
                        // It was left out of the configuration for a while, or this directory is older than it.
                        self.devices[at].doubt_before(self.purges.next());
                    }
                    self.take_up(at, volume.clone());
                    found.push((at, FoundDevice { volume, recovered }));
                }
                Err(fault) if is_known && !fault.is_ours() => self.give_up(at, None, &fault),
                Err(fault) => return Err(DiskError::Device { path, reason: fault.to_string() }),
            }
        }
        let devices: Vec<_> = (0..self.devices.len()).map(|at| self.known_device(at)).collect();
        let all_serve = devices.iter().all(|known| known.given_up.is_none());
        let saved = self.state.save(|set| {
            set.purge_number = self.purges.now();
            set.devices = devices;
        });
        saved.map_err(|error| DiskError::State(error.to_string()))?;
        if all_serve {
            // What a device that was given up holds may be older than any purge.
            let oldest = oldest.unwrap_or_else(|| self.purges.now());
            self.state.shorten(&self.purges, oldest).map_err(|error| DiskError::State(error.to_string()))?;
        }
        Ok(found)
    }

    /// How a device stands, to be written down.
    pub(super) fn known_device(&self, at: usize) -> KnownDevice {
        let device = &self.devices[at];
        KnownDevice { path: self.config.devices[at].path.clone(), given_up: device.given_up(), doubted: device.doubted() }
    }

    pub(super) fn take_up(&self, at: usize, volume: Arc<Volume>) {
        // What planned content takes now; it may change, and the policy's figures need not be exact.
        let segments = u64::from(volume.superblock.segments - volume.planned.load(Ordering::Relaxed));
        let segment_bytes = volume.superblock.segment_bytes;
        let policy = Policy::new(segments * segment_bytes, self.slice_bytes as u64, segment_bytes);
        self.devices[at].take_up(volume, policy);
    }

    /// Opens a device and finds what it holds.
    pub(super) async fn try_device(&self, at: usize, may_make: bool) -> Result<(Arc<Volume>, Recovered), Fault> {
        let config = &self.config.devices[at];
        let segment_bytes = self.config.segment_bytes;
        // An operator who takes a device back may have put a blank one in its place.
        let is_known = !may_make && self.state.set().devices.iter().any(|known| known.path == config.path);
        let bytes = make(config, is_known).map_err(Fault::Unusable)?;
        let Some(Cut { segments, segment_bytes }) = Cut::of(bytes, segment_bytes) else {
            let least = Cut::bytes_min(segment_bytes);
            return Err(Fault::Unusable(format!(
                "it has {bytes} bytes; at least {least} are needed for {SEGMENTS_MIN} segments"
            )));
        };
        let file = open_file(&config.path).map_err(|error| Fault::Io { what: "opening", error })?;
        if !file.is_direct() {
            tracing::warn!(device = %config.path.display(), "its file system knows no direct I/O; the page cache will hold all of it a second time");
        }
        let device = random().map_err(|error| Fault::Io { what: "reading /dev/urandom", error })?;
        let slice_bytes = u32::try_from(self.slice_bytes).expect("at most 4 MiB");
        let formatted_at = SystemTime::now();
        let wanted = Superblock { set: self.set, device, segment_bytes, segments, slice_bytes, formatted_at };
        let (superblock, is_new) = device::open_superblock(&self.io, &file, wanted, self.limit()).await?;
        let volume = Volume::new(file, superblock);
        self.devices[at].prepare(volume.clone());
        if is_new {
            let recovered = Recovered { free: (0..segments).collect(), ..Recovered::default() };
            return Ok((volume, recovered));
        }
        let recovered = recover(self, at, &volume).await?;
        Ok((volume, recovered))
    }
}

/// Sequences begin at the clock, in nanoseconds, so that they are larger than those of a device that is not there now.
fn first_sequence() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(1).max(1)
}

fn check(config: &DiskConfig, slice_bytes: usize) -> Result<(), DiskError> {
    let refuse = |why: String| Err(DiskError::Config(why));
    let DiskConfig { devices, segment_bytes, planned_share, .. } = config;
    if devices.is_empty() || devices.len() > DEVICES_MAX {
        return refuse(format!("{} devices; there must be 1 to {DEVICES_MAX}", devices.len()));
    }
    if let Some(twice) =
        devices.iter().enumerate().find(|(at, device)| devices[..*at].iter().any(|other| other.path == device.path))
    {
        return refuse(format!("the device {} stands there twice", twice.1.path.display()));
    }
    if !segment_bytes.is_power_of_two()
        || !(1 << 20..=256 << 20).contains(segment_bytes)
        || *segment_bytes < 4 * slice_bytes as u64
    {
        return refuse(format!(
            "a segment of {segment_bytes} bytes; it must be a power of two from 1 MiB and four slices to 256 MiB"
        ));
    }
    if !(0.0..=0.95).contains(planned_share) {
        return refuse(format!("a planned share of {planned_share}; it must be from 0 to 0.95"));
    }
    Ok(())
}

/// Sees to it that the device is there and as large as is configured; says how much of it to use, in bytes.
fn make(config: &DeviceConfig, is_known: bool) -> Result<u64, String> {
    let path = &config.path;
    let say = |what: &str, error: io::Error| format!("cannot {what}: {error}");
    match fs::metadata(path) {
        Ok(about) if about.file_type().is_block_device() => {
            let all = size(path).map_err(|error| say("ask for its size", error))?;
            match config.bytes {
                Some(wanted) if wanted > all => Err(format!("it has {all} bytes, and {wanted} are configured")),
                wanted => Ok(wanted.unwrap_or(all)),
            }
        }
        Ok(about) if about.is_file() => match config.bytes {
            Some(wanted) if wanted > about.len() => allocate(path, wanted).map_err(|error| say("allocate it", error)),
            wanted => Ok(wanted.unwrap_or(about.len())),
        },
        Ok(_) => Err("it is neither a file nor a block device".into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match config.bytes {
            // Its file system may not be mounted; what it holds would come back with it.
            Some(_) if is_known => Err("it was used before and is not there".into()),
            Some(wanted) => allocate(path, wanted).map_err(|error| say("make it", error)),
            None => Err("it is not there, and without a size it cannot be made".into()),
        },
        Err(error) => Err(say("look at it", error)),
    }
}

/// Takes the room on the file system now, so that it cannot be missing later.
fn allocate(path: &Path, bytes: u64) -> io::Result<u64> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    let length = libc::off_t::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: the descriptor is open, and the call takes no pointers.
    match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, length) } {
        0 => file.sync_all().map(|()| bytes),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

fn open_file(path: &Path) -> io::Result<Arc<DeviceFile>> {
    #[cfg(test)]
    if let Some(double) = super::tests::double_of(path) {
        return Ok(DeviceFile::double(double));
    }
    DeviceFile::open(path)
}

fn size(path: &Path) -> io::Result<u64> {
    io::Seek::seek(&mut fs::File::open(path)?, io::SeekFrom::End(0))
}
