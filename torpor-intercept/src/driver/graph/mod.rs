//! Graphs: thin adapters over [`crate::core::graph`]. What the runtime's functions have in common with these is here too.

pub(crate) mod alike;
pub(crate) mod edges;
pub(crate) mod edit;
pub(crate) mod exec;
pub(crate) mod fill;
pub(crate) mod generic;
pub(crate) mod kernel;
pub(crate) mod memory;
pub(crate) mod nodes;
pub(crate) mod user_object;
mod words;

use super::argument::{In, Out, Text};
use super::copy::Copy3D;
use super::{cuda_functions, stream_functions};
use crate::core::graph::{EdgeData, Graph, GraphExec, Node, Work};
use crate::core::{Context, CudaResult, Direction, LaunchedFunction, client, contexts, devices};
use alike::alike_functions;
use exec::{InstantiateParams, UpdateInfo};
use fill::FillParams;
use generic::{BODY, COPY, Params, Reader};
use kernel::{KernelParams, KernelParams2, attributes_of};
use memory::AllocationParams;
use nodes::HostParams;
use std::ffi::{c_char, c_void};

macro_rules! driver_functions {
    ($($driver:ident $runtime:ident $module:ident::$function:ident ($($argument:ident: $type:ty),* $(,)?);)*) => {
        cuda_functions! {$(
            fn $driver($($argument: $type),*) {
                client()?;
                $module::$function($($argument),*)
            }
        )*}
    };
}

alike_functions!(driver_functions);

/// A kernel's node; with those attributes that the node has, if it is there already.
fn kernel_work(params: KernelParams2, node: *mut c_void) -> CudaResult<Work> {
    let attributes = if node.is_null() { Vec::new() } else { attributes_of(node)? };
    params.first.work(params.kernel()?, &attributes)
}

fn version_1(params: In<KernelParams>) -> CudaResult<KernelParams2> {
    let none = std::ptr::null_mut();
    Ok(KernelParams2 { first: params.get()?, kernel: none, context: none })
}

fn copy_work(copy: In<Copy3D>) -> CudaResult<Work> {
    let client = client()?;
    contexts::require()?;
    // SAFETY: the program promises that both boxes are valid whenever the graph runs (cuGraphAddMemcpyNode).
    unsafe { Work::copy(client, &copy.get()?.strided(client)?, Direction::Any) }
}

fn kernel_params(node: *mut c_void) -> CudaResult<KernelParams2> {
    let node = Node::find(node)?.kernel()?;
    let context = Context::primary(devices::current()).handle();
    let first = KernelParams::of(&node, node.kernel.handle());
    Ok(KernelParams2 { first, kernel: std::ptr::null_mut(), context })
}

const READER: Reader = Reader {
    kernel: |params, node| kernel_work(params.within::<KernelParams2>(BODY).get()?, node),
    copy: |params| copy_work(params.within(COPY)),
};

cuda_functions! {
    fn cuGraphAddKernelNode(
        node: Out<*mut c_void>, graph: *mut c_void, behind: In<*mut c_void>, count: usize, params: In<KernelParams>,
    ) {
        client()?;
        nodes::add(node, graph, behind, count, kernel_work(version_1(params)?, std::ptr::null_mut())?)
    }

    fn cuGraphAddKernelNode_v2(
        node: Out<*mut c_void>, graph: *mut c_void, behind: In<*mut c_void>, count: usize, params: In<KernelParams2>,
    ) {
        client()?;
        nodes::add(node, graph, behind, count, kernel_work(params.get()?, std::ptr::null_mut())?)
    }

    fn cuGraphKernelNodeGetParams(node: *mut c_void, params: Out<KernelParams>) {
        client()?;
        params.put(kernel_params(node)?.first)
    }

    fn cuGraphKernelNodeGetParams_v2(node: *mut c_void, params: Out<KernelParams2>) {
        client()?;
        params.put(kernel_params(node)?)
    }

    fn cuGraphKernelNodeSetParams(node: *mut c_void, params: In<KernelParams>) {
        client()?;
        Node::find(node)?.set_work(kernel_work(version_1(params)?, node)?)
    }

    fn cuGraphKernelNodeSetParams_v2(node: *mut c_void, params: In<KernelParams2>) {
        client()?;
        Node::find(node)?.set_work(kernel_work(params.get()?, node)?)
    }

    fn cuGraphExecKernelNodeSetParams(exec: *mut c_void, node: *mut c_void, params: In<KernelParams>) {
        client()?;
        nodes::set_in_exec(exec, node, kernel_work(version_1(params)?, node)?)
    }

    fn cuGraphExecKernelNodeSetParams_v2(exec: *mut c_void, node: *mut c_void, params: In<KernelParams2>) {
        client()?;
        nodes::set_in_exec(exec, node, kernel_work(params.get()?, node)?)
    }

    fn cuGraphAddMemcpyNode(
        node: Out<*mut c_void>, graph: *mut c_void, behind: In<*mut c_void>, count: usize, copy: In<Copy3D>,
        _context: *mut c_void,
    ) {
        nodes::add(node, graph, behind, count, copy_work(copy)?)
    }

    fn cuGraphMemcpyNodeGetParams(node: *mut c_void, copy: Out<Copy3D>) {
        let client = client()?;
        copy.put(Copy3D::of(&Node::find(node)?.work()?.as_copy(client)?))
    }

    fn cuGraphMemcpyNodeSetParams(node: *mut c_void, copy: In<Copy3D>) {
        Node::find(node)?.set_work(copy_work(copy)?)
    }

    fn cuGraphExecMemcpyNodeSetParams(
        exec: *mut c_void, node: *mut c_void, copy: In<Copy3D>, _context: *mut c_void,
    ) {
        nodes::set_in_exec(exec, node, copy_work(copy)?)
    }

    fn cuGraphAddMemsetNode(
        node: Out<*mut c_void>, graph: *mut c_void, behind: In<*mut c_void>, count: usize, params: In<FillParams>,
        _context: *mut c_void,
    ) {
        nodes::add(node, graph, behind, count, params.get()?.work()?)
    }

    fn cuGraphExecMemsetNodeSetParams(
        exec: *mut c_void, node: *mut c_void, params: In<FillParams>, _context: *mut c_void,
    ) {
        nodes::set_in_exec(exec, node, params.get()?.work()?)
    }

    fn cuGraphConditionalHandleCreate(
        handle: Out<u64>, graph: *mut c_void, _context: *mut c_void, value: u32, flags: u32,
    ) {
        client()?;
        handle.put(Graph::find(graph)?.add_condition(value, flags)?)
    }

    /// Without the data of edges.
    fn cuGraphAddNode(
        node: Out<*mut c_void>, graph: *mut c_void, behind: In<*mut c_void>, count: usize, params: Out<Params>,
    ) {
        client()?;
        READER.add(node, graph, (behind, In::nothing(), count), params)
    }

    fn cuGraphAddNode_v2(
        node: Out<*mut c_void>, graph: *mut c_void, behind: In<*mut c_void>, data: In<EdgeData>, count: usize,
        params: Out<Params>,
    ) {
        client()?;
        READER.add(node, graph, (behind, data, count), params)
    }

    fn cuGraphNodeSetParams(node: *mut c_void, params: In<Params>) {
        client()?;
        READER.set(node, params)
    }

    fn cuGraphExecNodeSetParams(exec: *mut c_void, node: *mut c_void, params: In<Params>) {
        client()?;
        READER.set_in_exec(exec, node, params)
    }

    /// Up to CUDA 11 with a place for the node that failed and a log.
    fn cuGraphInstantiate | cuGraphInstantiate_v2 (
        exec: Out<*mut c_void>, graph: *mut c_void, failed: Out<*mut c_void>, log: Out<c_char>, log_bytes: usize,
    ) {
        client()?;
        failed.put_if_wanted(std::ptr::null_mut());
        if log_bytes > 0 {
            log.put_if_wanted(0);
        }
        exec::instantiate(exec, graph, 0)
    }

    /// Before CUDA 12, with the node and the reason apart.
    fn cuGraphExecUpdate(exec: *mut c_void, graph: *mut c_void, node: Out<*mut c_void>, result: Out<u32>) {
        client()?;
        exec::update_plain(exec, graph, node, result)
    }
}

stream_functions! {
    fn cuGraphLaunch / cuGraphLaunch_ptsz(exec: *mut c_void, @ stream) {
        client()?;
        GraphExec::find(exec)?.launch(stream.find()?)
    }

    /// What is uploaded ahead of a launch is nothing that a program sees.
    fn cuGraphUpload / cuGraphUpload_ptsz(exec: *mut c_void, @ stream) {
        client()?;
        GraphExec::find(exec)?;
        stream.find().map(drop)
    }
}
