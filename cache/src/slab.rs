//! Memory for slices: a byte budget that nothing is allocated beyond, and blocks that one fill writes while many readers read.
//!
//! A block is freed when the last view of it is dropped, so what a slow reader still holds stays counted.

use std::{
    alloc::{Layout, alloc, dealloc, handle_alloc_error},
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

/// Blocks are aligned to it, and the budget counts in it: the page, and the sector of direct I/O.
const UNIT_BYTES: usize = 4096;

/// Hands out memory, in units of 4 KiB, first come first served.
pub(crate) struct Budget {
    slice_bytes: usize,
    units_max: usize,
    units_free: Arc<Semaphore>,
    /// Blocks of a whole slice that are free: taking one again costs no page faults.
    spare: Mutex<Vec<Block>>,
}

impl Budget {
    pub(crate) fn new(bytes_max: u64, slice_bytes: usize) -> Self {
        let units_max = usize::try_from(bytes_max).unwrap_or(usize::MAX) / UNIT_BYTES;
        let units_max = units_max.min(Semaphore::MAX_PERMITS);
        Self { slice_bytes, units_max, units_free: Arc::new(Semaphore::new(units_max)), spare: Mutex::default() }
    }

    /// Waits at most `wait_max` for room for `bytes`.
    pub(crate) async fn acquire(self: &Arc<Self>, bytes: usize, wait_max: Duration) -> Option<Permit> {
        let waiting = self.units_free.clone().acquire_many_owned(units(bytes));
        let permit = tokio::time::timeout(wait_max, waiting).await.ok()?.ok()?;
        Some(Permit { permit, budget: self.clone() })
    }

    /// Room for `bytes` if there is some now.
    pub(crate) fn try_acquire(self: &Arc<Self>, bytes: usize) -> Option<Permit> {
        match self.units_free.clone().try_acquire_many_owned(units(bytes)) {
            Ok(permit) => Some(Permit { permit, budget: self.clone() }),
            Err(TryAcquireError::NoPermits | TryAcquireError::Closed) => None,
        }
    }

    pub(crate) fn bytes_used(&self) -> u64 {
        ((self.units_max - self.units_free.available_permits()) * UNIT_BYTES) as u64
    }

    /// A block of `bytes`. Spare blocks are given back to the system where they would not fit beside what is in use.
    fn block(&self, bytes: usize) -> Block {
        let mut spare = self.spare.lock();
        if bytes == self.slice_bytes
            && let Some(block) = spare.pop()
        {
            return block;
        }
        let spare_max = self.units_free.available_permits() * UNIT_BYTES / self.slice_bytes;
        spare.truncate(spare_max);
        drop(spare);
        Block::new(bytes)
    }

    fn give_back(&self, block: Block) {
        if block.layout.size() == self.slice_bytes {
            self.spare.lock().push(block);
        }
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).expect("a slice is at most 4 MiB, which is 1024 units")
}

/// A claim on the budget, given back on drop.
pub(crate) struct Permit {
    permit: OwnedSemaphorePermit,
    budget: Arc<Budget>,
}

impl Permit {
    /// Gives back what is not needed for `bytes`.
    fn shrink_to(&mut self, bytes: usize) {
        let surplus = self.permit.num_permits().saturating_sub(units(bytes) as usize);
        drop(self.permit.split(surplus));
    }

    fn bytes(&self) -> usize {
        self.permit.num_permits() * UNIT_BYTES
    }
}

/// Memory of a fixed size, aligned to 4 KiB, not initialised.
struct Block {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: a block owns its memory alone; the pointer is no alias of anything bound to a thread.
unsafe impl Send for Block {}

impl Block {
    fn new(bytes: usize) -> Self {
        let layout = Layout::from_size_align(bytes.max(1), UNIT_BYTES).expect("a slice is at most 4 MiB");
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc(layout) };
        let start = NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout));
        Self { start, layout }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: `start` came from `alloc` with this layout and is freed once.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}

/// One slice's bytes: written once, front to back, by its [`Writer`]; readable up to what is written.
pub(crate) struct Slab {
    /// `None` only while dropping.
    block: Option<Block>,
    start: NonNull<u8>,
    length: usize,
    filled: AtomicUsize,
    permit: Permit,
}

// SAFETY: the one `Writer` writes only at and after `filled`, readers read only before it, and `filled` is published with release
// and read with acquire. So no byte is ever written and read at once.
unsafe impl Send for Slab {}
// SAFETY: as above.
unsafe impl Sync for Slab {}

impl Slab {
    /// Memory for `length` bytes under `permit`, which must cover them.
    pub(crate) fn new(mut permit: Permit, length: usize) -> (Arc<Self>, Writer) {
        permit.shrink_to(length);
        let block = permit.budget.block(length);
        let start = block.start;
        let slab = Arc::new(Self { block: Some(block), start, length, filled: AtomicUsize::new(0), permit });
        (slab.clone(), Writer(slab))
    }

    /// Bytes that the slice has once it is full.
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// Bytes written so far.
    pub(crate) fn filled(&self) -> usize {
        self.filled.load(Ordering::Acquire)
    }

    /// What it takes from the budget.
    pub(crate) fn bytes_charged(&self) -> usize {
        self.permit.bytes()
    }

    /// The bytes from `from` to `to`, without a copy. Both must lie within what is written.
    pub(crate) fn view(self: &Arc<Self>, from: usize, to: usize) -> Bytes {
        assert!(from <= to && to <= self.filled(), "a view lies within what is written");
        Bytes::from_owner(View { slab: self.clone(), from, to })
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        if let Some(block) = self.block.take() {
            self.permit.budget.give_back(block);
        }
    }
}

struct View {
    slab: Arc<Slab>,
    from: usize,
    to: usize,
}

impl AsRef<[u8]> for View {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `view` checked that the range is written, and what is written is never written again.
        unsafe { std::slice::from_raw_parts(self.slab.start.as_ptr().add(self.from), self.to - self.from) }
    }
}

/// The only one who writes a slab.
pub(crate) struct Writer(Arc<Slab>);

impl Writer {
    /// Appends `bytes`; `false` and nothing written if they do not fit.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> bool {
        let slab = &*self.0;
        let filled = slab.filled.load(Ordering::Relaxed);
        if bytes.len() > slab.length - filled {
            return false;
        }
        // SAFETY: the target is within the block, no reader looks at or after `filled`, and there is one writer.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), slab.start.as_ptr().add(filled), bytes.len()) };
        slab.filled.store(filled + bytes.len(), Ordering::Release);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_budget_counts_what_a_view_still_holds() {
        let budget = Arc::new(Budget::new(64 << 10, 16 << 10));
        let permit = budget.acquire(16 << 10, Duration::ZERO).await.expect("room");
        let (slab, mut writer) = Slab::new(permit, 10_000);
        assert_eq!(budget.bytes_used(), 12 << 10, "the surplus over 10,000 bytes went back");
        assert!(writer.append(&[7; 6000]) && writer.append(&[8; 4000]));
        assert!(!writer.append(&[9]), "no byte beyond the length");
        let view = slab.view(5999, 6001);
        drop((slab, writer));
        assert_eq!(&view[..], [7, 8]);
        assert_eq!(budget.bytes_used(), 12 << 10);
        drop(view);
        assert_eq!(budget.bytes_used(), 0);
    }

    #[tokio::test]
    async fn whole_slices_are_used_again_and_never_kept_beyond_the_budget() {
        let budget = Arc::new(Budget::new(64 << 10, 16 << 10));
        let whole: Vec<_> = (0..4).map(|_| Slab::new(budget.try_acquire(16 << 10).expect("room"), 16 << 10)).collect();
        assert!(budget.try_acquire(1).is_none());
        drop(whole);
        assert_eq!(budget.spare.lock().len(), 4);
        let _small = Slab::new(budget.try_acquire(4 << 10).expect("room"), 100);
        assert_eq!(budget.spare.lock().len(), 3, "one spare block made room for the small one");
    }
}
