//! Modules, kernels and launches.

use super::{Driver, DriverError};
use std::ffi::{CString, c_void};
use std::ptr;

/// The shape of a launch.
#[derive(Clone, Copy, Debug)]
pub struct LaunchShape {
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Dynamic shared memory of a block.
    pub shared_bytes: u32,
}

/// A kernel argument.
#[derive(Clone, Copy, Debug)]
pub enum Argument {
    /// A device address.
    Address(u64),
    /// An `int`.
    Int(i32),
    /// A `float`.
    Float(f32),
}

impl Argument {
    /// The value in the first bytes of a word, as a little-endian machine has it in memory.
    fn word(self) -> u64 {
        match self {
            Self::Address(address) => address,
            Self::Int(int) => u64::from(int.cast_unsigned()),
            Self::Float(float) => u64::from(float.to_bits()),
        }
    }
}

/// A kernel's arguments as `cuLaunchKernel` wants them, for any number of launches.
pub struct Arguments {
    /// Into `_words`.
    pointers: Vec<*mut c_void>,
    _words: Vec<u64>,
}

impl Arguments {
    /// One after the other.
    pub fn new(arguments: &[Argument]) -> Self {
        let mut words: Vec<u64> = arguments.iter().map(|argument| argument.word()).collect();
        let pointers = words.iter_mut().map(|word| ptr::from_mut(word).cast()).collect();
        Self { pointers, _words: words }
    }
}

impl Driver {
    /// Loads a module from PTX.
    pub fn load_module(&self, ptx: &str) -> Result<usize, DriverError> {
        let text = CString::new(ptx).unwrap_or_default();
        // SAFETY: PTX is text with a zero at its end.
        self.handle("cuModuleLoadData", |out| unsafe { (self.module_load)(out, text.as_ptr().cast()) })
    }

    /// A kernel of a module.
    pub fn function(&self, module: usize, name: &str) -> Result<usize, DriverError> {
        let name = CString::new(name).unwrap_or_default();
        // SAFETY: the name is text with a zero at its end.
        self.handle("cuModuleGetFunction", |out| unsafe {
            (self.module_function)(out, module, name.as_ptr())
        })
    }

    /// Unloads a module.
    pub fn unload_module(&self, module: usize) -> Result<(), DriverError> {
        // SAFETY: no pointer is passed.
        self.check("cuModuleUnload", unsafe { (self.module_unload)(module) })
    }

    /// Launches a kernel.
    ///
    /// # Safety
    /// The kernel must take these arguments, in number and kind.
    pub unsafe fn launch(
        &self,
        function: usize,
        shape: LaunchShape,
        stream: usize,
        arguments: &mut Arguments,
    ) -> Result<(), DriverError> {
        let LaunchShape { grid: [gx, gy, gz], block: [bx, by, bz], shared_bytes } = shape;
        let (parameters, extra) = (arguments.pointers.as_mut_ptr(), ptr::null_mut());
        // SAFETY: there is a pointer for each parameter, by the caller's promise; the driver reads through them before
        // it returns.
        let code = unsafe {
            (self.launch)(function, gx, gy, gz, bx, by, bz, shared_bytes, stream, parameters, extra)
        };
        self.check("cuLaunchKernel", code)
    }
}
