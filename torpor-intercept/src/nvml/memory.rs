//! Memory: the function's limit, and what this process has of it.

use super::error::{ARGUMENT_VERSION_MISMATCH, INVALID_ARGUMENT, UNKNOWN};
use super::{device, nvml_functions, put};
use crate::core::client;
use crate::driver::argument::Out;
use std::ffi::c_void;

/// `nvmlMemory_t`
#[repr(C)]
pub(super) struct Memory {
    total_bytes: u64,
    free_bytes: u64,
    used_bytes: u64,
}

/// `nvmlMemory_v2_t`
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct MemoryV2 {
    version: u32,
    total_bytes: u64,
    reserved_bytes: u64,
    free_bytes: u64,
    used_bytes: u64,
}

/// What `version` has to be: the size, and 2 in the highest byte.
const VERSION_2: u32 = size_of::<MemoryV2>() as u32 | 2 << 24;

/// Free and total bytes. A process that is no client of CUDA has none.
pub(super) fn free_and_total(total_bytes: u64) -> Result<(u64, u64), i32> {
    client().map_or(Ok((total_bytes, total_bytes)), |client| client.memory_info().map_err(|_| UNKNOWN))
}

nvml_functions! {
    fn nvmlDeviceGetMemoryInfo(device: *const c_void, memory: Out<Memory>) {
        let (free_bytes, total_bytes) = free_and_total(self::device(device)?.total_memory_bytes)?;
        put(memory, Memory { total_bytes, free_bytes, used_bytes: total_bytes.saturating_sub(free_bytes) })
    }

    fn nvmlDeviceGetMemoryInfo_v2(device: *const c_void, memory: Out<MemoryV2>) {
        let (free_bytes, total_bytes) = free_and_total(self::device(device)?.total_memory_bytes)?;
        let version = memory.get().map_err(|_| INVALID_ARGUMENT)?.version;
        if version != VERSION_2 {
            return Err(ARGUMENT_VERSION_MISMATCH);
        }
        let used_bytes = total_bytes.saturating_sub(free_bytes);
        put(memory, MemoryV2 { version, total_bytes, reserved_bytes: 0, free_bytes, used_bytes })
    }
}
