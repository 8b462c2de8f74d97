//! Device memory.

use super::copy::{Extent, PitchedPointer};
use super::{ready, runtime_functions};
use crate::core::CudaResult;
use crate::driver::argument::Out;
use crate::driver::memory::PITCH_BYTES;
use torpor_proto::error::CudaError;

/// Address and pitch of so many rows. No bytes are no error in the runtime, and no memory.
fn allocate_rows(width_bytes: usize, rows: usize) -> CudaResult<(u64, usize)> {
    let client = ready()?;
    let pitch = width_bytes.checked_next_multiple_of(PITCH_BYTES).ok_or(CudaError::INVALID_VALUE)?;
    let bytes = pitch.checked_mul(rows).ok_or(CudaError::OUT_OF_MEMORY)?;
    Ok((if bytes == 0 { 0 } else { client.allocate(bytes as u64)? }, pitch))
}

runtime_functions! {
    fn cudaMalloc(address: Out<u64>, bytes: usize) {
        let client = ready()?;
        if address.is_null() {
            return Err(CudaError::INVALID_VALUE);
        }
        // No bytes are no error in the runtime, and no memory.
        address.put(if bytes == 0 { 0 } else { client.allocate(bytes as u64)? })
    }

    fn cudaMallocPitch(address: Out<u64>, pitch: Out<usize>, width_bytes: usize, height: usize) {
        if address.is_null() || pitch.is_null() {
            return Err(CudaError::INVALID_VALUE);
        }
        let (allocated, row) = allocate_rows(width_bytes, height)?;
        address.put(allocated)?;
        pitch.put(row)
    }

    fn cudaMalloc3D(pitched: Out<PitchedPointer>, extent: Extent) {
        if pitched.is_null() {
            return Err(CudaError::INVALID_VALUE);
        }
        let rows = extent.height.checked_mul(extent.depth).ok_or(CudaError::OUT_OF_MEMORY)?;
        let (address, pitch) = allocate_rows(extent.width_bytes, rows)?;
        pitched.put(PitchedPointer { address, pitch, width: extent.width_bytes, height: extent.height })
    }

    /// Programs call it with null to have a context.
    fn cudaFree(address: u64) {
        ready()?.free(address)
    }

    fn cudaMemGetInfo(free_bytes: Out<usize>, total_bytes: Out<usize>) {
        let (free, total) = ready()?.memory_info()?;
        free_bytes.put_if_wanted(free as usize);
        total_bytes.put_if_wanted(total as usize);
        Ok(())
    }
}
