//! What the policies make of traffic of many kinds, made up from seeds.

use super::*;
use crate::policy::tests::hash;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// In little: about 60 records in a segment, as production has them.
const SLICE: u64 = 32 * KIB;
const SEGMENT: u64 = MIB;

const OTHERS: [Policy; 5] = [Policy::Lru, Policy::Fifo, Policy::S3Fifo, Policy::Sieve, Policy::Lfu];

fn tiers(ram_bytes: u64, ssd_bytes: u64) -> Tiers {
    Tiers { ram_bytes, ram_policy: Policy::S3Fifo, ssd_bytes, segment_bytes: SEGMENT, slice_bytes: SLICE }
}

/// An object's bytes: 1 to 24 KiB, the same each time.
fn bytes_of(object: u64) -> u64 {
    KIB + hash(object) % (23 * KIB)
}

/// Numbers from a seed.
struct Rng(u64);

impl Rng {
    fn new(seed: u64) -> Self {
        Self(hash(seed))
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(1);
        hash(self.0) % bound
    }

    /// From 0 to less than 1.
    fn part(&mut self) -> f64 {
        self.below(1 << 53) as f64 / (1_u64 << 53) as f64
    }
}

/// Draws numbers below a bound, the small ones most often: the n-th with a weight of n^-exponent.
struct Zipf(Vec<f64>);

impl Zipf {
    fn new(bound: u64, exponent: f64) -> Self {
        let mut sum = 0.0;
        let mut sums = Vec::new();
        for rank in 1..=bound {
            sum += (rank as f64).powf(-exponent);
            sums.push(sum);
        }
        Self(sums.iter().map(|part| part / sum).collect())
    }

    fn draw(&self, rng: &mut Rng) -> u64 {
        let draw = rng.part();
        self.0.partition_point(|sum| *sum < draw) as u64
    }
}

/// Traffic of all kinds. Lengths are in thousands of requests, times a scale.
struct Traffic {
    scale: u64,
}

impl Traffic {
    /// Far from all other objects' numbers.
    const APART: u64 = 1 << 40;

    fn requests(&self) -> u64 {
        self.scale * 120_000
    }

    fn objects(&self) -> u64 {
        self.scale * 40_000
    }

    /// A steady popularity; of all requests, `once` are for what is asked for once.
    fn zipf(&self, exponent: f64, once: f64) -> Vec<u64> {
        let (zipf, mut rng) = (Zipf::new(self.objects(), exponent), Rng::new(1));
        (0..self.requests()).map(|at| if rng.part() < once { Self::APART + at } else { zipf.draw(&mut rng) }).collect()
    }

    /// A third of the time somebody goes through a library from end to end.
    fn scans(&self) -> Vec<u64> {
        let (zipf, mut rng) = (Zipf::new(self.objects(), 0.9), Rng::new(2));
        let is_scan = |at: u64| at / (self.scale * 3000) % 3 == 2;
        let library = self.scale * 20_000;
        (0..self.requests()).map(|at| if is_scan(at) { Self::APART + at % library } else { zipf.draw(&mut rng) }).collect()
    }

    /// Every so often, other objects are the popular ones.
    fn shifts(&self) -> Vec<u64> {
        let (zipf, mut rng) = (Zipf::new(self.objects(), 0.9), Rng::new(3));
        let (often, by) = (self.scale * 20_000, self.scale * 5000);
        (0..self.requests()).map(|at| (zipf.draw(&mut rng) + at / often * by) % self.objects()).collect()
    }

    /// Over and over through more than fits.
    fn a_loop(&self) -> Vec<u64> {
        (0..self.requests()).map(|at| at % (self.scale * 16_000)).collect()
    }

    /// A loop, and viewers besides.
    fn a_loop_and_viewers(&self) -> Vec<u64> {
        let (zipf, mut rng) = (Zipf::new(self.objects(), 0.9), Rng::new(4));
        let mut looped = (0..self.scale * 20_000).map(|at| Self::APART + at).cycle();
        let mut next = || looped.next().expect("it is endless");
        (0..self.requests()).map(|_| if rng.part() < 0.4 { next() } else { zipf.draw(&mut rng) }).collect()
    }

    /// Viewers go through titles of 30 objects in order, and leave now and then.
    fn sessions(&self) -> Vec<u64> {
        let (zipf, mut rng) = (Zipf::new(self.objects() / 30, 0.8), Rng::new(5));
        let mut viewers: Vec<u64> = (0..200).map(|_| zipf.draw(&mut rng) * 30).collect();
        let mut next = |_| {
            let viewer = &mut viewers[rng.below(200) as usize];
            let object = *viewer;
            let is_over = object % 30 == 29 || rng.part() < 0.03;
            *viewer = if is_over { zipf.draw(&mut rng) * 30 } else { object + 1 };
            object
        };
        (0..self.requests()).map(&mut next).collect()
    }

    /// What is new is watched, and soon forgotten.
    fn releases(&self) -> Vec<u64> {
        let mut rng = Rng::new(6);
        let lately = self.scale as f64 * 2000.0;
        let mut next = |at: u64| {
            let newest = at / 4 + self.scale * 2000;
            let age = -(1.0 - rng.part()).ln() * lately;
            if rng.part() < 0.15 { rng.below(newest) } else { newest.saturating_sub(age as u64) }
        };
        (0..self.requests()).map(&mut next).collect()
    }

    fn kinds(&self) -> Vec<(&'static str, Vec<u64>)> {
        vec![
            ("zipf 0.6", self.zipf(0.6, 0.0)),
            ("zipf 0.8", self.zipf(0.8, 0.0)),
            ("zipf 1.0", self.zipf(1.0, 0.0)),
            ("zipf 1.2", self.zipf(1.2, 0.0)),
            ("zipf 0.6, 30 % once", self.zipf(0.6, 0.3)),
            ("zipf 0.8, 30 % once", self.zipf(0.8, 0.3)),
            ("zipf 1.0, 30 % once", self.zipf(1.0, 0.3)),
            ("zipf 1.2, 30 % once", self.zipf(1.2, 0.3)),
            ("zipf 1.0, 60 % once", self.zipf(1.0, 0.6)),
            ("scans", self.scans()),
            ("shifts", self.shifts()),
            ("a loop", self.a_loop()),
            ("a loop and viewers", self.a_loop_and_viewers()),
            ("sessions", self.sessions()),
            ("releases", self.releases()),
        ]
    }
}

fn replayed(mut cache: Replay, objects: &[u64]) -> Outcome {
    objects.iter().for_each(|object| cache.request(*object, bytes_of(*object)));
    cache.outcome()
}

/// Byte hit ratio in percent.
fn percent(outcome: Outcome) -> f64 {
    100.0 - outcome.bytes_origin() as f64 * 100.0 / outcome.bytes as f64
}

/// A device of so many bytes beside the best of the others: its hit ratio less theirs, in percentage points, and its write amplification.
fn beside_the_best(bytes: u64, objects: &[u64]) -> (f64, f64, f64) {
    let others = OTHERS.map(|policy| percent(replayed(Replay::of_foyer(policy, bytes, SLICE), objects)));
    let best = others.into_iter().fold(0.0, f64::max);
    let ours = replayed(Replay::new(tiers(0, bytes)), objects);
    (best, percent(ours) - best, ours.write_amplification().expect("something is written"))
}

/// On a device of 150 segments. The first way is LRU, and finding out that another is better takes a part of so short a trace.
#[test]
fn the_ssd_keeps_nearly_what_the_best_of_all_policies_keeps_whatever_the_traffic() {
    for (name, objects) in (Traffic { scale: 1 }).kinds() {
        let (best, more, amplification) = beside_the_best(150 * MIB, &objects);
        assert!(more >= -1.0, "{name}: {more:+.2} from {best:.2}");
        // A half for what is admitted, and a tenth for what is asked for.
        assert!(amplification <= 1.5 + 0.1 * 100.0 / (100.0 - best - more), "{name}: {amplification:.2}");
    }
}

/// The long mode of the test above: prints a table.
#[test]
#[ignore = "takes minutes: cargo test --release -p cache all_kinds_of_traffic -- --ignored --nocapture"]
fn all_kinds_of_traffic_on_devices_of_several_sizes() {
    for (name, objects) in (Traffic { scale: 4 }).kinds() {
        for segments in [100, 300, 600] {
            let (best, more, amplification) = beside_the_best(segments * SEGMENT, &objects);
            println!("{name:24} {segments:4} segments: best {best:6.2} %, ours {more:+6.2}, writes x {amplification:.2}");
        }
    }
}

#[test]
fn of_a_loop_that_does_not_fit_a_half_is_kept() {
    let objects = Traffic { scale: 1 }.a_loop();
    assert_eq!(percent(replayed(Replay::of_foyer(Policy::Lru, 150 * MIB, SLICE), &objects)), 0.0);
    let ours = percent(replayed(Replay::new(tiers(0, 150 * MIB)), &objects));
    assert!(ours > 35.0, "{ours}");
}

#[test]
fn the_same_requests_have_the_same_outcome_on_every_machine() {
    let objects = Traffic { scale: 1 }.zipf(0.9, 0.2);
    let outcome = replayed(Replay::new(tiers(10 * MIB, 100 * MIB)), &objects[..60_000]);
    let expected = Outcome {
        requests: 60_000,
        bytes: 789_833_571,
        bytes_ram: 282_255_100,
        bytes_ssd: 102_456_466,
        objects_ram: 20_586,
        objects_hit: 28_472,
        bytes_offered: 596_766_720,
        bytes_admitted: 596_766_720,
        bytes_rewritten: 62_345_216,
    };
    assert_eq!(outcome, expected);
}

#[test]
fn the_one_that_knows_the_future_is_not_beaten() {
    let objects = Traffic { scale: 1 }.shifts();
    let mut farthest = Farthest::new(SLICE);
    objects.iter().for_each(|object| farthest.learn(*object, SLICE).expect("few requests"));
    let outcome = farthest.replay(100 * MIB);
    for policy in OTHERS {
        let mut other = Replay::of_foyer(policy, 100 * MIB, SLICE);
        objects.iter().for_each(|object| other.request(*object, SLICE));
        assert!(percent(outcome) > percent(other.outcome()), "{policy}");
        assert_eq!((outcome.requests, outcome.bytes), (other.outcome().requests, other.outcome().bytes));
    }
}

#[test]
fn the_one_that_knows_the_future_gives_up_what_is_wanted_latest() {
    let mut farthest = Farthest::new(SLICE);
    // Room for two: at the third, 1 is wanted later than 2 and 3.
    [1, 2, 3, 2, 3, 1].into_iter().for_each(|object| farthest.learn(object, 1000).expect("few requests"));
    let outcome = farthest.replay(2 * charged(1000));
    assert_eq!((outcome.requests, outcome.objects_hit, outcome.bytes_ram), (6, 2, 2000));
    assert_eq!(farthest.replay(3 * charged(1000)).objects_hit, 3);
}

#[test]
fn an_object_is_hit_only_if_all_of_its_slices_are() {
    let mut cache = Replay::new(tiers(100 * MIB, 0));
    cache.request(7, 2 * SLICE + 10);
    cache.request(7, 2 * SLICE + 10);
    // One more slice, and the last that was known is longer now.
    cache.request(7, 4 * SLICE);
    cache.request(7, SLICE);
    let outcome = cache.outcome();
    assert_eq!((outcome.requests, outcome.objects_hit, outcome.objects_ram), (4, 2, 2));
    assert_eq!(outcome.bytes_ram, 2 * SLICE + 10 + 2 * SLICE + SLICE);
    assert_eq!(outcome.bytes_origin(), 2 * SLICE + 10 + 2 * SLICE);
}

#[test]
fn what_ram_gives_up_the_ssd_still_has() {
    let objects: Vec<u64> = (0..2000).collect();
    let mut cache = Replay::new(tiers(2 * MIB, 100 * MIB));
    for object in objects.iter().chain(&objects) {
        cache.request(*object, bytes_of(*object));
    }
    let outcome = cache.outcome();
    assert_eq!(outcome.objects_hit, 2000, "the second time, all are there");
    assert!(outcome.bytes_ssd > outcome.bytes_ram);
    assert_eq!(outcome.bytes_admitted, outcome.bytes_offered);
}

#[test]
fn no_tier_keeps_nothing_and_an_object_of_no_bytes_is_a_hit() {
    let mut cache = Replay::new(tiers(0, 0));
    cache.request(1, 10);
    cache.request(1, 10);
    cache.request(2, 0);
    let outcome = cache.outcome();
    assert_eq!((outcome.requests, outcome.bytes_origin(), outcome.objects_hit), (3, 20, 1));
    assert_eq!(outcome.write_amplification(), None);
}

#[test]
fn first_requests_are_for_objects_and_for_bytes_never_asked_for() {
    let mut seen = Seen::default();
    for (object, bytes) in [(1, 100), (1, 50), (1, 150), (2, 0), (2, 10)] {
        seen.request(object, bytes);
    }
    assert_eq!((seen.objects(), seen.first_requests, seen.first_bytes), (2, 2, 160));
}
