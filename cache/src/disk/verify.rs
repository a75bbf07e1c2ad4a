//! Reading everything once, to know that it is right.

use std::sync::{Arc, atomic::Ordering};

use super::{device::Volume, engine::Engine, index::Place};
use crate::{Verified, policy::Hits};

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
        let life = volume.life(segment);
        let footer = self.read_footer(volume, segment).await.ok().flatten();
        let Some(footer) = footer.filter(|footer| footer.life == life) else {
            // It may have been reclaimed meanwhile.
            if is_sealed(volume, segment) && volume.life(segment) == life {
                self.blame(at, segment, 0, "its footer cannot be read", verified);
            }
            return;
        };
        verified.segments += 1;
        for entry in &footer.entries {
            let place = Place::new(at, segment, entry.page, entry.pages, Hits::default());
            let is_there = || self.index.place(entry.hash).is_some_and(|known| known.is_same(place));
            if !is_there() {
                continue;
            }
            let reason = match self.read_record(volume, segment, entry).await {
                Ok(Ok((head, _))) => {
                    verified.slices += 1;
                    verified.bytes += u64::from(head.slice_bytes);
                    continue;
                }
                Ok(Err(flaw)) => flaw.to_string(),
                Err(fault) => fault.to_string(),
            };
            if is_there() {
                self.blame(at, segment, entry.page, &reason, verified);
                self.unfile(entry.hash, place);
            }
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
