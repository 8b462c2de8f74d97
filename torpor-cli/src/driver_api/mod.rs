//! The few functions of the CUDA driver that this program calls, from the library that the dynamic linker knows.
//!
//! Source of the signatures and of the symbols' versions: cuda.h 13.0. Handles and addresses are kept as plain numbers.

mod kernel;
mod memory;
mod stream;

pub use kernel::{Argument, Arguments, LaunchShape};

use libloading::Library;
use std::error::Error;
use std::ffi::{CStr, OsStr, c_char, c_int, c_uchar, c_uint, c_void};
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
    device_get_name: "cuDeviceGetName" (*mut c_char, c_int, c_int);
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
    memory_info: "cuMemGetInfo_v2" (*mut usize, *mut usize);
    pinned_allocate: "cuMemHostAlloc" (*mut *mut c_void, usize, c_uint);
    copy_in: "cuMemcpyHtoDAsync_v2" (u64, *const c_void, usize, usize);
    copy_out: "cuMemcpyDtoHAsync_v2" (*mut c_void, u64, usize, usize);
    fill: "cuMemsetD8Async" (u64, c_uchar, usize, usize);
    launch: "cuLaunchKernel" (
        usize, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, usize, *mut *mut c_void, *mut *mut c_void
    );
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

    /// The name of a device, as its maker calls it.
    pub fn device_name(&self, device: c_int) -> Result<String, DriverError> {
        let mut name = [0; 256];
        // SAFETY: the driver writes at most as many bytes as it is told that there are.
        let code = unsafe { (self.device_get_name)(name.as_mut_ptr().cast(), name.len() as c_int, device) };
        self.check("cuDeviceGetName", code)?;
        Ok(CStr::from_bytes_until_nul(&name).unwrap_or_default().to_string_lossy().into_owned())
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
