//! Managed memory: one address for the program and for its kernels, which both may use at any moment.
//!
//! It is memory of the host range that the worker page-locks, as pinned memory is, so it is right on both sides without
//! anybody moving it. Advice and prefetches are checked and remembered, and move nothing: where the memory would have to
//! be in two places, a program that reads without asking could not be told ([docs/design/managed.md]).
//!
//! [docs/design/managed.md]: ../../../../docs/design/managed.md

mod advice;
mod place;

pub use advice::Advice;
pub use place::{NO_DEVICE, Place};

use super::{Client, CudaResult, Stream, devices};
use advice::AdvisedPages;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use torpor_proto::error::CudaError;
use torpor_proto::layout::AddressRange;

/// `CU_MEM_ATTACH_GLOBAL`, `…_HOST`, `…_SINGLE`
const ATTACH_GLOBAL: u32 = 1;
const ATTACH_HOST: u32 = 2;
const ATTACH_SINGLE: u32 = 4;

/// The managed memory of a client.
#[derive(Default)]
pub(super) struct ManagedMemory(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    /// By first address, as long as the program asked for.
    pieces: BTreeMap<u64, Piece>,
    advised: AdvisedPages,
}

#[derive(Clone, Copy)]
struct Piece {
    bytes: u64,
    /// A variable of an image goes with that.
    is_variable: bool,
}

/// What was said of a range by advice and prefetches.
#[derive(Debug, PartialEq, Eq)]
pub struct RangeFacts {
    /// All of it was said to be mostly read.
    pub is_read_mostly: bool,
    /// The one preferred place of all of it.
    pub preferred: Option<Place>,
    /// The processors that were said to access all of it.
    pub accessed_by: Vec<Place>,
    /// The one place to which all of it was last prefetched.
    pub prefetched_to: Option<Place>,
}

impl ManagedMemory {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An image has a managed variable there.
    pub(super) fn add_variable(&self, variable: AddressRange) {
        let piece = Piece { bytes: variable.bytes, is_variable: true };
        self.lock().pieces.insert(variable.address, piece);
    }

    /// The image is gone.
    pub(super) fn remove_variable(&self, variable: AddressRange) {
        let mut inner = self.lock();
        if inner.pieces.get(&variable.address).is_some_and(|piece| piece.is_variable) {
            inner.take(variable.address);
        }
    }
}

impl Inner {
    fn find(&self, address: u64, bytes: u64) -> Option<AddressRange> {
        let (&start, piece) = self.pieces.range(..=address).next_back()?;
        let piece = AddressRange { address: start, bytes: piece.bytes };
        (piece.contains(address, bytes) && piece.contains(address, 1)).then_some(piece)
    }

    /// The range itself, if it is one of managed memory.
    fn check(&self, address: u64, bytes: u64) -> CudaResult<AddressRange> {
        let is_managed = bytes > 0 && self.find(address, bytes).is_some();
        if is_managed { Ok(AddressRange { address, bytes }) } else { Err(CudaError::INVALID_VALUE) }
    }

    fn take(&mut self, address: u64) -> Option<Piece> {
        let piece = self.pieces.remove(&address)?;
        self.advised.forget(AddressRange { address, bytes: piece.bytes });
        Some(piece)
    }
}

impl Client {
    /// `cuMemAllocManaged`.
    ///
    /// # Errors
    /// `OUT_OF_MEMORY`; `INVALID_VALUE` for no bytes, or flags that are not one of two.
    pub fn allocate_managed(&'static self, bytes: u64, flags: u32) -> CudaResult<u64> {
        if !matches!(flags, ATTACH_GLOBAL | ATTACH_HOST) || bytes == 0 {
            return Err(CudaError::INVALID_VALUE);
        }
        self.check()?;
        let address = self.lock_host(bytes)?.address;
        self.managed.lock().pieces.insert(address, Piece { bytes, is_variable: false });
        self.owners.note(address, devices::current());
        Ok(address)
    }

    /// Frees managed memory (`cuMemFree`) once the GPU has done with it.
    ///
    /// # Errors
    /// `INVALID_VALUE` if no managed allocation begins there.
    pub(super) fn free_managed(&'static self, address: u64) -> CudaResult<()> {
        {
            let mut inner = self.managed.lock();
            let is_allocation = inner.pieces.get(&address).is_some_and(|piece| !piece.is_variable);
            if !is_allocation {
                return Err(CudaError::INVALID_VALUE);
            }
            inner.take(address);
        }
        self.set_synchronizes_always(address, false);
        self.owners.forget(address);
        self.unlock_host(address)
    }

    /// Whether a variable of an image is `__managed__`: the worker has placed it where the program reaches it.
    pub(super) fn is_managed_variable(&self, variable: &AddressRange) -> bool {
        self.host.contains(variable.address, variable.bytes)
    }

    /// The managed allocation or variable that an address lies in.
    pub fn managed_range_of(&self, address: u64) -> Option<AddressRange> {
        // Most addresses are of devices, and no lock is needed to know that.
        if !self.host.contains(address, 1) {
            return None;
        }
        self.managed.lock().find(address, 1)
    }

    /// `cuMemAdvise`.
    ///
    /// # Errors
    /// `INVALID_VALUE` if not all of it is managed.
    pub fn advise(&self, address: u64, bytes: u64, advice: Advice) -> CudaResult<()> {
        let mut inner = self.managed.lock();
        let range = inner.check(address, bytes)?;
        inner.advised.advise(range, advice);
        Ok(())
    }

    /// `cuMemRangeGetAttribute`.
    ///
    /// # Errors
    /// As [`Self::advise`].
    pub fn range_facts(&self, address: u64, bytes: u64) -> CudaResult<RangeFacts> {
        let inner = self.managed.lock();
        let (range, advised) = (inner.check(address, bytes)?, &inner.advised);
        Ok(RangeFacts {
            is_read_mostly: advised.is_read_mostly(range),
            preferred: advised.preferred(range),
            accessed_by: advised.accessed_by(range),
            prefetched_to: advised.prefetched_to(range),
        })
    }

    /// `cuMemPrefetchAsync`, of all ranges or none.
    ///
    /// # Errors
    /// As [`Self::advise`]; `STREAM_CAPTURE_UNSUPPORTED`, since no node of a graph does it; those of earlier commands.
    pub fn prefetch(&self, ranges: &[(AddressRange, Place)], stream: &Stream) -> CudaResult<()> {
        stream.refuse_capture()?;
        {
            let mut inner = self.managed.lock();
            ranges.iter().try_for_each(|(range, _)| inner.check(range.address, range.bytes).map(drop))?;
            ranges.iter().for_each(|&(range, place)| inner.advised.prefetch(range, place));
        }
        self.check()
    }

    /// `cuMemDiscardBatchAsync`: what is there may stay, since anything may be there.
    ///
    /// # Errors
    /// As [`Self::prefetch`].
    pub fn discard(&self, ranges: &[AddressRange], stream: &Stream) -> CudaResult<()> {
        stream.refuse_capture()?;
        {
            let inner = self.managed.lock();
            ranges.iter().try_for_each(|range| inner.check(range.address, range.bytes).map(drop))?;
        }
        self.check()
    }

    /// `cuStreamAttachMemAsync`: who may use the memory while which kernels run. Here everybody always may.
    ///
    /// # Errors
    /// `INVALID_VALUE` if no managed memory is there, for a part of an allocation, for other flags, and for the legacy
    /// stream alone; `STREAM_CAPTURE_UNSUPPORTED`; those of earlier commands.
    pub fn attach(&self, address: u64, bytes: u64, flags: u32, stream: &Stream) -> CudaResult<()> {
        let is_right = match flags {
            ATTACH_GLOBAL | ATTACH_HOST => true,
            ATTACH_SINGLE => !stream.is_legacy(),
            _ => false,
        };
        let found = self.managed.lock().find(address, 1).filter(|found| bytes == 0 || found.bytes == bytes);
        if !is_right || found.is_none() {
            return Err(CudaError::INVALID_VALUE);
        }
        stream.refuse_capture()?;
        self.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inner(pieces: &[(u64, u64)]) -> Inner {
        let piece = |&(address, bytes)| (address, Piece { bytes, is_variable: false });
        Inner { pieces: pieces.iter().map(piece).collect(), advised: AdvisedPages::default() }
    }

    #[test]
    fn a_range_lies_in_one_allocation_or_in_none() {
        let inner = inner(&[(4096, 100), (8192, 4096)]);
        assert_eq!(inner.find(4096 + 99, 1), Some(AddressRange { address: 4096, bytes: 100 }));
        assert_eq!(inner.find(4096 + 100, 1), None);
        assert_eq!(inner.find(4096 + 100, 0), None);
        assert!(inner.check(8192 + 4000, 96).is_ok());
        for (address, bytes) in [(8192 + 4000, 97), (8192, 0), (4095, 1), (4096, u64::MAX), (0, 1)] {
            assert_eq!(inner.check(address, bytes), Err(CudaError::INVALID_VALUE));
        }
    }

    #[test]
    fn what_is_said_of_memory_goes_with_it() {
        let mut inner = inner(&[(4096, 4096)]);
        let range = inner.check(4096, 4096).unwrap();
        inner.advised.prefetch(range, Place::Device(0));
        inner.take(4096);
        assert_eq!(inner.advised.prefetched_to(range), None);
    }
}
