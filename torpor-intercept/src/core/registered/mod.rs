//! `cuMemHostRegister`: making memory that the program already has reachable for the GPU.
//!
//! Its whole pages are moved, contents and all, into the shared host range and mapped at their old place as well. The program
//! goes on using its addresses; copies and kernels use the alias in the host range, which is page-locked and shared with the
//! worker. What lies in pages with other objects of the program's, the edges, stays where it is: copies stage it, until the
//! program asks for a device address, for from then on [`edges`] keeps shadows of it in the alias. Memory that other processes have,
//! too, stays where it is, and has no alias: copies stage it.

mod edges;
mod pages;

pub(super) use pages::make_private_in_child;

use super::stream::host_function;
use super::{Client, CudaResult, Stream, devices};
use edges::Edges;
use pages::{Mapped, is_on_stack, mapped, share, unshare, whole_pages};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use torpor_proto::error::CudaError;
use torpor_proto::layout::{AddressRange, PAGE_BYTES};

#[derive(Default)]
pub(super) struct RegisteredMemory {
    /// By first address.
    ranges: Mutex<BTreeMap<u64, Registered>>,
    pub(super) edges: Edges,
}

#[derive(Clone, Copy)]
struct Registered {
    /// As the program named it.
    range: AddressRange,
    /// The whole pages in it that are moved; empty, and at its end, if none are.
    pages: AddressRange,
    /// Where it begins in the host range, as far into a page as the range itself; nowhere if other processes have it, too.
    alias: Option<u64>,
    flags: u32,
    /// Whether its edges have shadows.
    is_shown: bool,
}

impl Registered {
    fn alias_of(&self, address: u64) -> Option<u64> {
        self.alias.map(|alias| alias + (address - self.range.address))
    }

    /// The piece of the host range that it has.
    fn block(&self) -> Option<u64> {
        self.alias.map(|alias| alias / PAGE_BYTES * PAGE_BYTES)
    }

    /// What lies before and behind the pages that are moved.
    fn edges(&self) -> [AddressRange; 2] {
        let between = |address, end| AddressRange { address, bytes: end - address };
        [between(self.range.address, self.pages.address), between(self.pages.end(), self.range.end())]
    }

    /// Whether all the bytes are where the alias is.
    fn is_in_alias(&self, address: u64, bytes: u64) -> bool {
        self.is_shown || self.pages.contains(address, bytes)
    }
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

    /// The alias of a byte of registered memory, if it has one, of which kernels may make use from now on.
    fn show(&self, address: u64) -> Option<Option<u64>> {
        let mut ranges = self.lock();
        let (_, registered) = ranges.range_mut(..=address).next_back()?;
        if !registered.range.contains(address, 1) {
            return None;
        }
        if !registered.is_shown && registered.alias.is_some() {
            for edge in registered.edges() {
                self.edges.show(edge, registered.alias_of(edge.address)?);
            }
            registered.is_shown = true;
        }
        Some(registered.alias_of(address))
    }
}

impl Client {
    /// `cuMemHostRegister`.
    ///
    /// # Errors
    /// `HOST_MEMORY_ALREADY_REGISTERED`; `NOT_SUPPORTED` for memory that is not there, or not writable; `INVALID_VALUE`;
    /// `OUT_OF_MEMORY`.
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
        let nowhere = AddressRange { address: range.end(), bytes: 0 };
        let registered = match mapped(range).ok_or(CudaError::NOT_SUPPORTED)? {
            Mapped::Shared => Registered { range, pages: nowhere, alias: None, flags, is_shown: false },
            Mapped::Private => {
                let whole = Some(whole_pages(range)).filter(|pages| pages.bytes > 0 && !is_on_stack(range));
                let begins = address % PAGE_BYTES;
                let block = self.allocate_pinned(begins + bytes, flags)?;
                let pages = whole.unwrap_or(nowhere);
                let alias = block + begins + (pages.address - address);
                // SAFETY: the pages are private and writable, and have nothing in them but the memory that the program asks for,
                // which it does not write meanwhile; the alias is a fresh piece of the host range, in which they have places as
                // long as they are.
                if pages.bytes > 0 && unsafe { share(pages, alias) }.is_err() {
                    self.release_pinned(block)?;
                    return Err(CudaError::OPERATING_SYSTEM);
                }
                Registered { range, pages, alias: Some(block + begins), flags, is_shown: false }
            }
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
        let registered = *ranges.get(&address).ok_or(CudaError::HOST_MEMORY_NOT_REGISTERED)?;
        Stream::synchronize_all_posted()?;
        if registered.pages.bytes > 0 {
            // SAFETY: `register` shared them; neither the GPU nor a host function uses them any more, and the program
            // does not write what it unregisters.
            unsafe { unshare(registered.pages) }.map_err(|_| CudaError::OPERATING_SYSTEM)?;
        }
        self.registered.edges.hide(registered.range);
        registered.block().map_or(Ok(()), |block| self.release_pinned(block))?;
        ranges.remove(&address);
        self.owners.forget(address);
        Ok(())
    }

    /// The page-locked alias of a registered address, if all the bytes are there.
    pub(super) fn registered_alias(&self, address: u64, bytes: u64) -> Option<u64> {
        let registered = self.registered.find(address, bytes)?;
        registered.alias_of(address).filter(|_| registered.is_in_alias(address, bytes))
    }

    /// How many bytes from an address are in the alias to the end, or are not to the end: less than asked for where
    /// registered memory has an edge without a shadow.
    pub(super) fn uniform_bytes(&self, address: u64, bytes: u64) -> u64 {
        let found = self.registered.find(address, bytes).filter(|found| !found.is_shown);
        let Some(Registered { pages, .. }) = found else { return bytes };
        let ends = [pages.address, pages.end()];
        let next = ends.into_iter().filter(|&end| pages.bytes > 0 && address < end).min();
        next.map_or(bytes, |next| bytes.min(next - address))
    }

    /// Where kernels reach page-locked memory (`cuMemHostGetDevicePointer`).
    ///
    /// # Errors
    /// `INVALID_VALUE` if it is not page-locked; `NOT_SUPPORTED` for registered memory that other processes have, too.
    pub fn device_address_of_host(&self, address: u64) -> CudaResult<u64> {
        static IS_TOLD: Once = Once::new();
        match self.registered.show(address) {
            Some(Some(alias)) => Ok(alias),
            Some(None) => {
                IS_TOLD.call_once(|| {
                    crate::log::write(
                        "registered memory of a shared mapping has no device address: copies use it, kernels cannot. Allocate \
                         what kernels use with cudaHostAlloc",
                    );
                });
                Err(CudaError::NOT_SUPPORTED)
            }
            None => self.pinned_allocation_of(address).map(|_| address).ok_or(CudaError::INVALID_VALUE),
        }
    }

    /// The registered address that has this alias, and where its memory begins and ends, of which this is the alias, too.
    pub fn registered_with_alias(&self, alias: u64) -> Option<(u64, AddressRange)> {
        // Most addresses are of devices, and no lock is needed to know that.
        if !self.host.contains(alias, 1) {
            return None;
        }
        let ranges = self.registered.lock();
        ranges.values().find_map(|found| {
            let range = AddressRange { address: found.alias?, bytes: found.range.bytes };
            range.contains(alias, 1).then(|| (found.range.address + (alias - range.address), range))
        })
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
