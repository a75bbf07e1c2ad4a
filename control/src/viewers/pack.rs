//! Packs: old views of a user, those that began in one period, in few bytes.
//!
//! Pure. A pack is one byte of version and a zstd frame. In that, numbers (LEB128) and texts stand by columns, as neighbours of a kind
//! are alike: how many views, their titles and devices (each once, sorted, without what it shares with the one before), then per view,
//! in the order in which they began: since when after the one before, how long, where it stopped, how much further it was, which title,
//! which device.

use std::{collections::BTreeSet, io::Read as _};

use crc_fast::{CrcAlgorithm, checksum};
use ruzstd::{
    decoding::StreamingDecoder,
    encoding::{CompressionLevel, compress_to_vec},
};
use wire::title::TitleId;

use super::{
    varint::{Malformed, put_number, put_text, take_byte, take_number, take_text},
    view::{Device, View},
};

const VERSION: u8 = 1;
/// How long a period is. Months would do as well and are harder to count.
pub(crate) const PERIOD_MS: u64 = 30 * 86_400_000;
/// The most views in a pack: what a page of history has to read at once.
pub(crate) const PACK_VIEWS_MAX: usize = 512;
/// The most that a pack is unpacked to: its views with the longest titles and devices.
const UNPACKED_BYTES_MAX: u64 = 512 * 1024;

/// The period that a time is in.
pub(crate) fn period_of(at_ms: u64) -> u64 {
    at_ms / PERIOD_MS
}

/// What is known of a pack without unpacking it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PackHead {
    pub(crate) period: u64,
    /// Which of the period's packs, from 0.
    pub(crate) chunk: u64,
    pub(crate) views: u64,
    pub(crate) first_begun_ms: u64,
    pub(crate) last_begun_ms: u64,
    /// The largest `last_ms` of all.
    pub(crate) last_ms: u64,
    /// Two bytes a title, sorted.
    pub(crate) titles: Vec<u8>,
}

impl PackHead {
    /// Whether a view of the title may be in it. Never wrong when it is, and seldom when it is not.
    pub(crate) fn may_have(&self, title: &TitleId) -> bool {
        self.titles.as_chunks::<2>().0.contains(&hint(title))
    }

    /// Whether `view` may touch one of its views.
    pub(crate) fn may_touch(&self, view: &View, gap_ms: u64) -> bool {
        view.begun_ms <= self.last_ms.saturating_add(gap_ms) && self.first_begun_ms <= view.last_ms.saturating_add(gap_ms)
    }
}

/// Two bytes of the CRC-32C of a title's id.
fn hint(title: &TitleId) -> [u8; 2] {
    (checksum(CrcAlgorithm::Crc32Iscsi, title.as_str().as_bytes()) as u16).to_le_bytes()
}

/// Packs views of one period.
pub(crate) fn pack(period: u64, mut views: Vec<View>) -> Vec<(PackHead, Vec<u8>)> {
    views.sort_by(|a, b| (a.begun_ms, &a.title).cmp(&(b.begun_ms, &b.title)));
    let chunks = (0..).zip(views.chunks(PACK_VIEWS_MAX));
    chunks.map(|(chunk, views)| (head(period, chunk, views), encode(views))).collect()
}

fn head(period: u64, chunk: u64, views: &[View]) -> PackHead {
    let titles: BTreeSet<[u8; 2]> = views.iter().map(|view| hint(&view.title)).collect();
    PackHead {
        period,
        chunk,
        views: views.len() as u64,
        first_begun_ms: views.first().map_or(0, |view| view.begun_ms),
        last_begun_ms: views.last().map_or(0, |view| view.begun_ms),
        last_ms: views.iter().map(|view| view.last_ms).max().unwrap_or(0),
        titles: titles.into_iter().flatten().collect(),
    }
}

/// `views` in the order in which they began.
fn encode(views: &[View]) -> Vec<u8> {
    let titles: BTreeSet<&str> = views.iter().map(|view| view.title.as_str()).collect();
    let devices: BTreeSet<&str> = views.iter().filter_map(|view| view.device.as_ref()).map(Device::as_str).collect();
    let titles: Vec<&str> = titles.into_iter().collect();
    let devices: Vec<&str> = devices.into_iter().collect();
    let mut out = Vec::new();
    put_number(&mut out, views.len() as u64);
    put_dictionary(&mut out, &titles);
    put_dictionary(&mut out, &devices);
    let mut before_ms = 0;
    for view in views {
        put_number(&mut out, view.begun_ms - before_ms);
        before_ms = view.begun_ms;
    }
    let columns: [&dyn Fn(&View) -> u64; 5] = [
        &|view| view.last_ms.saturating_sub(view.begun_ms),
        &|view| view.position_ms,
        &|view| view.furthest_ms.saturating_sub(view.position_ms),
        &|view| titles.partition_point(|title| *title < view.title.as_str()) as u64,
        &|view| view.device.as_ref().map_or(0, |name| 1 + devices.partition_point(|device| *device < name.as_str()) as u64),
    ];
    for column in columns {
        views.iter().for_each(|view| put_number(&mut out, column(view)));
    }
    let mut packed = vec![VERSION];
    packed.extend(compress_to_vec(&out[..], CompressionLevel::Fastest));
    packed
}

/// Sorted texts, each without what it begins with like the one before.
fn put_dictionary(out: &mut Vec<u8>, texts: &[&str]) {
    put_number(out, texts.len() as u64);
    let mut before = "";
    for text in texts {
        let shared = text.char_indices().zip(before.chars()).find(|((_, a), b)| a != b);
        let shared = shared.map_or(text.len().min(before.len()), |((at, _), _)| at);
        put_number(out, shared as u64);
        put_text(out, &text[shared..]);
        before = text;
    }
}

fn take_dictionary<T: std::str::FromStr>(from: &mut &[u8]) -> Result<Vec<T>, Malformed> {
    let mut text = String::new();
    let count = take_number(from)?;
    (0..count)
        .map(|_| {
            let shared = usize::try_from(take_number(from)?).map_err(|_| Malformed)?;
            if !text.is_char_boundary(shared) {
                return Err(Malformed);
            }
            text.truncate(shared);
            text.push_str(take_text(from)?);
            text.parse().map_err(|_| Malformed)
        })
        .collect()
}

/// The views of a pack, in the order in which they began.
pub(crate) fn unpack(packed: &[u8]) -> Result<Vec<View>, Malformed> {
    let mut frame = packed;
    if take_byte(&mut frame)? != VERSION {
        return Err(Malformed);
    }
    let mut bytes = Vec::new();
    let decoder = StreamingDecoder::new(frame).map_err(|_| Malformed)?;
    decoder.take(UNPACKED_BYTES_MAX).read_to_end(&mut bytes).map_err(|_| Malformed)?;
    let mut rest = &bytes[..];
    let from = &mut rest;
    let count = usize::try_from(take_number(from)?).ok().filter(|count| *count <= PACK_VIEWS_MAX).ok_or(Malformed)?;
    let titles: Vec<TitleId> = take_dictionary(from)?;
    let devices: Vec<Device> = take_dictionary(from)?;
    let mut column = || (0..count).map(|_| take_number(from)).collect::<Result<Vec<u64>, _>>();
    let (begun, lasted, position, further, title, device) = (column()?, column()?, column()?, column()?, column()?, column()?);
    if !rest.is_empty() {
        return Err(Malformed);
    }
    let plus = |a: u64, b: u64| a.checked_add(b).ok_or(Malformed);
    let mut begun_ms = 0;
    (0..count)
        .map(|n| {
            begun_ms = plus(begun_ms, begun[n])?;
            Ok(View {
                title: titles.get(title[n] as usize).ok_or(Malformed)?.clone(),
                begun_ms,
                last_ms: plus(begun_ms, lasted[n])?,
                position_ms: position[n],
                furthest_ms: plus(position[n], further[n])?,
                device: match device[n] {
                    0 => None,
                    which => Some(devices.get(which as usize - 1).ok_or(Malformed)?.clone()),
                },
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::viewers::view::tests::title;

    fn view() -> impl Strategy<Value = View> {
        let device = prop_oneof![Just(None), "[a-zé]{1,6}".prop_map(|name| Some(name.parse().unwrap()))];
        let times = (any::<u32>(), any::<u32>(), 0..1_u64 << 33, any::<u16>());
        ("[a-z0-9]{1,3}-s[0-9]", times, device).prop_map(|(name, (begun, lasted, position_ms, further), device)| {
            let begun_ms = 1_700_000_000_000 + u64::from(begun);
            View {
                title: title(&name),
                begun_ms,
                last_ms: begun_ms + u64::from(lasted),
                position_ms,
                furthest_ms: position_ms + u64::from(further),
                device,
            }
        })
    }

    proptest! {
        #[test]
        fn views_come_back_as_they_were_packed(mut views in prop::collection::vec(view(), 0..60)) {
            let mut unpacked = Vec::new();
            for (head, data) in pack(7, views.clone()) {
                let some = unpack(&data).unwrap();
                prop_assert_eq!((head.period, head.views), (7, some.len() as u64));
                for view in &some {
                    prop_assert!(head.may_have(&view.title) && head.may_touch(view, 0));
                    prop_assert!(head.first_begun_ms <= view.begun_ms && view.begun_ms <= head.last_begun_ms);
                }
                unpacked.extend(some);
            }
            let key = |view: &View| (view.begun_ms, view.title.clone(), view.position_ms);
            unpacked.sort_by_key(key);
            views.sort_by_key(key);
            prop_assert_eq!(unpacked, views);
        }

        #[test]
        fn what_is_no_pack_is_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..200), whole in any::<bool>()) {
            if whole {
                bytes = [&[VERSION][..], &compress_to_vec(&bytes[..], CompressionLevel::Fastest)].concat();
            }
            if let Ok(views) = unpack(&bytes) {
                prop_assert!(views.len() <= PACK_VIEWS_MAX);
            }
        }
    }

    #[test]
    fn a_period_with_many_views_has_several_packs() {
        let views: Vec<_> = (0..PACK_VIEWS_MAX as u64 + 1).rev().map(|n| View::at(title("a"), n * 1000, n, None)).collect();
        let packs = pack(0, views);
        assert_eq!(packs.iter().map(|(head, _)| (head.chunk, head.views)).collect::<Vec<_>>(), [(0, 512), (1, 1)]);
        assert_eq!((packs[0].0.last_begun_ms, packs[1].0.first_begun_ms), (511_000, 512_000));
        assert_eq!(unpack(&packs[1].1).unwrap()[0].position_ms, 512);
        assert_eq!(packs[1].0.titles.len(), 2);
    }

    #[test]
    fn a_pack_that_is_cut_or_of_another_version_is_refused() {
        let (_, data) = pack(0, vec![View::at(title("a"), 1000, 5, None)]).remove(0);
        for length in 0..data.len() {
            // Without its checksum alone a frame is whole.
            assert!(unpack(&data[..length]).is_err() || length + 4 >= data.len(), "{length}");
        }
        let mut other = data;
        other[0] = 2;
        assert_eq!(unpack(&other), Err(Malformed));
    }
}
