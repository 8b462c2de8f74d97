//! Processes on the device. Other functions' are nobody's business: there is this one, if it uses CUDA.

use super::error::{INSUFFICIENT_SIZE, INVALID_ARGUMENT};
use super::memory::free_and_total;
use super::{Outcome, device, nvml_functions, put};
use crate::core::client;
use crate::driver::argument::Out;
use std::ffi::c_void;

/// `nvmlProcessInfo_v1_t`
#[repr(C)]
pub(super) struct ProcessV1 {
    process: u32,
    used_bytes: u64,
}

/// `nvmlProcessInfo_t`
#[repr(C)]
pub(super) struct Process {
    process: u32,
    used_bytes: u64,
    /// `0xFFFFFFFF`: of no MIG device.
    gpu_instance: u32,
    compute_instance: u32,
}

/// Writes a list of one process or none; `count` is the room before, the length afterwards.
fn list<T>(
    device: *const c_void,
    count: Out<u32>,
    places: Out<T>,
    entry: impl FnOnce(u32, u64) -> T,
) -> Outcome {
    let total_bytes = self::device(device)?.total_memory_bytes;
    let room = count.get().map_err(|_| INVALID_ARGUMENT)?;
    if client().is_err() {
        return put(count, 0);
    }
    put(count, 1)?;
    if room == 0 {
        return Err(INSUFFICIENT_SIZE);
    }
    let (free_bytes, total_bytes) = free_and_total(total_bytes)?;
    put(places, entry(std::process::id(), total_bytes.saturating_sub(free_bytes)))
}

nvml_functions! {
    fn nvmlDeviceGetComputeRunningProcesses(device: *const c_void, count: Out<u32>, places: Out<ProcessV1>) {
        list(device, count, places, |process, used_bytes| ProcessV1 { process, used_bytes })
    }

    fn nvmlDeviceGetComputeRunningProcesses_v2 | nvmlDeviceGetComputeRunningProcesses_v3
        (device: *const c_void, count: Out<u32>, places: Out<Process>)
    {
        let of_no_instance = |process, used_bytes| {
            Process { process, used_bytes, gpu_instance: u32::MAX, compute_instance: u32::MAX }
        };
        list(device, count, places, of_no_instance)
    }

    fn nvmlDeviceGetGraphicsRunningProcesses | nvmlDeviceGetGraphicsRunningProcesses_v2
        | nvmlDeviceGetGraphicsRunningProcesses_v3 | nvmlDeviceGetMPSComputeRunningProcesses
        | nvmlDeviceGetMPSComputeRunningProcesses_v2 | nvmlDeviceGetMPSComputeRunningProcesses_v3
        (device: *const c_void, count: Out<u32>, _places: *const c_void)
    {
        self::device(device)?;
        put(count, 0)
    }
}
