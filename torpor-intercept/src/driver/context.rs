//! Contexts. All of them are the same one on the GPU; see [`crate::core::contexts`].

use super::argument::Out;
use super::device::device;
use super::{cuda_functions, export_table};
use crate::core::{Stream, client, contexts};
use std::ffi::c_void;
use torpor_proto::error::CudaError;

/// What `cuCtxGetApiVersion` has said since CUDA 3.2.
const API_VERSION: u32 = 3020;

cuda_functions! {
    fn cuDevicePrimaryCtxRetain(context: Out<*mut c_void>, device: i32) {
        let primary = self::device(device)?.primary_context();
        context.put(primary.handle())?;
        primary.retain();
        Ok(())
    }

    fn cuDevicePrimaryCtxRelease | cuDevicePrimaryCtxRelease_v2 (device: i32) {
        self::device(device)?.primary_context().release()
    }

    fn cuDevicePrimaryCtxGetState(device: i32, flags: Out<u32>, is_active: Out<i32>) {
        let primary = self::device(device)?.primary_context();
        flags.put_if_wanted(primary.flags());
        is_active.put_if_wanted(primary.is_active().into());
        Ok(())
    }

    fn cuDevicePrimaryCtxSetFlags | cuDevicePrimaryCtxSetFlags_v2 (device: i32, flags: u32) {
        self::device(device)?.primary_context().set_flags(flags);
        Ok(())
    }

    fn cuDevicePrimaryCtxReset | cuDevicePrimaryCtxReset_v2 (device: i32) {
        let primary = self::device(device)?.primary_context();
        Stream::synchronize_all()?;
        export_table::context_storage::reset_context_storage(primary.handle());
        Ok(())
    }

    fn cuCtxCreate_v2(context: Out<*mut c_void>, flags: u32, device: i32) {
        self::device(device)?;
        let created = contexts::create(flags)?;
        contexts::push(created.handle())?;
        context.put(created.handle())
    }

    fn cuCtxDestroy | cuCtxDestroy_v2 (context: *mut c_void) {
        let context = contexts::find(context)?;
        export_table::context_storage::reset_context_storage(context.handle());
        context.destroy()
    }

    fn cuCtxGetCurrent(context: Out<*mut c_void>) {
        client()?;
        context.put(contexts::current())
    }

    fn cuCtxSetCurrent(context: *mut c_void) {
        client()?;
        contexts::set_current(context)
    }

    fn cuCtxPushCurrent | cuCtxPushCurrent_v2 (context: *mut c_void) {
        client()?;
        contexts::push(context)
    }

    fn cuCtxPopCurrent | cuCtxPopCurrent_v2 (context: Out<*mut c_void>) {
        client()?;
        let popped = contexts::pop()?;
        context.put_if_wanted(popped);
        Ok(())
    }

    fn cuCtxGetDevice(device: Out<i32>) {
        client()?;
        contexts::require()?;
        device.put(0)
    }

    /// Since 13.0 with the context to ask about; null means the current one.
    fn cuCtxGetDevice_v2(device: Out<i32>, context: *mut c_void) {
        client()?;
        contexts::find(context)?;
        device.put(0)
    }

    fn cuCtxSynchronize() {
        client()?;
        contexts::require()?;
        Stream::synchronize_all()
    }

    fn cuCtxSynchronize_v2(context: *mut c_void) {
        client()?;
        contexts::find(context)?;
        Stream::synchronize_all()
    }

    fn cuCtxGetFlags(flags: Out<u32>) {
        client()?;
        flags.put(contexts::find(std::ptr::null_mut())?.flags())
    }

    fn cuCtxSetFlags(flags: u32) {
        client()?;
        contexts::find(std::ptr::null_mut())?.set_flags(flags);
        Ok(())
    }

    fn cuCtxGetId(context: *mut c_void, id: Out<u64>) {
        client()?;
        id.put(contexts::find(context)?.id())
    }

    fn cuCtxGetApiVersion(context: *mut c_void, version: Out<u32>) {
        client()?;
        if !context.is_null() {
            contexts::find(context)?;
        }
        version.put(API_VERSION)
    }

    fn cuCtxGetLimit(value: Out<usize>, limit: i32) {
        let client = client()?;
        contexts::require()?;
        value.put(client.device.limit(limit)? as usize)
    }

    /// The real context is everybody's: a limit can be asked down to, but not raised.
    fn cuCtxSetLimit(limit: i32, value: usize) {
        let client = client()?;
        contexts::require()?;
        if value as u64 <= client.device.limit(limit)? { Ok(()) } else { Err(CudaError(215)) }
    }

    fn cuCtxGetCacheConfig(config: Out<i32>) {
        client()?;
        config.put(0)
    }

    /// A hint, which the driver may ignore (cuda.h).
    fn cuCtxSetCacheConfig(_config: i32) {
        client().map(|_| ())
    }

    fn cuCtxGetStreamPriorityRange(least: Out<i32>, greatest: Out<i32>) {
        let client = client()?;
        contexts::require()?;
        least.put_if_wanted(client.device.stream_priorities.0);
        greatest.put_if_wanted(client.device.stream_priorities.1);
        Ok(())
    }

    /// A hint: lines marked persisting by others would be lost too.
    fn cuCtxResetPersistingL2Cache() {
        client().map(|_| ())
    }
}
