//! What the private tables and `cuGetProcAddress` need from the rest of the shim, and nothing else.

use crate::core::{Context, CudaResult, DeviceInfo, Image, PCI_ATTRIBUTES, StreamHandle, client, contexts};
use crate::driver::device;
use crate::driver::jit::JitOptions;
use crate::driver::module;
use std::ffi::c_void;

/// `CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT`
const MULTIPROCESSORS: i32 = 16;

/// What the integrity check must know of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeviceIdentity {
    /// As cuDeviceGetUuid of CUDA 9.2 gives it.
    pub(crate) uuid: [u8; 16],
    /// CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID (50).
    pub(crate) pci_domain: i32,
    /// CU_DEVICE_ATTRIBUTE_PCI_BUS_ID (33).
    pub(crate) pci_bus: i32,
    /// CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID (34).
    pub(crate) pci_device: i32,
}

/// The calling thread's current context; null if it has none.
pub(crate) fn current_context() -> *mut c_void {
    contexts::current()
}

/// The handle of `device`'s primary context, which is not retained by asking: as cuDevicePrimaryCtxRetain would give it.
pub(crate) fn primary_context(device: i32) -> CudaResult<*mut c_void> {
    device::ordinal(device).map(|device| Context::primary(device).handle())
}

/// What cuCtxGetId gives: not 0, and of no other context. 0 if there is no such context.
pub(crate) fn context_id(context: *mut c_void) -> u64 {
    contexts::find(context).map_or(0, |context| context.id())
}

/// What cuStreamGetId gives: not 0, and of no other stream. With `per_thread`, null is the calling thread's own stream.
pub(crate) fn stream_id(stream: *mut c_void, per_thread: bool) -> CudaResult<u64> {
    Ok(StreamHandle { handle: stream, per_thread }.find()?.id())
}

/// Loads the image at `image` (a fatbin wrapper, a container, ELF or PTX) as cuModuleLoadData does; gives the module.
pub(crate) fn load_module(image: *const c_void) -> CudaResult<*mut c_void> {
    Ok(module::load(image.cast(), &JitOptions::default())?.handle())
}

/// What cuDriverGetVersion gives, for example 13000.
pub(crate) fn driver_version() -> i32 {
    super::super::init::driver_version()
}

/// The devices that this process sees, in their order.
pub(crate) fn devices() -> Vec<DeviceIdentity> {
    let Ok(client) = client() else { return Vec::new() };
    let identity = |device: &DeviceInfo| {
        let part = |attribute| device.attribute(attribute).unwrap_or(0);
        let [pci_domain, pci_bus, pci_device] = PCI_ATTRIBUTES.map(part);
        DeviceIdentity { uuid: device.uuid, pci_domain, pci_bus, pci_device }
    };
    client.devices().map(identity).collect()
}

/// The functions of `module`, as cuModuleEnumerateFunctions gives them.
pub(crate) fn module_functions(module: *mut c_void) -> CudaResult<Vec<*mut c_void>> {
    let image = Image::find(module)?;
    image.kernel_names()?.into_iter().map(|name| Ok(image.kernel(name)?.handle())).collect()
}

/// The GPC of each TPC, and its place in it, one byte each. Where the driver below does not tell, an even spread.
pub(crate) fn gpu_layout() -> (Vec<u8>, Vec<u8>) {
    /// GPCs of a Hopper GPU.
    const CLUSTERS: i32 = 8;
    let Ok(client) = client() else { return (Vec::new(), Vec::new()) };
    let (clusters, places) = (&client.device().tpc_clusters, &client.device().tpc_places);
    if !clusters.is_empty() && clusters.len() == places.len() {
        return (clusters.clone(), places.clone());
    }
    let pairs = client.device().attribute(MULTIPROCESSORS).unwrap_or(0) / 2;
    (0..pairs).map(|pair| ((pair % CLUSTERS) as u8, (pair / CLUSTERS) as u8)).unzip()
}
