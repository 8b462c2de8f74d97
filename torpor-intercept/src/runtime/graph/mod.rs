//! Graphs. Most of these functions are the driver's, under other names.

use super::copy::{CopyKind, copy_work};
use super::strided::Copy3D;
use super::symbol::place;
use super::{kernel as kernels, ready, registration, runtime_functions, stream_functions};
use crate::core::graph::{EdgeData, Graph, GraphExec, KernelNode, Node, Work};
use crate::core::{CudaResult, LaunchedFunction, StridedCopy};
use crate::driver::argument::{In, Out, Text};
use crate::driver::graph::alike::alike_functions;
use crate::driver::graph::exec::{InstantiateParams, UpdateInfo};
use crate::driver::graph::fill::FillParams;
use crate::driver::graph::generic::{BODY, COPY, Params, Reader};
use crate::driver::graph::kernel::{KernelParams, attributes_of};
use crate::driver::graph::memory::AllocationParams;
use crate::driver::graph::nodes::{self, HostParams};
use crate::driver::graph::{edges, edit, exec, fill, kernel, memory, user_object};
use std::ffi::c_void;

macro_rules! functions {
    ($($driver:ident $runtime:ident $module:ident::$function:ident ($($argument:ident: $type:ty),* $(,)?);)*) => {
        runtime_functions! {$(
            fn $runtime($($argument: $type),*) {
                ready()?;
                $module::$function($($argument),*)
            }
        )*}
    };
}

alike_functions!(functions);

/// A kernel's node; with those attributes that the node has, if it is there already.
fn kernel_work(params: In<KernelParams>, node: *mut c_void) -> CudaResult<Work> {
    let params = params.get()?;
    let attributes = if node.is_null() { Vec::new() } else { attributes_of(node)? };
    params.work(kernels::find(params.function)?, &attributes)
}

/// The kernel as the program knows it: its host function, if it has one.
fn function_of(node: &KernelNode) -> *mut c_void {
    let host_function = registration::host_function(node.kernel);
    host_function.map_or_else(|| node.kernel.handle(), std::ptr::with_exposed_provenance_mut)
}

fn strided_work(copy: In<Copy3D>) -> CudaResult<Work> {
    let (copy, kind) = copy.get()?.strided()?;
    copy_work(ready()?, &copy, kind)
}

fn row_work(to: u64, from: u64, bytes: usize, kind: CopyKind) -> CudaResult<Work> {
    copy_work(ready()?, &StridedCopy::row(to, from, bytes as u64), kind)
}

const READER: Reader = Reader {
    kernel: |params, node| kernel_work(params.within(BODY), node),
    copy: |params| strided_work(params.within(COPY)),
};

const NEW: *mut c_void = std::ptr::null_mut();

runtime_functions! {
    fn cudaGraphInstantiate(exec: Out<*mut c_void>, graph: *mut c_void, flags: u64) {
        ready()?;
        exec::instantiate(exec, graph, flags)
    }

    fn cudaGraphAddKernelNode(
        node: Out<*mut c_void>, graph: *mut c_void, behind: In<*mut c_void>, count: usize, params: In<KernelParams>,
    ) {
        ready()?;
        nodes::add(node, graph, behind, count, kernel_work(params, NEW)?)
    }

    fn cudaGraphKernelNodeGetParams(node: *mut c_void, params: Out<KernelParams>) {
        ready()?;
        let node = Node::find(node)?.kernel()?;
        params.put(KernelParams::of(&node, function_of(&node)))
    }

    fn cudaGraphKernelNodeSetParams(node: *mut c_void, params: In<KernelParams>) {
        ready()?;
        Node::find(node)?.set_work(kernel_work(params, node)?)
    }

    fn cudaGraphExecKernelNodeSetParams(exec: *mut c_void, node: *mut c_void, params: In<KernelParams>) {
        ready()?;
        nodes::set_in_exec(exec, node, kernel_work(params, node)?)
    }

    fn cudaGraphAddMemcpyNode(
        node: Out<*mut c_void>, graph: *mut c_void, behind: In<*mut c_void>, count: usize, copy: In<Copy3D>,
    ) {
        nodes::add(node, graph, behind, count, strided_work(copy)?)
    }

    fn cudaGraphAddMemcpyNode1D(
        node: Out<*mut c_void>, graph: *mut c_void, behind: In<*mut c_void>, count: usize, to: u64, from: u64,
        bytes: usize, kind: CopyKind,
    ) {
        nodes::add(node, graph, behind, count, row_work(to, from, bytes, kind)?)
    }

    fn cudaGraphAddMemcpyNodeToSymbol(
        node: Out<*mut c_void>, graph: *mut c_void, behind: In<*mut c_void>, count: usize, symbol: *const c_void,
        from: u64, bytes: usize, offset: usize, kind: CopyKind,
    ) {
        nodes::add(node, graph, behind, count, row_work(place(symbol, bytes, offset)?, from, bytes, kind)?)
    }

    fn cudaGraphAddMemcpyNodeFromSymbol(
        node: Out<*mut c_void>, graph: *mut c_void, behind: In<*mut c_void>, count: usize, to: u64,
        symbol: *const c_void, bytes: usize, offset: usize, kind: CopyKind,
    ) {
        nodes::add(node, graph, behind, count, row_work(to, place(symbol, bytes, offset)?, bytes, kind)?)
    }

    fn cudaGraphMemcpyNodeGetParams(node: *mut c_void, copy: Out<Copy3D>) {
        let client = ready()?;
        copy.put(Copy3D::of(&Node::find(node)?.work()?.as_copy(client)?))
    }

    fn cudaGraphMemcpyNodeSetParams(node: *mut c_void, copy: In<Copy3D>) {
        Node::find(node)?.set_work(strided_work(copy)?)
    }

    fn cudaGraphMemcpyNodeSetParams1D(node: *mut c_void, to: u64, from: u64, bytes: usize, kind: CopyKind) {
        Node::find(node)?.set_work(row_work(to, from, bytes, kind)?)
    }

    fn cudaGraphMemcpyNodeSetParamsToSymbol(
        node: *mut c_void, symbol: *const c_void, from: u64, bytes: usize, offset: usize, kind: CopyKind,
    ) {
        Node::find(node)?.set_work(row_work(place(symbol, bytes, offset)?, from, bytes, kind)?)
    }

    fn cudaGraphMemcpyNodeSetParamsFromSymbol(
        node: *mut c_void, to: u64, symbol: *const c_void, bytes: usize, offset: usize, kind: CopyKind,
    ) {
        Node::find(node)?.set_work(row_work(to, place(symbol, bytes, offset)?, bytes, kind)?)
    }

    fn cudaGraphExecMemcpyNodeSetParams(exec: *mut c_void, node: *mut c_void, copy: In<Copy3D>) {
        nodes::set_in_exec(exec, node, strided_work(copy)?)
    }

    fn cudaGraphExecMemcpyNodeSetParams1D(
        exec: *mut c_void, node: *mut c_void, to: u64, from: u64, bytes: usize, kind: CopyKind,
    ) {
        nodes::set_in_exec(exec, node, row_work(to, from, bytes, kind)?)
    }

    fn cudaGraphExecMemcpyNodeSetParamsToSymbol(
        exec: *mut c_void, node: *mut c_void, symbol: *const c_void, from: u64, bytes: usize, offset: usize,
        kind: CopyKind,
    ) {
        nodes::set_in_exec(exec, node, row_work(place(symbol, bytes, offset)?, from, bytes, kind)?)
    }

    fn cudaGraphExecMemcpyNodeSetParamsFromSymbol(
        exec: *mut c_void, node: *mut c_void, to: u64, symbol: *const c_void, bytes: usize, offset: usize,
        kind: CopyKind,
    ) {
        nodes::set_in_exec(exec, node, row_work(to, place(symbol, bytes, offset)?, bytes, kind)?)
    }

    fn cudaGraphAddMemsetNode(
        node: Out<*mut c_void>, graph: *mut c_void, behind: In<*mut c_void>, count: usize, params: In<FillParams>,
    ) {
        ready()?;
        nodes::add(node, graph, behind, count, params.get()?.work()?)
    }

    fn cudaGraphExecMemsetNodeSetParams(exec: *mut c_void, node: *mut c_void, params: In<FillParams>) {
        ready()?;
        nodes::set_in_exec(exec, node, params.get()?.work()?)
    }

    fn cudaGraphConditionalHandleCreate(handle: Out<u64>, graph: *mut c_void, value: u32, flags: u32) {
        ready()?;
        handle.put(Graph::find(graph)?.add_condition(value, flags)?)
    }

    /// What the headers of CUDA 12 call `cudaGraphAddNode`, without the data of edges.
    fn cudaGraphAddNode_v1(
        node: Out<*mut c_void>, graph: *mut c_void, behind: In<*mut c_void>, count: usize, params: Out<Params>,
    ) {
        ready()?;
        READER.add(node, graph, (behind, In::nothing(), count), params)
    }

    fn cudaGraphAddNode(
        node: Out<*mut c_void>, graph: *mut c_void, behind: In<*mut c_void>, data: In<EdgeData>, count: usize,
        params: Out<Params>,
    ) {
        ready()?;
        READER.add(node, graph, (behind, data, count), params)
    }

    fn cudaGraphNodeSetParams(node: *mut c_void, params: In<Params>) {
        ready()?;
        READER.set(node, params)
    }

    fn cudaGraphExecNodeSetParams(exec: *mut c_void, node: *mut c_void, params: In<Params>) {
        ready()?;
        READER.set_in_exec(exec, node, params)
    }
}

stream_functions! {
    fn cudaGraphLaunch / cudaGraphLaunch_ptsz(exec: *mut c_void, @ stream) {
        ready()?;
        GraphExec::find(exec)?.launch(stream.find()?)
    }

    /// What is uploaded ahead of a launch is nothing that a program sees.
    fn cudaGraphUpload / cudaGraphUpload_ptsz(exec: *mut c_void, @ stream) {
        ready()?;
        GraphExec::find(exec)?;
        stream.find().map(drop)
    }
}
