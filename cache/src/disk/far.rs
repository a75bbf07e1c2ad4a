//! Which objects may have slices on devices that are far from their beginning.
//!
//! The index knows slices by hashes and cannot list those of an object. Near ones can be looked for one by one. For far ones each object has a tag,
//! which footers carry beside the hash, and here is a bit for each tag that was seen. Bits are never taken back before a restart, and two objects may
//! share one: then something is looked for in vain.

use std::sync::atomic::{AtomicU64, Ordering};

/// Slices from this one on are far.
pub(crate) const NEAR_SLICES: u64 = 64;
const TAG_BITS: u32 = 24;
const WORDS: usize = 1 << (TAG_BITS - 6);

/// An object's tag on a far slice's footer entry: never 0, which is that of near ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag(u32);

impl Tag {
    /// Of the slice `index` of an object with this hash.
    pub(super) fn of(object: u64, index: u64) -> Self {
        Self(if index < NEAR_SLICES { 0 } else { ((object >> (64 - TAG_BITS)) as u32).max(1) })
    }

    /// As footers have it.
    pub(super) fn from_bytes(bytes: [u8; 3]) -> Self {
        Self(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0]))
    }

    pub(super) fn to_bytes(self) -> [u8; 3] {
        let [a, b, c, _] = self.0.to_le_bytes();
        [a, b, c]
    }
}

/// The tags that were seen.
pub(super) struct Far(Box<[AtomicU64]>);

impl Default for Far {
    fn default() -> Self {
        Self((0..WORDS).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Far {
    /// A slice with this tag is on a device.
    pub(super) fn note(&self, tag: Tag) {
        if tag.0 > 0 {
            self.0[tag.0 as usize / 64].fetch_or(1 << (tag.0 % 64), Ordering::Relaxed);
        }
    }

    /// Whether the object with this hash may have far slices.
    pub(super) fn may_have(&self, object: u64) -> bool {
        let Tag(tag) = Tag::of(object, NEAR_SLICES);
        self.0[tag as usize / 64].load(Ordering::Relaxed) & 1 << (tag % 64) != 0
    }

    /// Memory, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.0.len() * size_of::<AtomicU64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_far_slices_leave_a_trace_and_only_of_their_object() {
        let (far, object) = (Far::default(), 0x1234_5678_9abc_def0);
        far.note(Tag::of(object, NEAR_SLICES - 1));
        assert!(!far.may_have(object));
        let tag = Tag::of(object, NEAR_SLICES);
        far.note(Tag::from_bytes(tag.to_bytes()));
        assert!(far.may_have(object) && !far.may_have(!object) && !far.may_have(object ^ 1 << 40));
        let zero = 0x0000_0012_3456_789a;
        far.note(Tag::of(zero, u64::MAX));
        assert!(far.may_have(zero), "0 is no tag");
        assert_eq!(far.bytes(), 2 << 20);
    }
}
