//! Device memory: addresses come from this process's arena, physical memory from the worker.

use super::address_space::RangeAllocator;
use super::stream::Stream;
use super::{Client, CudaResult, pool};
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
}

impl DeviceMemory {
    pub(super) fn new(arena: AddressRange) -> Self {
        let segments = RangeAllocator::new(arena, SEGMENT_GRANULE_BYTES);
        Self { inner: Mutex::new(Inner { segments, shared: Vec::new() }) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
        if bytes >= SMALL_BYTES {
            return Ok(self.allocate_segment(bytes)?.address);
        }
        if let Some(address) = self.memory.lock().allocate_small(bytes) {
            return Ok(address);
        }
        let segment = self.allocate_segment(SEGMENT_GRANULE_BYTES)?;
        let mut pieces = RangeAllocator::new(segment, SMALL_GRANULE_BYTES);
        let piece = pieces.allocate(bytes).ok_or(CudaError::OUT_OF_MEMORY)?;
        self.memory.lock().shared.push((segment, pieces));
        Ok(piece.address)
    }

    fn allocate_segment(&'static self, bytes: u64) -> CudaResult<AddressRange> {
        let segment = self.memory.lock().segments.allocate(bytes).ok_or(CudaError::OUT_OF_MEMORY)?;
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
        if pool::free_after_all(self, address)? {
            return Ok(());
        }
        let shared = self.memory.lock().shared_with(address);
        if let Some(segment) = shared {
            // Whoever gets this piece next must not meet work that still uses it; the driver waits here too.
            Stream::synchronize_all()?;
            if self.memory.lock().free_small(segment, address)? {
                self.free_segment(segment.address)?;
            }
            return Ok(());
        }
        let begins_there =
            self.memory.lock().segments.find(address).is_some_and(|found| found.address == address);
        if begins_there { self.free_segment(address) } else { Err(CudaError::INVALID_VALUE) }
    }

    fn free_segment(&self, address: u64) -> CudaResult<()> {
        // Posted before the addresses are free again, so that whoever gets them next comes later in the ring.
        let posted = self.post(&MemoryFree { address }, &[]);
        self.memory.lock().segments.release(address);
        posted
    }

    /// The allocation that a device address lies in (`cuMemGetAddressRange`).
    ///
    /// # Errors
    /// `NOT_FOUND`.
    pub fn allocation_of(&self, address: u64) -> CudaResult<AddressRange> {
        let inner = self.memory.lock();
        let shared = inner.shared.iter().find(|(segment, _)| segment.contains(address, 1));
        let found = match shared {
            Some((_, pieces)) => pieces.find(address),
            None => inner.segments.find(address),
        };
        found.or_else(|| self.images.global_of(address)).ok_or(CudaError::NOT_FOUND)
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
    fn allocate_small(&mut self, bytes: u64) -> Option<u64> {
        self.shared.iter_mut().find_map(|(_, pieces)| pieces.allocate(bytes)).map(|piece| piece.address)
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
        }
        Ok(is_empty)
    }
}
