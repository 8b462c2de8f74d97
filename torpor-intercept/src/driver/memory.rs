//! Device memory.

use super::argument::Out;
use super::cuda_functions;
use crate::core::{client, contexts};
use torpor_proto::error::CudaError;

/// Rows of `cuMemAllocPitch` begin at a multiple of this (`CU_DEVICE_ATTRIBUTE_TEXTURE_ALIGNMENT` of every GPU).
pub(crate) const PITCH_BYTES: usize = 512;

cuda_functions! {
    fn cuMemAlloc_v2(address: Out<u64>, bytes: usize) {
        let client = client()?;
        contexts::require()?;
        if address.is_null() {
            return Err(CudaError::INVALID_VALUE);
        }
        address.put(client.allocate(bytes as u64)?)
    }

    fn cuMemAllocPitch_v2(address: Out<u64>, pitch: Out<usize>, width_bytes: usize, height: usize, element_bytes: u32) {
        let client = client()?;
        contexts::require()?;
        if ![4, 8, 16].contains(&element_bytes) || address.is_null() || pitch.is_null() {
            return Err(CudaError::INVALID_VALUE);
        }
        let row = width_bytes.checked_next_multiple_of(PITCH_BYTES).ok_or(CudaError::INVALID_VALUE)?;
        let bytes = row.checked_mul(height).ok_or(CudaError::OUT_OF_MEMORY)?;
        address.put(client.allocate(bytes as u64)?)?;
        pitch.put(row)
    }

    fn cuMemFree_v2(address: u64) {
        client()?.free(address)
    }

    fn cuMemGetInfo_v2(free_bytes: Out<usize>, total_bytes: Out<usize>) {
        let client = client()?;
        contexts::require()?;
        let (free, total) = client.memory_info()?;
        free_bytes.put_if_wanted(free as usize);
        total_bytes.put_if_wanted(total as usize);
        Ok(())
    }

    fn cuMemGetAddressRange_v2(start: Out<u64>, bytes: Out<usize>, address: u64) {
        let found = client()?.allocation_of(address)?;
        start.put_if_wanted(found.address);
        bytes.put_if_wanted(found.bytes as usize);
        Ok(())
    }
}
