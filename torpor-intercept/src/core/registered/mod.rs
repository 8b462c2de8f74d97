//! `cuMemHostRegister`: making memory that the program already has reachable for the GPU.
//!
//! Its whole pages are moved, contents and all, into the shared host range and mapped at their old place as well. The program
//! goes on using its addresses; copies use the alias in the host range, which is page-locked and shared with the worker.
//! What lies in pages with other objects of the program's, the edges, stays where it is, and is staged by copies.

mod pages;

pub(super) use pages::make_private_in_child;

use super::stream::host_function;
use super::{Client, CudaResult, Stream, devices};
use pages::{are_private_and_writable, is_on_stack, share, unshare, whole_pages};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use torpor_proto::error::CudaError;
use torpor_proto::layout::AddressRange;

/// Ranges by their first address.
#[derive(Default)]
pub(super) struct RegisteredMemory {
    ranges: Mutex<BTreeMap<u64, Registered>>,
}

#[derive(Clone, Copy)]
struct Registered {
    /// As the program named it.
    range: AddressRange,
    /// The whole pages in it; none if they stay where they are.
    pages: AddressRange,
    /// Where the pages are in the host range.
    alias: u64,
    flags: u32,
}

impl RegisteredMemory {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Registered>> {
        self.ranges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, address: u64, bytes: u64) -> Option<Registered> {
        let ranges = self.lock();
        let (_, registered) = ranges.range(..=address).next_back()?;
        registered.range.contains(address, bytes).then_some(*registered)
    }
}

impl Client {
    /// `cuMemHostRegister`.
    ///
    /// # Errors
    /// `HOST_MEMORY_ALREADY_REGISTERED`; `NOT_SUPPORTED` for memory that is shared with another process, or not
    /// writable; `INVALID_VALUE`; `OUT_OF_MEMORY`.
    pub fn register(&'static self, address: u64, bytes: u64, flags: u32) -> CudaResult<()> {
        let range = AddressRange { address, bytes };
        if bytes == 0 || address.checked_add(bytes).is_none() {
            return Err(CudaError::INVALID_VALUE);
        }
        if self.host.contains(address, bytes) {
            return Err(CudaError::HOST_MEMORY_ALREADY_REGISTERED);
        }
        let mut ranges = self.registered.lock();
        let overlaps = |other: &Registered| other.range.address < range.end() && address < other.range.end();
        if ranges.values().any(overlaps) {
            return Err(CudaError::HOST_MEMORY_ALREADY_REGISTERED);
        }
        if !are_private_and_writable(range) {
            return Err(CudaError::NOT_SUPPORTED);
        }
        let pages = whole_pages(range);
        let registered = if pages.bytes == 0 || is_on_stack(range) {
            Registered { range, pages: AddressRange { address, bytes: 0 }, alias: 0, flags }
        } else {
            let alias = self.allocate_pinned(pages.bytes, flags)?;
            // SAFETY: the pages are private and writable, and have nothing in them but the memory that the program asks
            // for, which it does not write meanwhile; the alias is a fresh piece of the host range of the same length.
            if unsafe { share(pages, alias) }.is_err() {
                self.release_pinned(alias)?;
                return Err(CudaError::OPERATING_SYSTEM);
            }
            Registered { range, pages, alias, flags }
        };
        ranges.insert(address, registered);
        self.owners.note(address, devices::current());
        Ok(())
    }

    /// `cuMemHostUnregister`.
    ///
    /// # Errors
    /// `HOST_MEMORY_NOT_REGISTERED`.
    pub fn unregister(&'static self, address: u64) -> CudaResult<()> {
        // Before the lock is taken, which every copy wants. A host function may write the memory until it has returned.
        host_function::wait_for_all()?;
        let mut ranges = self.registered.lock();
        let Registered { pages, alias, .. } =
            *ranges.get(&address).ok_or(CudaError::HOST_MEMORY_NOT_REGISTERED)?;
        Stream::synchronize_all_posted()?;
        if pages.bytes > 0 {
            // SAFETY: `register` shared them; neither the GPU nor a host function uses them any more, and the program
            // does not write what it unregisters.
            unsafe { unshare(pages) }.map_err(|_| CudaError::OPERATING_SYSTEM)?;
            self.release_pinned(alias)?;
        }
        ranges.remove(&address);
        self.owners.forget(address);
        Ok(())
    }

    /// The page-locked alias of a registered address, if all the bytes have one.
    pub(super) fn registered_alias(&self, address: u64, bytes: u64) -> Option<u64> {
        let Registered { pages, alias, .. } = self.registered.find(address, bytes)?;
        pages.contains(address, bytes).then(|| alias + (address - pages.address))
    }

    /// How many bytes from an address have an alias to the end, or have none to the end: less than asked for where
    /// registered memory has an edge.
    pub(super) fn uniform_bytes(&self, address: u64, bytes: u64) -> u64 {
        let Some(Registered { pages, .. }) = self.registered.find(address, bytes) else { return bytes };
        let ends = [pages.address, pages.end()];
        let next = ends.into_iter().filter(|&end| pages.bytes > 0 && address < end).min();
        next.map_or(bytes, |next| bytes.min(next - address))
    }

    /// Where kernels reach page-locked memory (`cuMemHostGetDevicePointer`). There is no such place for registered memory
    /// with edges, which they would miss.
    ///
    /// # Errors
    /// `INVALID_VALUE` if it is not page-locked; `NOT_SUPPORTED` for registered memory that is not of whole pages.
    pub fn device_address_of_host(&self, address: u64) -> CudaResult<u64> {
        static IS_TOLD: Once = Once::new();
        match self.registered.find(address, 1) {
            Some(Registered { range, pages, alias, .. }) if range == pages => {
                Ok(alias + (address - pages.address))
            }
            Some(_) => {
                IS_TOLD.call_once(|| {
                    crate::log::write(
                        "registered memory has a device address only if it begins and ends with a page of 4096 bytes: \
                         align it, or allocate it with cudaHostAlloc",
                    );
                });
                Err(CudaError::NOT_SUPPORTED)
            }
            None => self.pinned_allocation_of(address).map(|_| address).ok_or(CudaError::INVALID_VALUE),
        }
    }

    /// `cuMemHostGetFlags` of registered memory.
    pub fn registered_flags(&self, address: u64) -> Option<u32> {
        self.registered.find(address, 1).map(|found| found.flags)
    }

    /// The registered memory that an address lies in.
    pub fn registered_range_of(&self, address: u64) -> Option<AddressRange> {
        self.registered.find(address, 1).map(|found| found.range)
    }
}
