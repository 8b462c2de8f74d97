//! The driver surface: the C functions of `cuda.h`, one file per family, thin adapters over [`crate::core`].
//!
//! Every function goes through `guard` or `answer`, so no panic reaches the program. Codes are plain integers
//! (`CUresult`). Pointers are checked for null where the driver does; beyond that they are the program's promise,
//! as with any C function.

pub(crate) mod argument;
pub(crate) mod array;
pub(crate) mod box_batch;
pub(crate) mod context;
mod copy;
pub(crate) mod copy_batch;
mod coredump;
#[cfg(test)]
pub mod coverage;
pub(crate) mod device;
pub(crate) mod entry_point;
mod error;
mod event;
pub mod export_table;
mod fill;
pub(crate) mod graph;
mod green;
mod host_function;
pub(crate) mod init;
pub(crate) mod ipc;
pub(crate) mod jit;
mod kernel;
pub(crate) mod launch;
mod launch_by_steps;
pub(crate) mod library;
mod link;
pub(crate) mod logs;
mod macros;
mod managed;
pub(crate) mod memory;
pub(crate) mod memory_advice;
pub(crate) mod module;
mod occupancy;
pub(crate) mod peer;
pub(crate) mod pinned;
mod pointer;
pub(crate) mod pool;
pub(crate) mod pool_sharing;
mod profiler;
mod refused;
#[cfg(test)]
mod refused_families;
pub(crate) mod stream;
mod stream_attribute;
pub mod surface;
mod tensor_map;
pub(crate) mod texture;
mod virtual_memory;
mod word;

use crate::core::CudaResult;
use macros::{cuda_functions, stream_functions};
use std::panic::{AssertUnwindSafe, catch_unwind};
use torpor_proto::error::CudaError;

/// `CUresult`
pub(crate) type Code = i32;

/// Runs the body of a C function. A panic, which would be a bug, becomes `CUDA_ERROR_UNKNOWN`.
pub(crate) fn guard(body: impl FnOnce() -> Code) -> Code {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(CudaError::UNKNOWN.0 as Code)
}

/// As [`guard`], for a body that gives a `Result`.
#[inline]
pub(crate) fn answer(function: &'static str, body: impl FnOnce() -> CudaResult<()>) -> Code {
    guard(|| {
        let call = crate::calls::before(function);
        let outcome = body();
        crate::calls::after(call, outcome);
        outcome.map_or_else(
            |error| {
                crate::told::tell_refusal(function, error);
                error.0 as Code
            },
            |()| 0,
        )
    })
}
