//! Launches.

use super::argument::In;
use super::stream_functions;
use crate::core::{CudaResult, Kernel, LaunchConfig, StreamHandle, client};
use cudarc::driver::sys::CUlaunchConfig;
use std::ffi::c_void;
use torpor_proto::command::LaunchAttribute;
use torpor_proto::error::CudaError;

/// `CU_LAUNCH_ATTRIBUTE_COOPERATIVE`
pub(crate) const COOPERATIVE: LaunchAttribute =
    LaunchAttribute { id: 2, reserved: 0, value: [1, 0, 0, 0, 0, 0, 0, 0] };

/// Launch attributes that exist in CUDA 13.0; more are a sign of a wrong structure.
pub(crate) const MAX_ATTRIBUTES: u32 = 64;

/// A `CUlaunchConfig` as the program wrote it: plain numbers, because its attributes may have any id.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct RawLaunchConfig {
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
    stream: *mut c_void,
    attributes: In<LaunchAttribute>,
    attribute_count: u32,
}

const _: () = assert!(size_of::<RawLaunchConfig>() == size_of::<CUlaunchConfig>());
const _: () =
    assert!(std::mem::offset_of!(RawLaunchConfig, stream) == std::mem::offset_of!(CUlaunchConfig, hStream));
const _: () =
    assert!(std::mem::offset_of!(RawLaunchConfig, attributes) == std::mem::offset_of!(CUlaunchConfig, attrs));

impl RawLaunchConfig {
    pub(super) fn attributes(&self) -> CudaResult<Vec<LaunchAttribute>> {
        if self.attribute_count > MAX_ATTRIBUTES {
            return Err(CudaError::INVALID_VALUE);
        }
        self.attributes.slice(self.attribute_count as usize)
    }

    pub(super) fn with<'a>(&self, attributes: &'a [LaunchAttribute]) -> LaunchConfig<'a> {
        LaunchConfig { grid: self.grid, block: self.block, shared_bytes: self.shared_bytes, attributes }
    }
}

stream_functions! {
    fn cuLaunchKernel / cuLaunchKernel_ptsz(
        function: *mut c_void, grid_x: u32, grid_y: u32, grid_z: u32, block_x: u32, block_y: u32, block_z: u32,
        shared_bytes: u32, @ stream, parameters: *const *const c_void, extra: *const *const c_void,
    ) {
        client()?;
        let (grid, block) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
        let config = LaunchConfig { grid, block, shared_bytes, attributes: &[] };
        // SAFETY: the program promises parameters as the kernel has them (cuLaunchKernel).
        unsafe { Kernel::find(function)?.launch(&config, stream.find()?, parameters, extra) }
    }

    fn cuLaunchCooperativeKernel / cuLaunchCooperativeKernel_ptsz(
        function: *mut c_void, grid_x: u32, grid_y: u32, grid_z: u32, block_x: u32, block_y: u32, block_z: u32,
        shared_bytes: u32, @ stream, parameters: *const *const c_void,
    ) {
        client()?;
        let (grid, block) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
        let config = LaunchConfig { grid, block, shared_bytes, attributes: &[COOPERATIVE] };
        // SAFETY: the program promises parameters as the kernel has them (cuLaunchCooperativeKernel).
        unsafe { Kernel::find(function)?.launch(&config, stream.find()?, parameters, std::ptr::null()) }
    }
}

fn launch_ex(
    config: In<RawLaunchConfig>,
    function: *mut c_void,
    parameters: *const *const c_void,
    extra: *const *const c_void,
    per_thread: bool,
) -> CudaResult<()> {
    client()?;
    let config = config.get()?;
    let stream = StreamHandle { handle: config.stream, per_thread }.find()?;
    let attributes = config.attributes()?;
    // SAFETY: the program promises parameters as the kernel has them (cuLaunchKernelEx).
    unsafe { Kernel::find(function)?.launch(&config.with(&attributes), stream, parameters, extra) }
}

super::cuda_functions! {
    fn cuLaunchKernelEx(
        config: In<RawLaunchConfig>, function: *mut c_void, parameters: *const *const c_void,
        extra: *const *const c_void,
    ) {
        launch_ex(config, function, parameters, extra, false)
    }

    fn cuLaunchKernelEx_ptsz(
        config: In<RawLaunchConfig>, function: *mut c_void, parameters: *const *const c_void,
        extra: *const *const c_void,
    ) {
        launch_ex(config, function, parameters, extra, true)
    }
}
