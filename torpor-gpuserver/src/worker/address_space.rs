//! Which addresses a client may name: its segments, its page-locked host memory, and globals given out to it.

use crate::driver::Place;
use crate::worker::host_memory::HostMemory;
use crate::worker::segments::ClientSegment;
use std::collections::BTreeMap;
use torpor_proto::error::CudaError;
use torpor_proto::layout::{AddressRange, SEGMENT_GRANULE_BYTES};

/// What a client may address.
#[derive(Debug)]
pub(super) struct AddressSpace {
    arena: AddressRange,
    limit_bytes: u64,
    allocated_bytes: u64,
    segments: BTreeMap<u64, ClientSegment>,
    /// Length by address.
    globals: BTreeMap<u64, u64>,
    /// The client's host range.
    pub(super) host: HostMemory,
}

impl AddressSpace {
    pub(super) fn new(arena: AddressRange, limit_bytes: u64, host: HostMemory) -> Self {
        let (segments, globals) = (BTreeMap::new(), BTreeMap::new());
        Self { arena, limit_bytes, allocated_bytes: 0, segments, globals, host }
    }

    /// Forgets everything but the host range. The GPU must have done with it.
    pub(super) fn into_host(self) -> HostMemory {
        self.host
    }

    /// Where a range lies, if it lies wholly in something the client may address.
    pub(super) fn locate(&mut self, address: u64, bytes: u64) -> Result<Place, CudaError> {
        if self.host.owns(address) {
            self.host.check_locked(address, bytes)?;
            return Ok(Place::Host);
        }
        let in_segment = || {
            let (&start, segment) = self.segments.range(..=address).next_back()?;
            Some(AddressRange { address: start, bytes: segment.bytes })
        };
        let in_global = || {
            let (&address, &bytes) = self.globals.range(..=address).next_back()?;
            Some(AddressRange { address, bytes })
        };
        let holds = |range: AddressRange| range.contains(address, bytes);
        if in_segment().is_some_and(holds) || in_global().is_some_and(holds) {
            Ok(Place::Device)
        } else {
            Err(CudaError::INVALID_VALUE)
        }
    }

    /// Whether addresses of the arena may become a segment.
    ///
    /// # Errors
    /// `CUDA_ERROR_OUT_OF_MEMORY` if only the client's limit is against it.
    pub(super) fn check_new(&self, address: u64, bytes: u64) -> Result<(), CudaError> {
        let granules =
            address.is_multiple_of(SEGMENT_GRANULE_BYTES) && bytes.is_multiple_of(SEGMENT_GRANULE_BYTES);
        if !granules || bytes == 0 || !self.arena.contains(address, bytes) {
            return Err(CudaError::INVALID_VALUE);
        }
        let before = self.segments.range(..address + bytes).next_back();
        if before.is_some_and(|(&start, segment)| start + segment.bytes > address) {
            return Err(CudaError::INVALID_VALUE);
        }
        // Neither sum can overflow: both are at most the arena's length.
        if self.allocated_bytes + bytes > self.limit_bytes {
            return Err(CudaError::OUT_OF_MEMORY);
        }
        Ok(())
    }

    /// Makes addresses of the arena a segment, which has no physical memory yet.
    pub(super) fn allocate(&mut self, address: u64, bytes: u64) -> Result<(), CudaError> {
        self.check_new(address, bytes)?;
        self.segments.insert(address, ClientSegment::new(bytes));
        self.allocated_bytes += bytes;
        Ok(())
    }

    /// Whether a segment begins at this address.
    pub(super) fn is_segment(&self, address: u64) -> bool {
        self.segments.contains_key(&address)
    }

    /// The segment that an address lies in, and where that begins.
    pub(super) fn segment_of(&self, address: u64) -> Option<(u64, &ClientSegment)> {
        let (&start, segment) = self.segments.range(..=address).next_back()?;
        (address - start < segment.bytes).then_some((start, segment))
    }

    /// As [`Self::segment_of`].
    pub(super) fn segment_of_mut(&mut self, address: u64) -> Option<(u64, &mut ClientSegment)> {
        let (&start, segment) = self.segments.range_mut(..=address).next_back()?;
        (address - start < segment.bytes).then_some((start, segment))
    }

    /// All segments, by address.
    pub(super) fn segments(&self) -> impl Iterator<Item = (u64, &ClientSegment)> {
        self.segments.iter().map(|(&address, segment)| (address, segment))
    }

    /// As [`Self::segments`].
    pub(super) fn segments_mut(&mut self) -> impl Iterator<Item = (u64, &mut ClientSegment)> {
        self.segments.iter_mut().map(|(&address, segment)| (address, segment))
    }

    /// Forgets a segment. The GPU must have done with it before the result is dropped.
    pub(super) fn free(&mut self, address: u64) -> Result<ClientSegment, CudaError> {
        let segment = self.segments.remove(&address).ok_or(CudaError::INVALID_VALUE)?;
        self.allocated_bytes -= segment.bytes;
        Ok(segment)
    }

    /// From now on the client may address a global.
    pub(super) fn add_global(&mut self, address: u64, bytes: u64) {
        self.globals.insert(address, bytes);
    }

    /// A global is gone.
    pub(super) fn remove_global(&mut self, address: u64) {
        self.globals.remove(&address);
    }

    /// The client's device addresses.
    pub(super) fn arena(&self) -> AddressRange {
        self.arena
    }

    /// Bytes of all segments, resident or not.
    pub(super) fn allocated_bytes(&self) -> u64 {
        self.allocated_bytes
    }

    /// Bytes of the segments that are on the GPU.
    pub(super) fn resident_bytes(&self) -> u64 {
        self.segments.values().filter(|segment| segment.backing.is_some()).map(|segment| segment.bytes).sum()
    }

    /// Bytes that the client may allocate.
    pub(super) fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    /// From now on the client may allocate so much; what it has it keeps.
    pub(super) fn set_limit_bytes(&mut self, limit_bytes: u64) {
        self.limit_bytes = limit_bytes;
    }
}
