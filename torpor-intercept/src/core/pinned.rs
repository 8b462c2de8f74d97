//! Page-locked memory: pieces of the host range, locked by the worker at the same addresses. `cuMemHostAlloc` gives such, and
//! registered and managed memory lie in such.

use super::address_space::RangeAllocator;
use super::stream::host_function;
use super::{Client, CudaResult, devices};
use std::collections::BTreeMap;
use std::sync::{Mutex, Once, PoisonError};
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
    /// The host range from its staging area to what is for variables, as far as that leaves something.
    pub(super) fn new(host: AddressRange, staging_bytes: u64) -> Self {
        let address = host.address + staging_bytes;
        let bytes = host.for_managed_variables().address.saturating_sub(address);
        let range = AddressRange { address, bytes };
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
        let range = self.lock_host(bytes)?;
        self.pinned.lock().flags.insert(range.address, flags);
        self.owners.note(range.address, devices::current());
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
        self.owners.forget(address);
        self.unlock_host(address)
    }

    /// Page-locks a new piece of the host range.
    ///
    /// # Errors
    /// `OUT_OF_MEMORY`.
    pub(super) fn lock_host(&'static self, bytes: u64) -> CudaResult<AddressRange> {
        let Some(range) = self.pinned.lock().ranges.allocate(bytes) else {
            return Err(no_addresses(bytes));
        };
        if let Err(error) = self.call(&HostLock { address: range.address, bytes: range.bytes }, &[]) {
            self.pinned.lock().ranges.release(range.address);
            return Err(error);
        }
        Ok(range)
    }

    /// Undoes [`Self::lock_host`] once the GPU has done with the piece.
    pub(super) fn unlock_host(&'static self, address: u64) -> CudaResult<()> {
        let unlocked = self.call(&HostUnlock { address }, &[]);
        self.pinned.lock().ranges.release(address);
        unlocked.map(|_| ())
    }

    /// The allocation that a pinned address lies in.
    pub fn pinned_allocation_of(&self, address: u64) -> Option<AddressRange> {
        let inner = self.pinned.lock();
        inner.ranges.find(address).filter(|found| inner.flags.contains_key(&found.address))
    }

    /// The piece of [`Self::lock_host`] that an address lies in.
    pub(super) fn locked_range_of(&self, address: u64) -> Option<AddressRange> {
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

/// More than all addresses that a process has for such memory: the server does not hear of it, so this says it.
fn no_addresses(bytes: u64) -> CudaError {
    static IS_TOLD: Once = Once::new();
    IS_TOLD.call_once(|| {
        crate::log::write(&format!(
            "out of memory: the process has no room for {bytes} bytes of page-locked or managed memory beside what it has: \
             start the server with a larger --pinned-limit"
        ));
    });
    CudaError::OUT_OF_MEMORY
}
