//! Reading everything once, to know that it is right.

use std::sync::{Arc, atomic::Ordering};

use super::{
    device::{self, Volume},
    engine::Engine,
    index::Place,
    layout::{Entry, Footer, PAGE, RecordHead},
};
use crate::{Verified, slab::HEAD_BYTES};

/// As many faults are told one by one.
const FAULTS_MAX: usize = 100;

impl Engine {
    /// Checks all that the index leads to in sealed segments. What is wrong is forgotten, so that it is filled anew.
    pub(super) async fn verify(&self, mut progress: impl FnMut(u64, u64) + Send) -> Verified {
        let mut verified = Verified::default();
        let volumes: Vec<_> = self.devices.iter().enumerate().filter_map(|(at, device)| Some((at, device.volume()?))).collect();
        let segments = |volume: &Volume| (0..volume.superblock.segments).filter(|number| is_sealed(volume, *number)).collect();
        let todo: Vec<(_, _, Vec<u32>)> =
            volumes.into_iter().map(|(at, volume)| (at, volume.clone(), segments(&volume))).collect();
        let total = todo.iter().map(|(_, volume, segments)| segments.len() as u64 * volume.superblock.segment_bytes).sum();
        let mut read = 0;
        for (at, volume, segments) in todo {
            for segment in segments {
                progress(read, total);
                self.verify_segment(at, &volume, segment, &mut verified).await;
                read += volume.superblock.segment_bytes;
            }
        }
        progress(total, total);
        verified
    }

    async fn verify_segment(&self, at: usize, volume: &Arc<Volume>, segment: u32, verified: &mut Verified) {
        let sequence = volume.segment(segment).sequence.load(Ordering::Acquire);
        let Some(footer) = self.footer(volume, segment).await else {
            if is_sealed(volume, segment) {
                self.blame(at, segment, 0, "its footer cannot be read", verified);
            }
            return;
        };
        verified.segments += 1;
        for entry in footer.entries.iter().filter(|_| footer.sequence == sequence) {
            let place = Place::new(at, segment, entry.page, entry.pages, 0);
            let is_there = || self.index.place(entry.hash).is_some_and(|known| known.is_same(place));
            if !is_there() {
                continue;
            }
            match self.check_record(volume, segment, sequence, *entry).await {
                Ok(bytes) => {
                    verified.slices += 1;
                    verified.bytes += bytes;
                }
                Err(reason) if is_there() => {
                    self.blame(at, segment, entry.page, &reason, verified);
                    self.unfile(entry.hash, place);
                }
                Err(_) => {}
            }
        }
    }

    async fn footer(&self, volume: &Arc<Volume>, segment: u32) -> Option<Footer> {
        let last = volume.pages_per_segment() - 1;
        let tail = device::read_pages(&self.io, &volume.file, volume.at(segment, last), 1, self.limit()).await.ok()?;
        let pages = Footer::pages_of(tail.as_slice()).ok().filter(|pages| *pages < last)?;
        let at = volume.at(segment, last + 1 - pages);
        let bytes = device::read_pages(&self.io, &volume.file, at, pages, self.limit()).await.ok()?;
        Footer::from_bytes(bytes.as_slice()).ok()
    }

    async fn check_record(&self, volume: &Arc<Volume>, segment: u32, sequence: u64, entry: Entry) -> Result<u64, String> {
        let at = volume.at(segment, usize::from(entry.page));
        let read = device::read_pages(&self.io, &volume.file, at, usize::from(entry.pages), self.limit()).await;
        let buf = read.map_err(|fault| fault.to_string())?;
        let head = RecordHead::from_page(&buf.as_slice()[..PAGE]).map_err(|error| format!("its head: {error}"))?;
        if head.sequence != sequence || self.hash(&head.key, head.index) != entry.hash {
            return Err("its head is not that of its place".into());
        }
        let slice = buf.as_slice().get(HEAD_BYTES..HEAD_BYTES + head.slice_bytes as usize);
        if slice.is_some_and(|slice| head.verifies(0, slice)) {
            Ok(u64::from(head.slice_bytes))
        } else {
            Err(format!("slice {} of {}: its checksums do not fit its bytes", head.index, head.key))
        }
    }

    fn blame(&self, device: usize, segment: u32, page: u16, reason: &str, verified: &mut Verified) {
        let path = self.config.devices[device].path.display();
        let line = format!("{path}: segment {segment}, page {page}: {reason}");
        tracing::error!("{line}");
        verified.fault_count += 1;
        if verified.faults.len() < FAULTS_MAX {
            verified.faults.push(line);
        }
    }
}

fn is_sealed(volume: &Volume, number: u32) -> bool {
    let segment = volume.segment(number);
    segment.is_sealed.load(Ordering::Acquire) && segment.sequence.load(Ordering::Acquire) > 0
}
