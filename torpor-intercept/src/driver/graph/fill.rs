//! Nodes that fill memory.

use crate::core::graph::{Node, Work};
use crate::core::{CudaResult, client};
use crate::driver::argument::{In, Out};
use std::ffi::c_void;

/// `CUDA_MEMSET_NODE_PARAMS`, `cudaMemsetParams`
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct FillParams {
    address: u64,
    pitch: usize,
    value: u32,
    element_bytes: u32,
    width: usize,
    height: usize,
}

const _: () = assert!(size_of::<FillParams>() == size_of::<cudarc::driver::sys::CUDA_MEMSET_NODE_PARAMS>());

impl FillParams {
    pub(crate) fn work(self) -> CudaResult<Work> {
        let Self { address, pitch, value, element_bytes, width, height } = self;
        // Of the value as many bytes count as an element has.
        let value = match element_bytes {
            1 => value & 0xff,
            2 => value & 0xffff,
            _ => value,
        };
        let extent = (width as u64, height as u64);
        Work::fill(client()?, address, pitch as u64, extent, (value, element_bytes))
    }
}

pub(crate) fn params(node: *mut c_void, params: Out<FillParams>) -> CudaResult<()> {
    let fill = Node::find(node)?.work()?.as_fill()?;
    params.put(FillParams {
        address: fill.address,
        pitch: fill.pitch as usize,
        value: fill.value,
        element_bytes: fill.element_bytes,
        width: fill.width as usize,
        height: fill.height as usize,
    })
}

pub(crate) fn set(node: *mut c_void, params: In<FillParams>) -> CudaResult<()> {
    Node::find(node)?.set_work(params.get()?.work()?)
}
