//! Links to other devices, of which there are none.

use super::error::NOT_SUPPORTED;
use super::{device, known, nvml_functions, put};
use crate::driver::argument::Out;
use std::ffi::c_void;

/// `NVML_P2P_STATUS_OK`
const P2P_STATUS_OK: i32 = 0;

nvml_functions! {
    /// Of confidential computing, which nobody who sees no GPU has to know of.
    fn nvmlSystemGetConfComputeState | nvmlSystemGetConfComputeSettings (_answer: *const c_void) {
        known()?;
        Err(NOT_SUPPORTED)
    }

    /// There is one device, which reaches itself.
    fn nvmlDeviceGetP2PStatus(device: *const c_void, peer: *const c_void, _what: u32, status: Out<i32>) {
        self::device(device)?;
        self::device(peer)?;
        put(status, P2P_STATUS_OK)
    }
}
