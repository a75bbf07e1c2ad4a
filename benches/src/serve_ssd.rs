//! How fast, and for how much CPU, do slices come from a device through the cache, without a socket?
//!
//! Beside it in the same run, in turns: fio on the same file system with the same block size and depth (what the device gives), and, with
//! the feature `peers`, foyer's hybrid cache (psync, `O_DIRECT`) on the same load. Then the same reads while other objects are filled at half of what
//! the device writes, as fio finds it beside such reads and alone.

use std::{
    hint::black_box,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use cache::{Cache, Config, DeviceConfig, DiskConfig, FillError, Filler, Generation, Source, Verdict, Want};
use futures_util::{StreamExt as _, future};
use tokio::runtime;

use crate::{Report, Size, process_cpu_time};

/// Reads under way at once.
const DEPTH: usize = 16;
/// Slices of one object.
const OBJECT_SLICES: u64 = 16;
/// Rounds; the medians are told.
const ROUNDS: usize = 3;
/// A piece of a slice, as a player asks for one by a range.
const RANGE_BYTES: u64 = 64 << 10;

/// What is read, and how.
#[derive(Debug, Clone, Copy)]
struct Load {
    slice_bytes: u64,
    /// Bytes of a slice that are read each time.
    read_bytes: u64,
    /// Bytes on the device.
    total_bytes: u64,
    round: Duration,
}

/// What a round came to.
#[derive(Debug, Clone, Copy, Default)]
struct Round {
    bytes: u64,
    took: Duration,
    cpu: Duration,
}

impl Round {
    fn mb_per_s(self) -> f64 {
        self.bytes as f64 / 1e6 / self.took.as_secs_f64()
    }

    fn cpu_ms_per_gb(self) -> f64 {
        self.cpu.as_secs_f64() * 1e3 / (self.bytes as f64 / 1e9)
    }
}

/// Runs it all in `LARDER_BENCH_DIR`, or in the system's directory for temporary files.
pub fn run(size: Size) -> Report {
    let mut report = Report::new("serve_ssd", size);
    let folder = std::env::var_os("LARDER_BENCH_DIR").map_or_else(std::env::temp_dir, Into::into);
    let total_bytes = size.of(24 << 20, 4 << 30);
    let round = Duration::from_millis(size.of(50, 3000));
    let slices: &[u64] = if size == Size::Small { &[256 << 10] } else { &[1 << 20, 256 << 10, 4 << 20] };
    for slice_bytes in slices.iter().copied() {
        measure(&mut report, &folder, Load { slice_bytes, read_bytes: slice_bytes, total_bytes, round });
    }
    let slice_bytes = slices[0];
    measure(&mut report, &folder, Load { slice_bytes, read_bytes: RANGE_BYTES, total_bytes, round });
    report
}

fn measure(report: &mut Report, folder: &Path, load: Load) {
    let name = if load.read_bytes == load.slice_bytes {
        format!("{} KiB slices", load.slice_bytes >> 10)
    } else {
        format!("{} KiB of {} KiB slices", load.read_bytes >> 10, load.slice_bytes >> 10)
    };
    let folder = tempfile::tempdir_in(folder).expect("a directory to work in");
    let runtime = || runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (ours, theirs) = (runtime(), Peer::runtime());
    let stocked = ours.block_on(Stocked::new(folder.path(), load));
    let peer = theirs.block_on(Peer::new(folder.path(), load));
    let (mut larder, mut foyer, mut fio) = (Vec::new(), Vec::new(), Vec::new());
    let mut wrong = 0;
    for _ in 0..if report.size() == Size::Small { 1 } else { ROUNDS } {
        let (round, wrong_now) = ours.block_on(stocked.read(load));
        larder.push(round);
        wrong += wrong_now;
        if report.size() == Size::Full {
            fio.extend(read_by_fio(folder.path(), load));
        }
        foyer.extend(peer.as_ref().map(|peer| theirs.block_on(peer.read(load))));
    }
    report.expect(&format!("{name}: wrong bytes"), wrong, 0);
    let stats = stocked.cache.disk_stats().expect("it has a device");
    report.expect(&format!("{name}: rejected records"), stats.rejected, 0);
    if report.size() == Size::Small {
        return;
    }
    for (who, rounds) in [("larder", &larder), ("fio", &fio), ("foyer", &foyer)] {
        if !rounds.is_empty() {
            report.figure(format!("{name}, {who}"), median(rounds, Round::mb_per_s), "MB/s");
            report.figure(format!("{name}, {who}, CPU per GB"), median(rounds, Round::cpu_ms_per_gb), "ms");
        }
    }
    if load.read_bytes == load.slice_bytes && load.slice_bytes == 1 << 20 {
        ours.block_on(stocked.read_while_filling(report, folder.path(), load));
    }
    ours.block_on(stocked.cache.close());
}

fn median(rounds: &[Round], of: fn(Round) -> f64) -> f64 {
    let mut figures: Vec<f64> = rounds.iter().map(|round| of(*round)).collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// A cache whose device holds everything and whose RAM holds next to nothing.
struct Stocked {
    cache: Cache,
    source: Arc<Made>,
    objects: u64,
}

impl Stocked {
    async fn new(folder: &Path, load: Load) -> Self {
        let objects = load.total_bytes / (OBJECT_SLICES * load.slice_bytes);
        let mut disk = DiskConfig::new(folder.join("state"));
        let bytes = Some((1 << 20) + (load.total_bytes * 2).next_multiple_of(64 << 20).max(16 * (64 << 20)));
        disk.devices = vec![DeviceConfig { path: folder.join("device"), bytes }];
        let config = Config {
            // A sixteenth of what is on the device, but for the largest slices.
            ram_bytes: (load.total_bytes / 16).max(128 * load.slice_bytes),
            slice_bytes: usize::try_from(load.slice_bytes).expect("at most 4 MiB"),
            disk: Some(disk),
            ..Config::default()
        };
        let source = Arc::new(Made { length: OBJECT_SLICES * load.slice_bytes });
        let cache = Cache::start(config.clone()).await.expect("starts");
        for object in 0..objects {
            let key = key(object);
            let stocked = cache.stock(&key, 0..source.length, &source).await;
            assert_eq!(stocked.bytes_filled, source.length, "{stocked:?}");
        }
        cache.close().await;
        let cache = Cache::start(config).await.expect("starts again");
        Self { cache, source, objects }
    }

    /// Reads at random for a while, at the set depth. Counts pieces that are not what was written.
    async fn read(&self, load: Load) -> (Round, u64) {
        let (start, cpu) = (Instant::now(), process_cpu_time());
        let readers = (0..DEPTH).map(|seed| async move {
            let mut random = Random(seed as u64 + 1);
            let (mut bytes, mut wrong) = (0, 0);
            while start.elapsed() < load.round {
                let (object, slice) = (random.below(self.objects), random.below(OBJECT_SLICES));
                let within = random.below(load.slice_bytes / load.read_bytes) * load.read_bytes;
                let from = slice * load.slice_bytes + within;
                wrong += self.read_one(object, from..from + load.read_bytes).await;
                bytes += load.read_bytes;
            }
            (bytes, wrong)
        });
        let sums = future::join_all(readers).await;
        let (bytes, wrong) = sums.into_iter().fold((0, 0), |(bytes, wrong), (b, w)| (bytes + b, wrong + w));
        (Round { bytes, took: start.elapsed(), cpu: process_cpu_time() - cpu }, wrong)
    }

    /// Looks at the first and the last eight bytes of each chunk, which costs nothing; tests look at all.
    async fn read_one(&self, object: u64, range: std::ops::Range<u64>) -> u64 {
        let key = key(object);
        let opened = self.cache.open(&key, range.start, &self.source).await.expect("it is there");
        let mut reader = self.cache.read(&key, opened, range.clone(), &self.source).await.expect("it is there");
        // What had to be filled anew would be measured as something else.
        let mut wrong = u64::from(reader.verdict() == Verdict::Filled);
        let mut at = range.start;
        while let Some(chunk) = reader.next().await {
            let chunk = chunk.expect("bytes");
            let first = u64::from_le_bytes(chunk[..8].try_into().expect("8 bytes"));
            at += chunk.len() as u64;
            let last = u64::from_le_bytes(chunk[chunk.len() - 8..].try_into().expect("8 bytes"));
            wrong += u64::from(first != word(&key, at - chunk.len() as u64) || last != word(&key, at - 8));
        }
        wrong + u64::from(at != range.end)
    }

    /// The same reads alone, and while other objects are filled at half of the bandwidth that fio writes with, beside reads of its own and
    /// alone.
    async fn read_while_filling(&self, report: &mut Report, folder: &Path, load: Load) {
        let (Some(writes), Some((reads, [reads_beside, writes_beside]))) =
            (write_by_fio(folder, load), both_by_fio(folder, load))
        else {
            return;
        };
        report.figure("writes, fio alone", writes.mb_per_s(), "MB/s");
        report.figure("writes, fio beside its reads", writes_beside.mb_per_s(), "MB/s");
        report.figure("reads, fio beside its writes, of those alone", reads_beside.mb_per_s() / reads.mb_per_s() * 100.0, "%");
        for (bandwidth, fills) in [("shared", writes_beside), ("whole", writes)] {
            let (mut quiet, mut busy, mut filled) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                quiet.push(self.read(load).await.0);
                let filling = Filling::start(self.cache.clone(), load.slice_bytes, fills.mb_per_s() / 2.0);
                busy.push(self.read(load).await.0);
                filled.push(filling.stop());
            }
            let (quiet, busy) = (median(&quiet, Round::mb_per_s), median(&busy, Round::mb_per_s));
            let name = |what: &str| format!("half of the {bandwidth} write bandwidth, {what}");
            report.figure(name("reads without fills"), quiet, "MB/s");
            report.figure(name("reads beside fills"), busy, "MB/s");
            report.figure(name("fills beside reads"), median(&filled, Round::mb_per_s), "MB/s");
            report.figure(name("reads beside fills, of those without"), busy / quiet * 100.0, "%");
        }
    }
}

/// Objects filled at once.
const FILLS: u64 = 8;

/// A thread that fills objects of `length` bytes, evenly spread over time as an uplink brings them, until it is stopped.
struct Filling {
    thread: thread::JoinHandle<Round>,
    stop: Arc<AtomicBool>,
}

impl Filling {
    fn start(cache: Cache, length: u64, mb_per_s: f64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let source = Arc::new(Noise { length, block: (0..64 << 10).map(|at: u32| at as u8).collect() });
            let (start, first, before) = (Instant::now(), next_object(), written(&cache));
            let fills = (0..FILLS).map(|nth| {
                let (cache, source, stopped) = (&cache, &source, &stopped);
                async move {
                    let mut bytes = 0;
                    while !stopped.load(Ordering::Relaxed) {
                        let object = key(first + nth + bytes / length * FILLS);
                        let opened = cache.open(&object, 0, source).await.expect("it is made");
                        let mut reader = cache.read(&object, opened, 0..length, source).await.expect("it is made");
                        while reader.next().await.transpose().expect("it is made").is_some() {}
                        bytes += length;
                        let due = Duration::from_secs_f64((bytes * FILLS) as f64 / 1e6 / mb_per_s);
                        tokio::time::sleep_until((start + due).into()).await;
                    }
                }
            });
            runtime.block_on(future::join_all(fills));
            Round { bytes: written(&cache) - before, took: start.elapsed(), cpu: Duration::ZERO }
        });
        Self { thread, stop }
    }

    fn stop(self) -> Round {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("it does not panic")
    }
}

/// Bytes that went to the device.
fn written(cache: &Cache) -> u64 {
    cache.disk_stats().map_or(0, |stats| stats.devices.iter().map(|device| device.bytes_written).sum())
}

/// Objects that were never filled.
fn next_object() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed) << 32
}

/// Objects that nobody looks at.
struct Noise {
    length: u64,
    block: Vec<u8>,
}

impl Source for Noise {
    async fn fill(self: Arc<Self>, want: Want, mut filler: Filler) -> Result<(), FillError> {
        filler.head(generation(self.length))?;
        for _ in want.range.step_by(self.block.len()) {
            filler.write(&self.block)?;
        }
        Ok(())
    }
}

fn generation(length: u64) -> Generation {
    Generation {
        validator: "\"1\"".into(),
        length,
        headers: vec![("content-type".into(), "video/mp4".into())],
        fresh_for: Duration::from_secs(86_400),
        initial_age: Duration::ZERO,
        tags: Vec::new(),
    }
}

fn key(object: u64) -> Arc<str> {
    format!("/objects/{object}").into()
}

/// The eight bytes of an object at `at`.
fn word(key: &str, at: u64) -> u64 {
    let seed = key.bytes().fold(0_u64, |seed, byte| seed.wrapping_mul(31).wrapping_add(u64::from(byte)));
    (seed ^ at).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Makes objects of one length.
struct Made {
    length: u64,
}

impl Source for Made {
    async fn fill(self: Arc<Self>, want: Want, mut filler: Filler) -> Result<(), FillError> {
        filler.head(generation(self.length))?;
        let range = want.range.start..want.range.end.min(self.length);
        for piece in range.clone().step_by(64 << 10) {
            let words = (piece..(piece + (64 << 10)).min(range.end)).step_by(8);
            let bytes: Vec<u8> = words.flat_map(|at| word(&want.key, at).to_le_bytes()).collect();
            filler.write(&bytes)?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((u128::from(z ^ (z >> 31)) * u128::from(bound)) >> 64) as u64
    }
}

/// What fio reads from the same file in the same time. `None` where there is no fio.
fn read_by_fio(folder: &Path, load: Load) -> Option<Round> {
    fio("read", &["--rw=randread", "--readonly"], &folder.join("device"), load)
}

/// What fio writes to a file beside it.
fn write_by_fio(folder: &Path, load: Load) -> Option<Round> {
    fio("write", &["--rw=write"], &folder.join("fio"), load)
}

/// What fio reads alone; and what it reads and writes at the same time, as much of both as it can.
fn both_by_fio(folder: &Path, load: Load) -> Option<(Round, [Round; 2])> {
    let alone = read_by_fio(folder, load)?;
    thread::scope(|scope| {
        let writes = scope.spawn(|| write_by_fio(folder, load));
        let reads = read_by_fio(folder, load);
        Some((alone, [reads?, writes.join().ok()??]))
    })
}

fn fio(what: &str, args: &[&str], file: &Path, load: Load) -> Option<Round> {
    let seconds = load.round.as_secs().max(1);
    let output = Command::new("fio")
        .args(["--name=larder", "--ioengine=io_uring", "--direct=1", "--time_based"])
        .args(args)
        .arg(format!("--filename={}", file.display()))
        .arg(format!("--bs={}", load.read_bytes))
        .arg(format!("--iodepth={DEPTH}"))
        .arg(format!("--size={}", load.total_bytes))
        .arg(format!("--runtime={seconds}"))
        .arg("--output-format=json")
        .output()
        .ok()?;
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    let job = &report["jobs"][0];
    let took = job[what]["runtime"].as_f64()? / 1e3;
    let busy = (job["usr_cpu"].as_f64()? + job["sys_cpu"].as_f64()?) / 100.0;
    let bytes = job[what]["io_bytes"].as_u64()?;
    Some(Round { bytes, took: Duration::from_secs_f64(took), cpu: Duration::from_secs_f64(took * busy) })
}

/// foyer's hybrid cache with the same content.
#[cfg(feature = "peers")]
struct Peer {
    hybrid: foyer::HybridCache<u64, Vec<u8>>,
    slices: u64,
}

#[cfg(feature = "peers")]
impl Peer {
    /// foyer spawns its work on the runtime that it finds; psync needs threads for blocking calls, which any has.
    fn runtime() -> runtime::Runtime {
        runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
    }

    async fn new(folder: &Path, load: Load) -> Option<Self> {
        use foyer::{
            BlockEngineConfig, DeviceBuilder as _, FsDeviceBuilder, HybridCacheBuilder, HybridCachePolicy, PsyncIoEngineConfig,
        };
        let bytes = |bytes: u64| usize::try_from(bytes).expect("64 bits");
        let device = FsDeviceBuilder::new(folder.join("foyer"));
        let device =
            device.with_capacity(bytes((load.total_bytes * 3 / 2).max(1 << 30))).with_direct(true).build().expect("a device");
        let engine = BlockEngineConfig::new(device).with_block_size(64 << 20).with_buffer_pool_size(256 << 20);
        let hybrid = HybridCacheBuilder::new()
            .with_policy(HybridCachePolicy::WriteOnInsertion)
            .memory(bytes((load.total_bytes / 16).max(128 * load.slice_bytes)))
            .with_weighter(|_: &u64, value: &Vec<u8>| value.len())
            .storage()
            .with_io_engine_config(PsyncIoEngineConfig::new())
            .with_engine_config(engine)
            .build()
            .await
            .expect("a cache");
        let slices = load.total_bytes / load.slice_bytes;
        for slice in 0..slices {
            hybrid
                .insert(slice, (0..load.slice_bytes).step_by(8).flat_map(|at| word("foyer", slice ^ at).to_le_bytes()).collect());
            if slice % 32 == 31 {
                // What it has no time for it drops.
                hybrid.storage().wait().await;
            }
        }
        hybrid.storage().wait().await;
        Some(Self { hybrid, slices })
    }

    /// The same reads. It knows no ranges: whoever wants a part reads the whole.
    async fn read(&self, load: Load) -> Round {
        let (start, cpu) = (Instant::now(), process_cpu_time());
        let readers = (0..DEPTH).map(|seed| async move {
            let mut random = Random(seed as u64 + 1);
            let mut bytes = 0;
            while start.elapsed() < load.round {
                let slice = random.below(self.slices);
                let Some(entry) = self.hybrid.get(&slice).await.expect("no error") else { continue };
                let first = u64::from_le_bytes(entry.value()[..8].try_into().expect("8 bytes"));
                assert_eq!(first, word("foyer", slice));
                bytes += black_box(load.read_bytes);
            }
            bytes
        });
        let bytes = future::join_all(readers).await.into_iter().sum();
        Round { bytes, took: start.elapsed(), cpu: process_cpu_time() - cpu }
    }
}

#[cfg(not(feature = "peers"))]
struct Peer;

#[cfg(not(feature = "peers"))]
impl Peer {
    fn runtime() -> runtime::Runtime {
        runtime::Builder::new_current_thread().build().expect("a runtime")
    }

    async fn new(_: &Path, _: Load) -> Option<Self> {
        None
    }

    async fn read(&self, load: Load) -> Round {
        black_box(load);
        Round::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_small_size_holds() {
        run(Size::Small);
    }
}
