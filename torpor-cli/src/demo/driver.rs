//! The few functions of the CUDA driver that a demo function calls, from the library that the dynamic linker knows.
//!
//! Source of the signatures and of the symbols' versions: cuda.h 13.0. Handles and addresses are kept as plain numbers.

use libloading::Library;
use std::error::Error;
use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_uint, c_void};
use std::ptr;

/// What a function of the driver says no with.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// There is no driver.
    #[error(
        "the CUDA driver cannot be loaded: {0}; is libcuda.so.1 installed, or Torpor's library preloaded?"
    )]
    Library(String),
    /// A call failed.
    #[error("{call} fails with {name} ({code})")]
    Call {
        /// The function.
        call: &'static str,
        /// The name of the code, if the driver knows it.
        name: String,
        /// The `CUresult`.
        code: c_int,
    },
}

impl From<libloading::Error> for DriverError {
    /// With what the dynamic linker says, which the error itself keeps to its source.
    fn from(error: libloading::Error) -> Self {
        Self::Library(error.source().map_or_else(|| error.to_string(), ToString::to_string))
    }
}

macro_rules! driver {
    ($($name:ident: $symbol:literal ($($argument:ty),*);)*) => {
        /// The driver.
        pub struct Driver {
            $($name: unsafe extern "C" fn($($argument),*) -> c_int,)*
            /// Keeps the functions above loaded.
            _library: Library,
        }

        impl Driver {
            /// Loads a driver and initializes it.
            ///
            /// # Errors
            /// [`DriverError`].
            pub fn open(library: &OsStr) -> Result<Self, DriverError> {
                // SAFETY: what runs at loading is the driver's business, and this program exists to run a driver.
                let library = unsafe { Library::new(library) }?;
                $(
                    // SAFETY: cuda.h declares the symbol with this signature.
                    let $name = *unsafe { library.get(concat!($symbol, "\0")) }?;
                )*
                let driver = Self { $($name,)* _library: library };
                // SAFETY: no pointer is passed.
                driver.check("cuInit", unsafe { (driver.init)(0) })?;
                Ok(driver)
            }
        }
    };
}

driver! {
    init: "cuInit" (c_uint);
    get_error_name: "cuGetErrorName" (c_int, *mut *const c_char);
    device_get: "cuDeviceGet" (*mut c_int, c_int);
    primary_retain: "cuDevicePrimaryCtxRetain" (*mut usize, c_int);
    primary_release: "cuDevicePrimaryCtxRelease_v2" (c_int);
    set_current: "cuCtxSetCurrent" (usize);
    stream_create: "cuStreamCreate" (*mut usize, c_uint);
    stream_synchronize: "cuStreamSynchronize" (usize);
    stream_destroy: "cuStreamDestroy_v2" (usize);
    event_create: "cuEventCreate" (*mut usize, c_uint);
    event_record: "cuEventRecord" (usize, usize);
    event_elapsed: "cuEventElapsedTime" (*mut f32, usize, usize);
    event_destroy: "cuEventDestroy_v2" (usize);
    module_load: "cuModuleLoadData" (*mut usize, *const c_void);
    module_function: "cuModuleGetFunction" (*mut usize, usize, *const c_char);
    module_unload: "cuModuleUnload" (usize);
    allocate: "cuMemAlloc_v2" (*mut u64, usize);
    free: "cuMemFree_v2" (u64);
    copy_in: "cuMemcpyHtoDAsync_v2" (u64, *const c_void, usize, usize);
    copy_out: "cuMemcpyDtoHAsync_v2" (*mut c_void, u64, usize, usize);
    launch: "cuLaunchKernel" (
        usize, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, usize, *mut *mut c_void, *mut *mut c_void
    );
}

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

impl Driver {
    /// Makes the primary context of the first device this thread's.
    pub fn use_first_device(&self) -> Result<c_int, DriverError> {
        let (mut device, mut context) = (0, 0);
        // SAFETY: the outputs are ours.
        self.check("cuDeviceGet", unsafe { (self.device_get)(&raw mut device, 0) })?;
        // SAFETY: as above.
        let retained = unsafe { (self.primary_retain)(&raw mut context, device) };
        self.check("cuDevicePrimaryCtxRetain", retained)?;
        // SAFETY: the context was just retained.
        self.check("cuCtxSetCurrent", unsafe { (self.set_current)(context) })?;
        Ok(device)
    }

    /// Gives the primary context back.
    pub fn release_device(&self, device: c_int) -> Result<(), DriverError> {
        // SAFETY: no pointer is passed.
        self.check("cuDevicePrimaryCtxRelease", unsafe { (self.primary_release)(device) })
    }

    /// A stream that does not wait for the default stream.
    pub fn create_stream(&self) -> Result<usize, DriverError> {
        const CU_STREAM_NON_BLOCKING: c_uint = 1;
        // SAFETY: the function writes one handle.
        self.handle("cuStreamCreate", |out| unsafe { (self.stream_create)(out, CU_STREAM_NON_BLOCKING) })
    }

    /// Waits until a stream has done everything.
    pub fn synchronize(&self, stream: usize) -> Result<(), DriverError> {
        // SAFETY: no pointer is passed; the driver checks handles that it gave.
        self.check("cuStreamSynchronize", unsafe { (self.stream_synchronize)(stream) })
    }

    /// Ends a stream.
    pub fn destroy_stream(&self, stream: usize) -> Result<(), DriverError> {
        // SAFETY: as above.
        self.check("cuStreamDestroy", unsafe { (self.stream_destroy)(stream) })
    }

    /// An event that takes the time.
    pub fn create_event(&self) -> Result<usize, DriverError> {
        // SAFETY: the function writes one handle.
        self.handle("cuEventCreate", |out| unsafe { (self.event_create)(out, 0) })
    }

    /// Lets an event happen when a stream gets there.
    pub fn record(&self, event: usize, stream: usize) -> Result<(), DriverError> {
        // SAFETY: no pointer is passed; the driver checks handles that it gave.
        self.check("cuEventRecord", unsafe { (self.event_record)(event, stream) })
    }

    /// Milliseconds between two events that have happened.
    pub fn elapsed_ms(&self, from: usize, to: usize) -> Result<f32, DriverError> {
        let mut milliseconds = 0.0;
        // SAFETY: the output is ours.
        let code = unsafe { (self.event_elapsed)(&raw mut milliseconds, from, to) };
        self.check("cuEventElapsedTime", code).map(|()| milliseconds)
    }

    /// Ends an event.
    pub fn destroy_event(&self, event: usize) -> Result<(), DriverError> {
        // SAFETY: no pointer is passed.
        self.check("cuEventDestroy", unsafe { (self.event_destroy)(event) })
    }

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

    /// Device memory.
    pub fn allocate(&self, bytes: usize) -> Result<u64, DriverError> {
        let mut address = 0;
        // SAFETY: the output is ours.
        let code = unsafe { (self.allocate)(&raw mut address, bytes) };
        self.check("cuMemAlloc", code).map(|()| address)
    }

    /// Frees device memory.
    pub fn free(&self, address: u64) -> Result<(), DriverError> {
        // SAFETY: no host pointer is passed.
        self.check("cuMemFree", unsafe { (self.free)(address) })
    }

    /// Copies to the device, in a stream's order.
    ///
    /// # Safety
    /// The numbers must stay where they are until the stream got there.
    pub unsafe fn copy_in(&self, to: u64, from: &[f32], stream: usize) -> Result<(), DriverError> {
        // SAFETY: the caller keeps the promise above, and the length is the slice's.
        let code = unsafe { (self.copy_in)(to, from.as_ptr().cast(), size_of_val(from), stream) };
        self.check("cuMemcpyHtoDAsync", code)
    }

    /// Copies from the device, in a stream's order.
    ///
    /// # Safety
    /// The numbers must stay where they are, and nobody may touch them, until the stream got there.
    pub unsafe fn copy_out(&self, to: &mut [f32], from: u64, stream: usize) -> Result<(), DriverError> {
        // SAFETY: the caller keeps the promise above, and the length is the slice's.
        let code = unsafe { (self.copy_out)(to.as_mut_ptr().cast(), from, size_of_val(to), stream) };
        self.check("cuMemcpyDtoHAsync", code)
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
        arguments: &[Argument],
    ) -> Result<(), DriverError> {
        let mut words: Vec<u64> = arguments.iter().map(|argument| argument.word()).collect();
        let mut pointers: Vec<*mut c_void> =
            words.iter_mut().map(|word| ptr::from_mut(word).cast()).collect();
        let LaunchShape { grid: [gx, gy, gz], block: [bx, by, bz], shared_bytes } = shape;
        // SAFETY: there is a pointer for each parameter, by the caller's promise; the driver reads through them before
        // it returns.
        let code = unsafe {
            (self.launch)(
                function,
                gx,
                gy,
                gz,
                bx,
                by,
                bz,
                shared_bytes,
                stream,
                pointers.as_mut_ptr(),
                ptr::null_mut(),
            )
        };
        self.check("cuLaunchKernel", code)
    }

    fn handle(
        &self,
        call: &'static str,
        create: impl FnOnce(*mut usize) -> c_int,
    ) -> Result<usize, DriverError> {
        let mut handle = 0;
        self.check(call, create(&raw mut handle)).map(|()| handle)
    }

    fn check(&self, call: &'static str, code: c_int) -> Result<(), DriverError> {
        if code == 0 {
            return Ok(());
        }
        let mut name = ptr::null();
        // SAFETY: the output is ours.
        let known = unsafe { (self.get_error_name)(code, &raw mut name) } == 0 && !name.is_null();
        // SAFETY: what the driver names a code by is constant text with a zero at its end.
        let name = known.then(|| unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned());
        Err(DriverError::Call { call, name: name.unwrap_or_else(|| "an unknown code".into()), code })
    }
}
