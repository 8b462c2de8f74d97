//! Page-locked host memory. Its address is the same for the host and for every device.
//!
//! Nothing is locked in fact: the simulator's "DMA" is the CPU.

use super::mapping::Backing;
use super::{find, note_removed};
use crate::abi::Out;
use crate::context;
use crate::error::{CudaError, Result};
use crate::machine::Machine;

/// All flags of `cuMemHostAlloc`: portable, device map, write combined.
const ALLOC_FLAGS: u32 = 7;
/// All flags of `cuMemHostRegister`: portable, device map, input/output memory, read only.
const REGISTER_FLAGS: u32 = 15;

pub fn allocate(machine: &Machine, pointer: Out<u64>, bytes: usize, flags: u32) -> Result {
    context::current(machine)?;
    if bytes == 0 || flags & !ALLOC_FLAGS != 0 || pointer.is_null() {
        return Err(CudaError::INVALID_VALUE);
    }
    let page = (bytes as u64).checked_next_multiple_of(4096).ok_or(CudaError::OUT_OF_MEMORY)?;
    pointer.set(machine.space.add_host(None, page, flags)?.start)
}

pub fn free(machine: &Machine, pointer: u64) -> Result {
    context::current(machine)?.synchronize(machine)?;
    let removed = machine
        .space
        .remove(pointer, |mapping| matches!(mapping.backing, Backing::Host { allocated: true, .. }))?;
    note_removed(machine, &[removed], "freed");
    Ok(())
}

pub fn register(machine: &Machine, pointer: u64, bytes: usize, flags: u32) -> Result {
    context::current(machine)?;
    let end = pointer.checked_add(bytes as u64);
    if pointer == 0 || bytes == 0 || flags & !REGISTER_FLAGS != 0 || end.is_none() {
        return Err(CudaError::INVALID_VALUE);
    }
    machine.space.add_host(Some(pointer), bytes as u64, flags).map(drop)
}

pub fn unregister(machine: &Machine, pointer: u64) -> Result {
    context::current(machine)?.synchronize(machine)?;
    let registered = machine
        .space
        .remove(pointer, |mapping| matches!(mapping.backing, Backing::Host { allocated: false, .. }));
    registered.map(drop).map_err(|_| CudaError::HOST_MEMORY_NOT_REGISTERED)
}

pub fn device_pointer(machine: &Machine, device_pointer: Out<u64>, pointer: u64, flags: u32) -> Result {
    let snapshot = machine.space.snapshot();
    let mapping = find(&snapshot, pointer).filter(|mapping| mapping.physical().is_none());
    if flags != 0 || mapping.is_none() {
        return Err(CudaError::INVALID_VALUE);
    }
    device_pointer.set(pointer)
}

pub fn flags(machine: &Machine, flags: Out<u32>, pointer: u64) -> Result {
    let snapshot = machine.space.snapshot();
    match find(&snapshot, pointer).map(|mapping| &mapping.backing) {
        Some(Backing::Host { flags: value, .. }) => flags.set(*value),
        _ => Err(CudaError::INVALID_VALUE),
    }
}
