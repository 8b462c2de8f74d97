//! Shared memory: making it, sealing it, mapping it.

use crate::layout::PAGE_BYTES;
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};
use std::ffi::c_void;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;

/// A huge page, on x86-64.
pub const HUGE_PAGE_BYTES: u64 = 2 << 20;

/// Makes `bytes` of shared memory whose size nobody can change any more: a side that shrinks it could kill the other
/// with SIGBUS. Pages come into being when touched. Source: memfd_create(2), fcntl(2) F_ADD_SEALS.
///
/// # Errors
/// What the kernel says.
pub fn create_sealed(name: &str, bytes: u64) -> io::Result<OwnedFd> {
    let file = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    rustix::fs::ftruncate(&file, bytes)?;
    rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(file)
}

/// Checks that shared memory received from elsewhere has this size and can never change it.
///
/// # Errors
/// `InvalidData` if it has another size or is not sealed, or what the kernel says.
pub fn check_sealed(file: impl AsFd, bytes: u64) -> io::Result<()> {
    let size = u64::try_from(rustix::fs::fstat(&file)?.st_size).unwrap_or(0);
    let seals = rustix::fs::fcntl_get_seals(&file)?;
    if size == bytes && seals.contains(SealFlags::SHRINK | SealFlags::GROW) {
        Ok(())
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("shared memory of {size} bytes, seals {seals:?}"),
        ))
    }
}

/// A mapping, unmapped on drop.
#[derive(Debug)]
pub struct Mapping {
    address: NonNull<c_void>,
    bytes: usize,
}

// SAFETY: a mapping is an address range of the process, usable from any thread; what lies in it is the user's affair.
unsafe impl Send for Mapping {}
// SAFETY: as above; the methods only read the range's bounds.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps all of `file`, readable and writable, wherever there is room: huge pages can be where any fits.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn anywhere(file: impl AsFd, bytes: usize) -> io::Result<Self> {
        let huge = HUGE_PAGE_BYTES as usize;
        if bytes < huge {
            return Self::map(std::ptr::null_mut(), bytes, MapFlags::SHARED, file);
        }
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: the kernel chooses the place.
        let address = unsafe {
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), bytes + huge, ProtFlags::empty(), flags)?
        };
        let room = Self::at(address, std::ptr::null_mut(), bytes + huge)?;
        let begin = address.map_addr(|address| address.next_multiple_of(huge));
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: what is replaced is a part of the room, which nobody uses.
        let address =
            unsafe { rustix::mm::mmap(begin, bytes, access, MapFlags::SHARED | MapFlags::FIXED, file, 0)? };
        let mapping = Self::at(address, begin, bytes)?;
        room.unmap_around(&mapping);
        Ok(mapping)
    }

    /// Unmaps what a mapping leaves of the room that it lies in.
    fn unmap_around(self, inner: &Self) {
        let room = ManuallyDrop::new(self);
        let (begin, end) = (room.address.addr().get(), room.address.addr().get() + room.bytes);
        let inner_begin = inner.address.addr().get();
        let inner_end = (inner_begin + inner.bytes).next_multiple_of(PAGE_BYTES as usize);
        for (begin, end) in [(begin, inner_begin), (inner_end, end)] {
            if begin < end {
                let address = room.address.as_ptr().with_addr(begin);
                // SAFETY: a part of the room that is not the mapping's, whose last page ends where this begins.
                let _ = unsafe { rustix::mm::munmap(address, end - begin) };
            }
        }
    }

    /// Maps the first `bytes` of `file` exactly at `address`.
    ///
    /// # Errors
    /// `AlreadyExists` if anything is mapped there, or what the kernel says.
    pub fn fixed(file: impl AsFd, address: u64, bytes: usize) -> io::Result<Self> {
        Self::map(
            std::ptr::with_exposed_provenance_mut(address as usize),
            bytes,
            MapFlags::SHARED | MapFlags::NORESERVE | MapFlags::FIXED_NOREPLACE,
            file,
        )
    }

    /// Keeps addresses, so that nothing else is mapped there. They cannot be accessed.
    ///
    /// # Errors
    /// `AlreadyExists` if anything is mapped there, or what the kernel says.
    pub fn reserve(address: u64, bytes: usize) -> io::Result<Self> {
        let wanted = std::ptr::with_exposed_provenance_mut(address as usize);
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED_NOREPLACE;
        // SAFETY: FIXED_NOREPLACE never replaces a mapping, so no memory that anybody uses is touched.
        let address = unsafe { rustix::mm::mmap_anonymous(wanted, bytes, ProtFlags::empty(), flags)? };
        Self::at(address, wanted, bytes)
    }

    fn map(wanted: *mut c_void, bytes: usize, flags: MapFlags, file: impl AsFd) -> io::Result<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses the place, or FIXED_NOREPLACE keeps it from replacing a mapping.
        let address = unsafe { rustix::mm::mmap(wanted, bytes, access, flags, file, 0)? };
        Self::at(address, wanted, bytes)
    }

    /// Kernels before 4.17 take FIXED_NOREPLACE for a hint and map elsewhere: that is a failure too.
    fn at(address: *mut c_void, wanted: *mut c_void, bytes: usize) -> io::Result<Self> {
        let address = NonNull::new(address).ok_or(io::ErrorKind::AddrNotAvailable)?;
        let mapping = Self { address, bytes };
        if wanted.is_null() || wanted == address.as_ptr() {
            Ok(mapping)
        } else {
            Err(io::ErrorKind::AlreadyExists.into())
        }
    }

    /// The first byte.
    #[must_use]
    pub fn address(&self) -> NonNull<c_void> {
        self.address
    }

    /// The length.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by this value, which nobody can use any more.
        let _ = unsafe { rustix::mm::munmap(self.address.as_ptr(), self.bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_memory_keeps_its_size() {
        let file = create_sealed("test", 1 << 20).unwrap();
        check_sealed(&file, 1 << 20).unwrap();
        assert!(rustix::fs::ftruncate(&file, 0).is_err());
        assert!(rustix::fs::ftruncate(&file, 2 << 20).is_err());
        assert!(check_sealed(&file, 1 << 19).is_err());
        let unsealed = rustix::fs::memfd_create("unsealed", MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::fs::ftruncate(&unsealed, 4096).unwrap();
        assert!(check_sealed(&unsealed, 4096).is_err());
    }

    #[test]
    fn a_mapping_begins_where_a_huge_page_can_and_takes_no_more_than_its_length() {
        let bytes = HUGE_PAGE_BYTES + 5000;
        let file = create_sealed("test", bytes).unwrap();
        let mapping = Mapping::anywhere(&file, bytes as usize).unwrap();
        let begin = mapping.address().as_ptr().addr() as u64;
        assert_eq!((begin % HUGE_PAGE_BYTES, mapping.bytes() as u64), (0, bytes));
        // SAFETY: the last page of the mapping, which nobody else has.
        unsafe { mapping.address().cast::<u8>().add(bytes as usize - 1).write(1) };
        let behind = (begin + bytes).next_multiple_of(PAGE_BYTES);
        drop(Mapping::reserve(behind, PAGE_BYTES as usize).unwrap());
        drop(Mapping::reserve(begin - PAGE_BYTES, PAGE_BYTES as usize).unwrap());
    }

    #[test]
    fn an_address_in_use_is_never_replaced() {
        let file = create_sealed("test", 8192).unwrap();
        let reserved = Mapping::reserve(0x3000_0000_0000, 1 << 40).unwrap();
        let taken = Mapping::fixed(&file, 0x3000_0000_0000, 8192).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
        drop(reserved);
        let mapped = Mapping::fixed(&file, 0x3000_0000_0000, 8192).unwrap();
        assert_eq!((mapped.address().as_ptr() as usize, mapped.bytes()), (0x3000_0000_0000, 8192));
    }
}
