//! The devices that the program sees. They are one GPU, under several names: what is on one can be reached from all.
//!
//! A function has devices 0 to N - 1, the same in all of its processes; `CUDA_VISIBLE_DEVICES` says which of them this process sees,
//! and in what order. A program counts what it sees: that is an *ordinal*. Everything that a device has of its own hangs on
//! the ordinal: its primary context, its legacy stream, its pool. While there is one, all of this costs a load.

use super::context::contexts;
use super::device::DeviceInfo;
use super::visible::VisibleDevices;
use super::{Client, CudaResult};
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use torpor_proto::command::{Home, MOST_DEVICES, device_of};
use torpor_proto::control::client::{Device, DeviceName};
use torpor_proto::error::CudaError;

/// As many as there can be.
pub(super) const MOST: usize = MOST_DEVICES as usize;

/// How many the program sees; one before that is known.
static COUNT: AtomicU32 = AtomicU32::new(1);

/// Whether it matters which context is current: there are several devices, or was a green context.
static HAVE_PLACES: AtomicBool = AtomicBool::new(false);

/// Whether the program sees more than one device.
#[inline]
pub fn are_several() -> bool {
    count() > 1
}

/// How many the program sees; one before that is known.
#[inline]
pub fn count() -> u32 {
    COUNT.load(Ordering::Relaxed)
}

/// The ordinal of the calling thread's current device.
#[inline]
pub fn current() -> u32 {
    device_of(current_place())
}

/// What the calling thread's current context is for workers: its device, or a green context of that.
#[inline]
pub fn current_place() -> u32 {
    if HAVE_PLACES.load(Ordering::Relaxed) { contexts::current_place() } else { 0 }
}

/// From now on threads may have a green context.
pub(super) fn expect_green() {
    HAVE_PLACES.store(true, Ordering::Relaxed);
}

/// The devices of the function, from what the server says of the GPU and of their names.
///
/// # Errors
/// `SYSTEM_NOT_READY` for a server that says what cannot be.
pub(super) fn of_function(
    device: Device,
    names: &[DeviceName],
    memory_limit_bytes: u64,
) -> CudaResult<Vec<DeviceInfo>> {
    let own = DeviceInfo::new(device, memory_limit_bytes)?;
    if names.is_empty() {
        return Ok(vec![own]);
    }
    let named = |name: &DeviceName| {
        let uuid = <[u8; 16]>::try_from(name.uuid.as_slice()).map_err(|_| CudaError::SYSTEM_NOT_READY)?;
        let place = [name.pci_domain, name.pci_bus, name.pci_device].map(u32::cast_signed);
        Ok(own.named(uuid, place))
    };
    let devices = names.iter().map(named).collect::<CudaResult<Vec<_>>>()?;
    let uuids: HashSet<_> = devices.iter().map(|device| device.uuid).collect();
    let are_apart = devices.len() <= MOST && uuids.len() == devices.len();
    if are_apart { Ok(devices) } else { Err(CudaError::SYSTEM_NOT_READY) }
}

/// The function's devices, and what the program sees of them.
pub(super) struct Devices {
    of_function: Vec<DeviceInfo>,
    /// Of those that are seen, the numbers among the function's, by ordinal. There is one at least.
    seen: Vec<usize>,
    /// The server has been told which of them the program uses.
    has_home: AtomicBool,
}

impl Devices {
    /// # Errors
    /// `NO_DEVICE` if the program sees none.
    pub(super) fn new(of_function: Vec<DeviceInfo>, visible: &VisibleDevices) -> CudaResult<Self> {
        let seen = visible.choose(&of_function);
        if seen.is_empty() {
            return Err(CudaError::NO_DEVICE);
        }
        // Processes that see one device each, but not the same, have homes, too.
        let has_home = AtomicBool::new(of_function.len() == 1);
        Ok(Self { of_function, seen, has_home })
    }

    /// All of the function's.
    pub(super) fn of_function(&self) -> &[DeviceInfo] {
        &self.of_function
    }
}

impl Client {
    /// The first device. All others are as it is, but for their names.
    #[inline]
    #[must_use]
    pub fn device(&self) -> &DeviceInfo {
        &self.devices.of_function[self.devices.seen[0]]
    }

    /// How many devices the program sees.
    #[must_use]
    pub fn device_count(&self) -> u32 {
        self.devices.seen.len() as u32
    }

    /// A device by its ordinal.
    ///
    /// # Errors
    /// `INVALID_DEVICE`.
    pub fn device_of(&self, ordinal: i32) -> CudaResult<&DeviceInfo> {
        let at = usize::try_from(ordinal).map_err(|_| CudaError::INVALID_DEVICE)?;
        let number = self.devices.seen.get(at).ok_or(CudaError::INVALID_DEVICE)?;
        Ok(&self.devices.of_function[*number])
    }

    /// Every device that the program sees.
    pub fn devices(&self) -> impl Iterator<Item = &DeviceInfo> {
        self.devices.seen.iter().map(|&number| &self.devices.of_function[number])
    }

    /// From now on threads have a current device.
    pub(super) fn count_devices(&self) {
        COUNT.store(self.device_count(), Ordering::Relaxed);
        if are_several() {
            HAVE_PLACES.store(true, Ordering::Relaxed);
        }
    }

    /// The program is about to put something on its current device: the first such is its home.
    pub(super) fn settle(&self) -> CudaResult<()> {
        if self.devices.has_home.load(Ordering::Relaxed)
            || self.devices.has_home.swap(true, Ordering::Relaxed)
        {
            return Ok(());
        }
        let number = self.devices.seen.get(current() as usize).copied().unwrap_or(0);
        self.post(&Home { device: number as u32, reserved: 0 }, &[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn device() -> Device {
        Device { attributes: HashMap::from([(16, 132), (33, 7)]), uuid: vec![1; 16], ..Device::default() }
    }

    fn name(number: u8) -> DeviceName {
        DeviceName { uuid: vec![number; 16], pci_domain: 0, pci_bus: 4, pci_device: number.into() }
    }

    #[test]
    fn devices_differ_in_their_names_alone() {
        let one = of_function(device(), &[], 0).unwrap();
        assert_eq!((one.len(), one[0].uuid, one[0].attribute(33)), (1, [1; 16], Ok(7)));
        let two = of_function(device(), &[name(5), name(6)], 0).unwrap();
        assert_eq!([two[0].uuid, two[1].uuid], [[5; 16], [6; 16]]);
        assert_eq!([two[0].attribute(34), two[1].attribute(34)], [Ok(5), Ok(6)]);
        assert_eq!([two[0].attribute(16), two[1].attribute(33)], [Ok(132), Ok(4)]);
    }

    #[test]
    fn a_server_that_says_what_cannot_be_is_not_believed() {
        let nine: Vec<_> = (0..9).map(name).collect();
        for names in [&[name(1), name(1)][..], &nine, &[DeviceName { uuid: vec![1], ..name(1) }]] {
            assert!(of_function(device(), names, 0).is_err(), "{names:?}");
        }
    }
}
