//! Libraries: code without a context, whose kernels exist on every device.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::abi::{In, Out, Text};
use crate::code::Code;
use crate::context;
use crate::error::{CudaError, Result};
use crate::function::Kernel;
use crate::lock;
use crate::machine::Machine;
use crate::module::Module;

/// A library.
#[derive(Debug)]
pub struct Library {
    handle: u64,
    /// What it holds.
    pub code: Arc<Code>,
    /// Handles of the kernels somebody asked for, by position.
    kernels: Mutex<HashMap<usize, u64>>,
    /// Its module on each device where something of it was used.
    instances: Mutex<HashMap<usize, (u64, Arc<Module>)>>,
}

impl Library {
    /// Its module on a device.
    pub fn instance(&self, machine: &Machine, device: usize) -> Result<Arc<Module>> {
        self.instance_with_handle(machine, device).map(|entry| entry.1)
    }

    fn instance_with_handle(&self, machine: &Machine, device: usize) -> Result<(u64, Arc<Module>)> {
        let mut instances = lock(&self.instances);
        if let Some((handle, module)) = instances.get(&device) {
            return Ok((*handle, Arc::clone(module)));
        }
        let module = Module::new(machine, device, Arc::clone(&self.code))?;
        let handle = machine.modules.add(Arc::clone(&module));
        instances.insert(device, (handle, Arc::clone(&module)));
        Ok((handle, module))
    }

    fn kernel(self: &Arc<Self>, machine: &Machine, index: usize) -> u64 {
        let make = || machine.kernels.add(Arc::new(Kernel { library: Arc::clone(self), index }));
        *lock(&self.kernels).entry(index).or_insert_with(make)
    }
}

pub fn load(machine: &Machine, library: Out<u64>, image: In<u8>) -> Result {
    if library.is_null() {
        return Err(CudaError::INVALID_VALUE);
    }
    let code = Code::load(image.pointer(), machine.config.profile.architecture.sm(), &machine.log)?;
    let make = |handle| {
        let code = Arc::new(code);
        Arc::new(Library { handle, code, kernels: Mutex::default(), instances: Mutex::default() })
    };
    library.set(machine.libraries.add_with(make).0)
}

/// Waits for every kernel on the devices that it is on, as hardware does.
pub fn unload(machine: &Machine, library: u64) -> Result {
    let devices: Vec<usize> = lock(&machine.libraries.find(library)?.instances).keys().copied().collect();
    for device in devices {
        context::synchronize_primary(machine, device)?;
    }
    let library = machine.libraries.remove(library)?;
    machine.kernels.remove_all(|kernel| Arc::ptr_eq(&kernel.library, &library));
    for (handle, module) in std::mem::take(&mut *lock(&library.instances)).into_values() {
        machine.functions.remove_all(|function| Arc::ptr_eq(&function.module, &module));
        drop(machine.modules.remove(handle));
    }
    Ok(())
}

pub fn kernel(machine: &Machine, kernel: Out<u64>, library: u64, name: Text) -> Result {
    let library = machine.libraries.find(library)?;
    let index = library.code.kernel(&name.get()?).ok_or(CudaError::NOT_FOUND)?;
    kernel.set(library.kernel(machine, index))
}

pub fn kernel_count(machine: &Machine, count: Out<u32>, library: u64) -> Result {
    count.set(machine.libraries.find(library)?.code.kernels.len() as u32)
}

pub fn enumerate(machine: &Machine, kernels: Out<u64>, room: u32, library: u64) -> Result {
    let library = machine.libraries.find(library)?;
    let count = library.code.kernels.len().min(room as usize);
    kernels.set_all(room as usize, (0..count).map(|index| library.kernel(machine, index)))
}

pub fn global(machine: &Machine, pointer: Out<u64>, bytes: Out<usize>, library: u64, name: Text) -> Result {
    let library = machine.libraries.find(library)?;
    let name = name.get()?;
    library.code.global(&name).ok_or(CudaError::NOT_FOUND)?;
    let module = library.instance(machine, context::current(machine)?.device)?;
    module.put_global(pointer, bytes, &name)
}

pub fn module(machine: &Machine, module: Out<u64>, library: u64) -> Result {
    let library = machine.libraries.find(library)?;
    module.set(library.instance_with_handle(machine, context::current(machine)?.device)?.0)
}

/// `cuKernelGetLibrary`.
pub fn of_kernel(machine: &Machine, library: Out<u64>, kernel: u64) -> Result {
    library.set(machine.kernels.find(kernel)?.library.handle)
}
