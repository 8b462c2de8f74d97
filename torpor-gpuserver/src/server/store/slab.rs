//! A slab: a piece of shared memory in which chunks lie, as the server has it mapped.
//!
//! The server never looks at what lies there but to spill, to bring back and to verify. Workers map and page-lock it.

use crate::chunk::{CHUNK_BYTES, Hash, hash_at};
use crate::fault_in::fault_in;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use torpor_proto::layout::AddressRange;
use torpor_proto::mapping::{Mapping, check_sealed, create_sealed};

/// A slab.
#[derive(Debug)]
pub struct Slab {
    index: u32,
    file: OwnedFd,
    mapping: Mapping,
}

impl Slab {
    /// Makes a slab whose pages all have their memory. Takes about 0.1 s per GiB and thread: not for a thread that
    /// others wait for.
    ///
    /// # Errors
    /// `Interrupted` if it is to stop, or what the kernel says.
    pub fn make(index: u32, bytes: u64, stop: &(dyn Fn() -> bool + Sync)) -> io::Result<Self> {
        let file = create_sealed("torpor-store", bytes)?;
        let length = usize::try_from(bytes).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let mapping = Mapping::anywhere(&file, length)?;
        let address = mapping.address().as_ptr().expose_provenance() as u64;
        // SAFETY: the range is the mapping's, which lives until the slab is dropped.
        unsafe { fault_in(AddressRange { address, bytes }, stop)? };
        Ok(Self { index, file, mapping })
    }

    /// One that the server before made.
    ///
    /// # Errors
    /// The kernel's, or `InvalidData` if it is none.
    pub fn inherit(index: u32, file: OwnedFd, bytes: u64) -> io::Result<Self> {
        check_sealed(&file, bytes)?;
        let length = usize::try_from(bytes).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let mapping = Mapping::anywhere(&file, length)?;
        Ok(Self { index, file, mapping })
    }

    /// Its number.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Its length.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.mapping.bytes() as u64
    }

    /// To be handed to workers.
    #[must_use]
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// The memory of a slot of this slab, or `None` past its end.
    #[must_use]
    pub fn slot(self: &Arc<Self>, slot: u32) -> Option<SlotMemory> {
        let offset = u64::from(slot) * CHUNK_BYTES;
        let fits = offset + CHUNK_BYTES <= self.bytes();
        fits.then(|| SlotMemory { slab: self.clone(), offset: offset as usize })
    }
}

/// The memory of a slot. Workers, and through them GPUs, may write to it at the same time: what is read then is of no
/// use, and whoever reads finds that out by the index.
#[derive(Clone, Debug)]
pub struct SlotMemory {
    slab: Arc<Slab>,
    offset: usize,
}

impl SlotMemory {
    /// What lies there.
    #[must_use]
    pub fn copy_out(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(CHUNK_BYTES as usize);
        // SAFETY: the slot is inside the mapping, which the slab keeps; the vector has room for a chunk and is no part of it.
        unsafe {
            std::ptr::copy_nonoverlapping(self.pointer(), bytes.as_mut_ptr(), CHUNK_BYTES as usize);
            bytes.set_len(CHUNK_BYTES as usize);
        }
        bytes
    }

    /// Puts a chunk there.
    pub fn copy_in(&self, bytes: &[u8]) {
        assert_eq!(bytes.len() as u64, CHUNK_BYTES, "no chunk");
        // SAFETY: the slot is inside the mapping, which the slab keeps, and as long as a chunk.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.pointer(), bytes.len()) };
    }

    /// The hash of what lies there.
    #[must_use]
    pub fn hash(&self) -> Hash {
        // SAFETY: the slot is inside the mapping, which the slab keeps.
        unsafe { hash_at(self.pointer()) }
    }

    fn pointer(&self) -> *mut u8 {
        // SAFETY: the offset was checked against the mapping's length when the slot was made.
        unsafe { self.slab.mapping.address().cast::<u8>().as_ptr().add(self.offset) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slab_has_its_memory_at_once_and_slots_up_to_its_end() {
        let slab = Arc::new(Slab::make(3, 2 * CHUNK_BYTES, &|| false).unwrap());
        assert_eq!(rustix::fs::fstat(slab.file()).unwrap().st_blocks as u64 * 512, slab.bytes());
        assert!(slab.slot(2).is_none() && slab.slot(u32::MAX).is_none());
        let (first, second) = (slab.slot(0).unwrap(), slab.slot(1).unwrap());
        let bytes = vec![7; CHUNK_BYTES as usize];
        second.copy_in(&bytes);
        assert_eq!(first.copy_out(), vec![0; CHUNK_BYTES as usize]);
        assert_eq!((second.copy_out(), second.hash()), (bytes.clone(), *blake3::hash(&bytes).as_bytes()));
        let stopped = Slab::make(0, CHUNK_BYTES, &|| true).unwrap_err();
        assert_eq!(stopped.kind(), io::ErrorKind::Interrupted);
    }
}
