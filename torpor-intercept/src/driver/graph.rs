//! Graphs.

use super::argument::Out;
use super::{cuda_functions, stream_functions};
use crate::core::{CudaResult, Graph, GraphExec, client};
use std::ffi::{c_char, c_void};
use torpor_proto::error::CudaError;

fn instantiate(exec: Out<*mut c_void>, graph: *mut c_void, flags: u64) -> CudaResult<()> {
    client()?;
    if exec.is_null() {
        return Err(CudaError::INVALID_VALUE);
    }
    exec.put(Graph::find(graph)?.instantiate(flags)?.handle())
}

/// Gives the nodes, or only their number if there is no place for them. Places beyond the last become null (`cuda.h`).
pub(crate) fn put_nodes(graph: &Graph, nodes: Out<*mut c_void>, count: Out<usize>) -> CudaResult<()> {
    let all = graph.nodes();
    if nodes.is_null() {
        return count.put(all.len());
    }
    let room = count.get()?;
    count.put(all.len().min(room))?;
    nodes.put_all(all.into_iter().chain(std::iter::repeat(std::ptr::null_mut())).take(room))
}

cuda_functions! {
    fn cuGraphInstantiateWithFlags(exec: Out<*mut c_void>, graph: *mut c_void, flags: u64) {
        instantiate(exec, graph, flags)
    }

    /// Up to CUDA 11 with a place for the node that failed and a log.
    fn cuGraphInstantiate_v2(
        exec: Out<*mut c_void>, graph: *mut c_void, failed: Out<*mut c_void>, log: Out<c_char>, log_bytes: usize,
    ) {
        failed.put_if_wanted(std::ptr::null_mut());
        if log_bytes > 0 {
            log.put_if_wanted(0);
        }
        instantiate(exec, graph, 0)
    }

    fn cuGraphDestroy(graph: *mut c_void) {
        client()?;
        Graph::find(graph)?.destroy();
        Ok(())
    }

    fn cuGraphExecDestroy(exec: *mut c_void) {
        client()?;
        GraphExec::find(exec)?.destroy()
    }

    fn cuGraphGetNodes(graph: *mut c_void, nodes: Out<*mut c_void>, count: Out<usize>) {
        client()?;
        put_nodes(Graph::find(graph)?, nodes, count)
    }
}

stream_functions! {
    fn cuGraphLaunch / cuGraphLaunch_ptsz(exec: *mut c_void, @ stream) {
        client()?;
        GraphExec::find(exec)?.launch(stream.find()?)
    }
}
