//! What is known of a pointer.

use super::{ready, runtime_functions};
use crate::core::{Client, Location};
use crate::driver::argument::Out;

// cudaMemoryType (driver_types.h).
const UNREGISTERED: u32 = 0;
const HOST: u32 = 1;
const DEVICE: u32 = 2;
const MANAGED: u32 = 3;

/// `cudaInvalidDeviceId`, which is -2
const NO_DEVICE: u32 = u32::MAX - 1;

/// `cudaPointerAttributes` (driver_types.h). In CUDA 13 reserved words follow, which the real runtime leaves to chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Attributes {
    kind: u32,
    device: i32,
    device_address: u64,
    host_address: u64,
}

const _: () = assert!(size_of::<Attributes>() == 24);

fn look_up(client: &Client, address: u64) -> Attributes {
    let known = |kind, device: u32, device_address, host_address| Attributes {
        kind,
        device: device.cast_signed(),
        device_address,
        host_address,
    };
    match client.locate(address, 1) {
        Location::Device(device_address) if let Ok(range) = client.allocation_of(address) => {
            known(DEVICE, client.owner_of(range), device_address, 0)
        }
        _ => {
            if let Some(range) = client.managed_range_of(address) {
                return known(MANAGED, client.owner_of(range), address, address);
            }
            let address = client.registered_with_alias(address).map_or(address, |(address, _)| address);
            let range = client.registered_range_of(address).or_else(|| client.pinned_allocation_of(address));
            let Some(range) = range else { return known(UNREGISTERED, NO_DEVICE, 0, 0) };
            // Kernels cannot use all that is page-locked.
            let device_address = client.device_address_of_host(address).unwrap_or(0);
            known(HOST, client.owner_of(range), device_address, address)
        }
    }
}

runtime_functions! {
    /// A pointer that CUDA does not know is no error; it is "unregistered".
    fn cudaPointerGetAttributes(attributes: Out<Attributes>, address: u64) {
        attributes.put(look_up(ready()?, address))
    }
}
