//! Nodes that launch kernels.

use super::work::Work;
use crate::core::kernel::Kernel;
use crate::core::{CudaResult, LaunchConfig, client};
use std::ffi::c_void;
use torpor_proto::command::Launch;
use torpor_proto::error::CudaError;

/// What a node does that launches a kernel.
///
/// # Errors
/// `INVALID_VALUE` for what cannot be launched.
///
/// # Safety
/// `parameters` (one pointer for each parameter) or `extra` are as CUDA wants them for this kernel.
pub unsafe fn kernel_work(
    kernel: &Kernel,
    config: &LaunchConfig<'_>,
    parameters: *const *const c_void,
    extra: *const *const c_void,
) -> CudaResult<Work> {
    client()?;
    if !parameters.is_null() && !extra.is_null() {
        return Err(CudaError::INVALID_VALUE);
    }
    kernel.check_launch(config.grid, config.block, config.shared_bytes)?;
    let attributes = config.portable_attributes()?;
    let attributes: &[u8] = bytemuck::cast_slice(&attributes);
    let mut tail = vec![0; attributes.len() + kernel.parameter_bytes as usize];
    let (to_attributes, block) = tail.split_at_mut(attributes.len());
    to_attributes.copy_from_slice(attributes);
    // SAFETY: the caller's promise.
    unsafe { kernel.gather(block, parameters, extra)? };
    let mut shape = config.shape(kernel, 0);
    shape.parameter_bytes = kernel.parameter_bytes;
    Ok(Work::command(&Launch { shape }, &tail))
}
