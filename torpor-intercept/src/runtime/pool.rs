//! Memory pools and allocation in the order of streams. The structures are those of the driver.

use super::{ready, runtime_functions, stream_functions};
use crate::core::pool::{self, Pool, PoolMemory};
use crate::core::{CudaResult, IpcHandle};
use crate::driver::argument::{In, Out};
use crate::driver::device::ordinal;
use crate::driver::pool::{Access, Location, Properties, access, allow, choose, create, place, set, tell};
use crate::driver::pool_sharing;
use std::ffi::c_void;
use torpor_proto::error::CudaError;

/// The pool of a device: the one that was chosen for it, or its own.
fn of_device(number: i32, find: impl FnOnce(u32) -> CudaResult<&'static Pool>) -> CudaResult<*mut c_void> {
    ready()?;
    Ok(find(ordinal(number)?)?.handle())
}

runtime_functions! {
    fn cudaMemPoolCreate(pool: Out<*mut c_void>, properties: In<Properties>) {
        ready()?;
        if pool.is_null() {
            return Err(CudaError::INVALID_VALUE);
        }
        pool.put(create(properties.get()?)?.handle())
    }

    fn cudaMemPoolDestroy(pool: *mut c_void) {
        ready()?;
        Pool::find(pool)?.destroy()
    }

    fn cudaMemPoolTrimTo(pool: *mut c_void, keep_bytes: usize) {
        ready()?;
        Pool::find(pool)?.trim_to(keep_bytes as u64)
    }

    fn cudaMemPoolGetAttribute(pool: *mut c_void, attribute: i32, value: Out<c_void>) {
        ready()?;
        tell(pool, attribute, value)
    }

    fn cudaMemPoolSetAttribute(pool: *mut c_void, attribute: i32, value: Out<c_void>) {
        ready()?;
        set(pool, attribute, value)
    }

    fn cudaMemPoolSetAccess(pool: *mut c_void, list: In<Access>, count: usize) {
        ready()?;
        allow(pool, list, count)
    }

    fn cudaMemPoolGetAccess(flags: Out<i32>, pool: *mut c_void, location: In<Location>) {
        ready()?;
        flags.put(access(pool, location)?)
    }

    fn cudaDeviceGetDefaultMemPool(pool: Out<*mut c_void>, number: i32) {
        pool.put(of_device(number, Pool::of_device)?)
    }

    fn cudaDeviceGetMemPool(pool: Out<*mut c_void>, number: i32) {
        pool.put(of_device(number, Pool::current_of)?)
    }

    fn cudaDeviceSetMemPool(number: i32, pool: *mut c_void) {
        ready()?;
        choose(pool, (PoolMemory::Device, ordinal(number)?))
    }

    fn cudaMemGetDefaultMemPool(pool: Out<*mut c_void>, location: In<Location>, allocation: i32) {
        ready()?;
        let (memory, device) = place(location, allocation)?;
        pool.put(Pool::default_of(memory, device)?.handle())
    }

    fn cudaMemGetMemPool(pool: Out<*mut c_void>, location: In<Location>, allocation: i32) {
        ready()?;
        let (memory, device) = place(location, allocation)?;
        pool.put(Pool::chosen_of(memory, device)?.handle())
    }

    fn cudaMemSetMemPool(location: In<Location>, allocation: i32, pool: *mut c_void) {
        ready()?;
        choose(pool, place(location, allocation)?)
    }

    fn cudaMemPoolExportToShareableHandle(shareable: Out<i32>, pool: *mut c_void, handle_type: i32, flags: u32) {
        ready()?;
        pool_sharing::export(shareable, pool, handle_type, flags.into())
    }

    fn cudaMemPoolImportFromShareableHandle(
        pool: Out<*mut c_void>, shareable: usize, handle_type: i32, flags: u32,
    ) {
        ready()?;
        pool_sharing::import(pool, shareable, handle_type, flags.into())
    }

    fn cudaMemPoolExportPointer(block: Out<IpcHandle>, address: u64) {
        ready()?;
        pool_sharing::export_pointer(block, address)
    }

    fn cudaMemPoolImportPointer(address: Out<u64>, pool: *mut c_void, block: In<IpcHandle>) {
        ready()?;
        pool_sharing::import_pointer(address, pool, block)
    }
}

stream_functions! {
    fn cudaMallocAsync / cudaMallocAsync_ptsz(address: Out<u64>, bytes: usize, @ stream) {
        ready()?;
        if address.is_null() {
            return Err(CudaError::INVALID_VALUE);
        }
        let stream = stream.find()?;
        address.put(Pool::current_of(stream.device())?.allocate(bytes as u64, stream)?)
    }

    fn cudaMallocFromPoolAsync / cudaMallocFromPoolAsync_ptsz
        (address: Out<u64>, bytes: usize, pool: *mut c_void, @ stream)
    {
        ready()?;
        if address.is_null() {
            return Err(CudaError::INVALID_VALUE);
        }
        address.put(Pool::find(pool)?.allocate(bytes as u64, stream.find()?)?)
    }

    fn cudaFreeAsync / cudaFreeAsync_ptsz(address: u64, @ stream) {
        ready()?;
        pool::free_in_order(address, stream.find()?)
    }
}
