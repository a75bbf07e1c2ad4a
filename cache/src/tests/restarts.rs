//! Versions and plans over restarts, with devices.

use tempfile::TempDir;

use super::*;

const FAR: u64 = 150;
const LENGTH: u64 = 200 * SLICE as u64;

/// A machine: its files outlast its caches.
struct Machine {
    folder: TempDir,
    segments: u64,
}

impl Machine {
    fn new(segments: u64) -> Self {
        Self { folder: tempfile::tempdir().expect("a directory"), segments }
    }

    async fn start(&self) -> Cache {
        Cache::start(self.config()).await.expect("starts")
    }

    async fn start_before_devices(&self) -> Cache {
        Cache::start_before_devices(self.config()).await.expect("starts")
    }

    fn config(&self) -> Config {
        let mut disk = DiskConfig::new(self.folder.path().join("state"));
        disk.segment_bytes = 1 << 20;
        disk.devices = vec![DeviceConfig { path: self.folder.path().join("device"), bytes: Some((self.segments + 1) << 20) }];
        disk.device_timeout = Duration::from_secs(60);
        Config { memory_wait_max: Duration::from_secs(20), disk: Some(disk), ..config(16 << 20) }
    }

    async fn restart(&self, cache: Cache) -> Cache {
        becomes(|| cache.stats().flights == 0).await;
        cache.close().await;
        self.start().await
    }
}

fn slice(index: u64) -> Range<u64> {
    index * SLICE as u64..(index + 1) * SLICE as u64
}

async fn reads(cache: &Cache, source: &Arc<Fake>, index: u64) -> Vec<u8> {
    let (_, bytes) = read(cache, source, slice(index)).await.expect("bytes");
    assert_eq!(bytes.len(), SLICE);
    bytes
}

fn doubts(cache: &Cache) -> u64 {
    cache.disk_stats().expect("devices").doubts
}

fn next_version(source: &Fake) {
    source.version.fetch_add(1, std::sync::atomic::Ordering::AcqRel);
}

#[tokio::test]
async fn a_version_far_away_that_was_replaced_while_nothing_was_known_of_it_does_not_come_back() {
    let (machine, source) = (Machine::new(16), Fake::new(LENGTH));
    let cache = machine.start().await;
    assert!(reads(&cache, &source, FAR).await == source.bytes(slice(FAR)));
    let cache = machine.restart(cache).await;
    next_version(&source);
    assert!(reads(&cache, &source, 0).await == source.bytes(slice(0)), "nothing near was there, so the source was asked");
    assert_eq!(doubts(&cache), 1);
    let mut cache = machine.restart(cache).await;
    assert_eq!(doubts(&cache), 1);
    for _ in 0..2 {
        let asks = source.asks();
        assert!(reads(&cache, &source, FAR).await == source.bytes(slice(FAR)), "and not what stood there");
        assert!(source.asks() > asks || source.asks() == 3);
        cache = machine.restart(cache).await;
    }
    let asks = source.asks();
    assert!(reads(&cache, &source, FAR).await == source.bytes(slice(FAR)));
    assert_eq!(source.asks(), asks, "what came since is believed");
}

#[tokio::test]
async fn what_is_doubted_and_turns_out_to_be_the_same_costs_a_question_and_no_bytes() {
    let (machine, source) = (Machine::new(16), Fake::new(LENGTH));
    let cache = machine.start().await;
    reads(&cache, &source, FAR).await;
    let cache = machine.restart(cache).await;
    reads(&cache, &source, 0).await;
    let cache = machine.restart(cache).await;
    let (asks, chunks) = (source.asks(), source.chunks.load(std::sync::atomic::Ordering::Acquire));
    assert!(reads(&cache, &source, FAR).await == source.bytes(slice(FAR)));
    assert_eq!((source.asks(), source.chunks.load(std::sync::atomic::Ordering::Acquire)), (asks + 1, chunks));
    assert!(source.asked.lock().last().expect("asked").revalidate);
    assert!(reads(&cache, &source, 0).await == source.bytes(slice(0)));
    assert_eq!(source.asks(), asks + 1, "it is known from then on");
    cache.close().await;
}

#[tokio::test]
async fn an_object_that_is_nowhere_is_not_doubted() {
    let (machine, source) = (Machine::new(16), Fake::new(LENGTH));
    let cache = machine.start().await;
    for index in [0, FAR, FAR + 1, 3] {
        reads(&cache, &source, index).await;
    }
    let cache = machine.restart(cache).await;
    let asks = source.asks();
    // From near and from afar: what is there says which version it is.
    for index in [FAR + 20, 1] {
        reads(&cache, &source, index).await;
    }
    assert_eq!((doubts(&cache), cache.disk_stats().expect("devices").purges), (0, 0));
    assert_eq!(source.asks(), asks + 2);
    cache.close().await;
}

#[tokio::test]
async fn a_version_that_came_after_a_purge_and_was_replaced_does_not_come_back() {
    let (machine, source) = (Machine::new(16), Fake::new(LENGTH));
    let cache = machine.start().await;
    for index in 0..3 {
        reads(&cache, &source, index).await;
    }
    becomes(|| cache.disk_stats().is_some_and(|stats| stats.slices == 3)).await;
    cache.purge(Purge::Object(key().to_string())).await.expect("noted");
    next_version(&source);
    reads(&cache, &source, 2).await;
    let cache = machine.restart(cache).await;
    next_version(&source);
    assert!(reads(&cache, &source, 0).await == source.bytes(slice(0)), "what stands there was purged");
    let cache = machine.restart(cache).await;
    assert!(reads(&cache, &source, 2).await == source.bytes(slice(2)), "and what stands here was replaced");
    cache.close().await;
}

#[tokio::test]
async fn an_object_that_its_source_had_no_more_does_not_come_back_from_afar() {
    let (machine, source) = (Machine::new(16), Fake::new(LENGTH));
    let cache = machine.start().await;
    reads(&cache, &source, FAR).await;
    let cache = machine.restart(cache).await;
    source.fails([Fault::Fails(FillError::NotFound)]);
    assert_eq!(read(&cache, &source, slice(0)).await.err(), Some(FillError::NotFound));
    becomes(|| cache.disk_stats().is_some_and(|stats| stats.purges == 1)).await;
    let cache = machine.restart(cache).await;
    source.fails([Fault::Fails(FillError::NotFound)]);
    assert_eq!(read(&cache, &source, slice(FAR)).await.err(), Some(FillError::NotFound));
    cache.close().await;
}

#[tokio::test]
async fn slices_of_a_version_that_was_replaced_are_not_mixed_with_those_of_the_new_one() {
    let (machine, source) = (Machine::new(24), Fake::new(8 * SLICE as u64));
    // The source is asked at each opening.
    source.fresh.store(false, std::sync::atomic::Ordering::Release);
    let mut cache = machine.start().await;
    for round in 0..6 {
        read(&cache, &source, 0..source.length).await.expect("bytes");
        cache = machine.restart(cache).await;
        next_version(&source);
        // Of the new version some is seen, of the old one all else is there.
        assert!(reads(&cache, &source, round).await == source.bytes(slice(round)));
        cache = machine.restart(cache).await;
        let (_, bytes) = read(&cache, &source, 0..source.length).await.expect("bytes");
        assert!(bytes == source.bytes(0..source.length), "round {round}");
    }
    cache.close().await;
}

async fn stock(cache: &Cache, source: &Arc<Fake>, keys: &[Arc<str>]) -> Stocked {
    let mut sum = Stocked::default();
    for key in keys {
        let stocked = cache.stock(key, 0..u64::MAX, source).await;
        assert_eq!(stocked.stopped_by, None);
        sum.bytes_filled += stocked.bytes_filled;
        sum.bytes_there += stocked.bytes_there;
        sum.bytes_moved += stocked.bytes_moved;
        sum.bytes_refused += stocked.bytes_refused;
    }
    sum
}

#[tokio::test]
async fn what_came_on_demand_and_is_stocked_outlasts_a_flood_and_a_restart() {
    const LENGTH: u64 = 2 * SLICE as u64 - 100;
    let (machine, source) = (Machine::new(24), Fake::new(LENGTH));
    let cache = machine.start().await;
    let key = |name: &str, n: u64| Arc::<str>::from(format!("/{name}/{n}"));
    let view = async |cache: &Cache, key: &Arc<str>| {
        let opened = cache.open(key, 0, &source).await.expect("opens");
        let reader = cache.read(key, opened, 0..LENGTH, &source).await.expect("bytes");
        let chunks: Vec<Bytes> = reader.try_collect().await.expect("bytes");
        assert!(chunks.concat() == source.bytes(0..LENGTH));
        becomes(|| cache.disk_stats().is_some_and(|stats| stats.bytes_queued == 0)).await;
    };
    let (wanted, unwanted): (Vec<_>, Vec<_>) =
        ((0..6).map(|n| key("wanted", n)).collect(), (0..6).map(|n| key("unwanted", n)).collect());
    for key in wanted.iter().chain(&unwanted) {
        view(&cache, key).await;
    }
    let before = cache.disk_stats().expect("devices");
    let asks = source.asks();
    assert_eq!(stock(&cache, &source, &wanted).await, Stocked { bytes_moved: 6 * LENGTH, ..Stocked::default() });
    assert_eq!(stock(&cache, &source, &wanted).await, Stocked { bytes_there: 6 * LENGTH, ..Stocked::default() });
    assert_eq!(source.asks(), asks, "nothing was fetched");
    becomes(|| cache.disk_stats().is_some_and(|stats| stats.devices[0].depth == 0)).await;
    let after = cache.disk_stats().expect("devices");
    assert_eq!((after.planned_again - before.planned_again, after.slices), (12, before.slices));
    assert!(after.devices[0].bytes_written >= before.devices[0].bytes_written + 6 * LENGTH, "it was written");
    assert_eq!(after.bytes_admitted, before.bytes_admitted, "but it is nothing new");
    for n in 0..150 {
        view(&cache, &key("flood", n)).await;
    }
    let cache = machine.restart(cache).await;
    let asks = source.asks();
    for key in &wanted {
        view(&cache, key).await;
    }
    assert_eq!(source.asks(), asks, "all of it is still there");
    for key in &unwanted {
        view(&cache, key).await;
    }
    assert!(source.asks() > asks, "what was not stocked had to go");
    assert_eq!(stock(&cache, &source, &wanted).await, Stocked { bytes_there: 6 * LENGTH, ..Stocked::default() });
    cache.close().await;
}

#[tokio::test]
async fn what_does_not_fit_planned_content_stays_on_demand() {
    let (machine, source) = (Machine::new(8), Fake::new(SLICE as u64));
    let cache = machine.start().await;
    let keys: Vec<Arc<str>> = (0..9).map(|n| format!("/{n}").into()).collect();
    for key in &keys {
        let opened = cache.open(key, 0, &source).await.expect("opens");
        cache.read(key, opened, 0..source.length, &source).await.expect("bytes").try_collect::<Vec<_>>().await.expect("bytes");
        becomes(|| cache.disk_stats().is_some_and(|stats| stats.bytes_queued == 0)).await;
    }
    // Planned content may have two of eight segments, with three slices each.
    let stocked = stock(&cache, &source, &keys).await;
    let bytes = source.length;
    assert_eq!(stocked, Stocked { bytes_moved: 6 * bytes, bytes_refused: 3 * bytes, ..Stocked::default() });
    let stats = cache.disk_stats().expect("devices");
    let planned_full = stats.refused.iter().find(|(reason, _)| *reason == "planned_full").expect("a reason").1;
    assert_eq!((planned_full, stats.slices, source.asks()), (3, 9, 9));
    cache.close().await;
}

#[tokio::test]
async fn what_is_found_in_ram_all_the_time_is_kept_on_ssd_as_well() {
    let (machine, source) = (Machine::new(24), Fake::new(SLICE as u64));
    let cache = machine.start().await;
    let view = async |name: &str| {
        let key = Arc::<str>::from(name);
        let opened = cache.open(&key, 0, &source).await.expect("opens");
        let reader = cache.read(&key, opened, 0..source.length, &source).await.expect("bytes");
        let verdict = reader.verdict();
        reader.try_collect::<Vec<_>>().await.expect("bytes");
        becomes(|| cache.disk_stats().is_some_and(|stats| stats.bytes_queued == 0)).await;
        verdict
    };
    for name in ["/wanted", "/once"] {
        assert_eq!(view(name).await, Verdict::Filled);
    }
    // Enough to fill the device twice.
    for n in 0..400 {
        view(&format!("/flood/{n}")).await;
        assert_eq!(view("/wanted").await, Verdict::Ram, "after {n} others");
    }
    let is_on_ssd = |key: &str| cache.0.is_on_ssd(SliceName { key, index: 0 });
    assert_eq!((is_on_ssd("/wanted"), is_on_ssd("/once")), (true, false));
    cache.close().await;
}

#[tokio::test]
async fn a_cache_that_begins_before_its_devices_are_free_finds_them_later_and_purges_hold_on_them() {
    let (machine, source) = (Machine::new(16), Fake::new(LENGTH));
    let before = machine.start().await;
    for index in [0, FAR] {
        assert!(reads(&before, &source, index).await == source.bytes(slice(index)));
    }
    becomes(|| before.disk_stats().is_some_and(|stats| stats.slices == 2)).await;

    let after = machine.start_before_devices().await;
    assert_eq!((after.seed(), after.disk_stats().is_none()), (before.seed(), true));
    let asks = source.asks();
    assert!(reads(&after, &source, 0).await == source.bytes(slice(0)), "from the source, meanwhile");
    assert_eq!(source.asks(), asks + 1);
    before.close().await;
    after.adopt().await.expect("the devices are free");
    assert!(reads(&after, &source, FAR).await == source.bytes(slice(FAR)));
    assert_eq!((source.asks(), after.stats().ssd_hits), (asks + 1, 1), "from the devices");

    // A purge that comes too early is confirmed once it is written down.
    let next = machine.start_before_devices().await;
    let purged = tokio::spawn({
        let next = next.clone();
        async move { next.purge(Purge::All).await }
    });
    tokio::task::yield_now().await;
    assert!(!purged.is_finished());
    after.close().await;
    next.adopt().await.expect("the devices are free");
    purged.await.expect("no panic").expect("written down");
    let asks = source.asks();
    assert!(reads(&next, &source, FAR).await == source.bytes(slice(FAR)));
    assert_eq!(source.asks(), asks + 1, "what was there is purged");
    let next = machine.restart(next).await;
    assert!(reads(&next, &source, FAR).await == source.bytes(slice(FAR)));
    assert_eq!(source.asks(), asks + 1, "what came since is not");
}

#[tokio::test]
async fn what_is_learnt_before_the_devices_are_free_is_not_forgotten_for_an_older_version_on_them() {
    let (machine, source) = (Machine::new(16), Fake::new(LENGTH));
    let before = machine.start().await;
    assert!(reads(&before, &source, FAR).await == source.bytes(slice(FAR)));
    becomes(|| before.disk_stats().is_some_and(|stats| stats.slices == 1)).await;
    let after = machine.start_before_devices().await;
    next_version(&source);
    assert!(reads(&after, &source, 0).await == source.bytes(slice(0)));
    before.close().await;
    after.adopt().await.expect("the devices are free");
    let after = machine.restart(after).await;
    assert!(reads(&after, &source, FAR).await == source.bytes(slice(FAR)), "and not what stood there");
}

#[tokio::test]
async fn devices_that_cannot_be_had_leave_a_cache_in_ram_whose_purges_are_not_confirmed() {
    let (machine, source) = (Machine::new(16), Fake::new(LENGTH));
    let before = machine.start().await;
    let after = machine.start_before_devices().await;
    let error = after.adopt().await.expect_err("another cache has them").to_string();
    assert!(error.contains("another process"), "{error}");
    assert!(reads(&after, &source, 0).await == source.bytes(slice(0)));
    let error = after.purge(Purge::All).await.expect_err("it would come back").to_string();
    assert!(error.contains("devices could not be opened"), "{error}");
    before.close().await;
}

#[tokio::test]
async fn slices_that_are_forgotten_give_their_memory_back() {
    let source = Fake::new(LENGTH);
    let cache = Cache::new(config(16 << 20));
    assert!(reads(&cache, &source, 0).await == source.bytes(slice(0)));
    becomes(|| cache.stats().flights == 0 && cache.stats().slices > 0).await;
    cache.forget_slices();
    becomes(|| cache.stats().ram_bytes == 0).await;
    assert!(reads(&cache, &source, 0).await == source.bytes(slice(0)));
}
