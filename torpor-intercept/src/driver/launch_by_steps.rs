//! Launches as they were before CUDA 4.

use super::argument::In;
use super::copy::LEGACY;
use super::cuda_functions;
use crate::core::{CudaResult, Kernel, StreamHandle, client};
use std::ffi::c_void;

fn launch(function: *mut c_void, grid: [i32; 2], stream: StreamHandle) -> CudaResult<()> {
    client()?;
    Kernel::find(function)?.launch_prepared(grid, stream.find()?)
}

cuda_functions! {
    fn cuFuncSetBlockShape(function: *mut c_void, x: i32, y: i32, z: i32) {
        client()?;
        Kernel::find(function)?.set_block([x, y, z])
    }

    fn cuFuncSetSharedSize(function: *mut c_void, bytes: u32) {
        client()?;
        Kernel::find(function)?.set_shared_bytes(bytes);
        Ok(())
    }

    fn cuParamSetSize(function: *mut c_void, bytes: u32) {
        client()?;
        Kernel::find(function)?.set_parameter_bytes(bytes as usize)
    }

    fn cuParamSeti(function: *mut c_void, offset: i32, value: u32) {
        client()?;
        Kernel::find(function)?.set_parameters(offset, &value.to_ne_bytes())
    }

    fn cuParamSetf(function: *mut c_void, offset: i32, value: f32) {
        client()?;
        Kernel::find(function)?.set_parameters(offset, &value.to_ne_bytes())
    }

    fn cuParamSetv(function: *mut c_void, offset: i32, value: In<u8>, bytes: u32) {
        client()?;
        Kernel::find(function)?.set_parameters(offset, &value.slice(bytes as usize)?)
    }

    fn cuLaunch(function: *mut c_void) {
        launch(function, [1, 1], LEGACY)
    }

    fn cuLaunchGrid(function: *mut c_void, width: i32, height: i32) {
        launch(function, [width, height], LEGACY)
    }

    fn cuLaunchGridAsync(function: *mut c_void, width: i32, height: i32, stream: *mut c_void) {
        launch(function, [width, height], StreamHandle { handle: stream, per_thread: false })
    }
}
