//! Contexts. All of them are the same one on the GPU but for green ones (`green.rs`), and each is of one of the program's devices; see [`crate::core::contexts`].

use super::argument::{In, Out};
use super::device::ordinal;
use super::{cuda_functions, export_table};
use crate::core::{Context, CudaResult, Stream, client, contexts};
use std::ffi::c_void;
use torpor_proto::error::CudaError;

/// What `cuCtxGetApiVersion` has said since CUDA 3.2.
const API_VERSION: u32 = 3020;

/// `CUexecAffinityParam`
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Affinity {
    kind: u32,
    value: u32,
}

/// `CUctxCreateParams`
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct CreateParameters {
    affinities: In<Affinity>,
    affinity_count: i32,
    graphics: *mut c_void,
}

const _: () = assert!(size_of::<CreateParameters>() == size_of::<cudarc::driver::sys::CUctxCreateParams>());

/// `CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY`
const UNSUPPORTED_AFFINITY: CudaError = CudaError(224);

/// `INVALID_VALUE` for what is no `CUexecAffinityType`, of which there is one.
pub(super) fn check_affinity(kind: u32) -> CudaResult<()> {
    if kind == 0 { Ok(()) } else { Err(CudaError::INVALID_VALUE) }
}

/// `INVALID_VALUE` for what is no `CUsharedconfig`.
pub(super) fn check_banks(config: u32) -> CudaResult<()> {
    if config <= 2 { Ok(()) } else { Err(CudaError::INVALID_VALUE) }
}

/// `cuFlushGPUDirectRDMAWrites`, `cudaDeviceFlushGPUDirectRDMAWrites`: nobody writes into memory of this process by that way.
pub(crate) fn flush_remote_writes(target: u32, scope: u32) -> CudaResult<()> {
    /// `CU_FLUSH_GPU_DIRECT_RDMA_WRITES_TO_OWNER`, `…_TO_ALL_DEVICES`
    const SCOPES: [u32; 2] = [100, 200];
    if target == 0 && SCOPES.contains(&scope) { Ok(()) } else { Err(CudaError::INVALID_VALUE) }
}

/// Parts of a GPU are given out by MPS alone (cuda.h).
fn refuse_affinity(affinities: In<Affinity>, count: i32) -> CudaResult<()> {
    if count == 0 {
        return Ok(());
    }
    if count < 0 || affinities.is_null() { Err(CudaError::INVALID_VALUE) } else { Err(UNSUPPORTED_AFFINITY) }
}

fn create(context: Out<*mut c_void>, flags: u32, device: i32) -> CudaResult<()> {
    let device = ordinal(device)?;
    if context.is_null() {
        return Err(CudaError::INVALID_VALUE);
    }
    let created = contexts::create(flags, device)?;
    contexts::push(created.handle())?;
    context.put(created.handle())
}

fn primary(device: i32) -> CudaResult<&'static Context> {
    ordinal(device).map(Context::primary)
}

/// Waits for a device's work, and lets libraries forget what they have attached to its context. What the program allocated stays.
pub(crate) fn reset(primary: &'static Context) -> CudaResult<()> {
    Stream::synchronize_context(primary.place())?;
    export_table::context_storage::reset_context_storage(primary.handle());
    primary.forget_peers();
    Ok(())
}

cuda_functions! {
    fn cuDevicePrimaryCtxRetain(context: Out<*mut c_void>, device: i32) {
        let primary = primary(device)?;
        context.put(primary.handle())?;
        primary.retain();
        Ok(())
    }

    fn cuDevicePrimaryCtxRelease | cuDevicePrimaryCtxRelease_v2 (device: i32) {
        primary(device)?.release()
    }

    fn cuDevicePrimaryCtxGetState(device: i32, flags: Out<u32>, is_active: Out<i32>) {
        let primary = primary(device)?;
        flags.put_if_wanted(primary.flags());
        is_active.put_if_wanted(primary.is_active().into());
        Ok(())
    }

    fn cuDevicePrimaryCtxSetFlags | cuDevicePrimaryCtxSetFlags_v2 (device: i32, flags: u32) {
        primary(device)?.set_flags(flags);
        Ok(())
    }

    fn cuDevicePrimaryCtxReset | cuDevicePrimaryCtxReset_v2 (device: i32) {
        reset(primary(device)?)
    }

    fn cuCtxCreate_v2(context: Out<*mut c_void>, flags: u32, device: i32) {
        create(context, flags, device)
    }

    fn cuCtxCreate_v3(context: Out<*mut c_void>, affinities: In<Affinity>, count: i32, flags: u32, device: i32) {
        client()?;
        refuse_affinity(affinities, count)?;
        create(context, flags, device)
    }

    /// What CUDA 13 calls `cuCtxCreate`.
    fn cuCtxCreate_v4(context: Out<*mut c_void>, parameters: In<CreateParameters>, flags: u32, device: i32) {
        client()?;
        if !parameters.is_null() {
            let wanted = parameters.get()?;
            refuse_affinity(wanted.affinities, wanted.affinity_count)?;
            // CUDA in graphics.
            if !wanted.graphics.is_null() {
                return Err(CudaError::NOT_SUPPORTED);
            }
        }
        create(context, flags, device)
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
        device.put(contexts::find(std::ptr::null_mut())?.device().cast_signed())
    }

    /// Since 13.0 with the context to ask about; null means the current one.
    fn cuCtxGetDevice_v2(device: Out<i32>, context: *mut c_void) {
        client()?;
        device.put(contexts::find(context)?.device().cast_signed())
    }

    fn cuCtxSynchronize() {
        client()?;
        Stream::synchronize_context(contexts::find(std::ptr::null_mut())?.place())
    }

    fn cuCtxSynchronize_v2(context: *mut c_void) {
        client()?;
        Stream::synchronize_context(contexts::find(context)?.place())
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
        value.put(client.limit(limit)? as usize)
    }

    fn cuCtxSetLimit(limit: i32, value: usize) {
        let client = client()?;
        contexts::require()?;
        client.set_limit(limit, value as u64)
    }

    fn cuCtxGetCacheConfig(config: Out<u32>) {
        client()?;
        config.put(contexts::find(std::ptr::null_mut())?.cache_config())
    }

    /// A hint, which the driver may ignore (cuda.h).
    fn cuCtxSetCacheConfig(config: u32) {
        client()?;
        contexts::find(std::ptr::null_mut())?.set_cache_config(config)
    }

    fn cuCtxGetExecAffinity(affinity: Out<Affinity>, kind: u32) {
        client()?;
        contexts::require()?;
        check_affinity(kind)?;
        if affinity.is_null() { Err(CudaError::INVALID_VALUE) } else { Err(UNSUPPORTED_AFFINITY) }
    }

    /// Banks of four bytes, as on every GPU since Maxwell.
    fn cuCtxGetSharedMemConfig(config: Out<u32>) {
        client()?;
        contexts::require()?;
        config.put(1)
    }

    /// Has no effect since Maxwell.
    fn cuCtxSetSharedMemConfig(config: u32) {
        client()?;
        contexts::require()?;
        check_banks(config)
    }

    fn cuFlushGPUDirectRDMAWrites(target: u32, scope: u32) {
        client()?;
        contexts::require()?;
        flush_remote_writes(target, scope)
    }

    fn cuCtxGetStreamPriorityRange(least: Out<i32>, greatest: Out<i32>) {
        let client = client()?;
        contexts::require()?;
        least.put_if_wanted(client.device().stream_priorities.0);
        greatest.put_if_wanted(client.device().stream_priorities.1);
        Ok(())
    }

    /// A hint: lines marked persisting by others would be lost too.
    fn cuCtxResetPersistingL2Cache() {
        client().map(|_| ())
    }
}
