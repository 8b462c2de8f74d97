//! Memory pools of other processes.

use super::argument::{In, Out};
use super::cuda_functions;
use super::pool::FILE_DESCRIPTOR;
use crate::core::pool::Pool;
use crate::core::{CudaResult, IpcHandle, client};
use std::ffi::c_void;
use torpor_proto::error::CudaError;

/// `cuMemPoolExportToShareableHandle`, `cudaMemPoolExportToShareableHandle`
pub(crate) fn export(shareable: Out<i32>, pool: *mut c_void, handle_type: i32, flags: u64) -> CudaResult<()> {
    let (client, pool) = (client()?, Pool::find(pool)?);
    if shareable.is_null() || handle_type != FILE_DESCRIPTOR || flags != 0 {
        return Err(CudaError::INVALID_VALUE);
    }
    shareable.put(client.export_pool(pool)?)
}

/// `cuMemPoolImportFromShareableHandle`, `cudaMemPoolImportFromShareableHandle`: the descriptor comes as the pointer's value
/// (cuda.h).
pub(crate) fn import(
    pool: Out<*mut c_void>,
    shareable: usize,
    handle_type: i32,
    flags: u64,
) -> CudaResult<()> {
    let client = client()?;
    if pool.is_null() || handle_type != FILE_DESCRIPTOR || flags != 0 {
        return Err(CudaError::INVALID_VALUE);
    }
    let descriptor = i32::try_from(shareable).map_err(|_| CudaError::INVALID_VALUE)?;
    pool.put(client.import_pool(descriptor)?.handle())
}

/// `cuMemPoolExportPointer`, `cudaMemPoolExportPointer`
pub(crate) fn export_pointer(block: Out<IpcHandle>, address: u64) -> CudaResult<()> {
    if block.is_null() {
        return Err(CudaError::INVALID_VALUE);
    }
    block.put(client()?.export_block(address)?)
}

/// `cuMemPoolImportPointer`, `cudaMemPoolImportPointer`
pub(crate) fn import_pointer(address: Out<u64>, pool: *mut c_void, block: In<IpcHandle>) -> CudaResult<()> {
    let (client, pool, block) = (client()?, Pool::find(pool)?, block.get()?);
    if address.is_null() {
        return Err(CudaError::INVALID_VALUE);
    }
    address.put(client.import_block(pool, &block)?)
}

cuda_functions! {
    fn cuMemPoolExportToShareableHandle(shareable: Out<i32>, pool: *mut c_void, handle_type: i32, flags: u64) {
        export(shareable, pool, handle_type, flags)
    }

    fn cuMemPoolImportFromShareableHandle(
        pool: Out<*mut c_void>, shareable: usize, handle_type: i32, flags: u64,
    ) {
        import(pool, shareable, handle_type, flags)
    }

    fn cuMemPoolExportPointer(block: Out<IpcHandle>, address: u64) {
        export_pointer(block, address)
    }

    fn cuMemPoolImportPointer(address: Out<u64>, pool: *mut c_void, block: In<IpcHandle>) {
        import_pointer(address, pool, block)
    }
}
