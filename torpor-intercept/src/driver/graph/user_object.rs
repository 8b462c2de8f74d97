//! User objects.

use crate::core::graph::{Graph, UserObject};
use crate::core::{CudaResult, LaunchedFunction};
use crate::driver::argument::Out;
use std::ffi::c_void;
use torpor_proto::error::CudaError;

pub(crate) fn create(
    object: Out<*mut c_void>,
    data: *mut c_void,
    destructor: Option<LaunchedFunction>,
    references: u32,
    flags: u32,
) -> CudaResult<()> {
    let destructor = destructor.ok_or(CudaError::INVALID_VALUE)?;
    if object.is_null() {
        return Err(CudaError::INVALID_VALUE);
    }
    object.put(UserObject::create(data, destructor, references, flags)?.handle())
}

pub(crate) fn retain(object: *mut c_void, count: u32) -> CudaResult<()> {
    UserObject::find(object)?.retain(count)
}

pub(crate) fn release(object: *mut c_void, count: u32) -> CudaResult<()> {
    UserObject::find(object)?.release(count)
}

pub(crate) fn retain_by(graph: *mut c_void, object: *mut c_void, count: u32, flags: u32) -> CudaResult<()> {
    Graph::find(graph)?.retain(UserObject::find(object)?, count, flags)
}

pub(crate) fn release_by(graph: *mut c_void, object: *mut c_void, count: u32) -> CudaResult<()> {
    Graph::find(graph)?.release(UserObject::find(object)?, count)
}
