//! Device memory, page-locked memory and what moves between them.
//!
//! Every address is checked against what the client may address before the driver sees it; every product and sum of
//! numbers from the client is checked for overflow first.

use crate::driver::{Box3d, End, Pitched, Place, Word};
use crate::worker::objects::pending::Pending;
use crate::worker::session::Session;
use torpor_proto::command::{
    Copy, CopyStrided, Fill, HostLock, HostUnlock, MemoryAllocate, MemoryCommands, MemoryFree, Outcome,
    Ticket, WordWrite,
};
use torpor_proto::error::CudaError;
use torpor_proto::layout::AddressRange;

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
        self.activate_with(bytes)?;
        match self.make_segment(address, bytes)? {
            None => Ok(Outcome::done(())),
            Some(fence) => {
                self.pending.push(Pending::Answer(ticket, vec![fence]));
                Ok(Outcome::Pending)
            }
        }
    }

    fn memory_free(&mut self, command: MemoryFree, _: &[u8]) -> Result<(), CudaError> {
        if !self.space.is_allocation(command.address) {
            return Err(CudaError::INVALID_VALUE);
        }
        Ok(self.free_segment(command.address)?)
    }

    fn host_lock(&mut self, command: HostLock, _: &[u8], _: Ticket) -> Result<Outcome<()>, CudaError> {
        let HostLock { address, bytes } = command;
        if self.space.host.range().for_managed_variables().overlaps(AddressRange { address, bytes }) {
            return Err(CudaError::INVALID_VALUE);
        }
        self.lock_host(address, bytes)?;
        Ok(Outcome::done(()))
    }

    fn host_unlock(&mut self, command: HostUnlock, _: &[u8], _: Ticket) -> Result<Outcome<()>, CudaError> {
        // What an image's variables lie in goes with the image.
        let is_variables = self.space.host.range().for_managed_variables().contains(command.address, 0);
        if is_variables || !self.space.host.is_lock(command.address) {
            return Err(CudaError::HOST_MEMORY_NOT_REGISTERED);
        }
        self.drain()?;
        let _silence = self.silence()?;
        self.unlock_host(command.address)?;
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
        let group = self.group_of_copy((to, destination), (from, source), bytes)?;
        let is_upload = (to, from) == (Place::Device, Place::Host);
        let arriving = if is_upload { self.enter_arriving(stream, group)? } else { None };
        let among_arrivals = arriving.is_some();
        let entered = match arriving {
            Some(setup) => setup,
            None => self.enter(stream, group)?,
        };
        // SAFETY: both ranges were found in the client's segments, variables or locked memory, which stay until the
        // client's streams are idle.
        unsafe { entered.copy((to, destination), (from, source), bytes as usize)? };
        if among_arrivals {
            self.streams.follow_setup(stream)?;
        }
        self.follow_into_banks(stream, destination, bytes)?;
        self.note_code_read(source, bytes);
        note_staging(self, stream, [destination, source]);
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
            pitched(self, command.destination, command.destination_pitch, command.destination_height, rows)?;
        let source = pitched(self, command.source, command.source_pitch, command.source_height, rows)?;
        let extent =
            Box3d { width_bytes: width_bytes as usize, height: height as usize, depth: depth as usize };
        let ends = (destination.place, command.destination);
        let group = self.group_of_copy(ends, (source.place, command.source), u64::MAX)?;
        let entered = self.enter(stream, group)?;
        // SAFETY: as in `copy`; the ranges reach from the first row to the end of the last one.
        unsafe { entered.copy_box(End::Memory(destination), End::Memory(source), extent)? };
        let written = destination.pitch as u64 * destination.height as u64 * depth;
        self.follow_into_banks(stream, command.destination, written)?;
        self.note_code_read(command.source, source.pitch as u64 * source.height as u64 * depth);
        note_staging(self, stream, [command.destination, command.source]);
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
        let group = self.group_of_ranges(&[(address, bytes)])?;
        let entered = self.enter(stream, group)?;
        // SAFETY: as in `copy`; the range reaches from the first row to the end of the last one.
        unsafe {
            entered.fill(address, (pitch as usize, width as usize, height as usize), value, element_bytes)?
        };
        self.follow_into_banks(stream, address, bytes)?;
        note_staging(self, stream, [address, address]);
        Ok(())
    }

    fn word_write(&mut self, command: WordWrite, _: &[u8]) -> Result<(), CudaError> {
        let WordWrite { address, value, stream, bytes } = command;
        let word = match bytes {
            4 => Word::Narrow(u32::try_from(value).map_err(|_| CudaError::INVALID_VALUE)?),
            8 => Word::Wide(value),
            _ => return Err(CudaError::INVALID_VALUE),
        };
        let bytes = u64::from(bytes);
        if !address.is_multiple_of(bytes) {
            return Err(CudaError::INVALID_VALUE);
        }
        self.activate()?;
        self.space.locate(address, bytes)?;
        let group = self.group_of_word((address, bytes), value)?;
        let entered = self.enter(stream, group)?;
        // SAFETY: as in `copy`; the word is aligned.
        unsafe { entered.write_word(address, word)? };
        self.follow_into_banks(stream, address, bytes)?;
        note_staging(self, stream, [address, address]);
        Ok(())
    }
}

/// The stream uses the staging area, if one of these addresses is there.
pub(super) fn note_staging(session: &mut Session, stream: u32, addresses: [u64; 2]) {
    if addresses.iter().any(|&address| session.space.host.is_staging(address)) {
        session.streams.touch_staging(stream);
    }
}

/// One end of a strided copy, if all of it may be addressed.
pub(super) fn pitched(
    session: &mut Session,
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
    let place: Place = session.space.locate(address, bytes)?;
    Ok(Pitched { place, address, pitch: pitch as usize, height: slice_rows as usize })
}

/// From the first unit to the end of the last of `count` (not 0) pieces of `length` that begin `step` apart.
pub(super) fn span(step: u64, length: u64, count: u64) -> Option<u64> {
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
