//! The runtime surface: the C functions of `cuda_runtime_api.h` (CUDA 12 and 13), one file per family, thin adapters over
//! [`crate::core`], as [`crate::driver`] is.
//!
//! PyTorch's own CUDA calls bind to these names, because a preloaded library is searched first and its unversioned
//! definitions satisfy versioned references. Libraries with a copy of cudart inside go on using the driver surface;
//! streams, events, kernels and contexts are the same objects on both, so handles may cross.
//!
//! Every function that libcudart.so.12 or libcudart.so.13 exports is either here or refused by name, so that no program ever
//! works half with this library and half with the real one. One library is both: their names, and nearly all of what
//! they mean, are the same (`version.rs`). Programs for another version, whose structures differ, are left to their own
//! libcudart (`selection.rs`).

mod array;
mod array_copy;
mod copy;
mod copy_batch;
#[cfg(test)]
pub(crate) mod coverage;
mod device;
mod entry_point;
mod error;
mod event;
mod function_cache;
mod graph;
mod host_function;
mod ipc;
mod kernel;
mod launch;
mod library;
mod logs;
mod macros;
mod managed;
mod memory;
mod memory_advice;
mod occupancy;
mod peer;
mod pinned;
mod pointer;
mod pool;
mod profiler;
mod properties;
mod refused;
mod registration;
mod selection;
mod stream;
mod stream_attribute;
mod strided;
pub mod surface;
mod symbol;
mod texture;
mod version;

use crate::core::{Client, Context, CudaResult, client, contexts, devices, initialize};
use crate::driver::Code;
use macros::{default_stream_functions, runtime_functions, stream_functions};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use torpor_proto::command::MOST_DEVICES;
use torpor_proto::error::CudaError;

// Codes of the runtime that the driver does not have (driver_types.h, enum cudaError).
const INVALID_CONFIGURATION: CudaError = CudaError(9);
const INVALID_SYMBOL: CudaError = CudaError(13);
const INVALID_MEMCPY_DIRECTION: CudaError = CudaError(21);
const MISSING_CONFIGURATION: CudaError = CudaError(52);
const INVALID_DEVICE_FUNCTION: CudaError = CudaError(98);

/// Runs the body of a C function and remembers its error for `cudaGetLastError`. A panic, which would be a bug, becomes
/// `cudaErrorUnknown`.
#[inline]
fn answer(function: &'static str, body: impl FnOnce() -> CudaResult<()>) -> Code {
    let call = crate::calls::before(function);
    let outcome = catch_unwind(AssertUnwindSafe(body)).unwrap_or(Err(CudaError::UNKNOWN));
    crate::calls::after(call, outcome);
    match outcome {
        Ok(()) => 0,
        Err(error) => {
            crate::told::tell_refusal(function, error);
            error::remember(error)
        }
    }
}

/// The client, for functions that need no context.
#[inline]
fn initialized() -> CudaResult<&'static Client> {
    match client() {
        Ok(client) => Ok(client),
        Err(_) => {
            initialize()?;
            client()
        }
    }
}

/// The client, with a context current in the calling thread: the first device's primary one, unless the program chose another.
#[inline]
fn ready() -> CudaResult<&'static Client> {
    match client() {
        Ok(client) if !contexts::current().is_null() => Ok(client),
        _ => make_ready(),
    }
}

#[cold]
fn make_ready() -> CudaResult<&'static Client> {
    let client = initialized()?;
    use_device(0)?;
    Ok(client)
}

/// Makes a device's primary context current in the calling thread.
fn use_device(device: u32) -> CudaResult<()> {
    /// The runtime holds each primary context once, however many threads use it.
    static RETAINED: [Once; MOST_DEVICES as usize] = [const { Once::new() }; MOST_DEVICES as usize];
    let primary = Context::primary(device);
    RETAINED[device as usize % RETAINED.len()].call_once(|| primary.retain());
    contexts::set_current(primary.handle())
}

/// The client, if it has a device of this number.
fn device(device: i32) -> CudaResult<&'static Client> {
    ordinal(device)?;
    initialized()
}

/// The number of a device, once it is known to be one.
fn ordinal(device: i32) -> CudaResult<u32> {
    initialized()?;
    crate::driver::device::ordinal(device)
}

/// What the current device of the calling thread has its own of.
fn current_context() -> &'static Context {
    Context::primary(devices::current())
}
