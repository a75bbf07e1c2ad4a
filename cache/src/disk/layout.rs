//! What stands on a device, byte by byte: superblock, segment head, record head, footer. Pure. `docs/disk.md` draws it.
//!
//! Numbers are little-endian. Every page carries a CRC-32C (Castagnoli) of itself with the checksum's own bytes as zero, so whatever was
//! torn, reordered or rotten is known before it is believed. Nothing read from a device is trusted: every length is held against the page.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crc_fast::{CrcAlgorithm, Digest, checksum};

use super::far::Tag;
use crate::{
    Generation,
    policy::Shelf,
    slab::{HEAD_BYTES, UNIT_BYTES},
};

/// The unit of everything on a device.
pub(crate) const PAGE: usize = UNIT_BYTES;
/// The version of the format. Others are not read.
pub(crate) const VERSION: u32 = 1;
/// Each so many bytes of a slice have a checksum of their own, so that a range is verified without the rest.
pub(crate) const CHECKED_BYTES: usize = 64 << 10;
/// Where the two copies of the superblock stand.
pub(crate) const SUPERBLOCK_AT: [u64; 2] = [0, 512 << 10];
/// Where the first segment begins.
pub(crate) const SEGMENTS_AT: u64 = 1 << 20;

const SUPERBLOCK_MAGIC: [u8; 8] = *b"LARDERSB";
const SEGMENT_MAGIC: [u8; 8] = *b"LARDERSG";
const RECORD_MAGIC: [u8; 8] = *b"LARDERRC";
const FOOTER_MAGIC: [u8; 8] = *b"LARDERFT";
/// Magic, version and checksum: how every page begins, and how a footer ends.
const PREAMBLE_BYTES: usize = 16;
const ENTRY_BYTES: usize = 16;
const TRAILER_BYTES: usize = 64;

/// What a page is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error("it does not begin with the mark of its kind")]
    Magic,
    #[error("it is of another version of the format")]
    Version,
    #[error("its checksum is wrong")]
    Checksum,
    #[error("its lengths contradict each other")]
    Lengths,
}

pub(crate) fn crc(bytes: &[u8]) -> u32 {
    u32::try_from(checksum(CrcAlgorithm::Crc32Iscsi, bytes)).expect("a CRC-32")
}

/// Whose device it is, and how it is divided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Superblock {
    /// The devices of one cache, and its state directory, have the same.
    pub(crate) set: [u8; 16],
    pub(crate) device: [u8; 16],
    pub(crate) segment_bytes: u64,
    pub(crate) segments: u32,
    /// What slice numbers count in.
    pub(crate) slice_bytes: u32,
    pub(crate) formatted_at: SystemTime,
}

impl Superblock {
    pub(crate) fn to_page(&self) -> [u8; PAGE] {
        let mut page = [0; PAGE];
        let mut out = Out::after_preamble(&mut page);
        out.put(&self.set);
        out.put(&self.device);
        out.put(&self.segment_bytes.to_le_bytes());
        out.put(&self.segments.to_le_bytes());
        out.put(&self.slice_bytes.to_le_bytes());
        out.put(&millis(self.formatted_at).to_le_bytes());
        stamp(&mut page, SUPERBLOCK_MAGIC);
        page
    }

    /// Its numbers may be any: a device is taken up by those alone that it would be given today (`open_superblock`).
    pub(crate) fn from_page(page: &[u8]) -> Result<Self, Unreadable> {
        let mut input = In::after_preamble(page, SUPERBLOCK_MAGIC)?;
        Ok(Self {
            set: input.take()?,
            device: input.take()?,
            segment_bytes: u64::from_le_bytes(input.take()?),
            segments: u32::from_le_bytes(input.take()?),
            slice_bytes: u32::from_le_bytes(input.take()?),
            formatted_at: time(u64::from_le_bytes(input.take()?)),
        })
    }

    /// Whether a page has never held anything but a superblock whose writing began.
    pub(crate) fn is_blank(page: &[u8]) -> bool {
        let zeroes = page.iter().rev().take_while(|byte| **byte == 0).count();
        SUPERBLOCK_MAGIC.starts_with(&page[..page.len() - zeroes])
    }
}

/// One filling of a segment, from its head to its footer. All that is written meanwhile carries it; what an earlier one left behind, or an earlier
/// formatting, has another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) device: [u8; 16],
    /// Rises over all segments of a set.
    pub(crate) sequence: u64,
}

/// The first page of a segment, written when it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHead {
    pub(crate) life: Life,
    pub(crate) number: u32,
    pub(crate) class: Class,
}

/// What a segment is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Slices that were filled on demand.
    New,
    /// Of these, those that were asked for again.
    Proven,
    /// Slices that a plan wants.
    Planned,
}

impl From<Shelf> for Class {
    fn from(shelf: Shelf) -> Self {
        match shelf {
            Shelf::New => Self::New,
            Shelf::Proven => Self::Proven,
        }
    }
}

impl Class {
    pub(crate) const ALL: [Self; 3] = [Self::New, Self::Proven, Self::Planned];

    pub(crate) fn is_planned(self) -> bool {
        self == Self::Planned
    }

    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte)).copied()
    }
}

impl SegmentHead {
    pub(crate) fn to_page(self) -> [u8; PAGE] {
        let mut page = [0; PAGE];
        let mut out = Out::after_preamble(&mut page);
        out.put(&self.life.device);
        out.put(&self.number.to_le_bytes());
        out.put(&self.life.sequence.to_le_bytes());
        out.put(&[self.class as u8]);
        stamp(&mut page, SEGMENT_MAGIC);
        page
    }

    pub(crate) fn from_page(page: &[u8]) -> Result<Self, Unreadable> {
        let mut input = In::after_preamble(page, SEGMENT_MAGIC)?;
        let device = input.take()?;
        let number = u32::from_le_bytes(input.take()?);
        let sequence = u64::from_le_bytes(input.take()?);
        let class = Class::from_byte(input.take::<1>()?[0]).ok_or(Unreadable::Lengths)?;
        Ok(Self { life: Life { device, sequence }, number, class })
    }
}

/// The first page of a record: all that must be known to serve the slice after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RecordHead {
    /// What it was written in.
    pub(crate) life: Life,
    pub(crate) key: String,
    /// Which slice of the object.
    pub(crate) index: u64,
    /// Bytes of the slice.
    pub(crate) slice_bytes: u32,
    pub(crate) generation: Generation,
    pub(crate) vouched_at: SystemTime,
    /// The purge number that it was learnt at.
    pub(crate) number: u64,
    /// Of each [`CHECKED_BYTES`] of the slice.
    pub(crate) checksums: Vec<u32>,
}

/// Where the life of the segment stands in a record's head, so that a record can move to another segment.
const RECORD_SEQUENCE_AT: usize = PREAMBLE_BYTES;

/// Fields of a record's head that may be missing or come more than once. A kind that is not known is passed over, so that what RFC 9111 may
/// ask for one day (a secondary key for `Vary`, grace periods, directives) finds its place without another version.
mod field {
    /// `name NUL value`: a header to replay.
    pub(super) const HEADER: u8 = 1;
    /// A tag to be purged by.
    pub(super) const TAG: u8 = 2;
}

impl RecordHead {
    /// `None` if it does not fit a page.
    pub(crate) fn to_page(&self) -> Option<[u8; PAGE]> {
        let mut page = [0; PAGE];
        let mut out = Out::after_preamble(&mut page);
        out.put(&self.life.sequence.to_le_bytes());
        out.put(&self.life.device);
        out.put(&self.index.to_le_bytes());
        out.put(&self.number.to_le_bytes());
        out.put(&self.generation.length.to_le_bytes());
        out.put(&millis(self.vouched_at).to_le_bytes());
        out.put(&duration_millis(self.generation.fresh_for).to_le_bytes());
        out.put(&duration_millis(self.generation.initial_age).to_le_bytes());
        out.put(&self.slice_bytes.to_le_bytes());
        self.checksums.iter().for_each(|sum| out.put(&sum.to_le_bytes()));
        out.put_text(&self.key);
        out.put_text(&self.generation.validator);
        for (name, value) in &self.generation.headers {
            out.put(&[field::HEADER]);
            out.put_text(&format!("{name}\0{value}"));
        }
        for tag in &self.generation.tags {
            out.put(&[field::TAG]);
            out.put_text(tag);
        }
        // The kind 0 ends the fields.
        out.put(&[0]);
        if out.overflowed {
            return None;
        }
        stamp(&mut page, RECORD_MAGIC);
        Some(page)
    }

    pub(crate) fn from_page(page: &[u8]) -> Result<Self, Unreadable> {
        let mut input = In::after_preamble(page, RECORD_MAGIC)?;
        let sequence = u64::from_le_bytes(input.take()?);
        let life = Life { device: input.take()?, sequence };
        let mut number = || Ok(u64::from_le_bytes(input.take()?));
        let (index, purge_number, length) = (number()?, number()?, number()?);
        let (vouched_at, fresh_for, initial_age) = (number()?, number()?, number()?);
        let slice_bytes = u32::from_le_bytes(input.take()?);
        let checks = (slice_bytes as usize).div_ceil(CHECKED_BYTES);
        if checks > PAGE / 4 || u64::from(slice_bytes) > length {
            return Err(Unreadable::Lengths);
        }
        let checksums = (0..checks).map(|_| Ok(u32::from_le_bytes(input.take()?))).collect::<Result<_, Unreadable>>()?;
        let key = input.take_text()?;
        let validator = input.take_text()?;
        let (mut headers, mut tags) = (Vec::new(), Vec::new());
        loop {
            match input.take::<1>()?[0] {
                0 => break,
                field::HEADER => {
                    let header = input.take_text()?;
                    let (name, value) = header.split_once('\0').ok_or(Unreadable::Lengths)?;
                    headers.push((name.to_owned(), value.to_owned()));
                }
                field::TAG => tags.push(input.take_text()?),
                _ => drop(input.take_text()?),
            }
        }
        let generation = Generation {
            validator,
            length,
            headers,
            fresh_for: Duration::from_millis(fresh_for),
            initial_age: Duration::from_millis(initial_age),
            tags,
        };
        let vouched_at = time(vouched_at);
        Ok(Self { life, key, index, slice_bytes, generation, vouched_at, number: purge_number, checksums })
    }

    /// Writes the life of another segment of the same device into a record's head that is otherwise right.
    pub(crate) fn move_to(page: &mut [u8], sequence: u64) {
        page[RECORD_SEQUENCE_AT..RECORD_SEQUENCE_AT + 8].copy_from_slice(&sequence.to_le_bytes());
        let page: &mut [u8; PAGE] = (&mut page[..PAGE]).try_into().expect("a page");
        stamp(page, RECORD_MAGIC);
    }

    /// Pages of the whole record.
    pub(crate) fn pages(&self) -> usize {
        (HEAD_BYTES + self.slice_bytes as usize).div_ceil(PAGE)
    }

    /// Whether `bytes`, which begin at the `first`th [`CHECKED_BYTES`] of the slice, are what was written. They end where a check
    /// ends, or the slice.
    pub(crate) fn verifies(&self, first: usize, bytes: &[u8]) -> bool {
        let sums = self.checksums.get(first..).unwrap_or_default();
        let chunks = bytes.chunks(CHECKED_BYTES);
        chunks.len() <= sums.len() && chunks.zip(sums).all(|(chunk, sum)| crc(chunk) == *sum)
    }
}

/// The checksums of a slice.
pub(crate) fn checksums(slice: &[u8]) -> Vec<u32> {
    slice.chunks(CHECKED_BYTES).map(crc).collect()
}

/// One record, as a footer lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    /// What it is filed under.
    pub(crate) hash: u64,
    /// Where it begins, in pages from the segment's start.
    pub(crate) page: u16,
    pub(crate) pages: u16,
    /// What the index knew of its popularity when the footer was written.
    pub(crate) hits: u8,
    /// Its object's, if the slice is far from the beginning.
    pub(super) tag: Tag,
}

/// What a segment holds: its last pages, written once, when it is full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Footer {
    pub(crate) life: Life,
    /// The smallest purge number of its records.
    pub(crate) oldest: u64,
    /// The largest one.
    pub(crate) newest: u64,
    pub(crate) entries: Vec<Entry>,
}

impl Footer {
    /// Pages of a footer with so many entries.
    pub(crate) fn pages(entries: usize) -> usize {
        (entries * ENTRY_BYTES + TRAILER_BYTES).div_ceil(PAGE)
    }

    /// Its pages. The trailer is at the very end, so that the segment's last page tells how long the footer is.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; Self::pages(self.entries.len()) * PAGE];
        let trailer_at = bytes.len() - TRAILER_BYTES;
        for (entry, out) in self.entries.iter().zip(bytes.chunks_exact_mut(ENTRY_BYTES)) {
            out[..8].copy_from_slice(&entry.hash.to_le_bytes());
            out[8..10].copy_from_slice(&entry.page.to_le_bytes());
            out[10..12].copy_from_slice(&entry.pages.to_le_bytes());
            out[12] = entry.hits;
            out[13..16].copy_from_slice(&entry.tag.to_bytes());
        }
        let trailer = &mut bytes[trailer_at..];
        let mut out = Out { page: trailer, at: PREAMBLE_BYTES, overflowed: false };
        out.put(&self.life.device);
        out.put(&self.life.sequence.to_le_bytes());
        out.put(&self.oldest.to_le_bytes());
        out.put(&self.newest.to_le_bytes());
        out.put(&u32::try_from(self.entries.len()).expect("at most 65,535").to_le_bytes());
        stamp_at(&mut bytes, trailer_at, FOOTER_MAGIC);
        bytes
    }

    /// How many pages the footer has whose last page this is.
    pub(crate) fn pages_of(last_page: &[u8]) -> Result<usize, Unreadable> {
        let trailer = trailer(last_page)?;
        Ok(Self::pages(trailer.count))
    }

    /// Reads all its pages.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, Unreadable> {
        let Trailer { life, oldest, newest, count } = trailer(bytes)?;
        if Self::pages(count) * PAGE != bytes.len() {
            return Err(Unreadable::Lengths);
        }
        check(bytes, bytes.len() - TRAILER_BYTES)?;
        let entry = |bytes: &[u8]| Entry {
            hash: u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")),
            page: u16::from_le_bytes([bytes[8], bytes[9]]),
            pages: u16::from_le_bytes([bytes[10], bytes[11]]),
            hits: bytes[12],
            tag: Tag::from_bytes([bytes[13], bytes[14], bytes[15]]),
        };
        let entries = bytes.chunks_exact(ENTRY_BYTES).take(count).map(entry).collect();
        Ok(Self { life, oldest, newest, entries })
    }
}

struct Trailer {
    life: Life,
    oldest: u64,
    newest: u64,
    count: usize,
}

fn trailer(bytes: &[u8]) -> Result<Trailer, Unreadable> {
    let at = bytes.len().checked_sub(TRAILER_BYTES).ok_or(Unreadable::Lengths)?;
    recognise(&bytes[at..], FOOTER_MAGIC)?;
    let mut input = In { rest: &bytes[at + PREAMBLE_BYTES..] };
    let device = input.take()?;
    let mut number = || Ok(u64::from_le_bytes(input.take()?));
    let (sequence, oldest, newest) = (number()?, number()?, number()?);
    let count = u32::from_le_bytes(input.take()?) as usize;
    if count > usize::from(u16::MAX) {
        return Err(Unreadable::Lengths);
    }
    Ok(Trailer { life: Life { device, sequence }, oldest, newest, count })
}

fn stamp(page: &mut [u8; PAGE], magic: [u8; 8]) {
    stamp_at(page, 0, magic);
}

/// Writes magic, version and checksum at `at`; the checksum is of all of `bytes`.
fn stamp_at(bytes: &mut [u8], at: usize, magic: [u8; 8]) {
    bytes[at..at + 8].copy_from_slice(&magic);
    bytes[at + 8..at + 12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[at + 12..at + 16].fill(0);
    let sum = crc(bytes);
    bytes[at + 12..at + 16].copy_from_slice(&sum.to_le_bytes());
}

fn recognise(bytes: &[u8], magic: [u8; 8]) -> Result<(), Unreadable> {
    if bytes.get(..8) != Some(&magic) {
        return Err(Unreadable::Magic);
    }
    if bytes.len() < PREAMBLE_BYTES {
        return Err(Unreadable::Lengths);
    }
    if bytes[8..12] == VERSION.to_le_bytes() { Ok(()) } else { Err(Unreadable::Version) }
}

/// Holds `bytes` against the checksum in the preamble at `at`.
fn check(bytes: &[u8], at: usize) -> Result<(), Unreadable> {
    let stated = u32::from_le_bytes(bytes[at + 12..at + 16].try_into().expect("4 bytes"));
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    [&bytes[..at + 12], &[0; 4], &bytes[at + 16..]].into_iter().for_each(|part| digest.update(part));
    if digest.finalize() == u64::from(stated) { Ok(()) } else { Err(Unreadable::Checksum) }
}

struct Out<'a> {
    page: &'a mut [u8],
    at: usize,
    overflowed: bool,
}

impl<'a> Out<'a> {
    fn after_preamble(page: &'a mut [u8]) -> Self {
        Self { page, at: PREAMBLE_BYTES, overflowed: false }
    }

    fn put(&mut self, bytes: &[u8]) {
        match self.page.get_mut(self.at..self.at + bytes.len()) {
            Some(place) => {
                place.copy_from_slice(bytes);
                self.at += bytes.len();
            }
            None => self.overflowed = true,
        }
    }

    fn put_text(&mut self, text: &str) {
        match u16::try_from(text.len()) {
            Ok(length) => self.put(&length.to_le_bytes()),
            Err(_) => self.overflowed = true,
        }
        self.put(text.as_bytes());
    }
}

struct In<'a> {
    rest: &'a [u8],
}

impl<'a> In<'a> {
    fn after_preamble(page: &'a [u8], magic: [u8; 8]) -> Result<Self, Unreadable> {
        recognise(page, magic)?;
        check(page, 0)?;
        Ok(Self { rest: &page[PREAMBLE_BYTES..] })
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Unreadable> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Unreadable::Lengths)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn take_text(&mut self) -> Result<String, Unreadable> {
        let length = usize::from(u16::from_le_bytes(self.take()?));
        let (text, rest) = self.rest.split_at_checked(length).ok_or(Unreadable::Lengths)?;
        self.rest = rest;
        String::from_utf8(text.to_vec()).map_err(|_| Unreadable::Lengths)
    }
}

fn millis(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, duration_millis)
}

fn duration_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A time far beyond any clock is taken for the beginning, when nothing was fresh.
fn time(millis: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_millis(millis)).unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head() -> RecordHead {
        let slice: Vec<u8> = (0..150_000_u32).map(|at| at as u8).collect();
        RecordHead {
            life: Life { device: [6; 16], sequence: 7 },
            key: "/titles/é/1.m4s".into(),
            index: 3,
            slice_bytes: 150_000,
            generation: Generation {
                validator: "\"v1\"".into(),
                length: 1 << 40,
                headers: vec![("content-type".into(), "video/mp4".into()), ("x".into(), String::new())],
                fresh_for: Duration::from_secs(31_536_000),
                initial_age: Duration::from_millis(1500),
                tags: vec!["film-1".into(), "hd".into()],
            },
            vouched_at: UNIX_EPOCH + Duration::from_millis(1_800_000_000_123),
            number: 42,
            checksums: checksums(&slice),
        }
    }

    fn footer(count: u16) -> Footer {
        let entry = |n| Entry {
            hash: u64::from(n) << 40,
            page: n + 1,
            pages: 1,
            hits: n as u8,
            tag: Tag::of(u64::from(n) << 40, u64::from(n)),
        };
        Footer { life: Life { device: [1; 16], sequence: 9 }, oldest: 2, newest: 5, entries: (0..count).map(entry).collect() }
    }

    #[test]
    fn what_is_written_is_read() {
        let head = head();
        let mut page = head.to_page().expect("fits");
        assert_eq!(RecordHead::from_page(&page), Ok(head.clone()));
        RecordHead::move_to(&mut page, 8);
        assert_eq!(RecordHead::from_page(&page), Ok(RecordHead { life: Life { sequence: 8, ..head.life }, ..head }));
        assert_eq!(SegmentHead::from_page(&segment_head().to_page()), Ok(segment_head()));
        assert_eq!(Superblock::from_page(&superblock().to_page()), Ok(superblock()));
        for (count, pages) in [(0, 1), (1, 1), (252, 1), (253, 2), (16_384, 65)] {
            let bytes = footer(count).to_bytes();
            assert_eq!(bytes.len(), pages * PAGE);
            assert_eq!(Footer::pages_of(&bytes[bytes.len() - PAGE..]), Ok(pages));
            assert!(Footer::from_bytes(&bytes) == Ok(footer(count)));
        }
    }

    #[test]
    fn a_range_is_verified_by_its_own_checksums() {
        let (head, slice) = (head(), (0..150_000_u32).map(|at| at as u8).collect::<Vec<_>>());
        assert!(head.verifies(0, &slice) && head.verifies(1, &slice[65_536..131_072]) && head.verifies(2, &slice[131_072..]));
        assert!(!head.verifies(0, &slice[1..]) && !head.verifies(3, &slice) && !head.verifies(1, &slice));
    }

    #[test]
    fn a_head_that_does_not_fit_is_not_cut() {
        let mut head = head();
        head.generation.headers = vec![("x".into(), "y".repeat(4000))];
        assert_eq!(head.to_page(), None);
    }

    #[test]
    fn one_wrong_bit_anywhere_is_noticed() {
        let pages = [head().to_page().expect("fits").to_vec(), footer(300).to_bytes()];
        for (page, read) in
            pages.iter().zip([|page: &[u8]| RecordHead::from_page(page).is_ok(), |page: &[u8]| Footer::from_bytes(page).is_ok()])
        {
            for bit in (0..page.len() * 8).step_by(37) {
                let mut wrong = page.clone();
                wrong[bit / 8] ^= 1 << (bit % 8);
                assert!(!read(&wrong), "bit {bit}");
            }
        }
    }

    /// A page of noise, or one that is right but for some bytes.
    fn nearly(page: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
        let changes = prop::collection::vec((0..PAGE, any::<u8>()), 0..6);
        let damaged = changes.prop_map(move |changes| {
            let mut page = page.clone();
            changes.into_iter().for_each(|(at, byte)| page[at] = byte);
            page
        });
        prop_oneof![prop::collection::vec(any::<u8>(), PAGE), damaged]
    }

    fn superblock() -> Superblock {
        let formatted_at = UNIX_EPOCH + Duration::from_secs(1);
        Superblock { set: [3; 16], device: [4; 16], segment_bytes: 64 << 20, segments: 99, slice_bytes: 1 << 20, formatted_at }
    }

    fn segment_head() -> SegmentHead {
        SegmentHead { life: Life { device: [2; 16], sequence: 6 }, number: 5, class: Class::Planned }
    }

    // Whatever is on a page, also under a right checksum, since a device may hold what some other program made: what is made of it is an error, or
    // means the same when it is written again.
    proptest! {
        #[test]
        fn a_superblock_is_refused_or_understood(mut page in nearly(superblock().to_page().to_vec())) {
            prop_assert!(Superblock::from_page(&page).is_err() || page == superblock().to_page());
            stamp_at(&mut page, 0, SUPERBLOCK_MAGIC);
            if let Ok(superblock) = Superblock::from_page(&page) {
                prop_assert_eq!(Superblock::from_page(&superblock.to_page()), Ok(superblock));
            }
        }

        #[test]
        fn a_segment_head_is_refused_or_understood(mut page in nearly(segment_head().to_page().to_vec())) {
            prop_assert!(SegmentHead::from_page(&page).is_err() || page == segment_head().to_page());
            stamp_at(&mut page, 0, SEGMENT_MAGIC);
            if let Ok(head) = SegmentHead::from_page(&page) {
                prop_assert_eq!(SegmentHead::from_page(&head.to_page()), Ok(head));
            }
        }

        #[test]
        fn a_record_head_is_refused_or_understood(mut page in nearly(head().to_page().expect("fits").to_vec()), cut in 0..PAGE) {
            prop_assert!(RecordHead::from_page(&page).is_err() || page == head().to_page().expect("fits"));
            stamp_at(&mut page, 0, RECORD_MAGIC);
            prop_assert!(RecordHead::from_page(&page[..cut]).is_err());
            if let Ok(head) = RecordHead::from_page(&page) {
                prop_assert!(u64::from(head.slice_bytes) <= head.generation.length);
                prop_assert_eq!(head.checksums.len(), (head.slice_bytes as usize).div_ceil(CHECKED_BYTES));
                let again = head.to_page().expect("no longer than it was");
                prop_assert_eq!(RecordHead::from_page(&again), Ok(head));
            }
        }

        #[test]
        fn a_footer_is_refused_or_understood(mut page in nearly(footer(250).to_bytes()), cut in 0..PAGE) {
            prop_assert!(Footer::from_bytes(&page).is_err() || page == footer(250).to_bytes());
            stamp_at(&mut page, PAGE - TRAILER_BYTES, FOOTER_MAGIC);
            prop_assert!(Footer::from_bytes(&page[..cut]).is_err());
            let pages = Footer::pages_of(&page);
            match Footer::from_bytes(&page) {
                Ok(footer) => {
                    prop_assert_eq!(pages, Ok(1));
                    prop_assert!(Footer::from_bytes(&footer.to_bytes()) == Ok(footer));
                }
                // Its trailer may be right and tell of more pages.
                Err(error) => prop_assert_eq!(error, Unreadable::Lengths),
            }
        }
    }
}
