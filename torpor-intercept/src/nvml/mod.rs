//! A small NVML for programs that have none of their own: PyTorch asks it for the number of devices, and who else uses
//! one when memory runs out; NCCL, also in a group of one, for the links of its device; monitors for what its users see. A
//! program finds it as `libnvidia-ml.so.1` where `torpor run` puts that name.
//!
//! It knows the function's devices, whichever of them `CUDA_VISIBLE_DEVICES` shows, and of them what CUDA says too, with the function's
//! limit as their memory. Asking makes
//! the process no client of CUDA: a server may look after its device and then fork workers that use it.
//!
//! Types and codes: `nvml.h`, "NVML API reference". What is not here cannot be found by `dlsym`, which programs expect of
//! old versions, but not all: NCCL 2.28 calls what it did not find, and monitors take a missing name for a broken driver. So
//! all is here
//! that NVIDIA's package for Python knows (nvidia-ml-py 13).

mod affinity;
mod error;
mod hardware;
mod identity;
mod library;
mod links;
mod memory;
mod processes;
mod sensors;
mod unsupported;

use crate::core::{CudaResult, DeviceInfo, surveyed_devices};
use crate::driver::argument::{Out, put_text};
use error::{ARGUMENT_VERSION_MISMATCH, INSUFFICIENT_SIZE, INVALID_ARGUMENT, UNINITIALIZED, UNKNOWN};
use std::ffi::{c_char, c_void};
use torpor_proto::command::MOST_DEVICES;

/// Every exported name but `nvmlErrorString`.
pub fn names() -> Vec<&'static str> {
    let families = [
        library::NAMES,
        identity::NAMES,
        memory::NAMES,
        processes::NAMES,
        hardware::NAMES,
        links::NAMES,
        affinity::NAMES,
        sensors::NAMES,
    ];
    families.concat()
}

/// Every exported name of what is always said to be not supported.
pub fn unsupported_names() -> Vec<&'static str> {
    unsupported::NAMES.concat()
}

/// The addresses that stand for devices.
static DEVICES: [u8; MOST_DEVICES as usize] = [0; MOST_DEVICES as usize];

/// The device of this number, once NVML is initialised.
fn handle(number: usize) -> Result<*const c_void, i32> {
    known()?.get(number).ok_or(INVALID_ARGUMENT)?;
    Ok((&raw const DEVICES).cast::<u8>().wrapping_add(number).cast())
}

/// Where the device behind a handle is in the list.
fn number(device: *const c_void) -> Result<usize, i32> {
    let number = device.addr().wrapping_sub((&raw const DEVICES).addr());
    if number < known()?.len() { Ok(number) } else { Err(INVALID_ARGUMENT) }
}

type Outcome = Result<(), i32>;

/// The devices, once NVML is initialised. There is one at least.
fn known() -> Result<&'static [DeviceInfo], i32> {
    if !library::is_initialized() {
        return Err(UNINITIALIZED);
    }
    surveyed_devices().map_err(|_| UNKNOWN)
}

fn device(device: *const c_void) -> Result<&'static DeviceInfo, i32> {
    known()?.get(number(device)?).ok_or(INVALID_ARGUMENT)
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

/// Looks whether a structure that begins with its version is the one of this number: size, and number in the highest byte.
fn expect_version<T>(place: Out<T>, number: u32) -> Outcome {
    let version = place.cast::<u32>().get().map_err(|_| INVALID_ARGUMENT)?;
    if version == version_of::<T>(number) { Ok(()) } else { Err(ARGUMENT_VERSION_MISMATCH) }
}

const fn version_of<T>(number: u32) -> u32 {
    size_of::<T>() as u32 | number << 24
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
