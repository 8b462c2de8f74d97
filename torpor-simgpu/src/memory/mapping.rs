//! Ranges of the process's address space that devices know, and who may access them.
//!
//! A mapping lives until nobody uses it: an operation that runs keeps what it may touch, so memory that a program
//! unmaps under a running kernel stays readable for that kernel alone (and is reported if that check is on), instead of
//! bringing the process down.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

use super::physical::{GRANULARITY, Physical};
use crate::error::{CudaError, Result};
use crate::lock;

/// Behind memory whose address the driver chooses lie so many bytes of nothing: an overrun meets no other allocation.
const GUARD_BYTES: u64 = GRANULARITY;

/// What lies in a mapping.
#[derive(Debug)]
pub enum Backing {
    /// Device memory.
    Device(Arc<Physical>),
    /// Page-locked host memory.
    Host {
        /// Allocated by the driver (`cuMemHostAlloc`), not registered.
        allocated: bool,
        /// The flags it was made with.
        flags: u32,
    },
}

/// What happens to the range when the mapping ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// It belongs to a reservation and becomes empty again.
    Reserved,
    /// It was taken for this mapping, with a guard behind it, and is given back.
    Own,
    /// It was taken for this mapping and is never used again, so that late accesses are noticed.
    Quarantined,
    /// It was taken for host memory and is given back.
    Host,
    /// It is somebody else's memory.
    Foreign,
}

/// A range of addresses with what is behind it.
#[derive(Debug)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// Bytes mapped.
    pub bytes: u64,
    /// Bytes asked for, which may be less.
    pub asked_bytes: u64,
    /// What is behind it.
    pub backing: Backing,
    /// A number that no other mapping of the process has.
    pub id: u64,
    range: Range,
    readers: AtomicU64,
    writers: AtomicU64,
    extents: Arc<Extents>,
}

/// The ranges of all mappings there are, also of those already unmapped but still used by an operation.
#[derive(Debug, Default)]
pub struct Extents {
    next_id: AtomicU64,
    ranges: Mutex<BTreeMap<(u64, u64), u64>>,
}

impl Extents {
    fn new_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Whether any mapping touches the range.
    pub fn touches(&self, start: u64, end: u64) -> bool {
        lock(&self.ranges).iter().any(|(&(from, _), &to)| from < end && start < to)
    }
}

fn pointer(address: u64) -> *mut c_void {
    std::ptr::with_exposed_provenance_mut(address as usize)
}

impl Mapping {
    /// Maps `physical` at `start`, inside a reservation.
    pub fn reserved(start: u64, physical: Arc<Physical>, extents: &Arc<Extents>) -> Result<Arc<Self>> {
        let asked_bytes = physical.bytes;
        Self::device(Some(start), physical, asked_bytes, Range::Reserved, extents)
    }

    /// Maps `physical` anywhere; the program asked for `asked_bytes` of it.
    pub fn anywhere(
        physical: Arc<Physical>,
        asked_bytes: u64,
        quarantine: bool,
        extents: &Arc<Extents>,
    ) -> Result<Arc<Self>> {
        let range = if quarantine { Range::Quarantined } else { Range::Own };
        Self::device(None, physical, asked_bytes, range, extents)
    }

    fn device(
        start: Option<u64>,
        physical: Arc<Physical>,
        asked_bytes: u64,
        range: Range,
        extents: &Arc<Extents>,
    ) -> Result<Arc<Self>> {
        let id = extents.new_id();
        let bytes = physical.bytes;
        let start = match start {
            Some(start) => start,
            None => reserve(0, bytes + GUARD_BYTES, GRANULARITY)?,
        };
        let mut ranges = lock(&extents.ranges);
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::FIXED;
        // SAFETY: the range lies in a reservation of this driver, made here or checked by the caller, in which no
        // current mapping lies.
        let mapped = unsafe { mmap(pointer(start), bytes as usize, protection, flags, physical.file(), 0) };
        if mapped.is_err() {
            if range != Range::Reserved {
                give_back(start, bytes + GUARD_BYTES);
            }
            return Err(CudaError::OUT_OF_MEMORY);
        }
        ranges.insert((start, id), start + bytes);
        drop(ranges);
        let extents = Arc::clone(extents);
        let backing = Backing::Device(physical);
        let nobody = || AtomicU64::new(0);
        Ok(Arc::new(Self {
            start,
            bytes,
            asked_bytes,
            backing,
            id,
            range,
            readers: nobody(),
            writers: nobody(),
            extents,
        }))
    }

    /// Host memory at `start`, or new host memory if there is none.
    pub fn host(start: Option<u64>, bytes: u64, flags: u32, extents: &Arc<Extents>) -> Result<Arc<Self>> {
        let allocated = start.is_none();
        let start = match start {
            Some(start) => start,
            None => {
                let length = usize::try_from(bytes).map_err(|_| CudaError::OUT_OF_MEMORY)?;
                let protection = ProtFlags::READ | ProtFlags::WRITE;
                // SAFETY: a new mapping where the system wants it.
                let mapped =
                    unsafe { mmap_anonymous(std::ptr::null_mut(), length, protection, MapFlags::PRIVATE) };
                mapped.map_err(|_| CudaError::OUT_OF_MEMORY)?.expose_provenance() as u64
            }
        };
        let id = extents.new_id();
        lock(&extents.ranges).insert((start, id), start + bytes);
        Ok(Arc::new(Self {
            start,
            bytes,
            asked_bytes: bytes,
            backing: Backing::Host { allocated, flags },
            id,
            range: if allocated { Range::Host } else { Range::Foreign },
            readers: AtomicU64::new(u64::MAX),
            writers: AtomicU64::new(u64::MAX),
            extents: Arc::clone(extents),
        }))
    }

    /// The first address behind it.
    pub fn end(&self) -> u64 {
        self.start + self.bytes
    }

    /// The device memory behind it.
    pub fn physical(&self) -> Option<&Arc<Physical>> {
        match &self.backing {
            Backing::Device(physical) => Some(physical),
            Backing::Host { .. } => None,
        }
    }

    /// Where it starts, as a pointer.
    pub fn base(&self) -> *mut u8 {
        pointer(self.start).cast()
    }

    /// Lets a device read, write, both or neither.
    pub fn set_access(&self, device: usize, read: bool, write: bool) {
        let bit = 1_u64 << device;
        for (mask, allowed) in [(&self.readers, read), (&self.writers, write)] {
            if allowed {
                mask.fetch_or(bit, Ordering::Relaxed);
            } else {
                mask.fetch_and(!bit, Ordering::Relaxed);
            }
        }
    }

    /// Whether a device may read.
    pub fn may_read(&self, device: usize) -> bool {
        self.readers.load(Ordering::Relaxed) >> device & 1 == 1
    }

    /// Whether a device may write.
    pub fn may_write(&self, device: usize) -> bool {
        self.writers.load(Ordering::Relaxed) >> device & 1 == 1
    }

    /// Whether any device may access it.
    pub fn is_accessible(&self) -> bool {
        self.readers.load(Ordering::Relaxed) != 0
    }

    /// Whether the driver chose its addresses, as for `cuMemAlloc`; peers then need no access of their own to it.
    pub fn is_plain(&self) -> bool {
        matches!(self.range, Range::Own | Range::Quarantined)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let mut ranges = lock(&self.extents.ranges);
        ranges.remove(&(self.start, self.id));
        match self.range {
            Range::Foreign => {}
            Range::Host => give_back(self.start, self.bytes),
            Range::Own => give_back(self.start, self.bytes + GUARD_BYTES),
            Range::Quarantined => make_empty(self.start, self.end()),
            Range::Reserved => {
                // What a later mapping took in the meantime is not touched.
                let mut from = self.start;
                for (&(start, _), &end) in
                    ranges.iter().filter(|(start, end)| start.0 < self.end() && self.start < **end)
                {
                    if from < start {
                        make_empty(from, start);
                    }
                    from = from.max(end);
                }
                if from < self.end() {
                    make_empty(from, self.end());
                }
            }
        }
    }
}

/// Turns a range into reserved, inaccessible addresses.
fn make_empty(start: u64, end: u64) {
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
    // SAFETY: the range belongs to this driver, and no mapping that anybody uses lies in it. On failure the old pages
    // stay, which is harmless.
    let _ = unsafe { mmap_anonymous(pointer(start), (end - start) as usize, ProtFlags::empty(), flags) };
}

/// Reserves `bytes` of addresses: at `wanted` if that is free, else anywhere, at a multiple of `alignment`.
pub fn reserve(wanted: u64, bytes: u64, alignment: u64) -> Result<u64> {
    let length = usize::try_from(bytes).map_err(|_| CudaError::OUT_OF_MEMORY)?;
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
    if wanted != 0 && wanted.is_multiple_of(alignment) {
        // SAFETY: NOREPLACE, so no existing mapping is touched.
        let mapped = unsafe {
            mmap_anonymous(pointer(wanted), length, ProtFlags::empty(), flags | MapFlags::FIXED_NOREPLACE)
        };
        match mapped.map(|mapped| mapped.expose_provenance() as u64) {
            Ok(start) if start == wanted => return Ok(start),
            // A kernel without NOREPLACE took it for a hint.
            Ok(start) => give_back(start, bytes),
            Err(_) => {}
        }
    }
    let padded = length.checked_add(alignment as usize).ok_or(CudaError::OUT_OF_MEMORY)?;
    // SAFETY: a new mapping where the system wants it.
    let mapped = unsafe { mmap_anonymous(std::ptr::null_mut(), padded, ProtFlags::empty(), flags) };
    let first = mapped.map_err(|_| CudaError::OUT_OF_MEMORY)?.expose_provenance() as u64;
    let start = first.next_multiple_of(alignment);
    give_back(first, start - first);
    give_back(start + bytes, first + padded as u64 - (start + bytes));
    Ok(start)
}

/// Gives addresses that this driver took back to the system. Nothing may use them any more.
pub fn give_back(start: u64, bytes: u64) {
    if bytes > 0 {
        // SAFETY: the range is a reservation of this driver, or a mapping that nothing uses: whatever uses a mapping
        // holds its object, and this is called when that is dropped.
        let _ = unsafe { munmap(pointer(start), bytes as usize) };
    }
}
