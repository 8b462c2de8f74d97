//! Devices, as the program counts those that it sees, and what is set for their primary contexts.

use super::properties::{self, properties};
use super::version::{self, Version};
use super::{current_context, initialized, ordinal, ready, runtime_functions, use_device};
use crate::core::{Context, CudaResult, DeviceInfo, Stream, contexts, devices};
use crate::driver::argument::{Out, Text, put_text};
use crate::driver::context::{flush_remote_writes, reset};
use crate::driver::device::{at_pci_bus_id, info, pci_bus_id};
use crate::driver::init::driver_version;
use std::ffi::{c_char, c_void};
use torpor_proto::error::CudaError;

/// `cudaDeviceMapHost`: pinned memory is always mapped.
const MAP_HOST: u32 = 8;

/// A device by its number.
fn described(device: i32) -> CudaResult<&'static DeviceInfo> {
    initialized()?;
    info(device)
}

runtime_functions! {
    fn cudaGetDeviceCount(count: Out<i32>) {
        // Programs that go on without a device read the count all the same.
        count.put(0)?;
        count.put(initialized()?.device_count().cast_signed())
    }

    fn cudaGetDevice(device: Out<i32>) {
        initialized()?;
        device.put(devices::current().cast_signed())
    }

    /// A context of the device that is current already stays, though it may be none of the runtime's.
    fn cudaSetDevice(device: i32) {
        let device = ordinal(device)?;
        let is_current = !contexts::current().is_null() && devices::current() == device;
        if is_current { Ok(()) } else { use_device(device) }
    }

    fn cudaInitDevice(device: i32, flags: u32, which: u32) {
        /// `cudaInitDeviceFlagsAreValid`
        const FLAGS_ARE_VALID: u32 = 1;
        let primary = Context::primary(ordinal(device)?);
        if which & !FLAGS_ARE_VALID != 0 {
            return Err(CudaError::INVALID_VALUE);
        }
        if which & FLAGS_ARE_VALID != 0 {
            primary.set_flags(flags);
        }
        ready().map(|_| ())
    }

    /// A list of devices to try; a thread that has chosen none has the first.
    fn cudaSetValidDevices(devices: crate::driver::argument::In<i32>, count: i32) {
        let count = usize::try_from(count).map_err(|_| CudaError::INVALID_VALUE)?;
        devices.slice(count)?.into_iter().try_for_each(|number| ordinal(number).map(drop))
    }

    fn cudaChooseDevice(device: Out<i32>, _wanted: *const c_void) {
        initialized()?;
        device.put(0)
    }

    fn cudaGetDeviceProperties(place: Out<u8>, device: i32) {
        place.put_all(properties(described(device)?, Version::Cuda13))
    }

    /// What the headers of CUDA 12 call `cudaGetDeviceProperties`.
    fn cudaGetDeviceProperties_v2(place: Out<u8>, device: i32) {
        place.put_all(properties(described(device)?, Version::Cuda12))
    }

    /// The same name in CUDA 12, which has the layout of CUDA 11.
    fn cudaGetDeviceProperties_v1(place: Out<u8>, device: i32) {
        let properties = properties(described(device)?, Version::Cuda12);
        place.put_all(properties.into_iter().take(properties::CUDA_11_BYTES))
    }

    /// `cudaDeviceAttr` has the driver's numbers.
    fn cudaDeviceGetAttribute(value: Out<i32>, attribute: i32, device: i32) {
        value.put(described(device)?.attribute(attribute)?)
    }

    fn cudaDeviceGetPCIBusId(name: Out<c_char>, room: i32, device: i32) {
        put_text(name, room, &pci_bus_id(described(device)?))
    }

    fn cudaDeviceGetByPCIBusId(device: Out<i32>, name: Text) {
        let name = name.get()?;
        device.put(at_pci_bus_id(initialized()?, &name.to_string_lossy())?)
    }

    fn cudaDeviceSynchronize() {
        ready()?;
        Stream::synchronize_context(devices::current())
    }

    /// As with the driver surface, what the program allocated stays.
    fn cudaDeviceReset() {
        ready()?;
        reset(current_context())
    }

    fn cudaGetDeviceFlags(flags: Out<u32>) {
        initialized()?;
        flags.put(current_context().flags() | MAP_HOST)
    }

    fn cudaSetDeviceFlags(flags: u32) {
        initialized()?;
        current_context().set_flags(flags);
        Ok(())
    }

    fn cudaDeviceGetStreamPriorityRange(least: Out<i32>, greatest: Out<i32>) {
        let client = ready()?;
        least.put_if_wanted(client.device().stream_priorities.0);
        greatest.put_if_wanted(client.device().stream_priorities.1);
        Ok(())
    }

    fn cudaDeviceGetLimit(value: Out<usize>, limit: i32) {
        value.put(ready()?.limit(limit)? as usize)
    }

    fn cudaDeviceSetLimit(limit: i32, value: usize) {
        ready()?.set_limit(limit, value as u64)
    }

    fn cudaDeviceGetCacheConfig(config: Out<u32>) {
        ready()?;
        config.put(current_context().cache_config())
    }

    /// A hint, which the driver may ignore (cuda_runtime_api.h).
    fn cudaDeviceSetCacheConfig(config: u32) {
        ready()?;
        current_context().set_cache_config(config)
    }

    /// Banks of four bytes, as on every GPU since Maxwell (cuda_runtime_api.h).
    fn cudaDeviceGetSharedMemConfig(config: Out<i32>) {
        ready()?;
        config.put(1)
    }

    /// Has no effect since Maxwell (cuda_runtime_api.h).
    fn cudaDeviceSetSharedMemConfig(_config: i32) {
        ready().map(|_| ())
    }

    fn cudaDeviceFlushGPUDirectRDMAWrites(target: u32, scope: u32) {
        ready()?;
        flush_remote_writes(target, scope)
    }

    /// A hint: lines marked persisting by others would be lost too.
    fn cudaCtxResetPersistingL2Cache() {
        ready().map(|_| ())
    }

    fn cudaDriverGetVersion(version: Out<i32>) {
        version.put(driver_version())
    }

    fn cudaRuntimeGetVersion(version: Out<i32>) {
        version.put(version::release())
    }

    /// For GPUs without double precision, which are gone.
    fn cudaSetDoubleForDevice(_number: *mut f64) {
        Ok(())
    }

    fn cudaSetDoubleForHost(_number: *mut f64) {
        Ok(())
    }
}
