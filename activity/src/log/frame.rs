//! Frames: what is written and synced at once. `docs/activity.md` draws them.
//!
//! ```text
//! head     mark "LAF1" · bytes of the payload (u32) · events (u32) · CRC-32C of the payload (u32) ·
//!          number of the first event (u64) · when it was written (u64, ms) · zero (u32) · CRC-32C of the head before it (u32)
//! payload  for each chunk: its bytes · its events · the chunk (`codec.rs`)
//! ```

use crc_fast::{CrcAlgorithm, checksum};

use crate::{
    codec,
    event::Event,
    pack::{Damaged, Unpack},
};

const MARK: [u8; 4] = *b"LAF1";
/// Bytes of a head.
pub(crate) const HEAD_BYTES: usize = 40;
/// The largest payload: a head that says more is damaged.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 16 << 20;

pub(crate) fn crc(bytes: &[u8]) -> u32 {
    checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// A frame's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) payload_bytes: usize,
    pub(crate) events: u32,
    pub(crate) payload_crc: u32,
    pub(crate) first: u64,
    pub(crate) written_ms: u64,
}

impl Head {
    /// The number of the event after this frame.
    pub(crate) const fn next(&self) -> u64 {
        self.first + self.events as u64
    }

    /// Bytes of the whole frame.
    pub(crate) const fn frame_bytes(&self) -> u64 {
        (HEAD_BYTES + self.payload_bytes) as u64
    }

    pub(crate) fn to_bytes(self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        bytes[..4].copy_from_slice(&MARK);
        bytes[4..8].copy_from_slice(&(self.payload_bytes as u32).to_le_bytes());
        bytes[8..12].copy_from_slice(&self.events.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.payload_crc.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.first.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.written_ms.to_le_bytes());
        let crc = crc(&bytes[..36]);
        bytes[36..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// `None` when the bytes are not a head.
    pub(crate) fn parse(bytes: &[u8; HEAD_BYTES]) -> Option<Self> {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let head = Self {
            payload_bytes: word(4) as usize,
            events: word(8),
            payload_crc: word(12),
            first: long(16),
            written_ms: long(24),
        };
        let is_head =
            bytes[..4] == MARK && word(32) == 0 && word(36) == crc(&bytes[..36]) && head.payload_bytes <= PAYLOAD_BYTES_MAX;
        is_head.then_some(head)
    }
}

/// A frame that was read, with its payload verified.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame<'a> {
    pub(crate) head: Head,
    pub(crate) payload: &'a [u8],
}

impl Frame<'_> {
    /// Calls `each` for every event with its number.
    pub(crate) fn each(&self, mut each: impl FnMut(u64, &Event<'_>)) -> Result<(), Damaged> {
        self.chunks(|chunk| chunk.each(&mut each))
    }

    /// Calls `each` for every chunk.
    pub(crate) fn chunks(&self, mut each: impl FnMut(InFrame<'_>) -> Result<(), Damaged>) -> Result<(), Damaged> {
        let mut unpack = Unpack::new(self.payload, "a frame of the log");
        let mut first = self.head.first;
        while !unpack.is_empty() {
            let (bytes, events) = (unpack.small()?, unpack.number()?);
            each(InFrame { bytes: unpack.take(bytes)?, first, events })?;
            first = first.saturating_add(events);
        }
        if first == self.head.next() { Ok(()) } else { Err(unpack.damaged()) }
    }
}

/// The events of one batch in a frame.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InFrame<'a> {
    bytes: &'a [u8],
    /// The number of the first event.
    first: u64,
    events: u64,
}

impl InFrame<'_> {
    /// Calls `each` for every event with its number.
    pub(crate) fn each(&self, mut each: impl FnMut(u64, &Event<'_>)) -> Result<(), Damaged> {
        let mut number = self.first;
        codec::decode(self.bytes, self.events, |event| {
            each(number, event);
            number += 1;
        })
    }
}
