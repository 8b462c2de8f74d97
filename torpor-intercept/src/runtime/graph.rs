//! Graphs.

use super::{ready, runtime_functions, stream_functions};
use crate::core::{CudaResult, Graph, GraphExec};
use crate::driver::argument::Out;
use crate::driver::graph::put_nodes;
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
        put_nodes(Graph::find(graph)?, nodes, count)
    }
}

stream_functions! {
    fn cudaGraphLaunch / cudaGraphLaunch_ptsz(exec: *mut c_void, @ stream) {
        ready()?;
        GraphExec::find(exec)?.launch(stream.find()?)
    }
}
