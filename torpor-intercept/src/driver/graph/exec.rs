//! Launchable graphs.

use crate::core::CudaResult;
use crate::core::graph::{Graph, GraphExec, Node};
use crate::driver::argument::Out;
use std::ffi::c_void;
use std::ptr::null_mut;
use torpor_proto::error::CudaError;

/// `CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE`
const UPDATE_FAILURE: CudaError = CudaError(910);

/// `CUDA_GRAPH_INSTANTIATE_PARAMS`, `cudaGraphInstantiateParams`
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct InstantiateParams {
    flags: u64,
    upload_stream: *mut c_void,
    error_node: *mut c_void,
    /// `CUgraphInstantiateResult`: 0 success, 1 an error that the call tells.
    result: u32,
}

const _: () = assert!(
    size_of::<InstantiateParams>() == size_of::<cudarc::driver::sys::CUDA_GRAPH_INSTANTIATE_PARAMS>()
);

/// `CUgraphExecUpdateResultInfo`, `cudaGraphExecUpdateResultInfo`
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct UpdateInfo {
    result: u32,
    node: *mut c_void,
    from: *mut c_void,
}

pub(crate) fn instantiate(exec: Out<*mut c_void>, graph: *mut c_void, flags: u64) -> CudaResult<()> {
    if exec.is_null() {
        return Err(CudaError::INVALID_VALUE);
    }
    exec.put(Graph::find(graph)?.instantiate(flags)?.handle())
}

/// Nothing is uploaded ahead of a launch, so the stream for that does not matter.
pub(crate) fn instantiate_with(
    exec: Out<*mut c_void>,
    graph: *mut c_void,
    params: Out<InstantiateParams>,
) -> CudaResult<()> {
    let wanted = params.get()?;
    let made = instantiate(exec, graph, wanted.flags);
    params.put(InstantiateParams { error_node: null_mut(), result: u32::from(made.is_err()), ..wanted })?;
    made
}

pub(crate) fn destroy(exec: *mut c_void) -> CudaResult<()> {
    GraphExec::find(exec)?.destroy()
}

pub(crate) fn flags(exec: *mut c_void, flags: Out<u64>) -> CudaResult<()> {
    flags.put(GraphExec::find(exec)?.flags()?)
}

pub(crate) fn update(exec: *mut c_void, graph: *mut c_void, told: Out<UpdateInfo>) -> CudaResult<()> {
    let (result, node) = try_update(exec, graph)?;
    told.put_if_wanted(UpdateInfo { result, node, from: null_mut() });
    if result == 0 { Ok(()) } else { Err(UPDATE_FAILURE) }
}

pub(crate) fn update_plain(
    exec: *mut c_void,
    graph: *mut c_void,
    told_node: Out<*mut c_void>,
    told: Out<u32>,
) -> CudaResult<()> {
    let (result, node) = try_update(exec, graph)?;
    told_node.put_if_wanted(node);
    told.put_if_wanted(result);
    if result == 0 { Ok(()) } else { Err(UPDATE_FAILURE) }
}

/// `CUgraphExecUpdateResult`, and the node at which it failed.
fn try_update(exec: *mut c_void, graph: *mut c_void) -> CudaResult<(u32, *mut c_void)> {
    Ok(match GraphExec::find(exec)?.update(Graph::find(graph)?)? {
        Ok(()) => (0, null_mut()),
        Err((mismatch, node)) => (mismatch as u32, node.map_or(null_mut(), |node| node.handle())),
    })
}

pub(crate) fn set_child(exec: *mut c_void, node: *mut c_void, child: *mut c_void) -> CudaResult<()> {
    GraphExec::find(exec)?.set_child(Node::find(node)?, Graph::find(child)?)
}

pub(crate) fn set_enabled(exec: *mut c_void, node: *mut c_void, is_enabled: u32) -> CudaResult<()> {
    GraphExec::find(exec)?.set_enabled(Node::find(node)?, is_enabled != 0)
}

pub(crate) fn is_enabled(exec: *mut c_void, node: *mut c_void, is_enabled: Out<u32>) -> CudaResult<()> {
    is_enabled.put(GraphExec::find(exec)?.is_enabled(Node::find(node)?)?.into())
}
