//! Copies and fills: which way they go, and by what.

use super::profile::{Side, Work, WorkKind, bracketed};
use super::stream::Stream;
use super::{Client, CudaResult, graph};
use torpor_proto::command::{Copy, CopyStrided, Fill};
use torpor_proto::error::CudaError;

/// Where an address lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Location {
    /// Device memory.
    Device(u64),
    /// Memory that the GPU reaches at this address: pinned, or the alias of registered memory.
    Pinned(u64),
    /// Any other memory of the program.
    Pageable(u64),
}

impl Location {
    /// The address for a command, unless it is pageable.
    fn reachable(self) -> Option<u64> {
        match self {
            Self::Device(address) | Self::Pinned(address) => Some(address),
            Self::Pageable(_) => None,
        }
    }

    fn is_device(self) -> bool {
        matches!(self, Self::Device(_))
    }

    pub(super) fn side(self) -> Side {
        match self {
            Self::Device(_) => Side::Device,
            Self::Pinned(_) => Side::Pinned,
            Self::Pageable(_) => Side::Pageable,
        }
    }
}

/// Which sides of a copy the function's name says are the device's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The addresses tell (`cuMemcpy`).
    Any,
    /// `cuMemcpyHtoD`
    ToDevice,
    /// `cuMemcpyDtoH`
    FromDevice,
    /// `cuMemcpyDtoD`
    OnDevice,
}

impl Direction {
    /// An address that the device does not reach is no device address, and must not be followed as one of the host's.
    pub(super) fn check(self, to: Location, from: Location) -> CudaResult<()> {
        let writes = matches!(self, Self::ToDevice | Self::OnDevice);
        let reads = matches!(self, Self::FromDevice | Self::OnDevice);
        if (writes && to.reachable().is_none()) || (reads && from.reachable().is_none()) {
            return Err(CudaError::INVALID_VALUE);
        }
        Ok(())
    }
}

/// Rows and slices of a copy with pitches.
#[derive(Clone, Copy, Debug)]
pub struct StridedCopy {
    /// First address written, rows' pitch, rows from slice to slice.
    pub destination: (u64, u64, u64),
    /// First address read, rows' pitch, rows from slice to slice.
    pub source: (u64, u64, u64),
    /// Bytes of a row.
    pub width_bytes: u64,
    /// Rows of a slice.
    pub height: u64,
    /// Slices.
    pub depth: u64,
}

impl StridedCopy {
    /// A row.
    #[must_use]
    pub fn row(destination: u64, source: u64, bytes: u64) -> Self {
        let side = |address| (address, bytes, 1);
        let (destination, source) = (side(destination), side(source));
        Self { destination, source, width_bytes: bytes, height: 1, depth: 1 }
    }

    /// Whether there is nothing to copy.
    pub(super) fn is_empty(&self) -> bool {
        self.width_bytes == 0 || self.height == 0 || self.depth == 0
    }
}

impl Client {
    /// Where `bytes` bytes from an address lie.
    #[must_use]
    pub fn locate(&self, address: u64, bytes: u64) -> Location {
        if self.is_device_address(address) {
            Location::Device(address)
        } else if self.host.contains(address, 0) {
            Location::Pinned(address)
        } else if let Some(alias) = self.registered_alias(address, bytes) {
            Location::Pinned(alias)
        } else {
            Location::Pageable(address)
        }
    }

    /// Copies between two places in a stream's order. `waits` makes it the synchronous kind.
    ///
    /// # Errors
    /// Those of the copy, or of earlier posted commands; `INVALID_VALUE` if a side that is to be the device's is not, or
    /// is nowhere.
    ///
    /// # Safety
    /// Pageable addresses are valid for `bytes` bytes, as for the CUDA function this serves.
    pub unsafe fn copy(
        &'static self,
        destination: u64,
        source: u64,
        bytes: u64,
        direction: Direction,
        stream: &'static Stream,
        waits: bool,
    ) -> CudaResult<()> {
        if bytes == 0 {
            return self.check();
        }
        // As CUDA says, and as nothing here would survive.
        if destination == 0 || source == 0 {
            return Err(CudaError::INVALID_VALUE);
        }
        let (to, from) = (self.locate(destination, bytes), self.locate(source, bytes));
        direction.check(to, from)?;
        let is_between_devices = waits && self.wait_for_owners(stream, [to, from])?;
        if to.reachable().is_none() || from.reachable().is_none() {
            if stream.is_capturing() && !waits {
                // SAFETY: the caller's promise, which holds for every launch of what is captured.
                return unsafe {
                    self.capture(&StridedCopy::row(destination, source, bytes), direction, stream)
                };
            }
            let first = self.uniform_bytes(destination, bytes).min(self.uniform_bytes(source, bytes));
            if first < bytes {
                let rest = (destination + first, source + first, bytes - first);
                // SAFETY: the caller's promise, for parts of the same ranges.
                return unsafe {
                    self.copy(destination, source, first, direction, stream, waits)?;
                    self.copy(rest.0, rest.1, rest.2, direction, stream, waits)
                };
            }
        }
        let work = || Work::Copy { from: from.side(), to: to.side(), bytes };
        match (to.reachable(), from.reachable()) {
            (Some(destination), Some(source)) => {
                let copy = Copy { destination, source, bytes, stream: stream.number, reserved: 0 };
                bracketed(WorkKind::Copies, stream, work, || stream.post(self, &copy, &[]))?;
                // Within a device even the synchronous copies return at once.
                if is_between_devices || (waits && !(to.is_device() && from.is_device())) {
                    stream.synchronize_posted(self)
                } else {
                    Ok(())
                }
            }
            (Some(destination), None) if to.is_device() => {
                stream.refuse_capture()?;
                // SAFETY: the caller's promise.
                let upload = || unsafe { self.upload(destination, pointer(source), bytes, stream) };
                bracketed(WorkKind::Copies, stream, work, upload)?;
                // CUDA promises only that the bytes were read. But programs go on in streams that do not wait for this one, which a
                // GPU of their own forgives: there the copy is done before they come to it.
                if waits { stream.synchronize_posted(self) } else { Ok(()) }
            }
            (None, Some(source)) if from.is_device() => {
                stream.refuse_capture()?;
                // SAFETY: the caller's promise.
                unsafe { self.download(pointer(destination), source, bytes, stream) }
            }
            _ => {
                // Between two places of the program's own memory, in the stream's order.
                stream.synchronize()?;
                // SAFETY: the caller's promise; pinned memory is mapped in this process.
                unsafe { std::ptr::copy(pointer(source).cast_const(), pointer(destination), bytes as usize) };
                Ok(())
            }
        }
    }

    /// Copies rows and slices. With a pageable side, row by row.
    ///
    /// # Errors
    /// As [`Self::copy`]; `INVALID_VALUE` if a row is wider than its pitch.
    ///
    /// # Safety
    /// As [`Self::copy`].
    pub unsafe fn copy_strided(
        &'static self,
        copy: &StridedCopy,
        stream: &'static Stream,
        waits: bool,
    ) -> CudaResult<()> {
        let StridedCopy { destination, source, width_bytes, height, depth } = *copy;
        if copy.is_empty() {
            return self.check();
        }
        if let Some(command) = self.strided_command(copy, stream.number)? {
            if waits {
                let sides = [copy.destination, copy.source].map(|(address, _, _)| self.locate(address, 1));
                self.wait_for_owners(stream, sides)?;
            }
            let work = || self.profiled_copy(copy);
            bracketed(WorkKind::Copies, stream, work, || stream.post(self, &command, &[]))?;
            return if waits { stream.synchronize_posted(self) } else { Ok(()) };
        }
        if stream.is_capturing() && !waits {
            // SAFETY: the caller's promise, which holds for every launch of what is captured.
            return unsafe { self.capture(copy, Direction::Any, stream) };
        }
        for slice in 0..depth {
            for row in 0..height {
                let at = |(address, pitch, slice_rows): (u64, u64, u64)| {
                    address + (slice * slice_rows + row) * pitch
                };
                // SAFETY: the caller's promise for the whole box.
                unsafe {
                    self.copy(at(destination), at(source), width_bytes, Direction::Any, stream, waits)?
                };
            }
        }
        Ok(())
    }

    /// Makes a copy a node of the graph that a stream captures.
    ///
    /// # Safety
    /// As [`Self::copy`], at every launch of the graph.
    unsafe fn capture(
        &self,
        copy: &StridedCopy,
        direction: Direction,
        stream: &'static Stream,
    ) -> CudaResult<()> {
        // SAFETY: the caller's promise.
        let work = unsafe { graph::Work::copy(self, copy, direction)? };
        stream.current_capture()?.append_work(stream, work).map(drop)
    }

    /// A copy with pitches as a profiler sees it.
    fn profiled_copy(&self, copy: &StridedCopy) -> Work {
        let side = |(address, _, _)| self.locate(address, 1).side();
        let bytes = copy.width_bytes.saturating_mul(copy.height).saturating_mul(copy.depth);
        Work::Copy { from: side(copy.source), to: side(copy.destination), bytes }
    }

    /// The command for a copy that is not empty; `None` if a side is pageable.
    ///
    /// # Errors
    /// `INVALID_VALUE` if a row is wider than its pitch.
    pub(super) fn strided_command(&self, copy: &StridedCopy, stream: u32) -> CudaResult<Option<CopyStrided>> {
        let StridedCopy { destination, source, width_bytes, height, depth } = *copy;
        let rows = height.saturating_mul(depth);
        let too_narrow = |(_, pitch, slice): (u64, u64, u64)| {
            (rows > 1 && pitch < width_bytes) || (depth > 1 && slice < height)
        };
        if too_narrow(destination) || too_narrow(source) {
            return Err(CudaError::INVALID_VALUE);
        }
        let extent = |(_, pitch, slice): (u64, u64, u64)| {
            let full_rows = (depth - 1).checked_mul(slice)?.checked_add(height - 1)?;
            full_rows.checked_mul(pitch)?.checked_add(width_bytes)
        };
        let (Some(to_bytes), Some(from_bytes)) = (extent(destination), extent(source)) else {
            return Err(CudaError::INVALID_VALUE);
        };
        let (to, from) = (self.locate(destination.0, to_bytes), self.locate(source.0, from_bytes));
        let (Some(to_address), Some(from_address)) = (to.reachable(), from.reachable()) else {
            return Ok(None);
        };
        Ok(Some(CopyStrided {
            destination: to_address,
            destination_pitch: destination.1,
            destination_height: destination.2,
            source: from_address,
            source_pitch: source.1,
            source_height: source.2,
            width_bytes,
            height,
            depth,
            stream,
            reserved: 0,
        }))
    }

    /// Sets elements of 1, 2 or 4 bytes. The synchronous kind returns at once, too, unless the program can see what it does:
    /// in memory of the host.
    ///
    /// # Errors
    /// Those of earlier posted commands; `INVALID_VALUE` for pageable memory or a misaligned address.
    pub fn fill(
        &'static self,
        address: u64,
        pitch: u64,
        (width, height): (u64, u64),
        value: (u32, u32),
        (stream, waits): (&'static Stream, bool),
    ) -> CudaResult<()> {
        if width == 0 || height == 0 {
            return self.check();
        }
        let order = (stream.number, stream.is_capturing());
        let command = self.fill_command(address, pitch, (width, height), value, order)?;
        let is_on_another = waits && self.wait_for_owners(stream, [self.locate(command.address, 1)])?;
        let bytes = width.saturating_mul(height).saturating_mul(command.element_bytes.into());
        let work = || Work::Fill { bytes, value: command.value };
        bracketed(WorkKind::Fills, stream, work, || stream.post(self, &command, &[]))?;
        let is_seen = is_on_another || (waits && self.host.contains(command.address, 1));
        if is_seen { stream.synchronize_posted(self) } else { Ok(()) }
    }

    /// The command for a fill that is not empty. One that is captured may have any address, which whoever instantiates the graph
    /// is told: cuDNN captures its launches with addresses that stand in for others, and looks at the nodes alone.
    ///
    /// # Errors
    /// `INVALID_VALUE` for pageable memory or a misaligned address.
    pub(super) fn fill_command(
        &self,
        address: u64,
        pitch: u64,
        (width, height): (u64, u64),
        (value, element_bytes): (u32, u32),
        (stream, is_captured): (u32, bool),
    ) -> CudaResult<Fill> {
        let element = u64::from(element_bytes);
        let last_row = (height - 1).checked_mul(pitch);
        let bytes = last_row.zip(width.checked_mul(element)).and_then(|(rows, row)| rows.checked_add(row));
        let bytes = bytes.ok_or(CudaError::INVALID_VALUE)?;
        let stand_in = is_captured.then_some(address);
        let address = self.locate(address, bytes).reachable().or(stand_in).ok_or(CudaError::INVALID_VALUE)?;
        if !address.is_multiple_of(element) || (height > 1 && !pitch.is_multiple_of(element)) {
            return Err(CudaError::INVALID_VALUE);
        }
        Ok(Fill { address, pitch, width, height, value, element_bytes, stream, reserved: 0 })
    }
}

fn pointer(address: u64) -> *mut u8 {
    std::ptr::with_exposed_provenance_mut(address as usize)
}
