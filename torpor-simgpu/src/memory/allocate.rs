//! `cuMemAlloc` and `cuMemFree`: device memory at an address that the driver chooses.

use std::sync::Arc;

use super::mapping::Mapping;
use super::physical::Physical;
use super::{find, note_removed};
use crate::abi::Out;
use crate::context;
use crate::error::{CudaError, Result};
use crate::machine::Machine;

/// Device memory for a program, or for a module's variables.
pub fn on_device(machine: &Machine, device: usize, bytes: u64) -> Result<Arc<Mapping>> {
    let checks = &machine.config.checks;
    let budget = &machine.devices.get(device).ok_or(CudaError::INVALID_DEVICE)?.budget;
    let physical = Physical::new(device, budget, bytes, checks.uninitialised)?;
    machine.space.map_anywhere(physical, bytes, checks.freed)
}

pub fn allocate(machine: &Machine, pointer: Out<u64>, bytes: usize) -> Result {
    let context = context::current(machine)?;
    if bytes == 0 || pointer.is_null() {
        return Err(CudaError::INVALID_VALUE);
    }
    machine.clock.host_works(machine.config.profile.create_us);
    pointer.set(on_device(machine, context.device, bytes as u64)?.start)
}

pub fn free(machine: &Machine, pointer: u64) -> Result {
    if pointer == 0 {
        return Ok(());
    }
    let context = context::current(machine)?;
    let snapshot = machine.space.snapshot();
    let mapping = find(&snapshot, pointer).filter(|mapping| mapping.start == pointer && mapping.is_plain());
    let mapping = Arc::clone(mapping.ok_or(CudaError::INVALID_VALUE)?);
    drop(snapshot);
    note_removed(machine, std::slice::from_ref(&mapping), "freed");
    // As the driver does: nothing that was issued before can lose its memory.
    context.synchronize(machine)?;
    machine.space.remove(pointer, |other| other.id == mapping.id).map(drop)
}

pub fn info(machine: &Machine, free: Out<usize>, total: Out<usize>) -> Result {
    let budget = &machine.devices[context::current(machine)?.device].budget;
    free.set_if_wanted(budget.free() as usize);
    total.set_if_wanted(budget.total() as usize);
    Ok(())
}

pub fn address_range(machine: &Machine, base: Out<u64>, bytes: Out<usize>, pointer: u64) -> Result {
    let snapshot = machine.space.snapshot();
    let mapping = find(&snapshot, pointer).ok_or(CudaError::NOT_FOUND)?;
    base.set_if_wanted(mapping.start);
    bytes.set_if_wanted(mapping.asked_bytes as usize);
    Ok(())
}
