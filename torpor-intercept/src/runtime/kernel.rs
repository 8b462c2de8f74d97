//! What is known of kernels. The runtime names one by its host function, or by `cudaKernel_t` or `cudaFunction_t`.

use super::{INVALID_DEVICE_FUNCTION, device, function_cache, ready, registration, runtime_functions};
use crate::core::{CudaResult, Kernel, client};
use crate::driver::argument::Out;
use std::ffi::{c_char, c_void};
use torpor_proto::error::CudaError;

// CUfunction_attribute (cuda.h); cudaFuncAttribute has the same numbers.
const MAX_THREADS_PER_BLOCK: u32 = 0;
const STATIC_SHARED_BYTES: u32 = 1;
const CONSTANT_BYTES: u32 = 2;
const LOCAL_BYTES: u32 = 3;
const REGISTERS: u32 = 4;
const PTX_VERSION: u32 = 5;
const BINARY_VERSION: u32 = 6;
const CACHE_MODE: u32 = 7;
const MAX_DYNAMIC_SHARED_BYTES: u32 = 8;
const SHARED_CARVEOUT: u32 = 9;
const CLUSTER_SIZE_MUST_BE_SET: u32 = 10;
const CLUSTER_WIDTH: u32 = 11;
const CLUSTER_HEIGHT: u32 = 12;
const CLUSTER_DEPTH: u32 = 13;
const NON_PORTABLE_CLUSTER_SIZE: u32 = 14;
const CLUSTER_SCHEDULING: u32 = 15;

/// The kernel that `function` names.
///
/// # Errors
/// `cudaErrorInvalidDeviceFunction` if its image has no such kernel, what loading the image gives, or as [`find_handle`].
#[inline]
pub(super) fn find(function: *const c_void) -> CudaResult<&'static Kernel> {
    match function_cache::get(function.addr()) {
        Some(kernel) => Ok(kernel),
        None => match find_registered(function)? {
            Some(kernel) => Ok(kernel),
            None => find_handle(function.cast_mut()),
        },
    }
}

/// The kernel whose host function this is, if it is one.
#[cold]
pub(super) fn find_registered(function: *const c_void) -> CudaResult<Option<&'static Kernel>> {
    let generation = function_cache::generation();
    let found = registration::kernel(function.addr()).map_err(|error| match error {
        // The runtime says so of a function that its image does not have.
        CudaError::NOT_FOUND => INVALID_DEVICE_FUNCTION,
        error => error,
    })?;
    if let Some(kernel) = found {
        function_cache::put(function.addr(), kernel, generation);
    }
    Ok(found)
}

/// The kernel behind a `cudaKernel_t` or `cudaFunction_t`.
///
/// # Errors
/// `cudaErrorInvalidDeviceFunction` for null, `cudaErrorInvalidResourceHandle` for anything else that is none.
#[inline]
pub(super) fn find_handle(kernel: *mut c_void) -> CudaResult<&'static Kernel> {
    Kernel::find(kernel).map_err(|error| why_none(kernel, error))
}

/// A program that could not get a kernel, because every call fails, launches null: that every call fails is what it must hear.
#[cold]
fn why_none(kernel: *mut c_void, error: CudaError) -> CudaError {
    let lost = client().and_then(|client| client.check_usable()).err();
    lost.unwrap_or(if kernel.is_null() { INVALID_DEVICE_FUNCTION } else { error })
}

/// `cudaFuncAttributes` (driver_types.h of CUDA 13).
#[repr(C)]
pub(super) struct Attributes {
    static_shared_bytes: usize,
    constant_bytes: usize,
    local_bytes: usize,
    max_threads_per_block: i32,
    registers: i32,
    ptx_version: i32,
    binary_version: i32,
    cache_mode: i32,
    max_dynamic_shared_bytes: i32,
    shared_carveout: i32,
    cluster_size_must_be_set: i32,
    cluster_size: [i32; 3],
    cluster_scheduling: i32,
    non_portable_cluster_size: i32,
    reserved: [i32; 16],
}

const _: () = assert!(size_of::<Attributes>() == 144);

runtime_functions! {
    fn cudaGetKernel(kernel: Out<*mut c_void>, function: *const c_void) {
        ready()?;
        kernel.put(find_registered(function)?.ok_or(INVALID_DEVICE_FUNCTION)?.handle())
    }

    /// What nvcc's code asks once for each kernel that it launches.
    fn __cudaGetKernel(kernel: Out<*mut c_void>, function: *const c_void) {
        ready()?;
        kernel.put(find_registered(function)?.ok_or(INVALID_DEVICE_FUNCTION)?.handle())
    }

    /// The same name in CUDA 12, where the host function stands for the kernel in `__cudaLaunchKernel` too.
    fn __cudaGetKernel_v12(kernel: Out<*const c_void>, function: *const c_void) {
        if function.is_null() { Err(INVALID_DEVICE_FUNCTION) } else { kernel.put(function) }
    }

    /// `cudaFunction_t` is the same object.
    fn cudaGetFuncBySymbol(kernel: Out<*mut c_void>, function: *const c_void) {
        ready()?;
        kernel.put(find_registered(function)?.ok_or(INVALID_DEVICE_FUNCTION)?.handle())
    }

    fn cudaFuncGetAttributes(attributes: Out<Attributes>, function: *const c_void) {
        ready()?;
        let kernel = find(function)?;
        let bytes = |attribute| kernel.attribute(attribute).map(|value| value as usize);
        let number = |attribute| kernel.attribute(attribute);
        attributes.put(Attributes {
            static_shared_bytes: bytes(STATIC_SHARED_BYTES)?,
            constant_bytes: bytes(CONSTANT_BYTES)?,
            local_bytes: bytes(LOCAL_BYTES)?,
            max_threads_per_block: number(MAX_THREADS_PER_BLOCK)?,
            registers: number(REGISTERS)?,
            ptx_version: number(PTX_VERSION)?,
            binary_version: number(BINARY_VERSION)?,
            cache_mode: number(CACHE_MODE)?,
            max_dynamic_shared_bytes: number(MAX_DYNAMIC_SHARED_BYTES)?,
            shared_carveout: number(SHARED_CARVEOUT)?,
            cluster_size_must_be_set: number(CLUSTER_SIZE_MUST_BE_SET)?,
            cluster_size: [number(CLUSTER_WIDTH)?, number(CLUSTER_HEIGHT)?, number(CLUSTER_DEPTH)?],
            cluster_scheduling: number(CLUSTER_SCHEDULING)?,
            non_portable_cluster_size: number(NON_PORTABLE_CLUSTER_SIZE)?,
            reserved: [0; 16],
        })
    }

    fn cudaFuncSetAttribute(function: *const c_void, attribute: u32, value: i32) {
        ready()?;
        find(function)?.set_attribute(attribute, value)
    }

    fn cudaKernelSetAttributeForDevice(kernel: *mut c_void, attribute: u32, value: i32, device: i32) {
        self::device(device)?;
        ready()?;
        find_handle(kernel)?.set_attribute(attribute, value)
    }

    /// A hint, which the driver may ignore (cuda_runtime_api.h).
    fn cudaFuncSetCacheConfig(function: *const c_void, _config: u32) {
        ready()?;
        find(function).map(|_| ())
    }

    /// Has no effect since Volta (cuda_runtime_api.h).
    fn cudaFuncSetSharedMemConfig(function: *const c_void, _config: u32) {
        ready()?;
        find(function).map(|_| ())
    }

    fn cudaFuncGetName(name: Out<*const c_char>, function: *const c_void) {
        ready()?;
        name.put(find(function)?.name.as_ptr())
    }

    fn cudaFuncGetParamInfo(function: *const c_void, index: usize, offset: Out<usize>, bytes: Out<usize>) {
        ready()?;
        let parameter = find(function)?.parameters.get(index).ok_or(CudaError::INVALID_VALUE)?;
        offset.put(parameter.offset as usize)?;
        bytes.put_if_wanted(parameter.bytes as usize);
        Ok(())
    }
}
