//! What is known of kernels and functions. One object serves as both.

use super::argument::Out;
use super::context::check_banks;
use super::cuda_functions;
use super::device::device;
use crate::core::{Kernel, client};
use std::ffi::{c_char, c_void};
use torpor_proto::error::CudaError;

cuda_functions! {
    fn cuKernelGetFunction(function: Out<*mut c_void>, kernel: *mut c_void) {
        client()?;
        function.put(Kernel::find(kernel)?.handle())
    }

    fn cuKernelGetLibrary(library: Out<*mut c_void>, kernel: *mut c_void) {
        client()?;
        library.put(Kernel::find(kernel)?.image().handle())
    }

    fn cuKernelGetName | cuFuncGetName (name: Out<*const c_char>, kernel: *mut c_void) {
        client()?;
        name.put(Kernel::find(kernel)?.name.as_ptr())
    }

    fn cuKernelGetAttribute(value: Out<i32>, attribute: u32, kernel: *mut c_void, device: i32) {
        self::device(device)?;
        value.put(Kernel::find(kernel)?.attribute(attribute)?)
    }

    fn cuKernelSetAttribute(attribute: u32, value: i32, kernel: *mut c_void, device: i32) {
        self::device(device)?;
        Kernel::find(kernel)?.set_attribute(attribute, value)
    }

    /// A hint, which the driver may ignore (cuda.h).
    fn cuKernelSetCacheConfig(kernel: *mut c_void, _config: i32, device: i32) {
        self::device(device)?;
        Kernel::find(kernel).map(|_| ())
    }

    fn cuKernelGetParamInfo | cuFuncGetParamInfo (
        kernel: *mut c_void, index: usize, offset: Out<usize>, bytes: Out<usize>,
    ) {
        client()?;
        let parameter = Kernel::find(kernel)?.parameters.get(index).ok_or(CudaError::INVALID_VALUE)?;
        offset.put(parameter.offset as usize)?;
        bytes.put_if_wanted(parameter.bytes as usize);
        Ok(())
    }

    fn cuFuncGetModule(module: Out<*mut c_void>, function: *mut c_void) {
        client()?;
        module.put(Kernel::find(function)?.image().handle())
    }

    fn cuFuncGetAttribute(value: Out<i32>, attribute: u32, function: *mut c_void) {
        client()?;
        value.put(Kernel::find(function)?.attribute(attribute)?)
    }

    fn cuFuncSetAttribute(function: *mut c_void, attribute: u32, value: i32) {
        client()?;
        Kernel::find(function)?.set_attribute(attribute, value)
    }

    /// A hint, which the driver may ignore (cuda.h).
    fn cuFuncSetCacheConfig(function: *mut c_void, _config: i32) {
        client()?;
        Kernel::find(function).map(|_| ())
    }

    /// Has no effect since Maxwell.
    fn cuFuncSetSharedMemConfig(function: *mut c_void, config: u32) {
        client()?;
        Kernel::find(function)?;
        check_banks(config)
    }

    /// Loaded as far as the program can tell: it was resolved.
    fn cuFuncIsLoaded(state: Out<i32>, function: *mut c_void) {
        client()?;
        Kernel::find(function)?;
        state.put(1)
    }

    fn cuFuncLoad(function: *mut c_void) {
        client()?;
        Kernel::find(function).map(|_| ())
    }
}
