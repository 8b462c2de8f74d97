//! Modules: code on a device, with its variables in that device's memory.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

use crate::abi::{In, Out, Text};
use crate::code::Code;
use crate::context;
use crate::error::{CudaError, Result};
use crate::function::{Function, Settings};
use crate::lock;
use crate::machine::{Machine, machine};
use crate::memory::{Mapping, allocate};

/// Between the addresses of functions. Nothing is there: kernels are executed from their text.
const FUNCTION_BYTES: u64 = 128;

/// A module.
#[derive(Debug)]
pub struct Module {
    /// The device it is on.
    pub device: usize,
    /// What it holds.
    pub code: Arc<Code>,
    /// What was set for each kernel.
    pub settings: Vec<Mutex<Settings>>,
    /// Address of each variable.
    addresses: Vec<u64>,
    /// Where its functions begin.
    entries: u64,
    memory: Option<Arc<Mapping>>,
    /// Handles of the functions somebody asked for, by position.
    functions: Mutex<HashMap<usize, u64>>,
}

impl Module {
    /// Loads code onto a device: its variables get memory and their first contents.
    pub fn new(machine: &Machine, device: usize, code: Arc<Code>) -> Result<Arc<Self>> {
        let mut offsets = Vec::new();
        let mut total = 0_usize;
        for global in &code.globals {
            let align = global.align.max(1).checked_next_power_of_two().ok_or(CudaError::INVALID_IMAGE)?;
            let offset = total.checked_next_multiple_of(align).ok_or(CudaError::INVALID_IMAGE)?;
            total = offset.checked_add(global.bytes).ok_or(CudaError::INVALID_IMAGE)?;
            offsets.push(offset);
        }
        let memory = match total {
            0 => None,
            total => Some(allocate::on_device(machine, device, total as u64)?),
        };
        let base = memory.as_ref().map_or(0, |mapping| mapping.start);
        let addresses: Vec<u64> = offsets.iter().map(|&offset| base + offset as u64).collect();
        let settings = code.kernels.iter().map(|_| Mutex::default()).collect();
        let entries = machine.functions_end.fetch_add(code.functions.len() as u64 * FUNCTION_BYTES, Relaxed);
        let functions = Mutex::default();
        let module = Self { device, code, settings, addresses, entries, memory, functions };
        module.initialise(total)?;
        Ok(Arc::new(module))
    }

    /// Writes the first contents of all variables.
    fn initialise(&self, total: usize) -> Result {
        let Some(mapping) = &self.memory else { return Ok(()) };
        let mut contents = vec![0; total];
        for (global, &address) in self.code.globals.iter().zip(&self.addresses) {
            let offset = (address - mapping.start) as usize;
            let place = contents.get_mut(offset..offset + global.bytes).ok_or(CudaError::INVALID_IMAGE)?;
            let init = global.init.get(..global.bytes.min(global.init.len())).unwrap_or_default();
            place[..init.len()].copy_from_slice(init);
            for (at, symbol, addend) in &global.relocations {
                let target =
                    self.address_of(symbol).ok_or(CudaError::INVALID_IMAGE)?.wrapping_add_signed(*addend);
                let word = at
                    .checked_add(8)
                    .and_then(|end| place.get_mut(*at..end))
                    .ok_or(CudaError::INVALID_IMAGE)?;
                word.copy_from_slice(&target.to_le_bytes());
            }
        }
        if let Some(physical) = mapping.physical() {
            physical.prepare(mapping.base(), 0, total as u64, true);
            if let Some(written) = &physical.written {
                written.mark(0, total as u64);
            }
        }
        // SAFETY: the mapping has at least `total` bytes, nobody else knows it yet, and this object keeps it.
        unsafe { mapping.base().copy_from_nonoverlapping(contents.as_ptr(), total) };
        Ok(())
    }

    /// Where kernels find a variable.
    fn seen_at(&self, name: &str) -> Option<u64> {
        let index = self.code.global(name)?;
        self.code.globals[index].address.or_else(|| self.addresses.get(index).copied())
    }

    /// What kernels take for the address of a variable or a function.
    pub fn address_of(&self, name: &str) -> Option<u64> {
        let function = || self.code.functions.iter().position(|function| function == name);
        self.seen_at(name).or_else(|| Some(self.entries + function()? as u64 * FUNCTION_BYTES))
    }

    /// The handle of its kernel at a position.
    pub fn function(self: &Arc<Self>, machine: &Machine, index: usize) -> u64 {
        let make = || machine.functions.add(Arc::new(Function { module: Arc::clone(self), index }));
        *lock(&self.functions).entry(index).or_insert_with(make)
    }

    /// Gives a variable's address and size to a caller.
    pub fn put_global(&self, pointer: Out<u64>, bytes: Out<usize>, name: &str) -> Result {
        let index = self.code.global(name).ok_or(CudaError::NOT_FOUND)?;
        pointer.set_if_wanted(self.addresses[index]);
        bytes.set_if_wanted(self.code.globals[index].bytes);
        Ok(())
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        if let (Some(mapping), Ok(machine)) = (&self.memory, machine()) {
            // Gone already if its context was released first.
            drop(machine.space.remove(mapping.start, |other| other.id == mapping.id));
        }
    }
}

pub fn load(machine: &Machine, module: Out<u64>, image: In<u8>) -> Result {
    let context = context::current(machine)?;
    if module.is_null() {
        return Err(CudaError::INVALID_VALUE);
    }
    let code = Code::load(image.pointer(), machine.config.profile.architecture.sm(), &machine.log)?;
    module.set(machine.modules.add(Module::new(machine, context.device, Arc::new(code))?))
}

/// Waits for every kernel on its device, as hardware does.
pub fn unload(machine: &Machine, module: u64) -> Result {
    context::synchronize_primary(machine, machine.modules.find(module)?.device)?;
    let module = machine.modules.remove(module)?;
    machine.functions.remove_all(|function| Arc::ptr_eq(&function.module, &module));
    Ok(())
}

pub fn function(machine: &Machine, function: Out<u64>, module: u64, name: Text) -> Result {
    let module = machine.modules.find(module)?;
    let index = module.code.kernel(&name.get()?).ok_or(CudaError::NOT_FOUND)?;
    function.set(module.function(machine, index))
}

pub fn function_count(machine: &Machine, count: Out<u32>, module: u64) -> Result {
    count.set(machine.modules.find(module)?.code.kernels.len() as u32)
}

pub fn enumerate(machine: &Machine, functions: Out<u64>, room: u32, module: u64) -> Result {
    let module = machine.modules.find(module)?;
    let count = module.code.kernels.len().min(room as usize);
    functions.set_all(room as usize, (0..count).map(|index| module.function(machine, index)))
}

pub fn global(machine: &Machine, pointer: Out<u64>, bytes: Out<usize>, module: u64, name: Text) -> Result {
    machine.modules.find(module)?.put_global(pointer, bytes, &name.get()?)
}
