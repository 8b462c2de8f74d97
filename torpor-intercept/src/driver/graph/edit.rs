//! Graphs as a whole, and their nodes apart from what they do.

use crate::core::graph::{Graph, Node};
use crate::core::{CudaResult, client};
use crate::driver::argument::{Out, Text};
use std::ffi::{OsStr, c_void};
use std::os::unix::ffi::OsStrExt;
use torpor_proto::error::CudaError;

pub(crate) fn create(graph: Out<*mut c_void>, flags: u32) -> CudaResult<()> {
    client()?.check_usable()?;
    if graph.is_null() || flags != 0 {
        return Err(CudaError::INVALID_VALUE);
    }
    graph.put(Graph::create()?.handle())
}

pub(crate) fn destroy(graph: *mut c_void) -> CudaResult<()> {
    Graph::find(graph)?.destroy()
}

pub(crate) fn clone(clone: Out<*mut c_void>, graph: *mut c_void) -> CudaResult<()> {
    if clone.is_null() {
        return Err(CudaError::INVALID_VALUE);
    }
    clone.put(Graph::find(graph)?.duplicate()?.handle())
}

pub(crate) fn find_in_clone(
    found: Out<*mut c_void>,
    node: *mut c_void,
    clone: *mut c_void,
) -> CudaResult<()> {
    found.put(Graph::find(clone)?.find_in_clone(Node::find(node)?)?.handle())
}

pub(crate) fn destroy_node(node: *mut c_void) -> CudaResult<()> {
    Node::find(node)?.destroy()
}

pub(crate) fn node_type(node: *mut c_void, found: Out<u32>) -> CudaResult<()> {
    found.put(Node::find(node)?.work()?.node_type() as u32)
}

pub(crate) fn print(graph: *mut c_void, path: Text, flags: u32) -> CudaResult<()> {
    let text = Graph::find(graph)?.dot(flags);
    let path = path.get()?;
    std::fs::write(OsStr::from_bytes(path.as_bytes()), text).map_err(|_| CudaError::OPERATING_SYSTEM)
}
