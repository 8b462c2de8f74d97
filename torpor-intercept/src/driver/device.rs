//! Devices. There is one, number 0, whatever the node has.

use super::argument::{Out, Text, put_text};
use super::cuda_functions;
use crate::core::{Client, CudaResult, DeviceInfo, client};
use std::ffi::c_char;
use torpor_proto::error::CudaError;

/// `CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID`, `_BUS_ID`, `_DEVICE_ID`
pub(crate) const PCI_ATTRIBUTES: [i32; 3] = [50, 33, 34];

/// The client, if `device` is its device.
pub(crate) fn device(device: i32) -> CudaResult<&'static Client> {
    let client = client()?;
    if device == 0 { Ok(client) } else { Err(CudaError::INVALID_DEVICE) }
}

/// Its place on the bus, with a domain of four digits.
pub(crate) fn pci_bus_id(device: &DeviceInfo) -> String {
    let part = |attribute| device.attribute(attribute).unwrap_or(0);
    let [domain, bus, device] = PCI_ATTRIBUTES.map(part);
    format!("{domain:04X}:{bus:02X}:{device:02X}.0")
}

/// Whether a name of a place on the bus is its own. The domain, and the function, may be left out (cuda.h).
pub(crate) fn has_pci_bus_id(device: &DeviceInfo, name: &str) -> bool {
    let own = pci_bus_id(device);
    let wanted = name.to_ascii_uppercase();
    [own.as_str(), &own[5..], &own[..own.len() - 2], &own[5..own.len() - 2]].contains(&wanted.as_str())
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
        device.put(0)
    }

    fn cuDeviceGetCount(count: Out<i32>) {
        client()?;
        count.put(1)
    }

    fn cuDeviceGetName(name: Out<c_char>, room: i32, device: i32) {
        put_text(name, room, &self::device(device)?.device.name)
    }

    fn cuDeviceGetUuid | cuDeviceGetUuid_v2 (uuid: Out<[u8; 16]>, device: i32) {
        uuid.put(self::device(device)?.device.uuid)
    }

    fn cuDeviceTotalMem_v2(bytes: Out<usize>, device: i32) {
        bytes.put(self::device(device)?.device.total_memory_bytes as usize)
    }

    fn cuDeviceGetAttribute(value: Out<i32>, attribute: i32, device: i32) {
        value.put(self::device(device)?.device.attribute(attribute)?)
    }

    fn cuDeviceComputeCapability(major: Out<i32>, minor: Out<i32>, device: i32) {
        let known = self::device(device)?.device.compute_capability();
        let (found_major, found_minor) = known.ok_or(CudaError::INVALID_VALUE)?;
        major.put(found_major)?;
        minor.put(found_minor)
    }

    fn cuDeviceGetPCIBusId(name: Out<c_char>, room: i32, device: i32) {
        put_text(name, room, &pci_bus_id(&self::device(device)?.device))
    }

    fn cuDeviceGetByPCIBusId(device: Out<i32>, name: Text) {
        let name = name.get()?;
        let is_own = has_pci_bus_id(&client()?.device, &name.to_string_lossy());
        if is_own { device.put(0) } else { Err(CudaError::INVALID_VALUE) }
    }
}
