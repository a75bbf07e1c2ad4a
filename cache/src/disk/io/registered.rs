//! What a ring has registered: files and blocks, each on its first use in that ring.
//!
//! Registering spares the kernel a look-up per operation for a file, and pinning and releasing each page for a block. It is an economy
//! only: where it is refused (blocks count against RLIMIT_MEMLOCK), operations name files and memory in the plain way.

use std::{
    io, ptr,
    sync::{Arc, Weak},
};

use io_uring::Submitter;
use tokio::sync::Semaphore;

use super::device::DeviceFile;
use crate::slab::{Region, Slot, Slots};

/// Operations that one device has under way in one ring; more callers wait, in order. A device that hangs holds these and no more.
pub(super) const DEPTH_MAX: usize = 128;
/// More devices than are configured at once; those beyond are used unregistered.
const FILES_MAX: usize = 128;

/// The devices that a ring has seen.
pub(super) struct Files {
    /// By index in the kernel's table, as far as that goes.
    known: Vec<Known>,
    is_refused: bool,
}

struct Known {
    device: Weak<DeviceFile>,
    number: u64,
    places: Arc<Semaphore>,
    is_registered: bool,
}

impl Files {
    pub(super) fn new(submitter: &Submitter<'_>) -> Self {
        let is_refused = submitter.register_files_sparse(FILES_MAX as u32).is_err();
        Self { known: Vec::new(), is_refused }
    }

    /// The places of operations on `device`.
    pub(super) fn places(&mut self, submitter: &Submitter<'_>, device: &Arc<DeviceFile>) -> Arc<Semaphore> {
        let index = self.find(device).unwrap_or_else(|| self.meet(submitter, device));
        self.known[index].places.clone()
    }

    /// Its index in the kernel's table.
    pub(super) fn index(&self, device: &DeviceFile) -> Option<u32> {
        let index = self.find(device).filter(|index| self.known[*index].is_registered)?;
        u32::try_from(index).ok()
    }

    /// Whoever waits for a place is told that there will be none.
    pub(super) fn close(&self) {
        self.known.iter().for_each(|known| known.places.close());
    }

    fn find(&self, device: &DeviceFile) -> Option<usize> {
        self.known.iter().position(|known| known.number == device.number)
    }

    fn meet(&mut self, submitter: &Submitter<'_>, device: &Arc<DeviceFile>) -> usize {
        let index = self.known.iter().position(|known| known.device.strong_count() == 0).unwrap_or(self.known.len());
        // In the place of one that was closed, which the kernel lets go with this.
        let fd = device.fd().unwrap_or(-1);
        let is_registered = !self.is_refused
            && index < FILES_MAX
            && submitter.register_files_update(index as u32, &[fd]).is_ok_and(|count| count == 1);
        let places = Arc::new(Semaphore::new(DEPTH_MAX));
        let known = Known { device: Arc::downgrade(device), number: device.number, places, is_registered };
        if index < self.known.len() {
            self.known[index] = known;
        } else {
            self.known.push(known);
        }
        index
    }
}

/// The blocks that a ring has registered.
pub(super) struct Buffers {
    slots: Arc<Slots>,
    /// By slot index: the generation of the block that the kernel knows there. Empty where the kernel has no table.
    generations: Vec<Option<u32>>,
    /// The indexes that have one.
    registered: Vec<u16>,
    /// As of the last [`Self::let_go`].
    retired: u32,
    is_refused: bool,
}

impl Buffers {
    /// An empty table; refuses to register anything where the kernel gives none.
    pub(super) fn new(submitter: &Submitter<'_>, slots: &Arc<Slots>, is_wanted: bool) -> Self {
        let count = if is_wanted { slots.len() } else { 0 };
        let is_refused = count == 0 || submitter.register_buffers_sparse(u32::try_from(count).unwrap_or(u32::MAX)).is_err();
        let generations = if is_refused { Vec::new() } else { vec![None; count] };
        Self { slots: slots.clone(), generations, registered: Vec::new(), retired: slots.retired(), is_refused }
    }

    /// The index of `region` in the kernel's table, where it is put on its first use. `Err` the one time that the kernel refuses it.
    pub(super) fn index(&mut self, submitter: &Submitter<'_>, region: Option<Region>) -> io::Result<Option<u16>> {
        let Some(region) = region else { return Ok(None) };
        let Slot { index, generation } = region.slot;
        let Some(known) = self.generations.get(usize::from(index)).copied() else { return Ok(None) };
        if known == Some(generation) {
            return Ok(Some(index));
        }
        if self.is_refused {
            return Ok(None);
        }
        let block = libc::iovec { iov_base: region.start.as_ptr().cast(), iov_len: region.bytes };
        if let Err(error) = update(submitter, index, block) {
            self.is_refused = true;
            return Err(error);
        }
        self.generations[usize::from(index)] = Some(generation);
        if known.is_none() {
            self.registered.push(index);
        }
        Ok(Some(index))
    }

    /// Lets go of blocks that went back to the system since the last call: the kernel would keep their pages.
    pub(super) fn let_go(&mut self, submitter: &Submitter<'_>) {
        let retired = self.slots.retired();
        if retired == self.retired {
            return;
        }
        self.retired = retired;
        let Self { slots, generations, registered, .. } = self;
        registered.retain(|index| {
            let known = &mut generations[usize::from(*index)];
            if known.is_some_and(|generation| slots.is_current(Slot { index: *index, generation })) {
                return true;
            }
            // If the kernel keeps it nevertheless, that costs memory and nothing else: its number will not be used for another block.
            let _ = update(submitter, *index, libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 });
            *known = None;
            false
        });
    }

    /// Blocks that the kernel knows.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.registered.len()
    }
}

fn update(submitter: &Submitter<'_>, index: u16, block: libc::iovec) -> io::Result<()> {
    // SAFETY: the kernel pins the block's pages, so they outlive the block if need be; a number whose block is gone is not used again before
    // the next block of that number has replaced it here (`Buffers::index` compares generations).
    unsafe { submitter.register_buffers_update(u32::from(index), &[block], None) }
}
