//! Functions of the program in the order of a stream. `cudaError_t` has the numbers of `CUresult` (since CUDA 10.1).

use super::{ready, stream_functions};
use crate::core::{Callback, HostFunction, LaunchedFunction};
use std::ffi::c_void;
use torpor_proto::error::CudaError;

stream_functions! {
    fn cudaLaunchHostFunc / cudaLaunchHostFunc_ptsz(
        @ stream, function: Option<LaunchedFunction>, data: *mut c_void,
    ) {
        ready()?;
        let function = HostFunction::Launched(function.ok_or(CudaError::INVALID_VALUE)?);
        // SAFETY: the program gives both to be called so (cudaLaunchHostFunc).
        unsafe { stream.find()?.call_in_order(function, data) }
    }

    fn cudaStreamAddCallback / cudaStreamAddCallback_ptsz(
        @ stream, callback: Option<Callback>, data: *mut c_void, flags: u32,
    ) {
        ready()?;
        let (Some(callback), 0) = (callback, flags) else { return Err(CudaError::INVALID_VALUE) };
        let function = HostFunction::Callback(callback, stream.handle);
        // SAFETY: the program gives both to be called so (cudaStreamAddCallback).
        unsafe { stream.find()?.call_in_order(function, data) }
    }
}
