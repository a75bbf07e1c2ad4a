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
    index::{PAGES_MAX, Place},
    layout::{Class, Entry, Footer, RecordHead, SegmentHead},
};
use crate::policy::Hits;

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
                volume.begin(&head);
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
        engine.write_footer(volume, segment, &footer).await?;
        volume.begin(&head);
        file(engine, number, volume, segment, &footer);
        recovered.note(&footer);
        sealed.push(head);
    }
    sealed.sort_unstable_by_key(|head| head.life.sequence);
    for head in sealed {
        volume.is_youngest(head.number);
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

/// Reads a segment's head and footer.
async fn look(engine: &Engine, volume: &Arc<Volume>, number: u32) -> Result<(u32, Option<Found>), Fault> {
    let head = device::read_pages(&engine.io, &volume.file, volume.at(number, 0), 1, engine.limit());
    let (head, footer) = tokio::try_join!(head, engine.read_footer(volume, number))?;
    let Ok(head) = SegmentHead::from_page(head.as_slice()) else { return Ok((number, None)) };
    if head.life.device != volume.superblock.device || head.number != number || head.life.sequence == 0 {
        return Ok((number, None));
    }
    engine.sequence.fetch_max(head.life.sequence + 1, Ordering::AcqRel);
    let footer = footer.filter(|footer| footer.life == head.life);
    Ok((number, Some(Found { number, head, footer })))
}

/// Files a footer's entries; where a slice is known already, the younger segment has it.
fn file(engine: &Engine, device: usize, volume: &Volume, segment: u32, footer: &Footer) {
    // A purge that was never written down may have had a number, and what was learnt after it has that: later purges need larger ones.
    engine.purges.continue_after(footer.newest);
    let pages_max = volume.pages_per_segment();
    for entry in &footer.entries {
        let end = usize::from(entry.page) + usize::from(entry.pages);
        if entry.page == 0 || entry.pages < 1 || end > pages_max || usize::from(entry.pages) > PAGES_MAX {
            continue;
        }
        let place = Place::new(device, segment, entry.page, entry.pages, Hits::from_bits(entry.hits));
        engine.file_found(entry, place, footer.life.sequence);
    }
}

/// Goes through the records of a segment that has no footer, up to the first that is not whole.
async fn walk(engine: &Engine, volume: &Arc<Volume>, head: &SegmentHead) -> Result<Footer, Fault> {
    let read = |page, pages| device::read_pages(&engine.io, &volume.file, volume.at(head.number, page), pages, engine.limit());
    let mut footer = Footer { life: head.life, oldest: u64::MAX, newest: 0, entries: Vec::new() };
    let mut page = 1;
    loop {
        let footer_pages = Footer::pages(footer.entries.len() + 1);
        let room = volume.pages_per_segment() - page;
        if room <= footer_pages {
            break;
        }
        let Ok(first) = RecordHead::from_page(read(page, 1).await?.as_slice()) else { break };
        let pages = first.pages();
        if pages > PAGES_MAX || pages + footer_pages > room {
            break;
        }
        let Ok(record) = engine.head_of_whole(read(page, pages).await?.as_slice(), head.life) else { break };
        footer.oldest = footer.oldest.min(record.number);
        footer.newest = footer.newest.max(record.number);
        footer.entries.push(Entry {
            hash: engine.hash(&record.key, record.index),
            page: u16::try_from(page).expect("a segment has at most 65,536 pages"),
            pages: u16::try_from(pages).expect("below 2,048"),
            hits: 0,
            tag: engine.tag(&record.key, record.index),
        });
        page += pages;
    }
    Ok(footer)
}
