//! Which addresses a client may name: its segments, its page-locked host memory, and globals given out to it.

use crate::driver::Place;
use crate::worker::memory::host_range::HostMemory;
use crate::worker::memory::segment::ClientSegment;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use torpor_proto::error::CudaError;
use torpor_proto::layout::{AddressRange, SEGMENT_GRANULE_BYTES};

/// What a client may address.
#[derive(Debug)]
pub(crate) struct AddressSpace {
    arena: AddressRange,
    limit_bytes: u64,
    allocated_bytes: u64,
    segments: BTreeMap<u64, ClientSegment>,
    /// Homes of objects, by the addresses at which these are mapped.
    views: BTreeMap<u64, u64>,
    /// Length by address.
    globals: BTreeMap<u64, u64>,
    /// What the client's arrays count as, which have no addresses, wherever they are.
    pub(crate) array_bytes: Rc<Cell<u64>>,
    /// The client's host range.
    pub(crate) host: HostMemory,
}

impl AddressSpace {
    pub(crate) fn new(arena: AddressRange, limit_bytes: u64, host: HostMemory) -> Self {
        Self {
            arena,
            limit_bytes,
            allocated_bytes: 0,
            segments: BTreeMap::new(),
            views: BTreeMap::new(),
            globals: BTreeMap::new(),
            array_bytes: Rc::default(),
            host,
        }
    }

    /// Forgets everything but the host range and the segments. The GPU must have done with these before they are dropped.
    pub(crate) fn take_apart(self) -> (HostMemory, BTreeMap<u64, ClientSegment>) {
        (self.host, self.segments)
    }

    /// Where a range lies, if it lies wholly in something the client may address.
    pub(crate) fn locate(&mut self, address: u64, bytes: u64) -> Result<Place, CudaError> {
        if self.host.owns(address) {
            self.host.check_locked(address, bytes)?;
            return Ok(Place::Host);
        }
        let in_segment = || {
            let (&start, segment) = self.segments.range(..=address).next_back()?;
            segment.views.is_none().then_some(AddressRange { address: start, bytes: segment.bytes })
        };
        let in_global = || {
            let (&address, &bytes) = self.globals.range(..=address).next_back()?;
            Some(AddressRange { address, bytes })
        };
        let holds = |range: AddressRange| range.contains(address, bytes);
        let is_known = in_segment().is_some_and(holds) || in_global().is_some_and(holds);
        if is_known || self.is_viewed(address, bytes) {
            Ok(Place::Device)
        } else {
            Err(CudaError::INVALID_VALUE)
        }
    }

    /// Bytes from an address to the end of what it lies in, if that is device memory of the client's.
    pub(crate) fn bytes_from(&mut self, address: u64) -> Option<u64> {
        let segment =
            self.segments.range(..=address).next_back().map(|(&start, segment)| start + segment.bytes);
        let bytes = segment?.checked_sub(address).filter(|&bytes| bytes > 0)?;
        matches!(self.locate(address, bytes), Ok(Place::Device)).then_some(bytes)
    }

    /// Whether addresses that the client chose may become a segment.
    ///
    /// # Errors
    /// `CUDA_ERROR_OUT_OF_MEMORY` if only the client's limit is against it.
    pub(crate) fn check_new(&self, address: u64, bytes: u64) -> Result<(), CudaError> {
        if !self.arena.for_allocations().contains(address, bytes) {
            return Err(CudaError::INVALID_VALUE);
        }
        self.check_any(address, bytes)
    }

    /// As [`Self::check_new`], for variables of images too.
    pub(crate) fn check_any(&self, address: u64, bytes: u64) -> Result<(), CudaError> {
        let granules =
            address.is_multiple_of(SEGMENT_GRANULE_BYTES) && bytes.is_multiple_of(SEGMENT_GRANULE_BYTES);
        if !granules || bytes == 0 || !self.arena.contains(address, bytes) {
            return Err(CudaError::INVALID_VALUE);
        }
        self.check_unused(address, bytes)?;
        self.check_limit(bytes)
    }

    /// Whether the client may have so much more.
    ///
    /// # Errors
    /// `CUDA_ERROR_OUT_OF_MEMORY` if not.
    pub(crate) fn check_limit(&self, bytes: u64) -> Result<(), CudaError> {
        let fits = self.allocated_bytes().saturating_add(bytes) <= self.limit_bytes;
        if fits { Ok(()) } else { Err(CudaError::OUT_OF_MEMORY) }
    }

    /// Whether an object of this length may be mapped here.
    pub(crate) fn check_view(&self, address: u64, bytes: u64) -> Result<(), CudaError> {
        let fits = address.is_multiple_of(SEGMENT_GRANULE_BYTES)
            && bytes > 0
            && self.arena.for_allocations().contains(address, bytes);
        if fits { self.check_unused(address, bytes) } else { Err(CudaError::INVALID_VALUE) }
    }

    /// Whether no segment, home or view has any of these addresses of the arena.
    pub(crate) fn check_unused(&self, address: u64, bytes: u64) -> Result<(), CudaError> {
        let before = self.segments.range(..address + bytes).next_back();
        let segment_end = before.map_or(0, |(&start, segment)| start + segment.bytes);
        let view_end = self.last_view(address + bytes - 1).map_or(0, |view| view.end());
        if segment_end > address || view_end > address { Err(CudaError::INVALID_VALUE) } else { Ok(()) }
    }

    /// Makes addresses of the arena a segment, which has no physical memory yet.
    pub(crate) fn allocate(&mut self, address: u64, bytes: u64) -> Result<(), CudaError> {
        self.check_any(address, bytes)?;
        self.segments.insert(address, ClientSegment::new(bytes));
        self.allocated_bytes += bytes;
        Ok(())
    }

    /// Makes addresses of the arena an object that other clients have, too. It does not count towards the limit.
    pub(crate) fn import(&mut self, home: u64, segment: ClientSegment) -> Result<(), CudaError> {
        self.check_view(home, segment.bytes)?;
        self.segments.insert(home, segment);
        Ok(())
    }

    /// Whether an allocation of the client's begins at this address.
    pub(crate) fn is_allocation(&self, address: u64) -> bool {
        let is_allocation = |segment: &ClientSegment| segment.views.is_none();
        self.segments.get(&address).is_some_and(is_allocation)
            && self.arena.for_allocations().contains(address, 1)
    }

    /// Whether a segment begins at this address.
    pub(crate) fn is_segment(&self, address: u64) -> bool {
        self.segments.contains_key(&address)
    }

    /// The segment that an address lies in, and where that begins.
    pub(crate) fn segment_of(&self, address: u64) -> Option<(u64, &ClientSegment)> {
        let (&start, segment) = self.segments.range(..=address).next_back()?;
        (address - start < segment.bytes).then_some((start, segment))
    }

    /// Makes a segment an object that is mapped at these addresses.
    pub(crate) fn set_views(&mut self, home: u64, views: Vec<u64>) {
        let Some(segment) = self.segments.get_mut(&home) else { return };
        for view in segment.views.replace(views.clone()).unwrap_or_default() {
            self.views.remove(&view);
        }
        self.views.extend(views.into_iter().map(|view| (view, home)));
    }

    /// The object that is mapped at exactly this address.
    pub(crate) fn home_of_view(&self, address: u64) -> Option<u64> {
        self.views.get(&address).copied()
    }

    /// The last view that begins at or before an address.
    fn last_view(&self, address: u64) -> Option<AddressRange> {
        let (&start, home) = self.views.range(..=address).next_back()?;
        Some(AddressRange { address: start, bytes: self.segments.get(home)?.bytes })
    }

    /// All views, by address, with the homes of their objects.
    pub(crate) fn views(&self) -> impl Iterator<Item = (AddressRange, u64)> {
        self.views.iter().filter_map(|(&address, home)| {
            Some((AddressRange { address, bytes: self.segments.get(home)?.bytes }, *home))
        })
    }

    /// Whether views side by side hold a range.
    fn is_viewed(&self, address: u64, bytes: u64) -> bool {
        let Some(end) = address.checked_add(bytes) else { return false };
        let mut at = address;
        loop {
            match self.last_view(at) {
                Some(view) if view.contains(at, 0) && view.end() >= end => return true,
                Some(view) if view.contains(at, 1) => at = view.end(),
                _ => return false,
            }
        }
    }

    /// Where a device address is in a segment: that one's own address, and the offset in it. A view leads to its object.
    pub(crate) fn resolve(&self, address: u64) -> Option<(u64, u64)> {
        if let Some((start, _)) = self.segment_of(address) {
            return Some((start, address - start));
        }
        let view = self.last_view(address).filter(|view| view.contains(address, 1))?;
        Some((*self.views.get(&view.address)?, address - view.address))
    }

    /// The own addresses of the segments that a range of device addresses lies in, as far as they lie side by side, each with
    /// the offset and length of the part.
    pub(crate) fn pieces(&self, address: u64, bytes: u64) -> Vec<(u64, u64, u64)> {
        let (mut at, mut left, mut pieces) = (address, bytes, Vec::new());
        while left > 0
            && let Some((home, offset)) = self.resolve(at)
            && let Some(segment) = self.segments.get(&home)
        {
            let part = left.min(segment.bytes - offset);
            pieces.push((home, offset, part));
            (at, left) = (at + part, left - part);
        }
        pieces
    }

    /// Where the device reaches what has this address in a resident segment.
    pub(crate) fn device_address(&self, address: u64) -> Option<u64> {
        let (home, segment) = self.segment_of(address)?;
        Some(segment.backing.as_ref()?.address()? + (address - home))
    }

    /// As [`Self::segment_of`].
    pub(crate) fn segment_of_mut(&mut self, address: u64) -> Option<(u64, &mut ClientSegment)> {
        let (&start, segment) = self.segments.range_mut(..=address).next_back()?;
        (address - start < segment.bytes).then_some((start, segment))
    }

    /// All segments, by address.
    pub(crate) fn segments(&self) -> impl Iterator<Item = (u64, &ClientSegment)> {
        self.segments.iter().map(|(&address, segment)| (address, segment))
    }

    /// As [`Self::segments`].
    pub(crate) fn segments_mut(&mut self) -> impl Iterator<Item = (u64, &mut ClientSegment)> {
        self.segments.iter_mut().map(|(&address, segment)| (address, segment))
    }

    /// Forgets a segment. The GPU must have done with it before the result is dropped.
    pub(crate) fn free(&mut self, address: u64) -> Result<ClientSegment, CudaError> {
        let segment = self.segments.remove(&address).ok_or(CudaError::INVALID_VALUE)?;
        if segment.is_own() {
            self.allocated_bytes -= segment.bytes;
        }
        for view in segment.views.iter().flatten() {
            self.views.remove(view);
        }
        Ok(segment)
    }

    /// From now on the client may address a global.
    pub(crate) fn add_global(&mut self, address: u64, bytes: u64) {
        self.globals.insert(address, bytes);
    }

    /// A global is gone.
    pub(crate) fn remove_global(&mut self, address: u64) {
        self.globals.remove(&address);
    }

    /// The client's device addresses.
    pub(crate) fn arena(&self) -> AddressRange {
        self.arena
    }

    /// Bytes of all segments, resident or not, and of arrays.
    pub(crate) fn allocated_bytes(&self) -> u64 {
        self.allocated_bytes + self.array_bytes.get()
    }

    /// Whether everything is on the GPU.
    pub(crate) fn is_whole(&self) -> bool {
        self.resident_bytes() >= self.allocated_bytes
    }

    /// Bytes of the segments that are on the GPU, and count as this client's there.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.segments.values().filter(|segment| segment.is_resident()).map(|segment| segment.bytes).sum()
    }

    /// As [`Self::resident_bytes`], without what other clients may have, too.
    pub(crate) fn resident_alone_bytes(&self) -> u64 {
        let alone = self.segments.values().filter(|segment| segment.shared.is_none());
        alone.filter(|segment| segment.is_resident()).map(|segment| segment.bytes).sum()
    }

    /// Whether other clients have, or may have, any of it.
    pub(crate) fn is_shared(&self) -> bool {
        self.segments.values().any(|segment| segment.shared.is_some())
    }

    /// Bytes that the client may allocate.
    pub(crate) fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    /// From now on the client may allocate so much; what it has it keeps.
    pub(crate) fn set_limit_bytes(&mut self, limit_bytes: u64) {
        self.limit_bytes = limit_bytes;
    }
}
