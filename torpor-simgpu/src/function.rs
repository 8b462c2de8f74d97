//! Kernels and functions: names, attributes, parameters.
//!
//! A `CUkernel` is a library's kernel on no device in particular, a `CUfunction` a module's kernel on its device. Launches
//! and occupancy take either.

use std::ffi::c_char;
use std::sync::Arc;

use crate::abi::Out;
use crate::code::KernelInfo;
use crate::context;
use crate::error::{CudaError, Result};
use crate::library::Library;
use crate::lock;
use crate::machine::Machine;
use crate::module::Module;

/// A kernel of a library.
#[derive(Debug)]
pub struct Kernel {
    /// The library.
    pub library: Arc<Library>,
    /// The position in its code.
    pub index: usize,
}

/// A kernel of a module.
#[derive(Debug)]
pub struct Function {
    /// The module.
    pub module: Arc<Module>,
    /// The position in its code.
    pub index: usize,
}

/// What was set for a kernel on a device; none where nothing was.
#[derive(Debug, Default, Clone, Copy)]
pub struct Settings {
    /// By attribute number.
    values: [Option<i32>; 16],
}

/// Shared memory that every kernel may use without asking.
const SHARED_BY_DEFAULT: u32 = 48 << 10;
/// `CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES`.
const MAX_DYNAMIC_SHARED: usize = 8;
/// `CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED`.
const NON_PORTABLE_CLUSTERS: usize = 14;

impl Function {
    /// The kernel's name and needs.
    pub fn info(&self) -> &KernelInfo {
        &self.module.code.kernels[self.index]
    }

    /// Dynamic shared memory that a launch may ask for.
    pub fn max_dynamic_shared(&self) -> u32 {
        let set = lock(&self.module.settings[self.index]).values[MAX_DYNAMIC_SHARED];
        let default = SHARED_BY_DEFAULT.saturating_sub(self.info().static_shared_bytes);
        set.and_then(|value| u32::try_from(value).ok()).unwrap_or(default)
    }

    /// Whether somebody has said how much dynamic shared memory launches may ask for.
    pub fn has_asked_for_shared(&self) -> bool {
        lock(&self.module.settings[self.index]).values[MAX_DYNAMIC_SHARED].is_some()
    }

    /// Whether clusters may be larger than every device with clusters can run.
    pub fn allows_non_portable_clusters(&self) -> bool {
        lock(&self.module.settings[self.index]).values[NON_PORTABLE_CLUSTERS].is_some_and(|value| value != 0)
    }

    /// The clusters of launches that do not say of what size.
    pub fn required_cluster(&self) -> [u32; 3] {
        let settings = lock(&self.module.settings[self.index]);
        [11, 12, 13]
            .map(|attribute| settings.values[attribute].map_or(1, |value| value.max(1).unsigned_abs()))
    }

    fn attribute(&self, machine: &Machine, attribute: u32) -> Result<i32> {
        let info = self.info();
        let number = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
        let sm = number(machine.config.profile.architecture.sm());
        let set = |default: i32| {
            lock(&self.module.settings[self.index]).values[attribute as usize].unwrap_or(default)
        };
        Ok(match attribute {
            0 => number(info.max_threads_per_block),
            1 => number(info.static_shared_bytes),
            2 => 0,
            3 => number(info.local_bytes),
            4 => number(info.registers),
            5 | 6 => sm,
            7 => 0,
            8 => number(self.max_dynamic_shared()),
            9 => set(-1),
            10..=15 => set(0),
            _ => return Err(CudaError::INVALID_VALUE),
        })
    }

    fn set_attribute(&self, machine: &Machine, attribute: u32, value: i32) -> Result {
        let largest = machine.config.profile.architecture.shared_per_block_optin;
        let room = largest.saturating_sub(i32::try_from(self.info().static_shared_bytes).unwrap_or(i32::MAX));
        let allowed = match attribute {
            8 => 0..=room,
            9 => -1..=100,
            11..=13 => 0..=i32::MAX,
            14 => 0..=1,
            15 => 0..=2,
            _ => return Err(CudaError::INVALID_VALUE),
        };
        if !allowed.contains(&value) {
            return Err(CudaError::INVALID_VALUE);
        }
        lock(&self.module.settings[self.index]).values[attribute as usize] = Some(value);
        Ok(())
    }
}

impl Kernel {
    fn info(&self) -> &KernelInfo {
        &self.library.code.kernels[self.index]
    }

    fn on(&self, machine: &Machine, device: usize) -> Result<Function> {
        Ok(Function { module: self.library.instance(machine, device)?, index: self.index })
    }
}

/// The function behind a `CUfunction` or, for the current device, a `CUkernel`.
pub fn find(machine: &Machine, handle: u64) -> Result<Arc<Function>> {
    if let Ok(function) = machine.functions.find(handle) {
        return Ok(function);
    }
    let kernel = machine.kernels.find(handle)?;
    Ok(Arc::new(kernel.on(machine, context::current(machine)?.device)?))
}

fn parameter(info: &KernelInfo, index: usize, offset: Out<usize>, bytes: Out<usize>) -> Result {
    let &(at, size) = info.parameters.get(index).ok_or(CudaError::INVALID_VALUE)?;
    offset.set(at)?;
    bytes.set_if_wanted(size);
    Ok(())
}

pub fn attribute(machine: &Machine, value: Out<i32>, attribute: u32, function: u64) -> Result {
    value.set(machine.functions.find(function)?.attribute(machine, attribute)?)
}

pub fn set_attribute(machine: &Machine, function: u64, attribute: u32, value: i32) -> Result {
    machine.functions.find(function)?.set_attribute(machine, attribute, value)
}

/// Its code is there already, and its stack takes no memory.
pub fn load(machine: &Machine, function: u64) -> Result {
    machine.functions.find(function).map(drop)
}

pub fn parameter_info(
    machine: &Machine,
    function: u64,
    index: usize,
    offset: Out<usize>,
    bytes: Out<usize>,
) -> Result {
    parameter(machine.functions.find(function)?.info(), index, offset, bytes)
}

pub fn name(machine: &Machine, name: Out<*const c_char>, function: u64) -> Result {
    // Valid until the module is unloaded, as in CUDA.
    name.set(machine.functions.find(function)?.info().name.as_ptr())
}

/// `cuFuncGetModule`.
pub fn module(machine: &Machine, module: Out<u64>, function: u64) -> Result {
    let function = machine.functions.find(function)?;
    let handle = machine.modules.handle_of(&function.module).ok_or(CudaError::INVALID_HANDLE)?;
    module.set(handle)
}

pub fn of_kernel(machine: &Machine, function: Out<u64>, kernel: u64) -> Result {
    let kernel = machine.kernels.find(kernel)?;
    let found = kernel.on(machine, context::current(machine)?.device)?;
    function.set(found.module.function(machine, found.index))
}

pub fn kernel_attribute(
    machine: &Machine,
    value: Out<i32>,
    attribute: u32,
    kernel: u64,
    device: i32,
) -> Result {
    let device = machine.device(device)?.ordinal;
    value.set(machine.kernels.find(kernel)?.on(machine, device)?.attribute(machine, attribute)?)
}

pub fn set_kernel_attribute(
    machine: &Machine,
    attribute: u32,
    value: i32,
    kernel: u64,
    device: i32,
) -> Result {
    let device = machine.device(device)?.ordinal;
    machine.kernels.find(kernel)?.on(machine, device)?.set_attribute(machine, attribute, value)
}

pub fn kernel_parameter_info(
    machine: &Machine,
    kernel: u64,
    index: usize,
    offset: Out<usize>,
    bytes: Out<usize>,
) -> Result {
    parameter(machine.kernels.find(kernel)?.info(), index, offset, bytes)
}

pub fn kernel_name(machine: &Machine, name: Out<*const c_char>, kernel: u64) -> Result {
    name.set(machine.kernels.find(kernel)?.info().name.as_ptr())
}
