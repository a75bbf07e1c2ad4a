//! What a device holds, read at start: heads and footers of all segments, and of segments without a footer what was written whole.
//!
//! Trusts nothing: a footer counts only for the life of its segment, and a record of an unfinished segment only if all of its bytes are right. Leaves
//! no segment unfinished: what was saved of one gets its footer now.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
};

use futures_util::{StreamExt, stream};

use super::{
    device::{self, Fault, Volume},
    engine::Engine,
    index::Place,
    layout::{Class, Entry, Footer, PAGE, RecordHead, SegmentHead},
};
use crate::slab::HEAD_BYTES;

/// Segments that are looked at at the same time.
const CONCURRENT: usize = 32;

/// The segments of a device, sorted.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    pub(crate) free: VecDeque<u32>,
    /// By class; the oldest first.
    pub(crate) sealed: [VecDeque<u32>; Class::ALL.len()],
    /// The smallest purge number of all records.
    pub(crate) oldest: Option<u64>,
}

/// What was found of a segment.
struct Found {
    number: u32,
    head: SegmentHead,
    footer: Option<Footer>,
}

/// Reads all segments and files what they hold.
pub(crate) async fn recover(engine: &Engine, number: usize, volume: &Arc<Volume>) -> Result<Recovered, Fault> {
    let mut recovered = Recovered::default();
    let mut sealed = Vec::new();
    let mut unfinished = Vec::new();
    let looks = stream::iter(0..volume.superblock.segments).map(|segment| look(engine, volume, segment));
    let mut looks = looks.buffer_unordered(CONCURRENT);
    while let Some((segment, found)) = looks.next().await.transpose()? {
        match found {
            None => recovered.free.push_back(segment),
            Some(Found { head, footer: Some(footer), .. }) => {
                volume.begin(segment, head.sequence, head.class);
                file(engine, number, volume, segment, &footer);
                recovered.note(&footer);
                sealed.push(head);
            }
            Some(found) => unfinished.push(found),
        }
    }
    drop(looks);
    recovered.free.make_contiguous().sort_unstable();
    for Found { number: segment, head, .. } in unfinished {
        let footer = walk(engine, volume, &head).await?;
        if footer.entries.is_empty() {
            recovered.free.push_back(segment);
            continue;
        }
        let bytes = footer.to_bytes();
        let at = volume.at(segment, volume.pages_per_segment() - bytes.len() / PAGE);
        device::sync(&engine.io, &volume.file, engine.limit()).await?;
        device::write_bytes(&engine.io, &volume.file, at, &bytes, engine.limit()).await?;
        volume.begin(segment, head.sequence, head.class);
        file(engine, number, volume, segment, &footer);
        recovered.note(&footer);
        sealed.push(head);
    }
    sealed.sort_unstable_by_key(|head| head.sequence);
    if let Some(head) = sealed.last() {
        engine.sequence.fetch_max(head.sequence + 1, Ordering::AcqRel);
    }
    for head in sealed {
        volume.segment(head.number).is_sealed.store(true, Ordering::Relaxed);
        recovered.sealed[head.class as usize].push_back(head.number);
    }
    Ok(recovered)
}

impl Recovered {
    fn note(&mut self, footer: &Footer) {
        self.oldest = Some(self.oldest.map_or(footer.oldest, |oldest| oldest.min(footer.oldest)));
    }
}

/// Reads a segment's first and last page, and the rest of its footer.
async fn look(engine: &Engine, volume: &Arc<Volume>, number: u32) -> Result<(u32, Option<Found>), Fault> {
    let (io, limit) = (&engine.io, engine.limit());
    let last = volume.pages_per_segment() - 1;
    let head = device::read_pages(io, &volume.file, volume.at(number, 0), 1, limit);
    let tail = device::read_pages(io, &volume.file, volume.at(number, last), 1, limit);
    let (head, tail) = tokio::try_join!(head, tail)?;
    let Ok(head) = SegmentHead::from_page(head.as_slice()) else { return Ok((number, None)) };
    if head.device != volume.superblock.device || head.number != number || head.sequence == 0 {
        return Ok((number, None));
    }
    engine.sequence.fetch_max(head.sequence + 1, Ordering::AcqRel);
    let footer = match Footer::pages_of(tail.as_slice()) {
        Ok(1) => Footer::from_bytes(tail.as_slice()),
        Ok(pages) if pages < last => {
            let at = volume.at(number, last + 1 - pages);
            let bytes = device::read_pages(io, &volume.file, at, pages, limit).await?;
            Footer::from_bytes(bytes.as_slice())
        }
        Ok(_) => return Ok((number, Some(Found { number, head, footer: None }))),
        Err(error) => Err(error),
    };
    let is_of_this_life = |footer: &Footer| footer.sequence == head.sequence && footer.device == head.device;
    Ok((number, Some(Found { number, head, footer: footer.ok().filter(is_of_this_life) })))
}

/// Files a footer's entries; where a slice is known already, the younger segment has it.
fn file(engine: &Engine, device: usize, volume: &Volume, segment: u32, footer: &Footer) {
    // A purge that was never written down may have had a number, and what was learnt after it has that: later purges need larger ones.
    engine.purges.continue_after(footer.newest);
    let pages_max = volume.pages_per_segment();
    for entry in &footer.entries {
        let end = usize::from(entry.page) + usize::from(entry.pages);
        if entry.page == 0 || entry.pages < 1 || end > pages_max || entry.pages >= 1 << 11 {
            continue;
        }
        let place = Place::new(device, segment, entry.page, entry.pages, entry.hits.min(super::index::HITS_MAX));
        engine.file_found(entry.hash, place, footer.sequence);
    }
}

/// Goes through the records of a segment that has no footer, up to the first that is not whole.
async fn walk(engine: &Engine, volume: &Arc<Volume>, head: &SegmentHead) -> Result<Footer, Fault> {
    let (io, limit) = (&engine.io, engine.limit());
    let mut footer = Footer { device: head.device, sequence: head.sequence, oldest: u64::MAX, newest: 0, entries: Vec::new() };
    let mut page = 1;
    loop {
        let room = volume.pages_per_segment() - page;
        if room <= Footer::pages(footer.entries.len() + 1) {
            break;
        }
        let first = device::read_pages(io, &volume.file, volume.at(head.number, page), 1, limit).await?;
        let Ok(record) = RecordHead::from_page(first.as_slice()) else { break };
        let pages = record.pages();
        if record.sequence != head.sequence
            || record.device != head.device
            || pages >= 1 << 11
            || pages + Footer::pages(footer.entries.len() + 1) > room
        {
            break;
        }
        let whole = device::read_pages(io, &volume.file, volume.at(head.number, page), pages, limit).await?;
        if !record.verifies(0, &whole.as_slice()[HEAD_BYTES..HEAD_BYTES + record.slice_bytes as usize]) {
            break;
        }
        footer.oldest = footer.oldest.min(record.number);
        footer.newest = footer.newest.max(record.number);
        footer.entries.push(Entry {
            hash: engine.hash(&record.key, record.index),
            page: u16::try_from(page).expect("a segment has at most 65,536 pages"),
            pages: u16::try_from(pages).expect("below 2,048"),
            hits: 0,
        });
        page += pages;
    }
    Ok(footer)
}
