//! One object that can change, fail and be held back.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        LazyLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::*;

pub(crate) struct Fake {
    pub(crate) length: u64,
    pub(crate) version: AtomicU64,
    pub(crate) fresh: AtomicBool,
    pub(crate) tags: Vec<String>,
    /// Fills may go on as long as there are permits: one per chunk.
    pub(crate) gate: Semaphore,
    pub(crate) attempts_max: AtomicU32,
    pub(crate) is_elsewhere: AtomicBool,
    pub(crate) asked: Mutex<Vec<Want>>,
    /// What goes wrong in the next attempts, one each.
    pub(crate) faults: Mutex<VecDeque<Fault>>,
    /// Chunks written, all fills together.
    pub(crate) chunks: AtomicU64,
    /// Fills that are being asked for now.
    pub(crate) at_once: AtomicU64,
}

pub(crate) enum Fault {
    None,
    Fails(FillError),
    FailsAfter(usize, FillError),
    EndsAfter(usize),
    SendsTooMuch,
    Panics,
    StallsAfter(usize),
    /// So many bytes at a time, each so long after the one before.
    Trickles(usize, Duration),
}

impl Fake {
    pub(crate) fn new(length: u64) -> Arc<Self> {
        Arc::new(Self::of(length))
    }

    pub(crate) fn of(length: u64) -> Self {
        Self {
            length,
            version: AtomicU64::new(1),
            fresh: AtomicBool::new(true),
            tags: vec!["film".into()],
            gate: Semaphore::new(1 << 20),
            attempts_max: AtomicU32::new(2),
            is_elsewhere: AtomicBool::new(false),
            asked: Mutex::default(),
            faults: Mutex::default(),
            chunks: AtomicU64::new(0),
            at_once: AtomicU64::new(0),
        }
    }

    /// Lets nothing through until permits are added.
    pub(crate) fn gated(length: u64) -> Arc<Self> {
        Arc::new(Self { gate: Semaphore::new(0), ..Self::of(length) })
    }

    pub(crate) fn fails(&self, faults: impl IntoIterator<Item = Fault>) {
        self.faults.lock().extend(faults);
    }

    pub(crate) fn bytes(&self, range: Range<u64>) -> Vec<u8> {
        Self::bytes_of(self.version.load(Ordering::Relaxed), range)
    }

    /// The same noise again and again, from another place on for each version. Its length has no factor in common with that of a slice.
    pub(crate) fn bytes_of(version: u64, range: Range<u64>) -> Vec<u8> {
        static NOISE: LazyLock<Vec<u8>> = LazyLock::new(|| {
            let noise = (0..65_521u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8 ^ (at >> 8) as u8);
            noise.collect()
        });
        let length = (range.end - range.start) as usize;
        let mut bytes = Vec::with_capacity(length);
        let mut at = ((range.start + version * 7919) % NOISE.len() as u64) as usize;
        while bytes.len() < length {
            let count = (length - bytes.len()).min(NOISE.len() - at);
            bytes.extend_from_slice(&NOISE[at..at + count]);
            at = 0;
        }
        bytes
    }

    pub(crate) fn generation(&self) -> Generation {
        self.generation_of(self.version.load(Ordering::Relaxed))
    }

    fn generation_of(&self, version: u64) -> Generation {
        Generation {
            validator: format!("\"v{version}\""),
            length: self.length,
            headers: vec![("content-type".into(), "video/mp4".into())],
            fresh_for: if self.fresh.load(Ordering::Relaxed) { Duration::from_secs(60) } else { Duration::ZERO },
            initial_age: Duration::ZERO,
            tags: self.tags.clone(),
        }
    }

    /// How often it was asked, revalidations included.
    pub(crate) fn asks(&self) -> usize {
        self.asked.lock().len()
    }

    /// How often it was asked for each slice.
    pub(crate) fn asks_by_slice(&self) -> HashMap<u64, u32> {
        let mut by_slice = HashMap::new();
        for want in &*self.asked.lock() {
            *by_slice.entry(want.range.start / SLICE as u64).or_default() += 1;
        }
        by_slice
    }

    async fn serve(&self, want: Want, mut filler: Filler) -> Result<(), FillError> {
        let fault = self.faults.lock().pop_front().unwrap_or(Fault::None);
        match fault {
            Fault::Fails(error) => return Err(error),
            Fault::Panics => panic!("a source that panics"),
            _ => (),
        }
        let version = self.version.load(Ordering::Acquire);
        let generation = self.generation_of(version);
        if let Some(known) = &want.generation {
            match want.revalidate {
                true if known.same_bytes(&generation) => return filler.unchanged(),
                false if !known.same_bytes(&generation) => return Err(FillError::Changed),
                _ => {}
            }
        }
        filler.head(generation)?;
        let bytes = Self::bytes_of(version, want.range.start..want.range.end.min(self.length));
        let (end, chunk_bytes, pause) = match fault {
            Fault::EndsAfter(end) | Fault::FailsAfter(end, _) | Fault::StallsAfter(end) => (end, CHUNK, None),
            Fault::Trickles(chunk_bytes, pause) => (bytes.len(), chunk_bytes, Some(pause)),
            _ => (bytes.len(), CHUNK, None),
        };
        for chunk in bytes[..end.min(bytes.len())].chunks(chunk_bytes) {
            self.gate.acquire().await.expect("open").forget();
            if let Some(pause) = pause {
                tokio::time::sleep(pause).await;
            }
            self.chunks.fetch_add(1, Ordering::AcqRel);
            filler.write(chunk)?;
        }
        match fault {
            Fault::SendsTooMuch => filler.write(b"!"),
            Fault::FailsAfter(_, error) => Err(error),
            Fault::StallsAfter(_) => future::pending().await,
            _ => Ok(()),
        }
    }
}

impl Source for Fake {
    fn attempts_max(&self) -> u32 {
        self.attempts_max.load(Ordering::Relaxed)
    }

    fn is_elsewhere(&self, _: u32) -> bool {
        self.is_elsewhere.load(Ordering::Relaxed)
    }

    async fn fill(self: Arc<Self>, want: Want, filler: Filler) -> Result<(), FillError> {
        self.asked.lock().push(want.clone());
        let _asking = Asking::new(&self.at_once);
        self.serve(want, filler).await
    }
}

/// Counts an attempt until it ends or is dropped.
struct Asking<'a>(&'a AtomicU64);

impl<'a> Asking<'a> {
    fn new(count: &'a AtomicU64) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
