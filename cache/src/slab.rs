//! Memory for slices: a byte budget that nothing is allocated beyond, and blocks that one fill writes while many readers read.
//!
//! A block is freed when the last view of it is dropped, so what a slow reader still holds stays counted. A page for the slice's record
//! stands before its bytes, so that a slice goes to a device and comes from it in one piece and without a copy.

use std::{
    alloc::{Layout, alloc, alloc_zeroed, dealloc, handle_alloc_error},
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Blocks are aligned to it, and the budget counts in it: the page, and the sector of direct I/O.
pub(crate) const UNIT_BYTES: usize = 4096;
/// Before the bytes of every slice: room for its record's head (`disk::layout`).
pub(crate) const HEAD_BYTES: usize = UNIT_BYTES;

/// What a slice of `length` bytes takes of the budget, and on a device: its head, and its bytes up to a whole unit.
pub(crate) fn record_bytes(length: usize) -> usize {
    HEAD_BYTES + length.next_multiple_of(UNIT_BYTES)
}

/// Who wants memory. When it is short, the last waits first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Priority {
    /// Someone is watching.
    Viewer,
    /// A plan: leaves a sixteenth of the budget to viewers.
    Plan,
    /// Nobody needs it yet: leaves an eighth, and never waits.
    Speculation,
}

/// Hands out memory, in units of 4 KiB, first come first served among viewers.
pub(crate) struct Budget {
    /// Bytes of a whole slice's block, head included.
    block_bytes: usize,
    units_max: usize,
    units_free: Arc<Semaphore>,
    /// Blocks of a whole slice that are free: taking one again costs no page faults.
    spare: Mutex<Vec<Block>>,
    slots: Arc<Slots>,
    plans_waiting: AtomicUsize,
    given_back: Notify,
}

impl Budget {
    pub(crate) fn new(bytes_max: u64, slice_bytes: usize) -> Self {
        let units_max = usize::try_from(bytes_max).unwrap_or(usize::MAX) / UNIT_BYTES;
        let units_max = units_max.min(Semaphore::MAX_PERMITS);
        Self {
            block_bytes: record_bytes(slice_bytes),
            units_max,
            units_free: Arc::new(Semaphore::new(units_max)),
            spare: Mutex::default(),
            slots: Arc::new(Slots::new((units_max * UNIT_BYTES / record_bytes(slice_bytes)).min(SLOTS_MAX))),
            plans_waiting: AtomicUsize::new(0),
            given_back: Notify::new(),
        }
    }

    /// Waits at most `wait_max` for a slice of `length` bytes to have room; speculation does not wait.
    pub(crate) async fn acquire(self: &Arc<Self>, length: usize, priority: Priority, wait_max: Duration) -> Option<Permit> {
        let units = units(length);
        match priority {
            Priority::Viewer => {
                let waiting = self.units_free.clone().acquire_many_owned(units);
                let permit = tokio::time::timeout(wait_max, waiting).await.ok()?.ok()?;
                Some(self.permit(permit))
            }
            Priority::Plan => tokio::time::timeout(wait_max, self.acquire_patiently(length)).await.ok(),
            Priority::Speculation => self.try_acquire(length, priority),
        }
    }

    /// Room for a slice of `length` bytes if there is some now.
    pub(crate) fn try_acquire(self: &Arc<Self>, length: usize, priority: Priority) -> Option<Permit> {
        let left_to_others = match priority {
            Priority::Viewer => 0,
            Priority::Plan => self.units_max / 16,
            Priority::Speculation => self.units_max / 8,
        };
        let units = units(length);
        if self.units_free.available_permits() < left_to_others + units as usize {
            return None;
        }
        let permit = self.units_free.clone().try_acquire_many_owned(units).ok()?;
        Some(self.permit(permit))
    }

    async fn acquire_patiently(self: &Arc<Self>, length: usize) -> Permit {
        let _waiting = Waiting::new(&self.plans_waiting);
        loop {
            let given_back = self.given_back.notified();
            if let Some(permit) = self.try_acquire(length, Priority::Plan) {
                return permit;
            }
            given_back.await;
        }
    }

    fn permit(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Permit {
        Permit { permit, budget: Wakes(self.clone()) }
    }

    pub(crate) fn bytes_used(&self) -> u64 {
        ((self.units_max - self.units_free.available_permits()) * UNIT_BYTES) as u64
    }

    /// What a device driver registers blocks by.
    pub(crate) fn slots(&self) -> &Arc<Slots> {
        &self.slots
    }

    /// A block of `bytes`. Spare blocks are given back to the system where they would not fit beside what is in use.
    fn block(&self, bytes: usize) -> Block {
        let mut spare = self.spare.lock();
        if bytes == self.block_bytes
            && let Some(block) = spare.pop()
        {
            return block;
        }
        let spare_max = self.units_free.available_permits() * UNIT_BYTES / self.block_bytes;
        spare.truncate(spare_max);
        drop(spare);
        let slot = if bytes == self.block_bytes { self.slots.take() } else { None };
        Block::new(bytes, slot)
    }

    /// Gives blocks that nobody uses back to the system.
    pub(crate) fn give_up_spare(&self) {
        drop(std::mem::take(&mut *self.spare.lock()));
    }

    fn give_back(&self, block: Block) {
        if block.layout.size() == self.block_bytes {
            self.spare.lock().push(block);
        }
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn units(length: usize) -> u32 {
    u32::try_from(record_bytes(length) / UNIT_BYTES).expect("a slice is at most 4 MiB, which is 1024 units")
}

/// A claim on the budget, given back on drop.
pub(crate) struct Permit {
    // In this order: whoever waits is woken after the units are back.
    permit: OwnedSemaphorePermit,
    budget: Wakes,
}

struct Wakes(Arc<Budget>);

impl Wakes {
    fn wake(&self) {
        if self.0.plans_waiting.load(Ordering::SeqCst) > 0 {
            self.0.given_back.notify_waiters();
        }
    }
}

impl Drop for Wakes {
    fn drop(&mut self) {
        self.wake();
    }
}

impl Permit {
    /// Gives back what is not needed for a slice of `length` bytes.
    fn shrink_to(&mut self, length: usize) {
        let surplus = self.permit.num_permits().saturating_sub(units(length) as usize);
        drop(self.permit.split(surplus));
        self.budget.wake();
    }

    fn bytes(&self) -> usize {
        self.permit.num_permits() * UNIT_BYTES
    }
}

/// As many blocks as a ring can have registered (`IORING_MAX_REG_BUFFERS`).
const SLOTS_MAX: usize = 1 << 14;

/// Numbers for blocks of whole slices, so that a driver can register each once. A number is used again, with another generation, when its
/// block went back to the system.
pub(crate) struct Slots {
    generations: Box<[AtomicU32]>,
    free: Mutex<Vec<u16>>,
    retired: AtomicU32,
}

/// A block's number, and the how-manieth block of that number it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) index: u16,
    pub(crate) generation: u32,
}

impl Slots {
    fn new(count: usize) -> Self {
        let generations = (0..count).map(|_| AtomicU32::new(0)).collect();
        let free = (0..count).rev().map(|index| u16::try_from(index).expect("below SLOTS_MAX")).collect();
        Self { generations, free: Mutex::new(free), retired: AtomicU32::new(0) }
    }

    /// How many there are at most.
    pub(crate) fn len(&self) -> usize {
        self.generations.len()
    }

    /// Rises whenever a block goes back to the system: then drivers should let go of [`Slot`]s that are not [`Self::is_current`].
    pub(crate) fn retired(&self) -> u32 {
        self.retired.load(Ordering::Acquire)
    }

    pub(crate) fn is_current(&self, slot: Slot) -> bool {
        self.generations[usize::from(slot.index)].load(Ordering::Acquire) == slot.generation
    }

    fn take(self: &Arc<Self>) -> Option<(Slot, Arc<Self>)> {
        let index = self.free.lock().pop()?;
        let generation = self.generations[usize::from(index)].load(Ordering::Acquire);
        Some((Slot { index, generation }, self.clone()))
    }

    fn retire(&self, slot: Slot) {
        self.generations[usize::from(slot.index)].fetch_add(1, Ordering::AcqRel);
        self.retired.fetch_add(1, Ordering::AcqRel);
        self.free.lock().push(slot.index);
    }
}

/// Memory of a fixed size, aligned to 4 KiB.
struct Block {
    start: NonNull<u8>,
    layout: Layout,
    slot: Option<(Slot, Arc<Slots>)>,
}

// SAFETY: a block owns its memory alone; the pointer is no alias of anything bound to a thread.
unsafe impl Send for Block {}

impl Block {
    /// Not initialised.
    fn new(bytes: usize, slots: Option<(Slot, Arc<Slots>)>) -> Self {
        let layout = Self::layout(bytes);
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc(layout) };
        let start = NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout));
        Self { start, layout, slot: slots }
    }

    fn zeroed(bytes: usize) -> Self {
        let layout = Self::layout(bytes);
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc_zeroed(layout) };
        let start = NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout));
        Self { start, layout, slot: None }
    }

    fn layout(bytes: usize) -> Layout {
        Layout::from_size_align(bytes.max(1), UNIT_BYTES).expect("a block is at most a few MiB")
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if let Some((slot, slots)) = self.slot.take() {
            slots.retire(slot);
        }
        // SAFETY: `start` came from `alloc` with this layout and is freed once.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}

/// One slice's bytes: written once, front to back, by its [`Writer`]; readable up to what is written.
pub(crate) struct Slab {
    /// `None` only while dropping.
    block: Option<Block>,
    /// Where the slice's bytes begin: after the head.
    start: NonNull<u8>,
    length: AtomicUsize,
    filled: AtomicUsize,
    /// Whether its head was written, which happens once.
    recorded: AtomicBool,
    permit: Permit,
}

// SAFETY: the one `Writer` writes only at and after `filled`, readers read only before it, and `filled` is published with release
// and read with acquire. So no byte is ever written and read at once. The head and the padding after the last byte are seen by no reader,
// and are written by the `Writer` or by the one call of `record` that `recorded` lets through.
unsafe impl Send for Slab {}
// SAFETY: as above.
unsafe impl Sync for Slab {}

impl Slab {
    /// Memory for `length` bytes under `permit`, which must cover them.
    pub(crate) fn new(mut permit: Permit, length: usize) -> (Arc<Self>, Writer) {
        permit.shrink_to(length);
        let block = permit.budget.0.block(record_bytes(length));
        // SAFETY: a block has at least the head's bytes.
        let start = unsafe { block.start.add(HEAD_BYTES) };
        let (filled, recorded) = (AtomicUsize::new(0), AtomicBool::new(false));
        let slab = Arc::new(Self { block: Some(block), start, length: AtomicUsize::new(length), filled, recorded, permit });
        (slab.clone(), Writer(slab))
    }

    /// Bytes that the slice has once it is full.
    pub(crate) fn length(&self) -> usize {
        self.length.load(Ordering::Relaxed)
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

    /// The bytes, once it is full.
    pub(crate) fn whole(&self) -> &[u8] {
        assert!(self.filled() == self.length(), "the slice is full");
        // SAFETY: what is written is never written again.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length()) }
    }

    /// The head, the bytes and the padding, to be written to a device. `None` when it was called before; the slice must be full.
    pub(crate) fn record(self: &Arc<Self>, head: &[u8; HEAD_BYTES]) -> Option<IoBuf> {
        assert!(self.filled() == self.length(), "the slice is full");
        if self.recorded.swap(true, Ordering::AcqRel) {
            return None;
        }
        let buf = IoBuf::of(Keep::Slab { _slab: self.clone() }, self.block.as_ref().expect("not dropped"));
        let padding = buf.bytes - HEAD_BYTES - self.length();
        // SAFETY: both are within the block and seen by no reader; this is the only call that gets here.
        unsafe {
            std::ptr::copy_nonoverlapping(head.as_ptr(), buf.start.as_ptr(), HEAD_BYTES);
            self.start.add(self.length()).write_bytes(0, padding);
        }
        Some(buf)
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        if let Some(block) = self.block.take() {
            self.permit.budget.0.give_back(block);
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
        if bytes.len() > slab.length() - filled {
            return false;
        }
        // SAFETY: the target is within the block, no reader looks at or after `filled`, and there is one writer.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), slab.start.as_ptr().add(filled), bytes.len()) };
        slab.filled.store(filled + bytes.len(), Ordering::Release);
        true
    }

    /// All of the block, for a device to read into. Nothing may be written yet.
    pub(crate) fn into_io(self) -> IoBuf {
        assert!(self.0.filled() == 0, "an empty slab");
        self.0.recorded.store(true, Ordering::Release);
        let block = self.0.block.as_ref().expect("not dropped");
        let (start, bytes, region) = IoBuf::parts(block);
        IoBuf { keep: Keep::Writer(self), start, bytes, region }
    }

    /// The same without the head.
    pub(crate) fn into_io_after_head(self) -> IoBuf {
        let mut buf = self.into_io();
        // SAFETY: a block has at least the head's bytes.
        buf.start = unsafe { buf.start.add(HEAD_BYTES) };
        buf.bytes -= HEAD_BYTES;
        buf
    }

    /// Shows the slice, which a device has read and somebody has verified: its first `length` bytes, which may be fewer than the slab was made for.
    pub(crate) fn loaded(self, length: usize) {
        assert!(length <= self.0.length(), "no byte beyond what was read");
        self.0.length.store(length, Ordering::Relaxed);
        self.0.filled.store(length, Ordering::Release);
    }
}

/// Memory that a device reads into or writes from. Whoever runs the operation owns it until the operation is over.
pub(crate) struct IoBuf {
    keep: Keep,
    start: NonNull<u8>,
    bytes: usize,
    region: Option<Region>,
}

enum Keep {
    /// Only read from.
    Slab { _slab: Arc<Slab> },
    /// Only its writer touches it.
    Writer(Writer),
    /// Nobody else knows it.
    Block { _block: Block },
}

/// The block that an [`IoBuf`] lies in, for drivers that register memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Region {
    pub(crate) slot: Slot,
    pub(crate) start: NonNull<u8>,
    pub(crate) bytes: usize,
}

// SAFETY: the pointers lead into what `keep` holds, which is `Send`.
unsafe impl Send for IoBuf {}

impl IoBuf {
    /// Zeroed memory of its own, outside of any budget: for what is not a slice. A multiple of 4 KiB.
    pub(crate) fn zeroed(bytes: usize) -> Self {
        let block = Block::zeroed(bytes.next_multiple_of(UNIT_BYTES));
        let (start, bytes, region) = Self::parts(&block);
        Self { keep: Keep::Block { _block: block }, start, bytes, region }
    }

    fn of(keep: Keep, block: &Block) -> Self {
        let (start, bytes, region) = Self::parts(block);
        Self { keep, start, bytes, region }
    }

    fn parts(block: &Block) -> (NonNull<u8>, usize, Option<Region>) {
        let (start, bytes) = (block.start, block.layout.size());
        (start, bytes, block.slot.as_ref().map(|(slot, _)| Region { slot: *slot, start, bytes }))
    }

    /// Where it begins; aligned to 4 KiB.
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// How long it is, in bytes: a multiple of 4 KiB.
    pub(crate) fn len(&self) -> usize {
        self.bytes
    }

    /// The block around it, if that has a number.
    pub(crate) fn region(&self) -> Option<Region> {
        self.region
    }

    /// What is in it. What no device has written is not initialised, unless it was zeroed: ask after an operation only.
    pub(crate) fn as_slice(&self) -> &[u8] {
        // SAFETY: within the block; nobody writes while this borrow lasts.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.bytes) }
    }

    /// The same, to be changed. Panics on a slab that others may read.
    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        assert!(!matches!(self.keep, Keep::Slab { .. }), "a full slab is not written");
        // SAFETY: within the block, and `keep` says that nobody else looks at it.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) }
    }

    /// The slab's writer, if it came from one.
    pub(crate) fn into_writer(self) -> Option<Writer> {
        match self.keep {
            Keep::Writer(writer) => Some(writer),
            Keep::Slab { .. } | Keep::Block { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: usize = 16 << 10;

    fn budget(blocks: u64) -> Arc<Budget> {
        Arc::new(Budget::new(blocks * record_bytes(WHOLE) as u64, WHOLE))
    }

    #[tokio::test]
    async fn the_budget_counts_what_a_view_still_holds() {
        let budget = budget(4);
        let permit = budget.acquire(WHOLE, Priority::Viewer, Duration::ZERO).await.expect("room");
        let (slab, mut writer) = Slab::new(permit, 10_000);
        assert_eq!(budget.bytes_used(), 16 << 10, "the head and 10,000 bytes; the surplus went back");
        assert!(writer.append(&[7; 6000]) && writer.append(&[8; 4000]));
        assert!(!writer.append(&[9]), "no byte beyond the length");
        let view = slab.view(5999, 6001);
        drop((slab, writer));
        assert_eq!(&view[..], [7, 8]);
        assert_eq!(budget.bytes_used(), 16 << 10);
        drop(view);
        assert_eq!(budget.bytes_used(), 0);
    }

    #[tokio::test]
    async fn whole_slices_are_used_again_and_never_kept_beyond_the_budget() {
        let budget = budget(4);
        let take = || budget.try_acquire(WHOLE, Priority::Viewer);
        let whole: Vec<_> = (0..4).map(|_| Slab::new(take().expect("room"), WHOLE)).collect();
        assert!(take().is_none());
        drop(whole);
        assert_eq!(budget.spare.lock().len(), 4);
        let small = Slab::new(budget.try_acquire(100, Priority::Viewer).expect("room"), 100);
        assert_eq!(budget.spare.lock().len(), 3, "one spare block made room for the small one");
        assert_eq!(budget.slots.retired(), 1, "whoever registered it is told");
        drop(small);
    }

    #[tokio::test]
    async fn when_memory_is_short_speculation_waits_first_then_plans_then_viewers() {
        let budget = budget(32);
        let take = |count| -> Vec<_> {
            (0..count).map(|_| budget.try_acquire(WHOLE, Priority::Viewer).expect("room for a viewer")).collect()
        };
        let mut held = take(28);
        assert!(budget.try_acquire(WHOLE, Priority::Speculation).is_none(), "an eighth is left");
        assert!(budget.try_acquire(WHOLE, Priority::Plan).is_some());
        held.extend(take(2));
        assert!(budget.try_acquire(WHOLE, Priority::Plan).is_none(), "a sixteenth is left");
        let plan = tokio::spawn({
            let budget = budget.clone();
            async move { budget.acquire(WHOLE, Priority::Plan, Duration::from_secs(60)).await.is_some() }
        });
        tokio::task::yield_now().await;
        held.extend(take(2));
        held.truncate(29);
        assert!(plan.await.expect("no panic"), "what came back went to the plan");
    }

    #[tokio::test]
    async fn a_record_is_made_once_and_carries_no_old_memory() {
        let budget = budget(4);
        let (slab, mut writer) = Slab::new(budget.try_acquire(5000, Priority::Viewer).expect("room"), 5000);
        assert!(writer.append(&[5; 5000]));
        let record = slab.record(&[1; HEAD_BYTES]).expect("the first");
        assert!(slab.record(&[2; HEAD_BYTES]).is_none());
        let (head, rest) = record.as_slice().split_at(HEAD_BYTES);
        assert!(head == [1; HEAD_BYTES] && rest[..5000] == [5; 5000] && rest[5000..] == [0; 8192 - 5000]);
    }
}
