//! `nvmlReturn_t`.

use std::ffi::c_char;

pub(super) const SUCCESS: i32 = 0;
pub(super) const UNINITIALIZED: i32 = 1;
pub(super) const INVALID_ARGUMENT: i32 = 2;
pub(super) const NOT_SUPPORTED: i32 = 3;
pub(super) const NOT_FOUND: i32 = 6;
pub(super) const INSUFFICIENT_SIZE: i32 = 7;
pub(super) const DRIVER_NOT_LOADED: i32 = 9;
pub(super) const ARGUMENT_VERSION_MISMATCH: i32 = 25;
pub(super) const UNKNOWN: i32 = 999;

/// Describes a code.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlErrorString(code: i32) -> *const c_char {
    let text = match code {
        SUCCESS => c"The operation was successful",
        UNINITIALIZED => c"NVML was not first initialized with nvmlInit()",
        INVALID_ARGUMENT => c"A supplied argument is invalid",
        NOT_SUPPORTED => c"The requested operation is not available on target device",
        4 => c"The current user does not have permission for operation",
        NOT_FOUND => c"A query to find an object was unsuccessful",
        INSUFFICIENT_SIZE => c"An input argument is not large enough",
        DRIVER_NOT_LOADED => c"NVIDIA driver is not loaded",
        10 => c"User provided timeout passed",
        12 => c"NVML Shared Library couldn't be found or loaded",
        13 => c"Local version of NVML doesn't implement this function",
        ARGUMENT_VERSION_MISMATCH => c"The version in an argument is not supported",
        _ => c"An internal driver error occurred",
    };
    text.as_ptr()
}
