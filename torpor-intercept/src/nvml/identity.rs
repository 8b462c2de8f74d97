//! Which device it is.

use super::error::{INVALID_ARGUMENT, NOT_FOUND};
use super::{
    attribute, device, expect_version, handle, known, number, nvml_functions, put, put_name, version_of,
};
use crate::core::{DeviceInfo, PCI_ATTRIBUTES};
use crate::driver::argument::{Out, Text};
use crate::driver::device::{pci_bus_id, uuid_text};
use std::ffi::{c_char, c_void};

/// `nvmlPciInfo_v2_t`
#[repr(C)]
pub(super) struct OldPciInfo {
    bus_id: [u8; 16],
    place: PciPlace,
    reserved: [u32; 4],
}

/// `nvmlPciInfo_t`
#[repr(C)]
pub(super) struct PciInfo {
    bus_id_legacy: [u8; 16],
    place: PciPlace,
    bus_id: [u8; 32],
}

/// `nvmlPciInfoExt_v1_t`
#[repr(C)]
pub(super) struct ExtendedPciInfo {
    version: u32,
    place: PciPlace,
    /// Base and sub class.
    classes: [u32; 2],
    bus_id: [u8; 32],
}

/// `nvmlUUID_v1_t`: a text that ends with a zero, or bytes.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Uuid {
    version: u32,
    kind: u32,
    value: [u8; 41],
}

const _: () = assert!(size_of::<OldPciInfo>() == 52 && size_of::<PciInfo>() == 68);
const _: () = assert!(size_of::<ExtendedPciInfo>() == 64 && size_of::<Uuid>() == 52);

/// What both have in the middle.
#[repr(C)]
struct PciPlace {
    domain: u32,
    bus: u32,
    device: u32,
    /// Device and vendor; that of the board.
    ids: [u32; 2],
}

impl PciPlace {
    fn of(known: &DeviceInfo) -> Result<Self, i32> {
        /// The vendor's number on the bus. The device's is not known here.
        const NVIDIA: u32 = 0x10de;
        let [domain, bus, device] = PCI_ATTRIBUTES.map(|number| attribute(known.attribute(number)));
        Ok(Self { domain: domain?, bus: bus?, device: device?, ids: [NVIDIA, 0] })
    }
}

/// The long form of its place, with a domain of eight digits.
fn long_bus_id(known: &DeviceInfo) -> [u8; 32] {
    padded(&format!("0000{}", pci_bus_id(known)))
}

fn padded<const BYTES: usize>(text: &str) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    let length = text.len().min(BYTES - 1);
    bytes[..length].copy_from_slice(&text.as_bytes()[..length]);
    bytes
}

nvml_functions! {
    fn nvmlDeviceGetCount | nvmlDeviceGetCount_v2 (count: Out<u32>) {
        put(count, known()?.len() as u32)
    }

    fn nvmlDeviceGetHandleByIndex | nvmlDeviceGetHandleByIndex_v2 (index: u32, device: Out<*const c_void>) {
        put(device, handle(index as usize)?)
    }

    fn nvmlDeviceGetHandleByPciBusId | nvmlDeviceGetHandleByPciBusId_v2 (name: Text, device: Out<*const c_void>) {
        let known = known()?;
        let wanted = name.get().map_err(|_| INVALID_ARGUMENT)?.to_string_lossy().to_ascii_uppercase();
        // The domain has four digits or eight.
        let is_it = |own: &DeviceInfo| pci_bus_id(own).trim_start_matches('0') == wanted.trim_start_matches('0');
        put(device, handle(known.iter().position(is_it).ok_or(NOT_FOUND)?)?)
    }

    fn nvmlDeviceGetHandleByUUID(name: Text, device: Out<*const c_void>) {
        let known = known()?;
        let wanted = name.get().map_err(|_| INVALID_ARGUMENT)?.to_string_lossy().into_owned();
        put(device, handle(known.iter().position(|own| uuid_text(own) == wanted).ok_or(NOT_FOUND)?)?)
    }

    fn nvmlDeviceGetHandleByUUIDV(uuid: Out<Uuid>, device: Out<*const c_void>) {
        // NVML_UUID_TYPE_ASCII, …_BINARY
        const TEXT: u32 = 1;
        const BYTES: u32 = 2;
        let known = known()?;
        expect_version(uuid, 1)?;
        let Uuid { kind, value, .. } = uuid.get().map_err(|_| INVALID_ARGUMENT)?;
        let text = value.split(|&byte| byte == 0).next().unwrap_or_default();
        let found = match kind {
            TEXT => known.iter().position(|own| uuid_text(own).as_bytes() == text),
            BYTES => known.iter().position(|own| value.starts_with(&own.uuid)),
            _ => return Err(INVALID_ARGUMENT),
        };
        put(device, handle(found.ok_or(NOT_FOUND)?)?)
    }

    fn nvmlDeviceGetIndex | nvmlDeviceGetMinorNumber (device: *const c_void, index: Out<u32>) {
        put(index, number(device)? as u32)
    }

    fn nvmlDeviceGetName(device: *const c_void, name: Out<c_char>, room: u32) {
        put_name(name, room, &self::device(device)?.name)
    }

    fn nvmlDeviceGetUUID(device: *const c_void, uuid: Out<c_char>, room: u32) {
        put_name(uuid, room, &uuid_text(self::device(device)?))
    }

    fn nvmlDeviceGetPciInfo | nvmlDeviceGetPciInfo_v2 (device: *const c_void, information: Out<OldPciInfo>) {
        let known = self::device(device)?;
        let place = PciPlace::of(known)?;
        put(information, OldPciInfo { bus_id: padded(&pci_bus_id(known)), place, reserved: [0; 4] })
    }

    fn nvmlDeviceGetPciInfo_v3(device: *const c_void, information: Out<PciInfo>) {
        let known = self::device(device)?;
        let (place, bus_id) = (PciPlace::of(known)?, pci_bus_id(known));
        put(information, PciInfo { bus_id_legacy: padded(&bus_id), place, bus_id: long_bus_id(known) })
    }

    fn nvmlDeviceGetPciInfoExt(device: *const c_void, information: Out<ExtendedPciInfo>) {
        /// A display controller that drives no display, as all are that only compute.
        const CLASSES: [u32; 2] = [3, 2];
        let known = self::device(device)?;
        let place = PciPlace::of(known)?;
        expect_version(information, 1)?;
        let version = version_of::<ExtendedPciInfo>(1);
        put(information, ExtendedPciInfo { version, place, classes: CLASSES, bus_id: long_bus_id(known) })
    }
}
