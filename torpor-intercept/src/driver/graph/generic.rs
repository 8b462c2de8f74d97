//! Nodes of any kind, described by one structure (`CUgraphNodeParams`, `cudaGraphNodeParams`).
//!
//! It says its kind, then has what that kind needs. Of kernels and copies the two surfaces have different structures.

use super::edges::behind;
use super::fill::FillParams;
use super::memory::add_allocation_behind;
use super::nodes::HostParams;
use super::words::WordParams;
use crate::core::graph::{EdgeData, Graph, NodeType, Work, memory};
use crate::core::{CudaResult, Event};
use crate::driver::argument::{In, Out};
use std::ffi::c_void;
use torpor_proto::error::CudaError;

/// Where what a kind needs begins.
pub(crate) const BODY: usize = 16;
/// Where a copy begins, behind flags and a context, or what is reserved.
pub(crate) const COPY: usize = BODY + 16;

/// `CUDA_CONDITIONAL_NODE_PARAMS`, `cudaConditionalNodeParams`, up to where the graphs are given.
#[derive(Clone, Copy)]
#[repr(C)]
struct ConditionalParams {
    condition: u64,
    kind: u32,
    bodies: u32,
    graphs: *mut *mut c_void,
}

/// Any structure of the two.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Params([u64; 32]);

const _: () = assert!(size_of::<Params>() == size_of::<cudarc::driver::sys::CUgraphNodeParams>());

/// How a surface reads what differs.
#[derive(Clone, Copy)]
pub(crate) struct Reader {
    /// A kernel's node, whose attributes those of another node may be.
    pub(crate) kernel: fn(In<Params>, attributes_of: *mut c_void) -> CudaResult<Work>,
    pub(crate) copy: fn(In<Params>) -> CudaResult<Work>,
}

impl Reader {
    /// What a node does that needs nothing made for it. `node` is one that is there, if any.
    fn work(self, params: In<Params>, node: *mut c_void) -> CudaResult<Work> {
        let event = || Event::find(params.within::<*mut c_void>(BODY).get()?);
        let kind = params.within::<u32>(0).get()?;
        Ok(match kind {
            kind if kind == NodeType::Kernel as u32 => (self.kernel)(params, node)?,
            kind if kind == NodeType::Copy as u32 => (self.copy)(params)?,
            kind if kind == NodeType::Fill as u32 => params.within::<FillParams>(BODY).get()?.work()?,
            kind if kind == NodeType::Host as u32 => params.within::<HostParams>(BODY).get()?.work()?,
            kind if kind == NodeType::Words as u32 => params.within::<WordParams>(BODY).get()?.work()?,
            kind if kind == NodeType::Empty as u32 => Work::Empty,
            kind if kind == NodeType::WaitEvent as u32 => Work::await_event(event()?),
            kind if kind == NodeType::RecordEvent as u32 => Work::record_event(event()?),
            kind if kind == NodeType::Free as u32 => {
                let address = params.within::<u64>(BODY).get()?;
                if !memory::is_held(address) {
                    return Err(CudaError::INVALID_VALUE);
                }
                Work::Free(address)
            }
            _ => return Err(CudaError::NOT_SUPPORTED),
        })
    }

    /// `cuGraphAddNode`.
    pub(crate) fn add(
        self,
        node: Out<*mut c_void>,
        graph: *mut c_void,
        dependencies: (In<*mut c_void>, In<EdgeData>, usize),
        params: Out<Params>,
    ) -> CudaResult<()> {
        if node.is_null() {
            return Err(CudaError::INVALID_VALUE);
        }
        let graph = Graph::find(graph)?;
        let behind = behind(dependencies.0, dependencies.1, dependencies.2)?;
        let kind = params.as_in().within::<u32>(0).get()?;
        if kind == NodeType::Graph as u32 {
            let child = Graph::find(params.as_in().within::<*mut c_void>(BODY).get()?)?;
            return node.put(graph.add_child(child, &behind)?.handle());
        }
        if kind == NodeType::Allocate as u32 {
            return add_allocation_behind(node, graph, &behind, params.within(BODY));
        }
        if kind == NodeType::Conditional as u32 {
            let place = params.within::<ConditionalParams>(BODY);
            let wanted = place.get()?;
            let shape = (wanted.condition, wanted.kind, wanted.bodies);
            let (added, conditional) = graph.add_conditional(shape, &behind)?;
            place.put(ConditionalParams { graphs: conditional.handles(), ..wanted })?;
            return node.put(added.handle());
        }
        let work = self.work(params.as_in(), std::ptr::null_mut())?;
        node.put(graph.add(work, &behind)?.handle())
    }

    /// `cuGraphNodeSetParams`.
    pub(crate) fn set(self, node: *mut c_void, params: In<Params>) -> CudaResult<()> {
        crate::core::Node::find(node)?.set_work(self.work(params, node)?)
    }

    /// `cuGraphExecNodeSetParams`.
    pub(crate) fn set_in_exec(
        self,
        exec: *mut c_void,
        node: *mut c_void,
        params: In<Params>,
    ) -> CudaResult<()> {
        if params.within::<u32>(0).get()? == NodeType::Graph as u32 {
            let child = params.within::<*mut c_void>(BODY).get()?;
            return super::exec::set_child(exec, node, child);
        }
        super::nodes::set_in_exec(exec, node, self.work(params, node)?)
    }
}
