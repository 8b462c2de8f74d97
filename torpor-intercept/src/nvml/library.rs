//! Beginning and end, and versions.

use super::error::{DRIVER_NOT_LOADED, NOT_FOUND, UNINITIALIZED, UNKNOWN};
use super::{known, nvml_functions, put, put_name};
use crate::core::surveyed_devices;
use crate::driver::argument::Out;
use std::ffi::c_char;
use std::sync::atomic::{AtomicU32, Ordering};

/// How often it was initialised and not shut down.
static USERS: AtomicU32 = AtomicU32::new(0);

pub(super) fn is_initialized() -> bool {
    USERS.load(Ordering::Relaxed) > 0
}

fn initialize() -> Result<(), i32> {
    surveyed_devices().map_err(|_| DRIVER_NOT_LOADED)?;
    USERS.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// The first driver with a version of CUDA. Source: "CUDA Toolkit and Corresponding Driver Versions" in the release notes.
fn driver_release(cuda_version: i32) -> &'static str {
    match cuda_version {
        13_000.. => "580.65.06",
        12_090.. => "575.51.03",
        12_080.. => "570.26",
        12_060.. => "560.28.03",
        12_050.. => "555.42.02",
        12_040.. => "550.54.14",
        _ => "525.60.13",
    }
}

/// `cuDriverGetVersion` of the driver below.
fn cuda_version() -> Result<i32, i32> {
    Ok(known()?.first().ok_or(UNKNOWN)?.driver_version)
}

nvml_functions! {
    fn nvmlInit | nvmlInit_v2 () {
        initialize()
    }

    fn nvmlInitWithFlags(_flags: u32) {
        initialize()
    }

    fn nvmlShutdown() {
        let one_less = |users: u32| users.checked_sub(1);
        USERS.try_update(Ordering::Relaxed, Ordering::Relaxed, one_less).map(drop).map_err(|_| UNINITIALIZED)
    }

    fn nvmlSystemGetCudaDriverVersion | nvmlSystemGetCudaDriverVersion_v2 (version: Out<i32>) {
        put(version, cuda_version()?)
    }

    fn nvmlSystemGetDriverVersion(version: Out<c_char>, room: u32) {
        put_name(version, room, driver_release(cuda_version()?))
    }

    fn nvmlSystemGetNVMLVersion(version: Out<c_char>, room: u32) {
        let cuda_version = cuda_version()?;
        put_name(version, room, &format!("{}.{}", cuda_version / 1000, driver_release(cuda_version)))
    }

    fn nvmlSystemGetProcessName(process: u32, name: Out<c_char>, room: u32) {
        known()?;
        let program = std::fs::read_link(format!("/proc/{process}/exe")).map_err(|_| NOT_FOUND)?;
        put_name(name, room, &program.to_string_lossy())
    }

    /// Units of the S-class systems of old.
    fn nvmlUnitGetCount(count: Out<u32>) {
        known()?;
        put(count, 0)
    }
}
