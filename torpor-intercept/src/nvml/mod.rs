//! A small NVML for programs that have none of their own: PyTorch asks it for the number of devices, and who else uses
//! one when memory runs out; NCCL, also in a group of one, for the links of its device; monitors for what its users see. A
//! program finds it as `libnvidia-ml.so.1` where `torpor run` puts that name.
//!
//! It knows one device, the function's, and of that what CUDA says too, with the function's limit as its memory. Asking makes
//! the process no client of CUDA: a server may look after its device and then fork workers that use it.
//!
//! Types and codes: `nvml.h`, "NVML API reference". What is not here cannot be found by `dlsym`, which programs expect of
//! old versions, but not all: NCCL 2.28 calls what it did not find. So all that it may call is here.

mod error;
mod hardware;
mod identity;
mod library;
mod links;
mod memory;
mod processes;
mod sensors;
mod unsupported;

use crate::core::{CudaResult, DeviceInfo, surveyed_device};
use crate::driver::argument::{Out, put_text};
use error::{INSUFFICIENT_SIZE, INVALID_ARGUMENT, UNINITIALIZED, UNKNOWN};
use std::ffi::{c_char, c_void};

/// Every exported name but `nvmlErrorString`.
pub fn names() -> Vec<&'static str> {
    let families = [
        library::NAMES,
        identity::NAMES,
        memory::NAMES,
        processes::NAMES,
        hardware::NAMES,
        links::NAMES,
        sensors::NAMES,
    ];
    families.concat()
}

/// Every exported name of what is always said to be not supported.
pub const UNSUPPORTED_NAMES: &[&str] = unsupported::NAMES;

/// The address that stands for the one device.
static DEVICE: u8 = 0;

fn handle() -> *const c_void {
    (&raw const DEVICE).cast()
}

type Outcome = Result<(), i32>;

/// The device, once NVML is initialised.
fn known() -> Result<&'static DeviceInfo, i32> {
    if !library::is_initialized() {
        return Err(UNINITIALIZED);
    }
    surveyed_device().map_err(|_| UNKNOWN)
}

fn device(device: *const c_void) -> Result<&'static DeviceInfo, i32> {
    let known = known()?;
    if device == handle() { Ok(known) } else { Err(INVALID_ARGUMENT) }
}

fn put<T>(place: Out<T>, value: T) -> Outcome {
    place.put(value).map_err(|_| INVALID_ARGUMENT)
}

fn put_name(place: Out<c_char>, room: u32, text: &str) -> Outcome {
    if room as usize <= text.len() {
        return Err(INSUFFICIENT_SIZE);
    }
    put_text(place, room.cast_signed(), text).map_err(|_| INVALID_ARGUMENT)
}

/// An attribute that CUDA knows, of this number in `CUdevice_attribute`.
fn attribute(known: CudaResult<i32>) -> Result<u32, i32> {
    known.map(i32::unsigned_abs).map_err(|_| error::NOT_SUPPORTED)
}

/// Defines exported functions; further names have the same ABI.
macro_rules! nvml_functions {
    ($($(#[$doc:meta])* fn $($name:ident)|+ ($($argument:tt)*) $body:block)*) => {
        $($crate::nvml::nvml_functions!(@each [$($name)+] ($($argument)*) $body);)*

        /// Every exported name of this family.
        pub(super) const NAMES: &[&str] = &[$($(stringify!($name),)+)*];
    };
    (@each [$($name:ident)+] $arguments:tt $body:block) => {
        const _: () = { $($crate::nvml::nvml_functions!(@one $name $arguments $body);)+ };
    };
    (@one $name:ident ($($argument:ident: $type:ty),* $(,)?) $body:block) => {
        /// See `nvml.h`.
        ///
        /// # Safety
        /// As `nvml.h` says.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($argument: $type),*) -> i32 {
            $crate::driver::guard(|| {
                let body = || -> $crate::nvml::Outcome { $body };
                body().err().unwrap_or($crate::nvml::error::SUCCESS)
            })
        }
    };
}
use nvml_functions;
