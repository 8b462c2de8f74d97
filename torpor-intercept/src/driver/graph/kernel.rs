//! Nodes that launch kernels.

use crate::core::graph::{KernelNode, Node, Work, kernel_work};
use crate::core::{CudaResult, Kernel, LaunchConfig};
use crate::driver::argument::{In, Out};
use std::ffi::c_void;
use torpor_proto::command::LaunchAttribute;
use torpor_proto::error::CudaError;

/// Launch attributes that a node can have (`CUlaunchAttributeID` of CUDA 13.0), those that name events or would give out
/// handles of the driver's left out.
const ATTRIBUTES: [u32; 11] = [1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 14];

/// `CUDA_KERNEL_NODE_PARAMS_v1`; `cudaKernelNodeParams`, whose function is another one, is laid out alike.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct KernelParams {
    pub(crate) function: *mut c_void,
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
    parameters: *mut *mut c_void,
    extra: *mut *mut c_void,
}

/// `CUDA_KERNEL_NODE_PARAMS_v2`, `…_v3`
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct KernelParams2 {
    pub(crate) first: KernelParams,
    pub(crate) kernel: *mut c_void,
    pub(crate) context: *mut c_void,
}

const _: () =
    assert!(size_of::<KernelParams2>() == size_of::<cudarc::driver::sys::CUDA_KERNEL_NODE_PARAMS_v2>());
const _: () =
    assert!(size_of::<KernelParams>() == size_of::<cudarc::driver::sys::CUDA_KERNEL_NODE_PARAMS_v1>());

impl KernelParams {
    /// What a node with these does, launching this kernel in this way.
    pub(crate) fn work(&self, kernel: &Kernel, attributes: &[LaunchAttribute]) -> CudaResult<Work> {
        let Self { grid, block, shared_bytes, parameters, extra, .. } = *self;
        let config = LaunchConfig { grid, block, shared_bytes, attributes };
        // SAFETY: the program promises parameters as the kernel has them (cuGraphAddKernelNode).
        unsafe { kernel_work(kernel, &config, parameters.cast_const().cast(), extra.cast_const().cast()) }
    }

    /// What the program is told of a node; `function` is the kernel as it knows it.
    pub(crate) fn of(node: &KernelNode, function: *mut c_void) -> Self {
        let shape = node.launch.shape;
        Self {
            function,
            grid: shape.grid,
            block: shape.block,
            shared_bytes: shape.shared_bytes,
            parameters: node.parameters,
            extra: std::ptr::null_mut(),
        }
    }
}

impl KernelParams2 {
    /// The kernel: a function, or without one a kernel of a library. Both are the same here.
    pub(super) fn kernel(&self) -> CudaResult<&'static Kernel> {
        let function = self.first.function;
        Kernel::find(if function.is_null() { self.kernel } else { function })
    }
}

/// How a node launches its kernel, which other parameters leave as it is.
pub(crate) fn attributes_of(node: *mut c_void) -> CudaResult<Vec<LaunchAttribute>> {
    Node::find(node)?.attributes()
}

pub(crate) fn attribute(node: *mut c_void, attribute: u32, value: Out<[u64; 8]>) -> CudaResult<()> {
    if !ATTRIBUTES.contains(&attribute) {
        return Err(CudaError::INVALID_VALUE);
    }
    let attributes = attributes_of(node)?;
    let set = attributes.iter().find(|set| set.id == attribute);
    value.put(set.map_or([0; 8], |set| set.value))
}

pub(crate) fn set_attribute(node: *mut c_void, attribute: u32, value: In<[u64; 8]>) -> CudaResult<()> {
    if !ATTRIBUTES.contains(&attribute) {
        return Err(CudaError::INVALID_VALUE);
    }
    let mut attributes = attributes_of(node)?;
    attributes.retain(|set| set.id != attribute);
    attributes.push(LaunchAttribute { id: attribute, reserved: 0, value: value.get()? });
    Node::find(node)?.set_attributes(&attributes)
}

pub(crate) fn copy_attributes(to: *mut c_void, from: *mut c_void) -> CudaResult<()> {
    Node::find(to)?.set_attributes(&attributes_of(from)?)
}
