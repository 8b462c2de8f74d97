//! Functions of the program in the order of a stream.

use super::stream_functions;
use crate::core::{Callback, HostFunction, LaunchedFunction, client};
use std::ffi::c_void;
use torpor_proto::error::CudaError;

stream_functions! {
    fn cuLaunchHostFunc / cuLaunchHostFunc_ptsz(
        @ stream, function: Option<LaunchedFunction>, data: *mut c_void,
    ) {
        client()?;
        let function = HostFunction::Launched(function.ok_or(CudaError::INVALID_VALUE)?);
        // SAFETY: the program gives both to be called so (cuLaunchHostFunc).
        unsafe { stream.find()?.call_in_order(function, data) }
    }

    fn cuStreamAddCallback / cuStreamAddCallback_ptsz(
        @ stream, callback: Option<Callback>, data: *mut c_void, flags: u32,
    ) {
        client()?;
        let (Some(callback), 0) = (callback, flags) else { return Err(CudaError::INVALID_VALUE) };
        let function = HostFunction::Callback(callback, stream.handle);
        // SAFETY: the program gives both to be called so (cuStreamAddCallback).
        unsafe { stream.find()?.call_in_order(function, data) }
    }
}
