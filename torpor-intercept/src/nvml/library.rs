//! Beginning and end, and versions.

use super::error::{DRIVER_NOT_LOADED, NOT_FOUND, UNINITIALIZED, UNKNOWN};
use super::{expect_version, known, nvml_functions, put, put_name};
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

/// `NVML_SYSTEM_DRIVER_VERSION_BUFFER_SIZE`
const BRANCH_BYTES: usize = 80;

/// `nvmlSystemDriverBranchInfo_v1_t`: the version and the name.
type DriverBranch = [u8; size_of::<u32>() + BRANCH_BYTES];

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

    /// The branch is named for the first number of its drivers.
    fn nvmlSystemGetDriverBranch(branch: Out<DriverBranch>, room: u32) {
        let (release, _) = driver_release(cuda_version()?).split_once('.').ok_or(UNKNOWN)?;
        expect_version(branch, 1)?;
        let room = room.min(BRANCH_BYTES as u32);
        put_name(branch.within(size_of::<u32>()), room, &format!("r{release}_00"))
    }

    /// Units of the S-class systems of old, and devices that the administrator hid from the driver.
    fn nvmlUnitGetCount | nvmlGetExcludedDeviceCount (count: Out<u32>) {
        known()?;
        put(count, 0)
    }
}
