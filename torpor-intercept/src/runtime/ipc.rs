//! Memory and events of other processes.

use super::{ready, runtime_functions};
use crate::core::IpcHandle;
use crate::driver::argument::Out;
use crate::driver::ipc::{get_event_handle, get_memory_handle, open_event, open_memory};
use std::ffi::c_void;

runtime_functions! {
    fn cudaIpcGetMemHandle(handle: Out<IpcHandle>, address: u64) {
        ready()?;
        get_memory_handle(handle, address)
    }

    /// The handle comes by value (cuda_runtime_api.h).
    fn cudaIpcOpenMemHandle(address: Out<u64>, handle: IpcHandle, flags: u32) {
        ready()?;
        open_memory(address, &handle, flags)
    }

    fn cudaIpcCloseMemHandle(address: u64) {
        ready()?.close_memory(address)
    }

    fn cudaIpcGetEventHandle(handle: Out<IpcHandle>, event: *mut c_void) {
        ready()?;
        get_event_handle(handle, event)
    }

    /// The handle comes by value (cuda_runtime_api.h).
    fn cudaIpcOpenEventHandle(event: Out<*mut c_void>, handle: IpcHandle) {
        ready()?;
        open_event(event, &handle)
    }
}
