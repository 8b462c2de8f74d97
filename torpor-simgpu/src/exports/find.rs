//! `cuGetProcAddress`: which of the functions a program is given by a name.

use std::ffi::c_void;

use super::{Export, table};
use crate::abi::Out;
use crate::error::{CudaError, Result};

/// `CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM`.
const PER_THREAD_DEFAULT_STREAM: u64 = 2;

/// Finds the newest variant of a function that a program built for CUDA `version` knows.
pub(super) fn proc_address(
    name: &str,
    function: Out<*const c_void>,
    version: i32,
    flags: u64,
    status: Out<u32>,
) -> Result {
    const FOUND: u32 = 0;
    const NOT_FOUND: u32 = 1;
    const TOO_OLD: u32 = 2;
    if flags > PER_THREAD_DEFAULT_STREAM {
        return Err(CudaError::INVALID_VALUE);
    }
    let per_thread = flags & PER_THREAD_DEFAULT_STREAM != 0;
    let variants: Vec<&Export> = table()
        .iter()
        .filter(|export| export.name == name && !(per_thread && export.has_thread_variant))
        .collect();
    let newest = variants.iter().filter(|export| export.since <= version).max_by_key(|export| export.since);
    status.set_if_wanted(match newest {
        Some(_) => FOUND,
        None if variants.is_empty() => NOT_FOUND,
        None => TOO_OLD,
    });
    function.set(newest.map_or(std::ptr::null(), |export| export.address as *const c_void))
}
