//! Nodes that do nothing, call a function of the host, are about an event, or have a graph in them.

use super::edges::behind_plain;
use crate::core::graph::{Graph, GraphExec, HostCall, Node, Work};
use crate::core::{CudaResult, Event, LaunchedFunction};
use crate::driver::argument::{In, Out};
use std::ffi::c_void;
use torpor_proto::error::CudaError;

/// `CUDA_HOST_NODE_PARAMS`, `cudaHostNodeParams`
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct HostParams {
    function: Option<LaunchedFunction>,
    data: *mut c_void,
}

impl HostParams {
    pub(super) fn work(self) -> CudaResult<Work> {
        let function = self.function.ok_or(CudaError::INVALID_VALUE)?;
        Ok(Work::Host(HostCall { function, data: self.data }))
    }
}

/// Adds a node and gives its handle.
pub(crate) fn add(
    node: Out<*mut c_void>,
    graph: *mut c_void,
    behind: In<*mut c_void>,
    count: usize,
    work: Work,
) -> CudaResult<()> {
    if node.is_null() {
        return Err(CudaError::INVALID_VALUE);
    }
    node.put(Graph::find(graph)?.add(work, &behind_plain(behind, count)?)?.handle())
}

/// Changes what a node does in a launchable graph.
pub(crate) fn set_in_exec(exec: *mut c_void, node: *mut c_void, work: Work) -> CudaResult<()> {
    GraphExec::find(exec)?.set_work(Node::find(node)?, work)
}

pub(crate) fn add_empty(
    node: Out<*mut c_void>,
    graph: *mut c_void,
    behind: In<*mut c_void>,
    count: usize,
) -> CudaResult<()> {
    add(node, graph, behind, count, Work::Empty)
}

pub(crate) fn add_child(
    node: Out<*mut c_void>,
    graph: *mut c_void,
    behind: In<*mut c_void>,
    count: usize,
    child: *mut c_void,
) -> CudaResult<()> {
    if node.is_null() {
        return Err(CudaError::INVALID_VALUE);
    }
    let behind = behind_plain(behind, count)?;
    node.put(Graph::find(graph)?.add_child(Graph::find(child)?, &behind)?.handle())
}

pub(crate) fn child(node: *mut c_void, graph: Out<*mut c_void>) -> CudaResult<()> {
    match Node::find(node)?.work()? {
        Work::Child(child) => graph.put(child.handle()),
        _ => Err(CudaError::INVALID_VALUE),
    }
}

pub(crate) fn add_host(
    node: Out<*mut c_void>,
    graph: *mut c_void,
    behind: In<*mut c_void>,
    count: usize,
    call: In<HostParams>,
) -> CudaResult<()> {
    add(node, graph, behind, count, call.get()?.work()?)
}

pub(crate) fn host(node: *mut c_void, call: Out<HostParams>) -> CudaResult<()> {
    match Node::find(node)?.work()? {
        Work::Host(HostCall { function, data }) => call.put(HostParams { function: Some(function), data }),
        _ => Err(CudaError::INVALID_VALUE),
    }
}

pub(crate) fn set_host(node: *mut c_void, call: In<HostParams>) -> CudaResult<()> {
    Node::find(node)?.set_work(call.get()?.work()?)
}

pub(crate) fn set_host_in_exec(exec: *mut c_void, node: *mut c_void, call: In<HostParams>) -> CudaResult<()> {
    set_in_exec(exec, node, call.get()?.work()?)
}

pub(crate) fn add_event_record(
    node: Out<*mut c_void>,
    graph: *mut c_void,
    behind: In<*mut c_void>,
    count: usize,
    event: *mut c_void,
) -> CudaResult<()> {
    add(node, graph, behind, count, Work::record_event(Event::find(event)?))
}

pub(crate) fn add_event_wait(
    node: Out<*mut c_void>,
    graph: *mut c_void,
    behind: In<*mut c_void>,
    count: usize,
    event: *mut c_void,
) -> CudaResult<()> {
    add(node, graph, behind, count, Work::await_event(Event::find(event)?))
}

pub(crate) fn event(node: *mut c_void, event: Out<*mut c_void>) -> CudaResult<()> {
    event.put(Node::find(node)?.work()?.as_event()?.handle())
}

pub(crate) fn set_event_record(node: *mut c_void, event: *mut c_void) -> CudaResult<()> {
    Node::find(node)?.set_work(Work::record_event(Event::find(event)?))
}

pub(crate) fn set_event_wait(node: *mut c_void, event: *mut c_void) -> CudaResult<()> {
    Node::find(node)?.set_work(Work::await_event(Event::find(event)?))
}

pub(crate) fn set_event_record_in_exec(
    exec: *mut c_void,
    node: *mut c_void,
    event: *mut c_void,
) -> CudaResult<()> {
    set_in_exec(exec, node, Work::record_event(Event::find(event)?))
}

pub(crate) fn set_event_wait_in_exec(
    exec: *mut c_void,
    node: *mut c_void,
    event: *mut c_void,
) -> CudaResult<()> {
    set_in_exec(exec, node, Work::await_event(Event::find(event)?))
}
