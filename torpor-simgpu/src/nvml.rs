//! NVML of the simulated machine: the sensors and links of GPUs that sit idle. Their load is not told: the process that asks is not the
//! one whose kernels run.

use std::ffi::{CStr, c_char, c_uint};

use crate::config::Config;
use crate::device::uuid_of;

// nvmlReturn_t
const SUCCESS: i32 = 0;
const INVALID_ARGUMENT: i32 = 2;
const NOT_FOUND: i32 = 6;
const UNKNOWN: i32 = 999;

/// Idle temperature, power and power limit of an H200.
const CELSIUS: c_uint = 31;
const MILLIWATTS: c_uint = 76_000;
const LIMIT_MILLIWATTS: c_uint = 700_000;

/// Its link on the bus.
const PCIE_GENERATION: c_uint = 5;
const PCIE_LANES: c_uint = 16;

/// As NVML has it: `GPU-` and hexadecimal digits in groups.
fn uuid_text(ordinal: usize) -> String {
    let digits: String = uuid_of(ordinal).iter().map(|byte| format!("{byte:02x}")).collect();
    let groups = [0..8, 8..12, 12..16, 16..20, 20..32].map(|group| &digits[group]);
    format!("GPU-{}", groups.join("-"))
}

/// Writes a number.
///
/// # Safety
/// The place is null or writable.
unsafe fn put<T>(place: *mut T, value: T) -> i32 {
    if place.is_null() {
        return INVALID_ARGUMENT;
    }
    // SAFETY: not null, so the caller promises that it is writable.
    unsafe { place.write(value) };
    SUCCESS
}

/// `nvmlInit_v2`
#[unsafe(no_mangle)]
pub extern "C" fn nvmlInit_v2() -> i32 {
    if Config::from_environment().is_ok() { SUCCESS } else { UNKNOWN }
}

/// `nvmlShutdown`
#[unsafe(no_mangle)]
pub extern "C" fn nvmlShutdown() -> i32 {
    SUCCESS
}

/// `nvmlDeviceGetHandleByUUID`: the handle is the ordinal, plus 1.
///
/// # Safety
/// As `nvml.h` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByUUID(uuid: *const c_char, device: *mut usize) -> i32 {
    if uuid.is_null() {
        return INVALID_ARGUMENT;
    }
    // SAFETY: not null, so a string (nvml.h).
    let uuid = unsafe { CStr::from_ptr(uuid) }.to_string_lossy();
    let devices = Config::from_environment().map_or(0, |config| config.devices);
    match (0..devices).find(|&ordinal| uuid_text(ordinal) == uuid) {
        // SAFETY: the caller's place.
        Some(ordinal) => unsafe { put(device, ordinal + 1) },
        None => NOT_FOUND,
    }
}

/// `nvmlDeviceGetTemperature`
///
/// # Safety
/// As `nvml.h` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTemperature(
    _device: usize,
    _sensor: c_uint,
    celsius: *mut c_uint,
) -> i32 {
    // SAFETY: the caller's place.
    unsafe { put(celsius, CELSIUS) }
}

/// `nvmlDeviceGetPowerUsage`
///
/// # Safety
/// As `nvml.h` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetPowerUsage(_device: usize, milliwatts: *mut c_uint) -> i32 {
    // SAFETY: the caller's place.
    unsafe { put(milliwatts, MILLIWATTS) }
}

/// `nvmlDeviceGetEnforcedPowerLimit`
///
/// # Safety
/// As `nvml.h` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetEnforcedPowerLimit(_device: usize, milliwatts: *mut c_uint) -> i32 {
    // SAFETY: the caller's place.
    unsafe { put(milliwatts, LIMIT_MILLIWATTS) }
}

/// `nvmlDeviceGetCurrPcieLinkGeneration`
///
/// # Safety
/// As `nvml.h` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCurrPcieLinkGeneration(_device: usize, generation: *mut c_uint) -> i32 {
    // SAFETY: the caller's place.
    unsafe { put(generation, PCIE_GENERATION) }
}

/// `nvmlDeviceGetMaxPcieLinkGeneration`
///
/// # Safety
/// As `nvml.h` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMaxPcieLinkGeneration(_device: usize, generation: *mut c_uint) -> i32 {
    // SAFETY: the caller's place.
    unsafe { put(generation, PCIE_GENERATION) }
}

/// `nvmlDeviceGetCurrPcieLinkWidth`
///
/// # Safety
/// As `nvml.h` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCurrPcieLinkWidth(_device: usize, lanes: *mut c_uint) -> i32 {
    // SAFETY: the caller's place.
    unsafe { put(lanes, PCIE_LANES) }
}

/// `nvmlDeviceGetMaxPcieLinkWidth`
///
/// # Safety
/// As `nvml.h` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMaxPcieLinkWidth(_device: usize, lanes: *mut c_uint) -> i32 {
    // SAFETY: the caller's place.
    unsafe { put(lanes, PCIE_LANES) }
}
