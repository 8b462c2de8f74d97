//! Device memory: addresses come from this process's arena, physical memory from the worker.

use super::address_space::RangeAllocator;
use super::stream::{Stream, host_function};
use super::{Client, CudaResult, devices, graph, pool};
use std::collections::{BTreeSet, HashSet};
use std::sync::{Mutex, PoisonError};
use torpor_proto::command::{MemoryAllocate, MemoryFree, MemoryInfo};
use torpor_proto::error::CudaError;
use torpor_proto::layout::{AddressRange, SEGMENT_GRANULE_BYTES};

/// Allocations below this share a segment, as the driver packs them too.
pub(super) const SMALL_BYTES: u64 = 1 << 20;

/// Alignment of device allocations (what `cuMemAlloc` gives is at least 256 bytes aligned; textures want 512).
const SMALL_GRANULE_BYTES: u64 = 512;

pub(super) struct DeviceMemory {
    inner: Mutex<Inner>,
}

struct Inner {
    segments: RangeAllocator,
    /// Segments that small allocations share.
    shared: Vec<(AddressRange, RangeAllocator)>,
    /// Those of them that other processes may see, by address: nothing new goes there.
    exported: HashSet<u64>,
    /// Allocations with `CU_POINTER_ATTRIBUTE_SYNC_MEMOPS` set.
    synchronizing: HashSet<u64>,
    /// Pieces of `segments` that are no allocations: reservations of the program, and homes of objects.
    kept: BTreeSet<u64>,
}

impl DeviceMemory {
    /// Allocations begin at a random place of the arena, as far as it has more addresses than `limit_bytes` need.
    pub(super) fn new(arena: AddressRange, limit_bytes: u64) -> Self {
        let needed = limit_bytes.saturating_add(limit_bytes / 8);
        let offset = random().checked_rem(arena.bytes.saturating_sub(needed)).unwrap_or(0);
        let segments = RangeAllocator::starting_at(arena.address + offset, arena, SEGMENT_GRANULE_BYTES);
        Self {
            inner: Mutex::new(Inner {
                segments,
                shared: Vec::new(),
                exported: HashSet::new(),
                synchronizing: HashSet::new(),
                kept: BTreeSet::new(),
            }),
        }
    }

    /// Addresses for something else than an allocation: at `wanted` if they are free there, else at a multiple of
    /// `alignment`.
    pub(super) fn keep_addresses(&self, bytes: u64, alignment: u64, wanted: u64) -> Option<AddressRange> {
        let mut inner = self.lock();
        let at_wanted = inner.segments.allocate_at(AddressRange { address: wanted, bytes });
        let found = at_wanted.or_else(|| inner.segments.allocate_aligned(bytes, alignment))?;
        inner.kept.insert(found.address);
        Some(found)
    }

    /// As [`Self::keep_addresses`], where not as many are free: as many as there are in a row, and that leave others some.
    pub(super) fn keep_fewer_addresses(&self, alignment: u64) -> Option<AddressRange> {
        let mut inner = self.lock();
        let found = inner.segments.allocate_half(SEGMENT_GRANULE_BYTES, alignment)?;
        inner.kept.insert(found.address);
        Some(found)
    }

    /// What is kept there is shorter from now on.
    pub(super) fn keep_less(&self, left: AddressRange) {
        self.lock().segments.shorten(left);
    }

    /// Gives back what [`Self::keep_addresses`] gave.
    pub(super) fn return_addresses(&self, address: u64) {
        let mut inner = self.lock();
        if inner.kept.remove(&address) {
            inner.segments.release(address);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A number that other programs cannot guess. Where the kernel has none, 0.
fn random() -> u64 {
    let mut bytes = [0; 8];
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::NONBLOCK);
    u64::from_ne_bytes(bytes)
}

impl Client {
    /// `cuMemAlloc`.
    ///
    /// # Errors
    /// `OUT_OF_MEMORY`; `INVALID_VALUE` for no bytes.
    pub fn allocate(&'static self, bytes: u64) -> CudaResult<u64> {
        if bytes == 0 {
            return Err(CudaError::INVALID_VALUE);
        }
        self.check()?;
        let address = self.allocate_anywhere(bytes)?;
        self.owners.note(address, devices::current());
        Ok(address)
    }

    fn allocate_anywhere(&'static self, bytes: u64) -> CudaResult<u64> {
        if bytes >= SMALL_BYTES {
            return Ok(self.allocate_segment(bytes)?.address);
        }
        let found = self.memory.lock().allocate_small(bytes);
        if let Some(address) = found {
            return Ok(address);
        }
        let segment = self.allocate_segment(SEGMENT_GRANULE_BYTES)?;
        let mut pieces = RangeAllocator::new(segment, SMALL_GRANULE_BYTES);
        let piece = pieces.allocate(bytes).ok_or(CudaError::OUT_OF_MEMORY)?;
        self.memory.lock().shared.push((segment, pieces));
        Ok(piece.address)
    }

    fn allocate_segment(&'static self, bytes: u64) -> CudaResult<AddressRange> {
        self.settle()?;
        let allocate = || self.memory.lock().segments.allocate(bytes);
        let segment = self.or_from_reservations(bytes, allocate).ok_or(CudaError::OUT_OF_MEMORY)?;
        let command = MemoryAllocate { address: segment.address, bytes: segment.bytes };
        if let Err(error) = self.call(&command, &[]) {
            self.memory.lock().segments.release(segment.address);
            return Err(error);
        }
        Ok(segment)
    }

    /// `cuMemFree`. Null is nothing.
    ///
    /// # Errors
    /// `INVALID_VALUE` if no allocation begins there.
    pub fn free(&'static self, address: u64) -> CudaResult<()> {
        if address == 0 {
            return Ok(());
        }
        // As the driver does, behind everything that may still use it: some of that may not even be posted.
        host_function::wait_for_all()?;
        let is_managed = self.host.contains(address, 1) && !pool::has(address);
        if is_managed { self.free_managed(address) } else { self.free_unused(address) }
    }

    /// As [`Self::free`], of memory that nothing uses which is held behind a host function.
    pub(super) fn free_unused(&'static self, address: u64) -> CudaResult<()> {
        self.set_synchronizes_always(address, false);
        if pool::free_after_all(self, address)?
            || graph::memory::take_from_program(address)?
            || self.free_imported(address)?
        {
            return Ok(());
        }
        self.free_allocation(address)
    }

    /// As [`Self::free_unused`], of what [`Self::allocate`] gave to neither a pool nor a graph, or to one that has it no more.
    pub(super) fn free_allocation(&'static self, address: u64) -> CudaResult<()> {
        let shared = self.memory.lock().shared_with(address);
        if let Some(segment) = shared {
            // Whoever gets this piece next must not meet work that still uses it; the driver waits here too.
            Stream::synchronize_all()?;
            self.owners.forget(address);
            if self.memory.lock().free_small(segment, address)? {
                self.free_segment(segment.address)?;
            }
            return Ok(());
        }
        let begins_there = self.memory.lock().find(address).is_some_and(|found| found.address == address);
        if !begins_there {
            return Err(CudaError::INVALID_VALUE);
        }
        self.owners.forget(address);
        self.free_segment(address)
    }

    fn free_segment(&self, address: u64) -> CudaResult<()> {
        // Posted before the addresses are free again, so that whoever gets them next comes later in the ring.
        let posted = self.post(&MemoryFree { address }, &[]);
        self.memory.lock().segments.release(address);
        posted
    }

    /// Whether `CU_POINTER_ATTRIBUTE_SYNC_MEMOPS` is set for the allocation that begins there.
    pub fn synchronizes_always(&self, address: u64) -> bool {
        self.memory.lock().synchronizing.contains(&address)
    }

    /// Sets that attribute.
    pub fn set_synchronizes_always(&self, address: u64, is_set: bool) {
        let synchronizing = &mut self.memory.lock().synchronizing;
        if is_set {
            synchronizing.insert(address);
        } else {
            synchronizing.remove(&address);
        }
    }

    /// The allocation that an address of device or managed memory lies in (`cuMemGetAddressRange`).
    ///
    /// # Errors
    /// `NOT_FOUND`.
    pub fn allocation_of(&self, address: u64) -> CudaResult<AddressRange> {
        if let Some(found) = self.virtual_memory.view_of(address).or_else(|| self.managed_range_of(address)) {
            return Ok(found);
        }
        let inner = self.memory.lock();
        let shared = inner.shared.iter().find(|(segment, _)| segment.contains(address, 1));
        let found = match shared {
            Some((_, pieces)) => pieces.find(address),
            None => inner.find(address),
        };
        found.or_else(|| self.images.global_of(address)).ok_or(CudaError::NOT_FOUND)
    }

    /// The segment that other processes have to see to see an allocation, and where in it that begins.
    ///
    /// # Errors
    /// `INVALID_VALUE` if the address is in no allocation that may be seen.
    pub(super) fn allocation_to_export(
        &self,
        address: u64,
        may_be_seen: impl FnOnce(u64) -> bool,
    ) -> CudaResult<(AddressRange, u64)> {
        let found = self.memory.lock().segment_and_allocation(address);
        let found = found.filter(|&(_, allocation)| may_be_seen(allocation));
        let (segment, allocation) = found.ok_or(CudaError::INVALID_VALUE)?;
        let mut inner = self.memory.lock();
        if inner.shared_with(address).is_some() {
            inner.exported.insert(segment.address);
        }
        Ok((segment, allocation))
    }

    /// Whether an allocation can be given to other processes as it is (`CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE`).
    pub fn may_export(&self, allocation: u64) -> bool {
        let found = self.memory.lock().segment_and_allocation(allocation);
        found.is_some_and(|(_, at)| !pool::has(at) && !graph::memory::is_held(at))
    }

    /// `cuMemGetInfo`: free and total bytes of this function.
    ///
    /// # Errors
    /// What the worker says.
    pub fn memory_info(&'static self) -> CudaResult<(u64, u64)> {
        let info = self.call(&MemoryInfo {}, &[])?.reply;
        Ok((info.free_bytes, info.total_bytes))
    }
}

impl Inner {
    /// The allocation of whole segments that an address lies in.
    fn find(&self, address: u64) -> Option<AddressRange> {
        self.segments.find(address).filter(|found| !self.kept.contains(&found.address))
    }

    /// The segment that an address lies in, and where in it its allocation begins.
    fn segment_and_allocation(&self, address: u64) -> Option<(AddressRange, u64)> {
        match self.shared.iter().find(|(segment, _)| segment.contains(address, 1)) {
            Some((segment, pieces)) => Some((*segment, pieces.find(address)?.address)),
            None => self.find(address).map(|segment| (segment, segment.address)),
        }
    }

    fn allocate_small(&mut self, bytes: u64) -> Option<u64> {
        let own = self.shared.iter_mut().filter(|(segment, _)| !self.exported.contains(&segment.address));
        own.into_iter().find_map(|(_, pieces)| pieces.allocate(bytes)).map(|piece| piece.address)
    }

    fn shared_with(&self, address: u64) -> Option<AddressRange> {
        self.shared.iter().map(|&(segment, _)| segment).find(|segment| segment.contains(address, 1))
    }

    /// True if the segment has nothing left and was taken out.
    fn free_small(&mut self, segment: AddressRange, address: u64) -> CudaResult<bool> {
        let at =
            self.shared.iter().position(|(other, _)| *other == segment).ok_or(CudaError::INVALID_VALUE)?;
        let pieces = &mut self.shared[at].1;
        pieces.release(address).ok_or(CudaError::INVALID_VALUE)?;
        let is_empty = pieces.is_empty();
        if is_empty {
            self.shared.swap_remove(at);
            self.exported.remove(&segment.address);
        }
        Ok(is_empty)
    }
}
