//! Memory and events of other processes.

use super::argument::Out;
use super::cuda_functions;
use crate::core::{CudaResult, Event, IpcHandle, client, contexts};
use std::ffi::c_void;
use torpor_proto::error::CudaError;

/// `CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS`: there are no peers.
const LAZY_PEER_ACCESS: u32 = 1;

/// `cuIpcOpenMemHandle`, `cudaIpcOpenMemHandle`
pub(crate) fn open_memory(address: Out<u64>, handle: &IpcHandle, flags: u32) -> CudaResult<()> {
    if address.is_null() || flags & !LAZY_PEER_ACCESS != 0 {
        return Err(CudaError::INVALID_VALUE);
    }
    address.put(client()?.open_memory(handle)?)
}

/// `cuIpcGetMemHandle`, `cudaIpcGetMemHandle`
pub(crate) fn get_memory_handle(handle: Out<IpcHandle>, address: u64) -> CudaResult<()> {
    if handle.is_null() {
        return Err(CudaError::INVALID_VALUE);
    }
    handle.put(client()?.export_memory(address)?)
}

/// `cuIpcGetEventHandle`, `cudaIpcGetEventHandle`
pub(crate) fn get_event_handle(handle: Out<IpcHandle>, event: *mut c_void) -> CudaResult<()> {
    if handle.is_null() {
        return Err(CudaError::INVALID_VALUE);
    }
    handle.put(Event::find(event)?.export()?)
}

/// `cuIpcOpenEventHandle`, `cudaIpcOpenEventHandle`
pub(crate) fn open_event(event: Out<*mut c_void>, handle: &IpcHandle) -> CudaResult<()> {
    if event.is_null() {
        return Err(CudaError::INVALID_VALUE);
    }
    event.put(Event::open(handle)?.handle())
}

cuda_functions! {
    fn cuIpcGetMemHandle(handle: Out<IpcHandle>, address: u64) {
        client()?;
        contexts::require()?;
        get_memory_handle(handle, address)
    }

    /// The handle comes by value (cuda.h).
    fn cuIpcOpenMemHandle | cuIpcOpenMemHandle_v2 (address: Out<u64>, handle: IpcHandle, flags: u32) {
        client()?;
        contexts::require()?;
        open_memory(address, &handle, flags)
    }

    fn cuIpcCloseMemHandle(address: u64) {
        client()?.close_memory(address)
    }

    fn cuIpcGetEventHandle(handle: Out<IpcHandle>, event: *mut c_void) {
        client()?;
        get_event_handle(handle, event)
    }

    /// The handle comes by value (cuda.h).
    fn cuIpcOpenEventHandle(event: Out<*mut c_void>, handle: IpcHandle) {
        client()?;
        contexts::require()?;
        open_event(event, &handle)
    }
}
