//! How a device is cut into segments, and what fits into one: the same for the engine and for `larder replay`.

use super::{
    device::SEGMENTS_MIN,
    index::SEGMENTS_MAX,
    layout::{Footer, PAGE, SEGMENTS_AT},
};

/// A device of so many segments keeps a segment open that has no room for some record, because smaller ones may come. A smaller device has no segment to
/// spare for that.
const TAILS_FROM: u32 = 16;

/// A device's segments, all of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) segments: u32,
    /// Whole pages.
    pub(crate) segment_bytes: u64,
}

impl Cut {
    /// The smallest device of segments of so many bytes.
    pub(crate) fn bytes_min(segment_bytes: u64) -> u64 {
        SEGMENTS_AT + u64::from(SEGMENTS_MIN) * segment_bytes
    }

    /// Cuts a device of `bytes` into as few segments as are no larger than `segment_bytes`, so that hardly anything is left over. `None` if it is too small.
    pub(crate) fn of(bytes: u64, segment_bytes: u64) -> Option<Self> {
        if bytes < Self::bytes_min(segment_bytes) {
            return None;
        }
        let room = bytes - SEGMENTS_AT;
        let segments = u32::try_from(room.div_ceil(segment_bytes)).unwrap_or(SEGMENTS_MAX).min(SEGMENTS_MAX);
        let whole_pages = room / u64::from(segments) / PAGE as u64 * PAGE as u64;
        Some(Self { segments, segment_bytes: whole_pages.min(segment_bytes) })
    }

    pub(crate) fn pages(self) -> usize {
        usize::try_from(self.segment_bytes).expect("at most 256 MiB") / PAGE
    }

    /// Whether a record of so many `pages` fits into a segment of which so many are `taken`, by the head and so many `records`; the footer comes after it.
    pub(crate) fn has_room(self, taken: usize, records: usize, pages: usize) -> bool {
        taken + pages + Footer::pages(records + 1) <= self.pages()
    }

    /// Whether a segment stays open that has no room for some record.
    pub(crate) fn keeps_tails(self) -> bool {
        self.segments >= TAILS_FROM
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_device_is_used_to_its_end() {
        assert_eq!(Cut::of(5 << 30, 64 * MIB), Some(Cut { segments: 80, segment_bytes: 64 * MIB - 16 * 1024 }));
        assert_eq!(Cut::of((1 + 80 * 64) * MIB, 64 * MIB), Some(Cut { segments: 80, segment_bytes: 64 * MIB }));
        assert_eq!(Cut::of((1 + 80 * 64) * MIB + 1, 64 * MIB).map(|cut| cut.segments), Some(81));
        for bytes in (0..2000).map(|n| 9 * 64 * MIB + n * 1_234_567) {
            let cut = Cut::of(bytes, 64 * MIB).expect("large enough");
            let used = SEGMENTS_AT + u64::from(cut.segments) * cut.segment_bytes;
            assert!(used <= bytes && bytes - used < u64::from(cut.segments) * PAGE as u64, "{used} of {bytes}");
            assert!(
                cut.segment_bytes <= 64 * MIB && cut.segment_bytes > 56 * MIB && cut.segment_bytes.is_multiple_of(PAGE as u64)
            );
        }
    }

    #[test]
    fn what_is_too_small_or_too_large_is_no_cut_or_one_that_is_not_used_to_its_end() {
        assert!(Cut::of(Cut::bytes_min(MIB), MIB).is_some_and(|cut| cut == Cut { segments: 8, segment_bytes: MIB }));
        assert!([0, 1, SEGMENTS_AT, Cut::bytes_min(MIB) - 1].into_iter().all(|bytes| Cut::of(bytes, MIB).is_none()));
        assert_eq!(Cut::of(1 << 60, 64 * MIB), Some(Cut { segments: SEGMENTS_MAX, segment_bytes: 64 * MIB }));
    }
}
