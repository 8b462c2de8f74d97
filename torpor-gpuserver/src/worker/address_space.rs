//! Which addresses a client may name: its segments, its page-locked host memory, and globals given out to it.

use crate::driver::{Device, Place, Segment};
use crate::worker::host_memory::HostMemory;
use std::collections::BTreeMap;
use std::sync::Arc;
use torpor_proto::error::CudaError;
use torpor_proto::layout::{AddressRange, SEGMENT_GRANULE_BYTES};

/// What a client may address.
#[derive(Debug)]
pub(super) struct AddressSpace {
    device: Arc<Device>,
    arena: AddressRange,
    limit_bytes: u64,
    used_bytes: u64,
    segments: BTreeMap<u64, Segment>,
    /// Length by address.
    globals: BTreeMap<u64, u64>,
    /// The client's host range.
    pub(super) host: HostMemory,
}

impl AddressSpace {
    pub(super) fn new(device: &Arc<Device>, arena: AddressRange, limit_bytes: u64, host: HostMemory) -> Self {
        Self {
            device: device.clone(),
            arena,
            limit_bytes,
            used_bytes: 0,
            segments: BTreeMap::new(),
            globals: BTreeMap::new(),
            host,
        }
    }

    /// Where a range lies, if it lies wholly in something the client may address.
    pub(super) fn locate(&mut self, address: u64, bytes: u64) -> Result<Place, CudaError> {
        if self.host.owns(address) {
            self.host.check_locked(address, bytes)?;
            return Ok(Place::Host);
        }
        let in_segment = || {
            let (&start, segment) = self.segments.range(..=address).next_back()?;
            Some(AddressRange { address: start, bytes: segment.bytes() })
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

    /// Backs addresses of the arena with physical memory, which holds whatever was in it.
    pub(super) fn allocate(&mut self, address: u64, bytes: u64) -> Result<(), CudaError> {
        let granules =
            address.is_multiple_of(SEGMENT_GRANULE_BYTES) && bytes.is_multiple_of(SEGMENT_GRANULE_BYTES);
        if !granules || bytes == 0 || !self.arena.contains(address, bytes) {
            return Err(CudaError::INVALID_VALUE);
        }
        let before = self.segments.range(..address + bytes).next_back();
        if before.is_some_and(|(&start, segment)| start + segment.bytes() > address) {
            return Err(CudaError::INVALID_VALUE);
        }
        // Neither sum can overflow: both are at most the arena's length.
        if self.used_bytes + bytes > self.limit_bytes {
            return Err(CudaError::OUT_OF_MEMORY);
        }
        self.segments.insert(address, Segment::map(&self.device, address, bytes)?);
        self.used_bytes += bytes;
        Ok(())
    }

    /// Whether a segment begins at this address.
    pub(super) fn is_segment(&self, address: u64) -> bool {
        self.segments.contains_key(&address)
    }

    /// Takes a segment's physical memory away. The GPU must have done with it.
    pub(super) fn free(&mut self, address: u64) -> Result<(), CudaError> {
        let segment = self.segments.remove(&address).ok_or(CudaError::INVALID_VALUE)?;
        self.used_bytes -= segment.bytes();
        Ok(())
    }

    /// From now on the client may address a global.
    pub(super) fn add_global(&mut self, address: u64, bytes: u64) {
        self.globals.insert(address, bytes);
    }

    /// A global is gone.
    pub(super) fn remove_global(&mut self, address: u64) {
        self.globals.remove(&address);
    }

    /// Bytes of physical device memory.
    pub(super) fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    /// Bytes of physical device memory that the client may have.
    pub(super) fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }
}
