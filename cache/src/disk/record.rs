//! What stands in a segment, read and held against its place: the one check that readers, reclaiming, verification and recovery share, and the
//! footer.
//!
//! Knows lives, lengths and checksums; not which key or version somebody wants.

use std::sync::Arc;

use super::{
    device::{self, Fault, Volume},
    engine::Engine,
    layout::{Entry, Footer, Life, PAGE, RecordHead, Unreadable},
};
use crate::slab::{HEAD_BYTES, IoBuf};

/// What is wrong with a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Flaw {
    #[error("its head: {0}")]
    Head(#[from] Unreadable),
    #[error("its head is not that of its place")]
    Place,
    #[error("its length is not that of its slice")]
    Length,
    #[error("slice {index} of {key}: its checksums do not fit its bytes")]
    Bytes { key: String, index: u64 },
}

impl Engine {
    /// The head that begins with `page`, if it is that of a record of so many pages that was written in `life`.
    pub(super) fn head_of(&self, page: &[u8], life: Life, pages: usize) -> Result<RecordHead, Flaw> {
        let head = RecordHead::from_page(&page[..PAGE])?;
        if head.life != life || head.pages() != pages {
            return Err(Flaw::Place);
        }
        if u64::from(head.slice_bytes) != self.slice_length(head.generation.length, head.index) {
            return Err(Flaw::Length);
        }
        Ok(head)
    }

    /// The head of a whole record that was written in `life`, if all of the record is right.
    pub(super) fn head_of_whole(&self, record: &[u8], life: Life) -> Result<RecordHead, Flaw> {
        let head = self.head_of(record, life, record.len() / PAGE)?;
        head.check(0, &record[HEAD_BYTES..HEAD_BYTES + head.slice_bytes as usize])?;
        Ok(head)
    }

    /// Reads all of the record that a footer lists so, and checks it.
    pub(super) async fn read_record(
        &self,
        volume: &Arc<Volume>,
        segment: u32,
        entry: &Entry,
    ) -> Result<Result<(RecordHead, IoBuf), Flaw>, Fault> {
        let (life, at) = (volume.life(segment), volume.at(segment, usize::from(entry.page)));
        let buf = device::read_pages(&self.io, &volume.file, at, usize::from(entry.pages), self.limit()).await?;
        let head = self.head_of_whole(buf.as_slice(), life);
        Ok(head.and_then(|head| {
            let is_listed = self.hash(&head.key, head.index) == entry.hash;
            if is_listed { Ok((head, buf)) } else { Err(Flaw::Place) }
        }))
    }

    /// The footer at the end of a segment, of whichever life it is; `None` where there is none to be read.
    pub(super) async fn read_footer(&self, volume: &Arc<Volume>, segment: u32) -> Result<Option<Footer>, Fault> {
        let last = volume.pages_per_segment() - 1;
        let read = |page, pages| device::read_pages(&self.io, &volume.file, volume.at(segment, page), pages, self.limit());
        let tail = read(last, 1).await?;
        Ok(match Footer::pages_of(tail.as_slice()) {
            Ok(1) => Footer::from_bytes(tail.as_slice()).ok(),
            Ok(pages) if pages < last => Footer::from_bytes(read(last + 1 - pages, pages).await?.as_slice()).ok(),
            Ok(_) | Err(_) => None,
        })
    }

    /// Writes a segment's footer, after all that it names is on the medium.
    pub(super) async fn write_footer(&self, volume: &Arc<Volume>, segment: u32, footer: &Footer) -> Result<(), Fault> {
        let bytes = footer.to_bytes();
        let at = volume.at(segment, volume.pages_per_segment() - bytes.len() / PAGE);
        device::sync(&self.io, &volume.file, self.limit()).await?;
        device::write_bytes(&self.io, &volume.file, at, &bytes, self.limit()).await
    }

    /// Bytes of a slice of an object of this length.
    fn slice_length(&self, object_length: u64, index: u64) -> u64 {
        let slice_bytes = self.slice_bytes as u64;
        object_length.saturating_sub(index.saturating_mul(slice_bytes)).min(slice_bytes)
    }
}

impl RecordHead {
    /// Whether `bytes`, which begin at the `first`th piece of the slice that has a checksum, are what was written.
    pub(super) fn check(&self, first: usize, bytes: &[u8]) -> Result<(), Flaw> {
        if self.verifies(first, bytes) { Ok(()) } else { Err(Flaw::Bytes { key: self.key.clone(), index: self.index }) }
    }
}
