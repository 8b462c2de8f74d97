//! `cuMemHostRegister`: making memory that the program already has reachable for the GPU.
//!
//! The pages are moved, contents and all, into the shared host range and mapped at their old place as well. The program
//! goes on using its addresses; copies use the alias in the host range, which is page-locked and shared with the worker.

use super::{Client, CudaResult, Stream, host_function};
use rustix::mm::{MapFlags, MremapFlags, ProtFlags};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};
use torpor_proto::error::CudaError;
use torpor_proto::layout::{AddressRange, PAGE_BYTES};

/// Ranges by the program's first page.
pub(super) struct RegisteredMemory {
    host_memory: OwnedFd,
    ranges: Mutex<BTreeMap<u64, Registered>>,
}

#[derive(Clone, Copy)]
struct Registered {
    /// As the program named it.
    address: u64,
    pages: AddressRange,
    alias: u64,
    flags: u32,
}

impl RegisteredMemory {
    pub(super) fn new(host_memory: OwnedFd) -> Self {
        Self { host_memory, ranges: Mutex::default() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Registered>> {
        self.ranges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, address: u64, bytes: u64) -> Option<Registered> {
        let ranges = self.lock();
        let (_, registered) = ranges.range(..=address).next_back()?;
        registered.pages.contains(address, bytes).then_some(*registered)
    }
}

impl Client {
    /// `cuMemHostRegister`.
    ///
    /// # Errors
    /// `HOST_MEMORY_ALREADY_REGISTERED`; `NOT_SUPPORTED` for memory that is shared with another process, or not
    /// writable; `INVALID_VALUE`; `OUT_OF_MEMORY`.
    pub fn register(&'static self, address: u64, bytes: u64, flags: u32) -> CudaResult<()> {
        let end = address.checked_add(bytes).and_then(|end| end.checked_next_multiple_of(PAGE_BYTES));
        let (Some(end), true) = (end, bytes > 0) else { return Err(CudaError::INVALID_VALUE) };
        let start = address / PAGE_BYTES * PAGE_BYTES;
        let pages = AddressRange { address: start, bytes: end - start };
        if self.host.contains(address, bytes) {
            return Err(CudaError::HOST_MEMORY_ALREADY_REGISTERED);
        }
        let mut ranges = self.registered.lock();
        let overlaps =
            ranges.values().any(|other| other.pages.address < pages.end() && start < other.pages.end());
        if overlaps {
            return Err(CudaError::HOST_MEMORY_ALREADY_REGISTERED);
        }
        if !is_private_and_writable(pages) {
            return Err(CudaError::NOT_SUPPORTED);
        }
        let alias = self.allocate_pinned(pages.bytes, flags)?;
        // SAFETY: the program asked for these pages, they are mapped, private and writable, and the alias is a fresh piece
        // of the host range of the same length. Writing them meanwhile is a race that the program would have with
        // NVIDIA's driver's page-locking only in time, not in effect; programs register memory before they share it.
        let moved = unsafe {
            let (from, to) = (pointer(start), pointer(alias));
            std::ptr::copy_nonoverlapping(from, to, pages.bytes as usize);
            rustix::mm::mmap(
                from.cast(),
                pages.bytes as usize,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::FIXED,
                &self.registered.host_memory,
                alias - self.host.address,
            )
        };
        if moved.is_err() {
            self.release_pinned(alias)?;
            return Err(CudaError::OPERATING_SYSTEM);
        }
        ranges.insert(start, Registered { address, pages, alias, flags });
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
        let registered = ranges.get(&(address / PAGE_BYTES * PAGE_BYTES)).copied();
        let registered = registered
            .filter(|registered| registered.address == address)
            .ok_or(CudaError::HOST_MEMORY_NOT_REGISTERED)?;
        Stream::synchronize_all_posted()?;
        let bytes = registered.pages.bytes as usize;
        // SAFETY: a fresh private mapping takes the contents and is then moved over the registered pages, which stay
        // mapped, readable and writable throughout, with the same bytes.
        let moved = unsafe {
            let access = ProtFlags::READ | ProtFlags::WRITE;
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), bytes, access, MapFlags::PRIVATE).and_then(
                |fresh| {
                    std::ptr::copy_nonoverlapping(pointer(registered.pages.address), fresh.cast(), bytes);
                    let place = pointer(registered.pages.address).cast();
                    rustix::mm::mremap_fixed(fresh, bytes, bytes, MremapFlags::MAYMOVE, place)
                },
            )
        };
        if moved.is_err() {
            return Err(CudaError::OPERATING_SYSTEM);
        }
        ranges.remove(&registered.pages.address);
        self.release_pinned(registered.alias)
    }

    /// The page-locked alias of a registered address, if all the bytes are registered.
    pub(super) fn registered_alias(&self, address: u64, bytes: u64) -> Option<u64> {
        let found = self.registered.find(address, bytes)?;
        Some(found.alias + (address - found.pages.address))
    }

    /// `cuMemHostGetFlags` of registered memory.
    pub fn registered_flags(&self, address: u64) -> Option<u32> {
        self.registered.find(address, 1).map(|found| found.flags)
    }

    /// The registered allocation that an address lies in.
    pub fn registered_range_of(&self, address: u64) -> Option<AddressRange> {
        self.registered.find(address, 1).map(|found| found.pages)
    }
}

fn pointer(address: u64) -> *mut u8 {
    std::ptr::with_exposed_provenance_mut(address as usize)
}

/// Whether moving the pages leaves nobody behind: they are mapped in this process alone.
fn is_private_and_writable(pages: AddressRange) -> bool {
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return false };
    let mut covered = pages.address;
    for line in maps.lines() {
        let Some((start, end, permissions)) = parse_map(line) else { continue };
        if end <= covered || start >= pages.end() {
            continue;
        }
        if start > covered || !permissions.starts_with("rw") || !permissions.ends_with('p') {
            return false;
        }
        covered = end;
    }
    covered >= pages.end()
}

/// A line of `/proc/self/maps`. Source: proc_pid_maps(5).
fn parse_map(line: &str) -> Option<(u64, u64, &str)> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    Some((u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?, fields.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_memory_of_this_process_alone_may_move() {
        let private = vec![0u8; 3 * 4096];
        let start = (private.as_ptr().addr() as u64).next_multiple_of(4096);
        assert!(is_private_and_writable(AddressRange { address: start, bytes: 4096 }));
        let code = (is_private_and_writable as *const () as u64) / 4096 * 4096;
        assert!(!is_private_and_writable(AddressRange { address: code, bytes: 4096 }));
        assert!(
            !is_private_and_writable(AddressRange { address: 4096, bytes: 4096 }),
            "nothing is mapped there"
        );
    }
}
