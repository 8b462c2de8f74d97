//! Devices, as the program counts those that it sees.

use super::argument::{Out, Text, put_text};
use super::context::check_affinity;
use super::cuda_functions;
use crate::core::{Client, CudaResult, DeviceInfo, PCI_ATTRIBUTES, client};
use std::ffi::c_char;
use torpor_proto::error::CudaError;

/// The client, if it has a device of this number.
pub(crate) fn device(device: i32) -> CudaResult<&'static Client> {
    let client = client()?;
    client.device_of(device).map(|_| client)
}

/// A device by its number.
pub(crate) fn info(device: i32) -> CudaResult<&'static DeviceInfo> {
    client()?.device_of(device)
}

/// The number of a device, once it is known to be one.
pub(crate) fn ordinal(device: i32) -> CudaResult<u32> {
    info(device)?;
    u32::try_from(device).map_err(|_| CudaError::INVALID_DEVICE)
}

/// Its place on the bus, with a domain of four digits.
pub(crate) fn pci_bus_id(device: &DeviceInfo) -> String {
    let part = |attribute| device.attribute(attribute).unwrap_or(0);
    let [domain, bus, device] = PCI_ATTRIBUTES.map(part);
    format!("{domain:04X}:{bus:02X}:{device:02X}.0")
}

/// Whether a name of a place on the bus is its own. The domain, and the function, may be left out (cuda.h).
fn has_pci_bus_id(device: &DeviceInfo, name: &str) -> bool {
    let own = pci_bus_id(device);
    let wanted = name.to_ascii_uppercase();
    let Some((_, short)) = own.split_once(':') else { return false };
    [own.as_str(), short, &own[..own.len() - 2], &short[..short.len() - 2]].contains(&wanted.as_str())
}

/// The number of the device with this place on the bus.
pub(crate) fn at_pci_bus_id(client: &Client, name: &str) -> CudaResult<i32> {
    let found = client.devices().position(|device| has_pci_bus_id(device, name));
    found.and_then(|at| i32::try_from(at).ok()).ok_or(CudaError::INVALID_VALUE)
}

/// Its UUID as users write it.
pub(crate) fn uuid_text(device: &DeviceInfo) -> String {
    let digits: Vec<String> = device.uuid.iter().map(|byte| format!("{byte:02x}")).collect();
    let part = |range: std::ops::Range<usize>| digits[range].concat();
    format!("GPU-{}-{}-{}-{}-{}", part(0..4), part(4..6), part(6..8), part(8..10), part(10..16))
}

cuda_functions! {
    fn cuDeviceGet(device: Out<i32>, ordinal: i32) {
        self::device(ordinal)?;
        device.put(ordinal)
    }

    fn cuDeviceGetCount(count: Out<i32>) {
        count.put(client()?.device_count().cast_signed())
    }

    fn cuDeviceGetName(name: Out<c_char>, room: i32, device: i32) {
        put_text(name, room, &info(device)?.name)
    }

    fn cuDeviceGetUuid | cuDeviceGetUuid_v2 (uuid: Out<[u8; 16]>, device: i32) {
        uuid.put(info(device)?.uuid)
    }

    fn cuDeviceTotalMem_v2(bytes: Out<usize>, device: i32) {
        bytes.put(info(device)?.total_memory_bytes as usize)
    }

    fn cuDeviceGetAttribute(value: Out<i32>, attribute: i32, device: i32) {
        value.put(info(device)?.attribute(attribute)?)
    }

    /// The attributes 1 to 14, as programs asked for them before there were attributes.
    fn cuDeviceGetProperties(properties: Out<i32>, device: i32) {
        let info = info(device)?;
        properties.put_all((1..=14).map(|number| info.attribute(number).unwrap_or(0)))
    }

    /// Parts of a GPU are given out by MPS alone.
    fn cuDeviceGetExecAffinitySupport(is_supported: Out<i32>, kind: u32, device: i32) {
        info(device)?;
        check_affinity(kind)?;
        is_supported.put(0)
    }

    fn cuDeviceComputeCapability(major: Out<i32>, minor: Out<i32>, device: i32) {
        let known = info(device)?.compute_capability();
        let (found_major, found_minor) = known.ok_or(CudaError::INVALID_VALUE)?;
        major.put(found_major)?;
        minor.put(found_minor)
    }

    fn cuDeviceGetPCIBusId(name: Out<c_char>, room: i32, device: i32) {
        put_text(name, room, &pci_bus_id(info(device)?))
    }

    fn cuDeviceGetByPCIBusId(device: Out<i32>, name: Text) {
        let name = name.get()?;
        device.put(at_pci_bus_id(client()?, &name.to_string_lossy())?)
    }
}
