//! An SSD tier in a map, which can be held back, broken and looked into.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::SystemTime,
};

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::{
    disk::{Loaded, Offer, Planned},
    slab::{Permit, Slab},
};

use super::*;

pub(crate) struct Double {
    purges: Arc<Purges>,
    records: Mutex<HashMap<(String, u64), Record>>,
    /// Reads may go on as long as there are permits.
    pub(crate) gate: Semaphore,
    pub(crate) is_broken: AtomicBool,
    /// Whole slices that were asked for.
    pub(crate) loads: AtomicU64,
    /// Parts that were asked for: from and to, in bytes of their slice.
    pub(crate) parts: Mutex<Vec<(usize, usize)>>,
    /// Slices that were used, by index.
    pub(crate) uses: Mutex<Vec<u64>>,
    /// All that was offered: index, and whether it was planned.
    pub(crate) offers: Mutex<Vec<(u64, bool)>>,
}

#[derive(Clone)]
struct Record {
    generation: Generation,
    vouched_at: SystemTime,
    number: u64,
    is_planned: bool,
    content: Content,
}

#[derive(Clone)]
enum Content {
    Written(Arc<[u8]>),
    /// What the source has there, made when it is read: bytes of the object.
    Like(Arc<Fake>, Range<u64>),
}

impl Record {
    fn length(&self) -> usize {
        match &self.content {
            Content::Written(bytes) => bytes.len(),
            Content::Like(_, range) => (range.end - range.start) as usize,
        }
    }

    fn bytes(&self, within: Range<usize>) -> Vec<u8> {
        match &self.content {
            Content::Written(bytes) => bytes[within].to_vec(),
            Content::Like(source, range) => source.bytes(range.start + within.start as u64..range.start + within.end as u64),
        }
    }
}

impl Double {
    pub(crate) fn new(purges: Arc<Purges>) -> Self {
        Self {
            purges,
            records: Mutex::default(),
            gate: Semaphore::new(1 << 20),
            is_broken: AtomicBool::new(false),
            loads: AtomicU64::new(0),
            parts: Mutex::default(),
            uses: Mutex::default(),
            offers: Mutex::default(),
        }
    }

    pub(crate) fn purges(&self) -> Arc<Purges> {
        self.purges.clone()
    }

    /// All that is there was vouched for so long ago.
    pub(crate) fn ages(&self, age: Duration) {
        let vouched_at = SystemTime::now() - age;
        self.records.lock().values_mut().for_each(|record| record.vouched_at = vouched_at);
    }

    /// Everything that the source has, as if it had been offered.
    pub(crate) fn has_all_of(&self, key: &str, source: &Arc<Fake>, slice_bytes: usize) {
        for (index, start) in (0..source.length).step_by(slice_bytes).enumerate() {
            let content = Content::Like(source.clone(), start..source.length.min(start + slice_bytes as u64));
            let (generation, vouched_at) = (source.generation(), SystemTime::now());
            let record = Record { generation, vouched_at, number: self.purges.now(), is_planned: false, content };
            self.records.lock().insert((key.to_owned(), index as u64), record);
        }
    }

    pub(crate) fn slices(&self) -> usize {
        self.records.lock().len()
    }

    pub(crate) fn find(&self, slice: SliceName<'_>) -> bool {
        self.contains(slice)
    }

    pub(crate) fn used(&self, slice: SliceName<'_>) {
        self.uses.lock().push(slice.index);
    }

    pub(crate) fn contains(&self, slice: SliceName<'_>) -> bool {
        self.records.lock().contains_key(&(slice.key.to_owned(), slice.index))
    }

    pub(crate) fn may_hold(&self, key: &str) -> bool {
        self.records.lock().keys().any(|(held, _)| held == key)
    }

    pub(crate) fn is_planned(&self, slice: SliceName<'_>) -> Option<bool> {
        self.records.lock().get(&(slice.key.to_owned(), slice.index)).map(|record| record.is_planned)
    }

    pub(crate) fn plan(&self, slice: SliceName<'_>, generation: &Generation) -> Planned {
        match self.records.lock().get_mut(&(slice.key.to_owned(), slice.index)) {
            Some(record) if self.purges.covers(slice.key, &record.generation.tags, record.number) => Planned::Absent,
            Some(record) if !record.generation.same_bytes(generation) => Planned::Absent,
            Some(record) if record.is_planned => Planned::Was,
            Some(record) => {
                record.is_planned = true;
                Planned::Moved
            }
            None => Planned::Absent,
        }
    }

    async fn record(&self, slice: SliceName<'_>, expected: Option<&Generation>) -> Option<Record> {
        self.gate.acquire().await.expect("open").forget();
        if self.is_broken.load(Ordering::Relaxed) {
            return None;
        }
        let record = self.records.lock().get(&(slice.key.to_owned(), slice.index)).cloned()?;
        let is_other = expected.is_some_and(|expected| !expected.same_bytes(&record.generation));
        let is_purged = self.purges.covers(slice.key, &record.generation.tags, record.number);
        (!is_other && !is_purged).then_some(record)
    }

    pub(crate) async fn load(&self, slice: SliceName<'_>, expected: Option<&Generation>, permit: Permit) -> Option<Loaded> {
        self.loads.fetch_add(1, Ordering::AcqRel);
        let record = self.record(slice, expected).await?;
        let (slab, mut writer) = Slab::new(permit, record.length());
        assert!(writer.append(&record.bytes(0..record.length())));
        let Record { generation, vouched_at, number, .. } = record;
        Some(Loaded { generation, vouched_at: Some(vouched_at), number, slab })
    }

    pub(crate) async fn load_part(
        &self,
        slice: SliceName<'_>,
        expected: &Generation,
        range: Range<usize>,
        permit: Permit,
    ) -> Option<(Arc<Slab>, usize)> {
        self.parts.lock().push((range.start, range.end));
        let record = self.record(slice, Some(expected)).await?;
        let start = range.start / CHUNK * CHUNK;
        let end = range.end.next_multiple_of(CHUNK).min(record.length());
        let (slab, mut writer) = Slab::new(permit, end - start);
        assert!(writer.append(&record.bytes(start..end)));
        Some((slab, range.start - start))
    }

    pub(crate) fn offer(&self, offer: Offer) {
        let Offer { key, index, generation, vouched_at, number, slab, is_planned } = offer;
        self.offers.lock().push((index, is_planned));
        let content = Content::Written(slab.whole().into());
        let record = Record { generation: (*generation).clone(), vouched_at, number, is_planned, content };
        self.records.lock().insert((key.to_string(), index), record);
    }
}
