//! `cuPointerGetAttribute`: what the driver knows about an address.

use super::find;
use crate::abi::{In, Out};
use crate::device::ordinal_of;
use crate::error::{CudaError, Result};
use crate::lock;
use crate::machine::Machine;

/// One attribute of an address; the type of `data` depends on the attribute, as in cuda.h.
pub fn attribute(machine: &Machine, data: Out<u8>, attribute: u32, pointer: u64) -> Result {
    let snapshot = machine.space.snapshot();
    let mapping = find(&snapshot, pointer);
    // Answers that are false rather than an error for memory that is not the driver's.
    if mapping.is_none() && matches!(attribute, 8 | 10 | 13 | 15 | 21) {
        return data.cast::<u32>().set(0);
    }
    if mapping.is_none() && matches!(attribute, 11 | 12 | 14 | 16) {
        return data.cast::<u64>().set(0);
    }
    let mapping = mapping.ok_or(CudaError::INVALID_VALUE)?;
    let physical = mapping.physical();
    let device =
        physical.map_or_else(|| crate::context::current_device().unwrap_or(0), |physical| physical.device);
    match attribute {
        // CONTEXT: none for memory that belongs to no context.
        1 => {
            let context =
                lock(&machine.devices[device].primary).context.as_ref().map_or(0, |context| context.0);
            data.cast::<u64>().set(if physical.is_none() || mapping.is_plain() { context } else { 0 })
        }
        // MEMORY_TYPE: host 1, device 2.
        2 => data.cast::<u32>().set(if physical.is_some() { 2 } else { 1 }),
        // DEVICE_POINTER
        3 => data.cast::<u64>().set(pointer),
        // HOST_POINTER
        4 if physical.is_none() => data.cast::<u64>().set(pointer),
        4 => Err(CudaError::INVALID_VALUE),
        // SYNC_MEMOPS, IS_MANAGED, IS_LEGACY_CUDA_IPC_CAPABLE, IS_GPU_DIRECT_RDMA_CAPABLE, IS_HW_DECOMPRESS_CAPABLE
        6 | 8 | 10 | 15 | 21 => data.cast::<u32>().set(0),
        // BUFFER_ID, MEMORY_BLOCK_ID
        7 | 20 => data.cast::<u64>().set(mapping.id),
        // DEVICE_ORDINAL
        9 => data.cast::<i32>().set(ordinal_of(device)),
        // RANGE_START_ADDR, MAPPING_BASE_ADDR
        11 | 19 => data.cast::<u64>().set(mapping.start),
        // RANGE_SIZE
        12 => data.cast::<u64>().set(mapping.asked_bytes),
        // MAPPED
        13 => data.cast::<u32>().set(1),
        // ALLOWED_HANDLE_TYPES
        14 => data.cast::<u64>().set(0),
        // ACCESS_FLAGS
        16 => {
            let rights = u64::from(mapping.may_read(device)) | u64::from(mapping.may_write(device)) << 1;
            data.cast::<u64>().set(if mapping.is_plain() { 3 } else { rights })
        }
        // MEMPOOL_HANDLE
        17 => data.cast::<u64>().set(0),
        // MAPPING_SIZE
        18 => data.cast::<u64>().set(mapping.bytes),
        _ => Err(CudaError::INVALID_VALUE),
    }
}

/// Several attributes at once; for what has no answer, zero is written.
pub fn attributes(machine: &Machine, count: u32, attributes: In<u32>, data: In<u64>, pointer: u64) -> Result {
    let count = count as usize;
    for (id, place) in attributes.array(count)?.into_iter().zip(data.array(count)?) {
        let place = Out::<u8>::at(place);
        if attribute(machine, place, id, pointer).is_err() {
            match id {
                2 | 6 | 8 | 9 | 10 | 13 | 15 | 21 => place.cast::<u32>().set(0)?,
                _ => place.cast::<u64>().set(0)?,
            }
        }
    }
    Ok(())
}
