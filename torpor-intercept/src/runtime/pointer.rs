//! What is known of a pointer.

use super::{ready, runtime_functions};
use crate::core::{Client, Location};
use crate::driver::argument::Out;

// cudaMemoryType (driver_types.h).
const UNREGISTERED: u32 = 0;
const HOST: u32 = 1;
const DEVICE: u32 = 2;
const MANAGED: u32 = 3;

/// `cudaInvalidDeviceId`
const NO_DEVICE: i32 = -2;

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
    let known = |kind, device, device_address, host_address| Attributes {
        kind,
        device,
        device_address,
        host_address,
    };
    match client.locate(address, 1) {
        Location::Device(device_address) if client.allocation_of(address).is_ok() => {
            known(DEVICE, 0, device_address, 0)
        }
        _ if client.managed_range_of(address).is_some() => known(MANAGED, 0, address, address),
        // Registered memory may have no device address, which is null.
        _ if client.registered_range_of(address).is_some()
            || client.pinned_allocation_of(address).is_some() =>
        {
            known(HOST, 0, client.device_address_of_host(address).unwrap_or(0), address)
        }
        _ => known(UNREGISTERED, NO_DEVICE, 0, 0),
    }
}

runtime_functions! {
    /// A pointer that CUDA does not know is no error; it is "unregistered".
    fn cudaPointerGetAttributes(attributes: Out<Attributes>, address: u64) {
        attributes.put(look_up(ready()?, address))
    }
}
