//! Graphs.

use super::{ready, runtime_functions, stream_functions};
use crate::core::{CudaResult, Graph, GraphExec};
use crate::driver::argument::Out;
use std::ffi::c_void;
use torpor_proto::error::CudaError;

fn instantiate(exec: Out<*mut c_void>, graph: *mut c_void, flags: u64) -> CudaResult<()> {
    ready()?;
    if exec.is_null() {
        return Err(CudaError::INVALID_VALUE);
    }
    exec.put(Graph::find(graph)?.instantiate(flags)?.handle())
}

runtime_functions! {
    fn cudaGraphInstantiate(exec: Out<*mut c_void>, graph: *mut c_void, flags: u64) {
        instantiate(exec, graph, flags)
    }

    fn cudaGraphInstantiateWithFlags(exec: Out<*mut c_void>, graph: *mut c_void, flags: u64) {
        instantiate(exec, graph, flags)
    }

    fn cudaGraphDestroy(graph: *mut c_void) {
        ready()?;
        Graph::find(graph)?.destroy();
        Ok(())
    }

    fn cudaGraphExecDestroy(exec: *mut c_void) {
        ready()?;
        GraphExec::find(exec)?.destroy()
    }

    fn cudaGraphGetNodes(graph: *mut c_void, nodes: Out<*mut c_void>, count: Out<usize>) {
        ready()?;
        let all = Graph::find(graph)?.nodes();
        if nodes.is_null() {
            return count.put(all.len());
        }
        // Places beyond the last node become null (cuda_runtime_api.h).
        let room = count.get()?;
        count.put(all.len().min(room))?;
        nodes.put_all(all.into_iter().chain(std::iter::repeat(std::ptr::null_mut())).take(room))
    }
}

stream_functions! {
    fn cudaGraphLaunch / cudaGraphLaunch_ptsz(exec: *mut c_void, @ stream) {
        ready()?;
        GraphExec::find(exec)?.launch(stream.find()?)
    }
}
