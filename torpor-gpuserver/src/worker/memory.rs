//! Device memory, page-locked memory and what moves between them.
//!
//! Every address is checked against what the client may address before the driver sees it; every product and sum of
//! numbers from the client is checked for overflow first.

use crate::driver::{Box3d, Pitched, Place};
use crate::worker::fence::Fence;
use crate::worker::pending::Pending;
use crate::worker::session::Session;
use std::sync::atomic::Ordering;
use std::time::Instant;
use torpor_proto::command::{
    Copy, CopyStrided, Fill, HostLock, HostUnlock, MemoryAllocate, MemoryCommands, MemoryFree, Outcome,
    Ticket,
};
use torpor_proto::error::CudaError;

impl MemoryCommands for Session {
    fn memory_allocate(
        &mut self,
        command: MemoryAllocate,
        _: &[u8],
        ticket: Ticket,
    ) -> Result<Outcome<()>, CudaError> {
        let MemoryAllocate { address, bytes } = command;
        self.check_new(address, bytes)?;
        // Physical memory is taken at once, so that the program hears here that there is none.
        self.activate()?;
        self.space.allocate(address, bytes)?;
        let backed = self.back_cleared(address, bytes);
        if backed.is_err() {
            // The fill may be under way.
            self.unback(address)?;
            drop(self.space.free(address)?);
        }
        self.tell_memory();
        let fence = backed?;
        match fence {
            None => Ok(Outcome::done(())),
            Some(fence) => {
                self.pending.push(Pending::Answer(ticket, vec![fence]));
                Ok(Outcome::Pending)
            }
        }
    }

    fn memory_free(&mut self, command: MemoryFree, _: &[u8]) -> Result<(), CudaError> {
        if !self.space.is_segment(command.address) {
            return Err(CudaError::INVALID_VALUE);
        }
        self.spare_swap_in(command.address)?;
        self.drain()?;
        let segment = self.space.free(command.address)?;
        let stored: Vec<u64> = segment.stored().collect();
        self.release(&stored);
        drop(segment);
        self.tell_memory();
        Ok(())
    }

    fn host_lock(&mut self, command: HostLock, _: &[u8], _: Ticket) -> Result<Outcome<()>, CudaError> {
        self.space.host.lock(command.address, command.bytes)?;
        self.link.usage.pinned_bytes.store(self.space.host.locked_bytes(), Ordering::Relaxed);
        Ok(Outcome::done(()))
    }

    fn host_unlock(&mut self, command: HostUnlock, _: &[u8], _: Ticket) -> Result<Outcome<()>, CudaError> {
        if !self.space.host.is_lock(command.address) {
            return Err(CudaError::HOST_MEMORY_NOT_REGISTERED);
        }
        self.drain()?;
        self.space.host.unlock(command.address)?;
        self.link.usage.pinned_bytes.store(self.space.host.locked_bytes(), Ordering::Relaxed);
        Ok(Outcome::done(()))
    }

    fn copy(&mut self, command: Copy, _: &[u8]) -> Result<(), CudaError> {
        let Copy { destination, source, bytes, stream, .. } = command;
        if bytes == 0 {
            return self.streams.peek(stream).map(drop);
        }
        self.activate()?;
        let to = self.space.locate(destination, bytes)?;
        let from = self.space.locate(source, bytes)?;
        let group = self.group_of_copy((to, destination), (from, source), bytes);
        let is_upload = (to, from) == (Place::Device, Place::Host);
        let arriving = if is_upload { self.enter_arriving(stream, group)? } else { None };
        let among_arrivals = arriving.is_some();
        let entered = match arriving {
            Some(setup) => setup,
            None => self.enter(stream, group)?,
        };
        // SAFETY: both ranges were found in the client's segments, globals or locked memory, which stay until the
        // client's streams are idle.
        unsafe { entered.copy((to, destination), (from, source), bytes as usize)? };
        if among_arrivals {
            self.streams.follow_setup(stream)?;
        }
        self.note_staging(stream, [destination, source]);
        Ok(())
    }

    fn copy_strided(&mut self, command: CopyStrided, tail: &[u8]) -> Result<(), CudaError> {
        let CopyStrided { width_bytes, height, depth, stream, .. } = command;
        if width_bytes == 0 || height == 0 || depth == 0 {
            return self.streams.peek(stream).map(drop);
        }
        if height == 1 && depth == 1 {
            let CopyStrided { destination, source, .. } = command;
            return self.copy(Copy { destination, source, bytes: width_bytes, stream, reserved: 0 }, tail);
        }
        self.activate()?;
        let rows = (width_bytes, height, depth);
        let destination =
            self.pitched(command.destination, command.destination_pitch, command.destination_height, rows)?;
        let source = self.pitched(command.source, command.source_pitch, command.source_height, rows)?;
        let extent =
            Box3d { width_bytes: width_bytes as usize, height: height as usize, depth: depth as usize };
        let ends = (destination.place, command.destination);
        let group = self.group_of_copy(ends, (source.place, command.source), u64::MAX);
        let entered = self.enter(stream, group)?;
        // SAFETY: as in `copy`; the ranges reach from the first row to the end of the last one.
        unsafe { entered.copy_box(destination, source, extent)? };
        self.note_staging(stream, [command.destination, command.source]);
        Ok(())
    }

    fn fill(&mut self, command: Fill, _: &[u8]) -> Result<(), CudaError> {
        let Fill { address, pitch, width, height, value, element_bytes, stream, .. } = command;
        if width == 0 || height == 0 {
            return self.streams.peek(stream).map(drop);
        }
        if !matches!(element_bytes, 1 | 2 | 4) || !address.is_multiple_of(u64::from(element_bytes)) {
            return Err(CudaError::INVALID_VALUE);
        }
        let row_bytes = width.checked_mul(u64::from(element_bytes)).ok_or(CudaError::INVALID_VALUE)?;
        if height > 1 && (pitch < row_bytes || !pitch.is_multiple_of(u64::from(element_bytes))) {
            return Err(CudaError::INVALID_VALUE);
        }
        let bytes = span(pitch, row_bytes, height).ok_or(CudaError::INVALID_VALUE)?;
        self.activate()?;
        self.space.locate(address, bytes)?;
        let group = self.group_of(&[address]);
        let entered = self.enter(stream, group)?;
        // SAFETY: as in `copy`; the range reaches from the first row to the end of the last one.
        unsafe {
            entered.fill(address, (pitch as usize, width as usize, height as usize), value, element_bytes)?
        };
        self.note_staging(stream, [address, address]);
        Ok(())
    }
}

impl Session {
    /// Whether the client may have this segment. A refusal for its limit is told to people, too.
    fn check_new(&mut self, address: u64, bytes: u64) -> Result<(), CudaError> {
        let mut checked = self.space.check_new(address, bytes);
        if checked == Err(CudaError::OUT_OF_MEMORY) {
            // A client that is never idle has not been told of a new limit.
            self.renew_settings();
            checked = self.space.check_new(address, bytes);
        }
        if checked == Err(CudaError::OUT_OF_MEMORY)
            && let Some(untold) = self.residency.refusals.tell(Instant::now())
        {
            let link = &self.link;
            tracing::warn!(
                client = link.client,
                function = %link.function,
                untold,
                "out of memory: an allocation of {bytes} bytes is refused, for this process of the function has {} of the \
                 {} bytes that it may have: raise the function's memory_limit (at most the GPU's limit)",
                self.space.allocated_bytes(),
                self.space.limit_bytes()
            );
        }
        checked
    }

    /// Gives a segment physical memory and clears it: it may have been somebody else's. The client uses it only once it
    /// has the answer.
    fn back_cleared(&mut self, address: u64, bytes: u64) -> Result<Option<Fence>, CudaError> {
        self.reserve_memory(bytes)?;
        self.back(address, bytes)?;
        // SAFETY: a segment of this length was just mapped here.
        unsafe { self.streams.enter_setup().fill(address, (0, bytes as usize, 1), 0, 1)? };
        self.streams.fence_setup()
    }

    fn note_staging(&mut self, stream: u32, addresses: [u64; 2]) {
        if addresses.iter().any(|&address| self.space.host.is_staging(address)) {
            self.streams.touch_staging(stream);
        }
    }

    /// One end of a strided copy, if all of it may be addressed.
    fn pitched(
        &mut self,
        address: u64,
        pitch: u64,
        slice_rows: u64,
        (width_bytes, height, depth): (u64, u64, u64),
    ) -> Result<Pitched, CudaError> {
        let slice_rows = if depth == 1 { slice_rows.max(height) } else { slice_rows };
        if pitch < width_bytes || slice_rows < height {
            return Err(CudaError::INVALID_VALUE);
        }
        let rows = span(slice_rows, height, depth);
        let bytes = rows.and_then(|rows| span(pitch, width_bytes, rows)).ok_or(CudaError::INVALID_VALUE)?;
        let place: Place = self.space.locate(address, bytes)?;
        Ok(Pitched { place, address, pitch: pitch as usize, height: slice_rows as usize })
    }
}

/// From the first unit to the end of the last of `count` (not 0) pieces of `length` that begin `step` apart.
fn span(step: u64, length: u64, count: u64) -> Option<u64> {
    step.checked_mul(count - 1)?.checked_add(length)
}

#[cfg(test)]
mod tests {
    use super::span;

    #[test]
    fn a_span_ends_with_the_last_piece_and_never_overflows() {
        assert_eq!(span(100, 10, 1), Some(10));
        assert_eq!(span(100, 10, 3), Some(210));
        assert_eq!(span(u64::MAX, 1, 3), None);
        assert_eq!(span(u64::MAX, 1, 2), None);
    }
}
