//! Memory: the virtual memory management functions here, and a file for each other family.

mod access;
pub mod allocate;
pub mod copy;
pub mod copy_box;
pub mod fill;
pub mod host;
mod mapping;
mod physical;
pub mod pointer;
mod shape;
pub mod shareable;
mod space;
pub mod word;

use std::sync::Arc;

pub use access::{Accessor, Intent, KernelMemory};
pub use copy::Copy;
pub use fill::Fill;
pub use mapping::Mapping;
pub use physical::{Budget, Physical};
pub use shape::Shape;
pub use space::{Space, cover, find};
pub use word::{Condition, Stored, Word};

use crate::abi::{In, MemAccessDesc, MemAllocationProp, MemLocation, Out};
use crate::error::{CudaError, Result};
use crate::machine::Machine;
use physical::GRANULARITY;

/// `CU_MEM_ALLOCATION_TYPE_PINNED`.
const PINNED: u32 = 1;
/// `CU_MEM_LOCATION_TYPE_DEVICE`.
const ON_DEVICE: u32 = 1;

fn aligned(bytes: usize) -> Result<u64> {
    let bytes = bytes as u64;
    if bytes > 0 && bytes.is_multiple_of(GRANULARITY) { Ok(bytes) } else { Err(CudaError::INVALID_VALUE) }
}

fn device_at(machine: &Machine, location: MemLocation) -> Result<usize> {
    if location.kind != ON_DEVICE {
        return Err(CudaError::INVALID_VALUE);
    }
    Ok(machine.device(location.id)?.ordinal)
}

pub fn granularity(
    machine: &Machine,
    granularity: Out<usize>,
    prop: In<MemAllocationProp>,
    _option: u32,
) -> Result {
    device_at(machine, prop.get()?.location)?;
    granularity.set(GRANULARITY as usize)
}

pub fn reserve(
    machine: &Machine,
    pointer: Out<u64>,
    bytes: usize,
    alignment: usize,
    wanted: u64,
    flags: u64,
) -> Result {
    let alignment = (alignment as u64).max(GRANULARITY);
    if flags != 0 || !alignment.is_power_of_two() || pointer.is_null() {
        return Err(CudaError::INVALID_VALUE);
    }
    pointer.set(machine.space.reserve(wanted, aligned(bytes)?, alignment)?)
}

pub fn free_reservation(machine: &Machine, pointer: u64, bytes: usize) -> Result {
    machine.space.free_reservation(pointer, aligned(bytes)?)
}

pub fn create(
    machine: &Machine,
    handle: Out<u64>,
    bytes: usize,
    prop: In<MemAllocationProp>,
    flags: u64,
) -> Result {
    let prop = prop.get()?;
    if flags != 0 || prop.kind != PINNED || handle.is_null() {
        return Err(CudaError::INVALID_VALUE);
    }
    let device = device_at(machine, prop.location)?;
    let bytes = aligned(bytes)?;
    machine.health(Some(device))?;
    machine.clock.host_works(machine.config.profile.create_us);
    let budget = &machine.devices[device].budget;
    let physical = match prop.requested_handle_types {
        0 => Physical::new(device, budget, bytes, machine.config.checks.uninitialised)?,
        shareable::DESCRIPTOR => Physical::shareable(device, budget, bytes)?,
        _ => return Err(CudaError::NOT_SUPPORTED),
    };
    handle.set(machine.allocations.add(physical))
}

pub fn release(machine: &Machine, handle: u64) -> Result {
    // Mappings keep the memory.
    machine.allocations.remove(handle).map(drop).map_err(|_| CudaError::INVALID_VALUE)
}

pub fn map(machine: &Machine, pointer: u64, bytes: usize, offset: usize, handle: u64, flags: u64) -> Result {
    let physical = machine.allocations.find(handle).map_err(|_| CudaError::INVALID_VALUE)?;
    // The driver wants the whole allocation too: offsets other than 0 are refused on hardware.
    if offset != 0 || flags != 0 || bytes as u64 != physical.bytes {
        return Err(CudaError::INVALID_VALUE);
    }
    machine.space.map(pointer, &physical)
}

pub fn unmap(machine: &Machine, pointer: u64, bytes: usize) -> Result {
    let removed = machine.space.unmap(pointer, aligned(bytes)?)?;
    machine.clock.host_works(machine.config.profile.unmap_us * removed.len() as f64);
    note_removed(machine, &removed, "unmapped");
    Ok(())
}

pub fn set_access(
    machine: &Machine,
    pointer: u64,
    bytes: usize,
    list: In<MemAccessDesc>,
    count: usize,
) -> Result {
    if count == 0 || count > machine.devices.len() {
        return Err(CudaError::INVALID_VALUE);
    }
    let list = list.array(count)?;
    let bytes = aligned(bytes)?;
    let snapshot = machine.space.snapshot();
    let pieces = cover(&snapshot, pointer, bytes).ok_or(CudaError::INVALID_VALUE)?;
    let grants: Vec<(usize, u32)> = list
        .iter()
        .map(|item| Ok((device_at(machine, item.location)?, item.flags)))
        .collect::<Result<_>>()?;
    for piece in pieces {
        let owner = piece.physical().ok_or(CudaError::INVALID_VALUE)?.device;
        for &(device, flags) in &grants {
            if !matches!(flags, 0 | 1 | 3) {
                return Err(CudaError::INVALID_VALUE);
            }
            if device != owner && !crate::device::are_peers(machine, device, owner) {
                return Err(CudaError::INVALID_DEVICE);
            }
            piece.set_access(device, flags & 1 != 0, flags & 2 != 0);
        }
    }
    machine.clock.host_works(machine.config.profile.access_us * pieces.len() as f64);
    Ok(())
}

pub fn get_access(machine: &Machine, flags: Out<u64>, location: In<MemLocation>, pointer: u64) -> Result {
    let device = device_at(machine, location.get()?)?;
    let snapshot = machine.space.snapshot();
    let mapping = find(&snapshot, pointer).ok_or(CudaError::INVALID_VALUE)?;
    flags.set(u64::from(mapping.may_read(device)) | u64::from(mapping.may_write(device)) << 1)
}

/// What follows when memory stops being where it was: the checks hear of it.
fn note_removed(machine: &Machine, removed: &[Arc<Mapping>], how: &str) {
    for mapping in removed {
        if machine.config.checks.busy {
            machine.in_flight.report_uses(machine, mapping, how);
        }
        if machine.config.checks.unordered {
            machine.writers.forget(mapping.start, mapping.end());
        }
    }
}

/// Frees what `cuMemAlloc` handed out on a device, and its arrays.
pub fn free_all(machine: &Machine, device: usize) {
    crate::array::free_all(machine, device);
    for mapping in machine.space.snapshot().iter() {
        if mapping.is_plain() && mapping.physical().is_some_and(|physical| physical.device == device) {
            drop(machine.space.remove(mapping.start, |other| other.id == mapping.id));
        }
    }
}
