//! Memory: the function's limit, and what this process has of it.

use super::error::UNKNOWN;
use super::{device, expect_version, nvml_functions, put, version_of};
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
#[repr(C)]
pub(super) struct MemoryV2 {
    version: u32,
    total_bytes: u64,
    reserved_bytes: u64,
    free_bytes: u64,
    used_bytes: u64,
}

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
        expect_version(memory, 2)?;
        let used_bytes = total_bytes.saturating_sub(free_bytes);
        let version = version_of::<MemoryV2>(2);
        put(memory, MemoryV2 { version, total_bytes, reserved_bytes: 0, free_bytes, used_bytes })
    }
}
