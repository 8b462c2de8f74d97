//! Nodes that allocate and free memory.

use super::edges::behind_plain;
use crate::core::CudaResult;
use crate::core::graph::{EdgeData, Graph, Held, Node, Work, memory};
use crate::driver::argument::{In, Out};
use crate::driver::device::device;
use crate::driver::pool::Properties;
use std::ffi::c_void;
use torpor_proto::error::CudaError;

/// `CUDA_MEM_ALLOC_NODE_PARAMS`, `cudaMemAllocNodeParams`
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct AllocationParams {
    pool: Properties,
    access: *const c_void,
    access_count: usize,
    bytes: usize,
    address: u64,
}

const _: () =
    assert!(size_of::<AllocationParams>() == size_of::<cudarc::driver::sys::CUDA_MEM_ALLOC_NODE_PARAMS>());

/// `CUgraphMem_attribute`: what is used and what is reserved are the same here.
const USED_NOW: u32 = 0;
const USED_MOST: u32 = 1;
const RESERVED_NOW: u32 = 2;
const RESERVED_MOST: u32 = 3;

pub(crate) fn add_allocation(
    node: Out<*mut c_void>,
    graph: *mut c_void,
    behind: In<*mut c_void>,
    count: usize,
    params: Out<AllocationParams>,
) -> CudaResult<()> {
    if node.is_null() {
        return Err(CudaError::INVALID_VALUE);
    }
    add_allocation_behind(node, Graph::find(graph)?, &behind_plain(behind, count)?, params)
}

pub(super) fn add_allocation_behind(
    node: Out<*mut c_void>,
    graph: &'static Graph,
    behind: &[(*mut c_void, EdgeData)],
    params: Out<AllocationParams>,
) -> CudaResult<()> {
    let wanted = params.get()?;
    wanted.pool.check_for_graph()?;
    let held = Held::new(wanted.bytes as u64)?;
    let address = held.address;
    node.put(graph.add(Work::Allocate(held), behind)?.handle())?;
    params.put(AllocationParams { address, ..wanted })
}

pub(crate) fn allocation(node: *mut c_void, params: Out<AllocationParams>) -> CudaResult<()> {
    let Work::Allocate(held) = Node::find(node)?.work()? else { return Err(CudaError::INVALID_VALUE) };
    params.put(AllocationParams {
        pool: Properties::of_device(),
        access: std::ptr::null(),
        access_count: 0,
        bytes: held.bytes as usize,
        address: held.address,
    })
}

pub(crate) fn add_free(
    node: Out<*mut c_void>,
    graph: *mut c_void,
    behind: In<*mut c_void>,
    count: usize,
    address: u64,
) -> CudaResult<()> {
    if !memory::is_held(address) {
        return Err(CudaError::INVALID_VALUE);
    }
    super::nodes::add(node, graph, behind, count, Work::Free(address))
}

pub(crate) fn freed(node: *mut c_void, address: Out<u64>) -> CudaResult<()> {
    match Node::find(node)?.work()? {
        Work::Free(freed) => address.put(freed),
        _ => Err(CudaError::INVALID_VALUE),
    }
}

pub(crate) fn attribute(number: i32, attribute: u32, value: Out<u64>) -> CudaResult<()> {
    device(number)?;
    let amounts = memory::amounts();
    match attribute {
        USED_NOW | RESERVED_NOW => value.put(amounts.now_bytes),
        USED_MOST | RESERVED_MOST => value.put(amounts.most_bytes),
        _ => Err(CudaError::INVALID_VALUE),
    }
}

pub(crate) fn set_attribute(number: i32, attribute: u32, value: Out<u64>) -> CudaResult<()> {
    device(number)?;
    if value.get()? != 0 || ![USED_MOST, RESERVED_MOST].contains(&attribute) {
        return Err(CudaError::INVALID_VALUE);
    }
    memory::reset_most();
    Ok(())
}

/// Memory is given back as soon as no graph has it.
pub(crate) fn trim(number: i32) -> CudaResult<()> {
    device(number).map(drop)
}
