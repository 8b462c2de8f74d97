//! A client's host range: shared memory, mapped at the client's own addresses, parts of it page-locked.
//!
//! The staging area at its beginning is page-locked in the background when the session starts; the rest as the client
//! asks. Pages that nobody has touched are faulted in by several threads first: one alone does 1.5 GB/s.
//!
//! It outlives a session whose client goes on at another GPU, for when the client comes back ([`Anteroom`](crate::worker::gpu::anteroom)):
//! page-locking 64 MiB takes 3 ms, in which the driver answers nobody else.

use crate::driver::{Device, HostRegistration};
use crate::fault_in::fault_in;
use crate::worker::gpu::Shared;
use crate::worker::gpu::anteroom::Leavable;
use crate::worker::gpu::pinned_budget::PinnedShare;
use crate::worker::mailbox::Link;
use crate::worker::memory::staging::Staging;
use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use torpor_proto::control::migration::HostPiece;
use torpor_proto::error::CudaError;
use torpor_proto::layout::{AddressRange, PAGE_BYTES};
use torpor_proto::mapping::Mapping;

/// Numbers of parts that were locked in this process.
static LOCKS: AtomicU32 = AtomicU32::new(0);

#[derive(Debug)]
struct Locked {
    bytes: u64,
    /// No other part that a worker has locked has it: at the same addresses may be other pages by now.
    number: u64,
    _registration: HostRegistration,
    share: Option<PinnedShare>,
}

/// A client's host range.
#[derive(Debug)]
pub(crate) struct HostMemory {
    // Dropped in this order: what is locked in a mapping goes before the mapping.
    staging: Staging,
    staging_share: Option<PinnedShare>,
    locked: BTreeMap<u64, Locked>,
    range: AddressRange,
    staging_range: AddressRange,
    device: Arc<Device>,
    link: Arc<Link>,
    file: OwnedFd,
    _mapping: Mapping,
}

impl HostMemory {
    /// What of the range is for staging.
    pub(crate) fn staging(&self) -> AddressRange {
        self.staging_range
    }

    /// Maps the range and begins to page-lock the staging area.
    pub(crate) fn new(
        shared: &Shared,
        link: &Arc<Link>,
        file: OwnedFd,
        (range, staging_bytes): (AddressRange, u64),
        share: PinnedShare,
    ) -> io::Result<Self> {
        let mapping = Mapping::fixed(&file, range.address, range.bytes as usize)?;
        let staging_range = AddressRange { address: range.address, bytes: staging_bytes };
        let staging = if staging_bytes == 0 {
            Staging::Failed(CudaError::INVALID_VALUE)
        } else {
            Staging::start(&shared.device, staging_range, link)?
        };
        Ok(Self {
            staging,
            staging_share: Some(share),
            locked: BTreeMap::new(),
            range,
            staging_range,
            device: shared.device.clone(),
            link: link.clone(),
            file,
            _mapping: mapping,
        })
    }

    /// Whether it is what a client would be given that comes with this.
    pub(crate) fn is(&self, file: &OwnedFd, range: AddressRange, staging_bytes: u64) -> bool {
        let same_file = || {
            let (own, other) = (rustix::fs::fstat(&self.file), rustix::fs::fstat(file));
            matches!((own, other), (Ok(own), Ok(other)) if (own.st_dev, own.st_ino) == (other.st_dev, other.st_ino))
        };
        self.range == range && self.staging_range.bytes == staging_bytes && same_file()
    }

    /// It is another session's of the same client from now on.
    pub(crate) fn hand_to(&mut self, link: &Arc<Link>) {
        self.link = link.clone();
    }

    /// Its addresses.
    pub(crate) fn range(&self) -> AddressRange {
        self.range
    }

    /// Whether a range touches the host range's addresses at all.
    pub(crate) fn owns(&self, address: u64) -> bool {
        self.range.contains(address, 1)
    }

    /// Whether an address lies in the staging area.
    pub(crate) fn is_staging(&self, address: u64) -> bool {
        self.staging_range.contains(address, 1)
    }

    /// Whether a range is page-locked, in one piece.
    pub(crate) fn check_locked(&mut self, address: u64, bytes: u64) -> Result<(), CudaError> {
        if self.staging_range.contains(address, bytes) {
            return self.staging_ready();
        }
        let (&start, locked) = self.locked.range(..=address).next_back().ok_or(CudaError::INVALID_VALUE)?;
        let piece = AddressRange { address: start, bytes: locked.bytes };
        if piece.contains(address, bytes) { Ok(()) } else { Err(CudaError::INVALID_VALUE) }
    }

    /// Whether a word is an address of memory that the program page-locked.
    pub(crate) fn is_locked(&self, word: u64) -> bool {
        self.owns(word)
            && self
                .locked
                .range(..=word)
                .next_back()
                .is_some_and(|(&start, piece)| word - start < piece.bytes)
    }

    /// Page-locks a part of the range behind the staging area, under a new number.
    pub(crate) fn lock(&mut self, address: u64, bytes: u64, share: PinnedShare) -> Result<(), CudaError> {
        let number = u64::from(std::process::id()) << 32 | u64::from(LOCKS.fetch_add(1, Ordering::Relaxed));
        self.lock_as(address, bytes, number, share)
    }

    /// Page-locks a part that has had this number at another worker.
    pub(crate) fn lock_as(
        &mut self,
        address: u64,
        bytes: u64,
        number: u64,
        share: PinnedShare,
    ) -> Result<(), CudaError> {
        let piece = AddressRange { address, bytes };
        let pages = address.is_multiple_of(PAGE_BYTES) && bytes.is_multiple_of(PAGE_BYTES) && bytes > 0;
        if !pages || !self.range.contains(address, bytes) || address < self.staging_range.end() {
            return Err(CudaError::INVALID_VALUE);
        }
        let before = self.locked.range(..piece.end()).next_back();
        if before.is_some_and(|(&start, before)| start.saturating_add(before.bytes) > address) {
            return Err(CudaError::HOST_MEMORY_ALREADY_REGISTERED);
        }
        let registration = lock_pages(&self.device, piece, &self.link)?;
        self.locked
            .insert(address, Locked { bytes, number, _registration: registration, share: Some(share) });
        Ok(())
    }

    /// Unlocks the staging area and gives its pages back, of which nobody needs anything any more. True if there were any.
    pub(crate) fn vacate_staging(&mut self) -> bool {
        // Of a client that has never copied anything it may still be starting.
        if self.is_staging_vacant() || self.staging.wait().is_err() {
            return false;
        }
        self.staging = Staging::Vacant;
        if let Err(error) = self.give_pages_back(self.staging_range) {
            tracing::debug!("the pages of a staging area stay: {error}");
        }
        true
    }

    /// Whether the staging area has no pages.
    pub(crate) fn is_staging_vacant(&self) -> bool {
        matches!(self.staging, Staging::Vacant)
    }

    /// Begins to page-lock a staging area again that has no pages: its client is about to use it.
    #[inline]
    pub(crate) fn return_staging(&mut self) {
        if self.is_staging_vacant() {
            // Who needs it hears of what went wrong.
            self.staging = Staging::start(&self.device, self.staging_range, &self.link)
                .unwrap_or(Staging::Failed(CudaError::OPERATING_SYSTEM));
        }
    }

    fn give_pages_back(&self, part: AddressRange) -> rustix::io::Result<()> {
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&self.file, hole, part.address - self.range.address, part.bytes)
    }

    /// Undoes what is locked here and is none of these parts any more: the client has unlocked it elsewhere, and its pages are others.
    pub(crate) fn keep_locked(&mut self, parts: &[HostPiece]) {
        let is_part = |address: u64, locked: &Locked| {
            parts
                .iter()
                .any(|part| (part.address, part.bytes, part.number) == (address, locked.bytes, locked.number))
        };
        self.locked.retain(|&address, locked| is_part(address, locked));
    }

    /// Whether something was locked at this address.
    pub(crate) fn is_lock(&self, address: u64) -> bool {
        self.locked.contains_key(&address)
    }

    /// Undoes [`Self::lock`] and gives the pages back. The GPU must have done with them.
    pub(crate) fn unlock(&mut self, address: u64) -> Result<(), CudaError> {
        let Locked { bytes, _registration, share: _share, .. } =
            self.locked.remove(&address).ok_or(CudaError::HOST_MEMORY_NOT_REGISTERED)?;
        drop(_registration);
        self.give_pages_back(AddressRange { address, bytes }).map_err(|_| CudaError::OPERATING_SYSTEM)
    }

    /// What was locked beside the staging area.
    pub(crate) fn locked(&self) -> impl Iterator<Item = HostPiece> {
        self.locked.iter().map(|(&address, &Locked { bytes, number, .. })| HostPiece {
            address,
            bytes,
            number,
        })
    }

    /// Bytes that are page-locked.
    pub(crate) fn locked_bytes(&self) -> u64 {
        let staging_bytes = if self.is_staging_vacant() { 0 } else { self.staging_range.bytes };
        staging_bytes + self.locked.values().map(|locked| locked.bytes).sum::<u64>()
    }

    /// Copies out what the client wrote. The kernel does it, so a client that writes meanwhile harms only itself.
    pub(crate) fn read(&self, address: u64, out: &mut [u8]) -> Result<(), CudaError> {
        if !self.range.contains(address, out.len() as u64) {
            return Err(CudaError::INVALID_VALUE);
        }
        let mut done = 0;
        while done < out.len() {
            let offset = address - self.range.address + done as u64;
            match rustix::io::pread(&self.file, &mut out[done..], offset) {
                Ok(0) => return Err(CudaError::OPERATING_SYSTEM),
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(_) => return Err(CudaError::OPERATING_SYSTEM),
            }
        }
        Ok(())
    }

    /// Writes what the client is to find there. It may write there too, and harms only itself.
    pub(crate) fn write(&self, address: u64, bytes: &[u8]) -> Result<(), CudaError> {
        if !self.range.contains(address, bytes.len() as u64) {
            return Err(CudaError::INVALID_VALUE);
        }
        let mut done = 0;
        while done < bytes.len() {
            let offset = address - self.range.address + done as u64;
            match rustix::io::pwrite(&self.file, &bytes[done..], offset) {
                Ok(count) if count > 0 => done += count,
                Err(Errno::INTR) => {}
                _ => return Err(CudaError::OPERATING_SYSTEM),
            }
        }
        Ok(())
    }

    /// The aligned words that a range which the client wrote has where it is copied to; it may write on meanwhile, and harms only
    /// itself.
    pub(crate) fn words(&self, address: u64, bytes: u64, to: u64) -> Option<impl Iterator<Item = u64> + '_> {
        if !self.range.contains(address, bytes) {
            return None;
        }
        let skipped = to.next_multiple_of(8) - to;
        let count = bytes.saturating_sub(skipped) / 8;
        let read = |address: u64| {
            let word = std::ptr::with_exposed_provenance::<u64>(address as usize);
            // SAFETY: inside the range, which stays mapped as long as self lives and begins and ends with a word; aligned; volatile,
            // because the other side may write it.
            unsafe { word.read_volatile() }
        };
        let word = move |at: u64| match at % 8 {
            0 => read(at),
            over => (read(at - over) >> (8 * over)) | (read(at - over + 8) << (64 - 8 * over)),
        };
        Some((0..count).map(move |index| word(address + skipped + index * 8)))
    }

    fn staging_ready(&mut self) -> Result<(), CudaError> {
        self.return_staging();
        self.staging.wait()
    }
}

impl Leavable for HostMemory {
    fn give_up_shares(&mut self) {
        self.staging_share = None;
        self.locked.values_mut().for_each(|locked| locked.share = None);
    }
}

/// Faults pages in and page-locks them.
pub(super) fn lock_pages(
    device: &Arc<Device>,
    piece: AddressRange,
    link: &Link,
) -> Result<HostRegistration, CudaError> {
    // SAFETY: the range is mapped by HostMemory, which drops its registrations before the mapping.
    unsafe { fault_in(piece, &|| link.is_stopping()) }.map_err(|_| CudaError::OUT_OF_MEMORY)?;
    // SAFETY: as above.
    unsafe { HostRegistration::new(device, piece.address, piece.bytes) }
}
