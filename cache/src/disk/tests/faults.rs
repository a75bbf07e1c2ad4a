//! Devices that fail, and machines that lose power: doubles behind the seam of [`Medium`], and what the tier makes of them.

use std::{collections::BTreeMap, fs::File, io, os::unix::fs::FileExt, path::PathBuf, sync::atomic::AtomicU8};

use parking_lot::{Condvar, Mutex};
use rand::{Rng as _, RngExt as _, SeedableRng as _, rngs::StdRng};

use super::{io::Medium, layout::PAGE, *};

static DOUBLES: Mutex<BTreeMap<PathBuf, Arc<dyn Medium>>> = Mutex::new(BTreeMap::new());

/// The double that stands for the device at `path`, if there is one.
pub(in crate::disk) fn double_of(path: &Path) -> Option<Arc<dyn Medium>> {
    DOUBLES.lock().get(path).cloned()
}

fn stand_in(path: &Path, double: Arc<dyn Medium>) {
    DOUBLES.lock().insert(path.into(), double);
}

/// A file that begins to fail when it is told to.
pub(super) struct Failing {
    file: File,
    fault: AtomicU8,
    /// Operations that hang, and that are let go.
    hanging: Mutex<bool>,
    let_go: Condvar,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Fault {
    None,
    /// Everything fails with EIO.
    Broken,
    /// Writes fail with EROFS.
    ReadOnly,
    /// Writes fail with ENOSPC.
    Full,
    /// Nothing ever ends.
    Hangs,
    /// Reads give other bytes.
    Lies,
}

impl Failing {
    pub(super) fn stands_in(rig: &Rig, device: usize) -> Arc<Self> {
        let DeviceConfig { path, bytes } = &rig.config.devices[device];
        let file = File::options().create(true).truncate(false).read(true).write(true).open(path).expect("opens");
        file.set_len(bytes.expect("a size")).expect("sized");
        let failing = Self { file, fault: AtomicU8::new(0), hanging: Mutex::new(true), let_go: Condvar::new() };
        let failing = Arc::new(failing);
        stand_in(path, failing.clone());
        failing
    }

    pub(super) fn begin(&self, fault: Fault) {
        self.fault.store(fault as u8, Ordering::SeqCst);
    }

    pub(super) fn let_go(&self) {
        *self.hanging.lock() = false;
        self.let_go.notify_all();
    }

    fn does(&self, fault: Fault) -> bool {
        self.fault.load(Ordering::SeqCst) == fault as u8
    }

    fn fail(&self, is_write: bool) -> io::Result<()> {
        let errno = match () {
            () if self.does(Fault::Broken) => libc::EIO,
            () if self.does(Fault::ReadOnly) && is_write => libc::EROFS,
            () if self.does(Fault::Full) && is_write => libc::ENOSPC,
            () => {
                let mut hanging = self.hanging.lock();
                while self.does(Fault::Hangs) && *hanging {
                    self.let_go.wait(&mut hanging);
                }
                return Ok(());
            }
        };
        Err(io::Error::from_raw_os_error(errno))
    }
}

impl Medium for Failing {
    fn read_at(&self, at: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.fail(false)?;
        let read = FileExt::read_at(&self.file, buf, at)?;
        if self.does(Fault::Lies) {
            buf.iter_mut().for_each(|byte| *byte ^= 0x55);
        }
        Ok(read)
    }

    fn write_at(&self, at: u64, buf: &[u8]) -> io::Result<usize> {
        self.fail(true)?;
        FileExt::write_at(&self.file, buf, at)
    }

    fn sync(&self) -> io::Result<()> {
        self.fail(true)
    }
}

#[tokio::test]
async fn a_device_that_fails_in_any_way_is_given_up_and_costs_its_content_only() {
    for (fault, words) in [
        (Fault::Broken, "Input/output error"),
        (Fault::ReadOnly, "Read-only file system"),
        (Fault::Full, "No space left"),
        (Fault::Hangs, "took longer than"),
        (Fault::Lies, "were not what had been written"),
    ] {
        let mut rig = Rig::closed(IoChoice::Auto, &[16, 16, 16]);
        rig.config.device_timeout = Duration::from_millis(if fault == Fault::Hangs { 5000 } else { 60_000 });
        let failing = Failing::stands_in(&rig, 1);
        rig.open().await.expect("opens");
        let keys: Vec<String> = (0..60).map(|n| format!("/{n}")).collect();
        for key in &keys {
            rig.store(key, ONE, false).await;
        }
        let device = |key: &str| rig.disk().find(key, 0).map(|place| place.device());
        let was_on_it: Vec<bool> = keys.iter().map(|key| device(key) == Some(1)).collect();
        assert!(was_on_it.iter().filter(|was| **was).count() > 5);
        failing.begin(fault);
        let mut misses = 0;
        for (key, was_on_it) in keys.iter().zip(&was_on_it) {
            let has = rig.has(key, 0, ONE).await;
            assert!(has || *was_on_it, "{fault:?}: {key} is on a device that serves");
            misses += usize::from(!has);
            // What a reader missed is filled anew, and offered.
            if !has {
                rig.offer(key, 0, ONE, false).await;
                rig.written().await;
            }
        }
        // What only fails on writes is found by the next one.
        for n in 0..20 {
            rig.offer(&format!("/late/{n}"), 0, ONE, false).await;
            rig.written().await;
        }
        let reason = rig.is_given_up(1).unwrap_or_else(|| panic!("{fault:?}: not given up"));
        assert!(reason.contains(words), "{fault:?}: {reason}");
        assert!(rig.is_given_up(0).is_none() && rig.is_given_up(2).is_none());
        assert!(misses <= was_on_it.iter().filter(|was| **was).count());
        failing.let_go();
        for key in keys.iter().zip(&was_on_it).filter(|(_, was)| **was).map(|(key, _)| key) {
            rig.store(key, ONE, false).await;
        }
        for key in &keys {
            assert!(rig.has(key, 0, ONE).await, "{fault:?}: {key} is on the two that are left");
        }
        rig.restart().await;
        assert_eq!(rig.is_given_up(1), Some(reason), "{fault:?}: the verdict outlasts a restart");
        failing.begin(Fault::None);
        let path = rig.config.devices[1].path.clone();
        rig.disk().restore(&path).await.expect("it works again");
        for key in &keys {
            assert!(rig.has(key, 0, ONE).await, "{fault:?}: {key}");
        }
    }
}

#[tokio::test]
async fn a_device_that_hangs_fills_the_queue_and_that_is_no_error() {
    let mut rig = Rig::closed(IoChoice::Auto, &[16]);
    let failing = Failing::stands_in(&rig, 0);
    rig.open().await.expect("opens");
    rig.store("/a", ONE, false).await;
    failing.begin(Fault::Hangs);
    let mut taken = 0;
    while rig.offer(&format!("/{taken}"), 0, ONE, false).await {
        taken += 1;
    }
    assert_eq!((taken, rig.refused("queue_full")), (62, 1), "an eighth of 64 MiB, in slices with their heads");
    failing.begin(Fault::None);
    failing.let_go();
    rig.written().await;
    for n in 0..taken {
        assert!(rig.has(&format!("/{n}"), 0, ONE).await, "{n}");
    }
}

/// A device in memory that remembers everything that was done to it.
struct Recorder {
    blank: Vec<u8>,
    image: Mutex<Vec<u8>>,
    log: Mutex<Vec<Step>>,
}

enum Step {
    Write { at: usize, bytes: Vec<u8> },
    Sync,
}

impl Medium for Recorder {
    fn read_at(&self, at: u64, buf: &mut [u8]) -> io::Result<usize> {
        let at = at as usize;
        buf.copy_from_slice(&self.image.lock()[at..at + buf.len()]);
        Ok(buf.len())
    }

    fn write_at(&self, at: u64, buf: &[u8]) -> io::Result<usize> {
        let at = at as usize;
        self.image.lock()[at..at + buf.len()].copy_from_slice(buf);
        self.log.lock().push(Step::Write { at, bytes: buf.to_vec() });
        Ok(buf.len())
    }

    fn sync(&self) -> io::Result<()> {
        self.log.lock().push(Step::Sync);
        Ok(())
    }
}

impl Recorder {
    fn new(image: Vec<u8>) -> Arc<Self> {
        Arc::new(Self { blank: image.clone(), image: Mutex::new(image), log: Mutex::default() })
    }

    /// What the medium may hold when power goes at the `end`th step: all that was synced; of the rest, what `keeps` says, and of the last
    /// write the bytes before `torn`.
    fn after_crash(&self, end: usize, torn: usize, mut keeps: impl FnMut() -> bool) -> Vec<u8> {
        let log = self.log.lock();
        let mut image = self.blank.clone();
        let synced = log[..end].iter().rposition(|step| matches!(step, Step::Sync)).unwrap_or(0);
        for (n, step) in log[..end].iter().enumerate() {
            if let Step::Write { at, bytes } = step {
                let is_last = n + 1 == end;
                let length = if is_last { torn.min(bytes.len()) } else { bytes.len() };
                if n < synced || is_last || keeps() {
                    image[*at..*at + length].copy_from_slice(&bytes[..length]);
                }
            }
        }
        image
    }
}

/// Slices of the crash test are small, so that a segment holds some of all lengths.
fn length(n: u64) -> u64 {
    [ONE, 5000, 70_000, 4096, 1][n as usize % 5]
}

/// Writes so many slices, enough to seal, to reclaim and to write again. Says which were sealed, and when.
async fn small_workload(rig: &Rig, recorder: &Recorder, slices: u64) -> Vec<(usize, u64)> {
    let mut sealed = Vec::new();
    for n in 0..slices {
        let is_planned = n % 6 == 0;
        assert!(rig.offer(&format!("/{n}"), 0, length(n), is_planned).await);
        rig.written().await;
        // Used now and then, so that some are written again.
        rig.disk().used(&format!("/{}", n / 2), 0);
        if n % 9 == 8 {
            rig.disk().seal().await;
            let steps = recorder.log.lock().len();
            sealed.extend((n - 8..=n).map(|n| (steps, n)));
        }
    }
    rig.purge(Purge::Object("/3".into()));
    sealed
}

#[tokio::test]
async fn whatever_a_loss_of_power_leaves_no_wrong_byte_comes_of_it() {
    crash_everywhere(12, 12 * SLICES_PER_SEGMENT, 1).await;
}

/// So many segments that some stay open for the small records that fit what is left of them.
#[tokio::test]
async fn nor_does_any_come_of_segments_that_are_open_side_by_side() {
    crash_everywhere(16, 24 * SLICES_PER_SEGMENT, 13).await;
}

/// Lets a device of so many segments crash after each `stride`-th step of a workload of so many slices, and looks at what is left.
async fn crash_everywhere(segments: u64, slices: u64, stride: usize) {
    let seed: u64 = std::env::var("LARDER_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().expect("a seed"));
    println!("LARDER_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut rig = Rig::closed(IoChoice::Auto, &[segments]);
    let config = rig.config.devices[0].clone();
    let bytes = config.bytes.expect("a size");
    File::create(&config.path).and_then(|file| file.set_len(bytes)).expect("made");
    let recorder = Recorder::new(vec![0; bytes as usize]);
    stand_in(&config.path, recorder.clone());
    rig.open().await.expect("opens");
    let sealed = small_workload(&rig, &recorder, slices).await;
    let stats = rig.disk().stats();
    assert!(stats.evictions > 0 && stats.reinsertions > 0, "the workload reclaims: {stats:?}");
    let steps = recorder.log.lock().len();
    rig.disk = None;
    let state = ["set.json", "purges"].map(|name| rig.config.state_dir.join(name));
    let state = state.map(|path| (path.clone(), std::fs::read(path).expect("read")));
    let (mut found, mut lost) = (0, 0);
    for end in (0..=steps).step_by(stride) {
        let torn = [0, 1, 512, PAGE, PAGE + 1, 3 * PAGE, usize::MAX][random.random_range(0..7)];
        // In order and torn, as `kill -9` leaves it; or any of what was not synced, as a loss of power does.
        for is_in_order in [true, false] {
            let image = recorder.after_crash(end, torn, || is_in_order || random.next_u32() % 2 == 0);
            stand_in(&config.path, Recorder::new(image));
            rig.disk = None;
            // The state directory is on another medium; each restart begins with what the workload left.
            state.iter().for_each(|(path, content)| std::fs::write(path, content).expect("written"));
            rig.restart().await;
            for n in 0..slices {
                let is_there = rig.looks_up(&format!("/{n}"), 0, length(n)).await;
                let must_be = n % 6 == 0 && sealed.iter().any(|(at, sealed)| *sealed == n && *at < end);
                assert!(
                    is_there || !must_be,
                    "step {end}, torn at {torn}, in order: {is_in_order}: planned {n} was sealed and is gone"
                );
                assert!(!is_there || n != 3, "{n} was purged");
                (found, lost) = (found + usize::from(is_there), lost + usize::from(!is_there));
            }
            assert_eq!(rig.is_given_up(0), None);
        }
    }
    println!("{steps} steps, {found} slices found, {lost} not");
    assert!(found > steps / stride);
}
