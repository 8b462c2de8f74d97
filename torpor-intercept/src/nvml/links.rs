//! Links between devices, of which there are none: processes that use different devices of a function are on different GPUs, and reach
//! each other's memory nowhere but there.

use super::{number, nvml_functions, put};
use crate::driver::argument::Out;
use std::ffi::c_void;

// nvmlGpuP2PStatus_t
const P2P_STATUS_OK: i32 = 0;
const P2P_STATUS_NOT_SUPPORTED: i32 = 5;

nvml_functions! {
    /// Each device reaches itself. CUDA says more of those that one process uses (`cuDeviceCanAccessPeer`), but whoever asks here, as NCCL
    /// does, asks for other processes.
    fn nvmlDeviceGetP2PStatus(device: *const c_void, peer: *const c_void, _what: u32, status: Out<i32>) {
        let is_itself = number(device)? == number(peer)?;
        put(status, if is_itself { P2P_STATUS_OK } else { P2P_STATUS_NOT_SUPPORTED })
    }
}
