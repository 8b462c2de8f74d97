//! Links between devices, of which there are none: processes that use different devices of a function are on different GPUs, and reach
//! each other's memory nowhere but there.

use super::error::{ARGUMENT_VERSION_MISMATCH, INVALID_ARGUMENT};
use super::{number, nvml_functions, put};
use crate::driver::argument::Out;
use std::ffi::c_void;

// nvmlGpuP2PStatus_t
const P2P_STATUS_OK: i32 = 0;
const P2P_STATUS_NOT_SUPPORTED: i32 = 5;

/// Words of `nvmlGpuFabricInfo_t`.
const FABRIC_WORDS: usize = 7;

/// Words of `nvmlGpuFabricInfo_v2_t` or `…_v3_t`, which says in its version which of them it is.
fn versioned_fabric_words(version: u32) -> Result<usize, i32> {
    const SECOND: u32 = 36 | 2 << 24;
    const THIRD: u32 = 40 | 3 << 24;
    match version {
        SECOND => Ok(9),
        THIRD => Ok(10),
        _ => Err(ARGUMENT_VERSION_MISMATCH),
    }
}

nvml_functions! {
    /// No fabric (`NVML_GPU_FABRIC_STATE_NOT_SUPPORTED`), and zeros for all that would be told of one. It is no failure: PyTorch's
    /// symmetric memory takes any other code for one.
    fn nvmlDeviceGetGpuFabricInfo(device: *const c_void, information: Out<u32>) {
        number(device)?;
        information.put_all([0; FABRIC_WORDS]).map_err(|_| INVALID_ARGUMENT)
    }

    /// As above, behind the version.
    fn nvmlDeviceGetGpuFabricInfoV(device: *const c_void, information: Out<u32>) {
        number(device)?;
        let version = information.get().map_err(|_| INVALID_ARGUMENT)?;
        let zeros = std::iter::repeat_n(0, versioned_fabric_words(version)? - 1);
        information.put_all(std::iter::once(version).chain(zeros)).map_err(|_| INVALID_ARGUMENT)
    }

    /// Each device reaches itself. CUDA says more of those that one process uses (`cuDeviceCanAccessPeer`), but whoever asks here, as NCCL
    /// does, asks for other processes.
    fn nvmlDeviceGetP2PStatus(device: *const c_void, peer: *const c_void, _what: u32, status: Out<i32>) {
        let is_itself = number(device)? == number(peer)?;
        put(status, if is_itself { P2P_STATUS_OK } else { P2P_STATUS_NOT_SUPPORTED })
    }
}
