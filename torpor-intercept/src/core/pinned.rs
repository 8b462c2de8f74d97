//! Page-locked host memory: pieces of the host range, locked by the worker at the same addresses.

use super::address_space::RangeAllocator;
use super::{Client, CudaResult, host_function};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use torpor_proto::command::{HostLock, HostUnlock};
use torpor_proto::error::CudaError;
use torpor_proto::layout::{AddressRange, PAGE_BYTES};

pub(super) struct PinnedMemory {
    inner: Mutex<Inner>,
}

struct Inner {
    ranges: RangeAllocator,
    /// `CU_MEMHOSTALLOC_*` flags by first address.
    flags: BTreeMap<u64, u32>,
}

impl PinnedMemory {
    /// The host range past its staging area.
    pub(super) fn new(host: AddressRange, staging_bytes: u64) -> Self {
        let range = AddressRange { address: host.address + staging_bytes, bytes: host.bytes - staging_bytes };
        Self {
            inner: Mutex::new(Inner {
                ranges: RangeAllocator::new(range, PAGE_BYTES),
                flags: BTreeMap::new(),
            }),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    /// `cuMemHostAlloc`. The address is the device's too.
    ///
    /// # Errors
    /// `OUT_OF_MEMORY`; `INVALID_VALUE` for no bytes.
    pub fn allocate_pinned(&'static self, bytes: u64, flags: u32) -> CudaResult<u64> {
        if bytes == 0 {
            return Err(CudaError::INVALID_VALUE);
        }
        let range = self.pinned.lock().ranges.allocate(bytes).ok_or(CudaError::OUT_OF_MEMORY)?;
        if let Err(error) = self.call(&HostLock { address: range.address, bytes: range.bytes }, &[]) {
            self.pinned.lock().ranges.release(range.address);
            return Err(error);
        }
        self.pinned.lock().flags.insert(range.address, flags);
        Ok(range.address)
    }

    /// `cuMemFreeHost`. Waits until neither the GPU nor a host function uses it any more, as the driver does.
    ///
    /// # Errors
    /// `INVALID_VALUE` if no allocation begins there.
    pub fn free_pinned(&'static self, address: u64) -> CudaResult<()> {
        host_function::wait_for_all()?;
        self.release_pinned(address)
    }

    /// As [`Self::free_pinned`], but does not wait for host functions.
    pub(super) fn release_pinned(&'static self, address: u64) -> CudaResult<()> {
        self.pinned.lock().flags.remove(&address).ok_or(CudaError::INVALID_VALUE)?;
        let unlocked = self.call(&HostUnlock { address }, &[]);
        self.pinned.lock().ranges.release(address);
        unlocked.map(|_| ())
    }

    /// The allocation that a pinned address lies in.
    pub fn pinned_allocation_of(&self, address: u64) -> Option<AddressRange> {
        self.pinned.lock().ranges.find(address)
    }

    /// `cuMemHostGetFlags`.
    ///
    /// # Errors
    /// `INVALID_VALUE` if the address is in no allocation.
    pub fn pinned_flags(&self, address: u64) -> CudaResult<u32> {
        let inner = self.pinned.lock();
        let start = inner.ranges.find(address).ok_or(CudaError::INVALID_VALUE)?.address;
        inner.flags.get(&start).copied().ok_or(CudaError::INVALID_VALUE)
    }
}
