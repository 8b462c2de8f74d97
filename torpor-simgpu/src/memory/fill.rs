//! `cuMemset…`: filling device memory with a pattern of one, two or four bytes.

use super::access::{Accessor, Intent};
use super::copy::is_device_memory;
use crate::clock::{Resource, fill_ns};
use crate::error::{CudaError, Result};
use crate::machine::Machine;
use crate::operation::{Place, Work, illegal_address, spend};
use crate::stream;

/// A fill of rows.
#[derive(Debug, Clone, Copy)]
pub struct Fill {
    target: u64,
    pitch: u64,
    width_bytes: u64,
    rows: u64,
    pattern: u32,
    element_bytes: u64,
}

impl Fill {
    /// Calls `visit` with start and length of every row.
    pub fn each_row(&self, mut visit: impl FnMut(u64, u64)) {
        (0..self.rows).for_each(|row| visit(self.target + row * self.pitch, self.width_bytes));
    }
}

/// One fill as a caller describes it: `width` elements in each of `rows` rows, which start `pitch` bytes apart.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    pub target: u64,
    pub pitch: usize,
    pub pattern: u32,
    pub element_bytes: u64,
    pub width: usize,
    pub rows: usize,
}

/// Checks and issues a fill; `wait` is for the synchronous functions.
pub fn issue(machine: &'static Machine, request: Request, stream: u64, wait: bool) -> Result {
    let (context, queue) = stream::find(machine, stream)?;
    let Request { target, pitch, pattern, element_bytes, width, rows } = request;
    if width == 0 || rows == 0 {
        return Ok(());
    }
    let (pitch, rows) = (pitch as u64, rows as u64);
    let width_bytes = (width as u64).checked_mul(element_bytes).ok_or(CudaError::INVALID_VALUE)?;
    let extent = (rows - 1).checked_mul(pitch).and_then(|before| before.checked_add(width_bytes));
    let extent = extent.filter(|_| rows == 1 || pitch >= width_bytes).ok_or(CudaError::INVALID_VALUE)?;
    if !target.is_multiple_of(element_bytes) || !is_device_memory(machine, target, extent) {
        return Err(CudaError::INVALID_VALUE);
    }
    let fill = Fill { target, pitch, width_bytes, rows, pattern, element_bytes };
    let sequence = stream::enqueue(machine, &context, &queue, Work::Fill(fill.into()), Vec::new())?;
    match sequence {
        Some(sequence) if wait => queue.wait_as_host(machine, sequence),
        _ => Ok(()),
    }
}

/// Fills.
pub fn execute(machine: &Machine, fill: &Fill, place: &Place) -> Result<u64> {
    let accessor = Accessor::for_copy(machine, "a fill", place.stamp.as_ref());
    let pattern = fill.pattern.to_le_bytes();
    for row in 0..fill.rows {
        let start = fill.target + row * fill.pitch;
        let memory = accessor
            .open(start, fill.width_bytes, Intent::Write)
            .map_err(|_| illegal_address(machine, "a fill", start, fill.width_bytes))?;
        let memory = memory.as_ptr();
        if fill.element_bytes == 1 || pattern.iter().all(|&byte| byte == pattern[0]) {
            // SAFETY: `open` returned memory of that many bytes, which the accessor keeps mapped.
            unsafe { memory.write_bytes(pattern[0], fill.width_bytes as usize) };
            continue;
        }
        for at in (0..fill.width_bytes as usize).step_by(fill.element_bytes as usize) {
            // SAFETY: as above; the width is a multiple of the element.
            unsafe { memory.add(at).copy_from_nonoverlapping(pattern.as_ptr(), fill.element_bytes as usize) };
        }
    }
    let duration = fill_ns(&machine.config.profile, fill.width_bytes * fill.rows);
    Ok(spend(machine, &[Resource::Memory(place.device)], place, duration))
}
