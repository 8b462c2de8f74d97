//! What kind of device it is and how it is set up, as far as CUDA knows.

use super::error::{INVALID_ARGUMENT, NOT_FOUND, UNKNOWN};
use super::{Outcome, attribute, device, expect_version, nvml_functions, put, sensors};
use crate::driver::argument::Out;
use std::ffi::c_void;

// CUdevice_attribute (cuda.h); clocks in kHz.
const CLOCK_RATE: i32 = 13;
const MULTIPROCESSORS: i32 = 16;
const COMPUTE_MODE: i32 = 20;
const ECC_ENABLED: i32 = 32;
const MEMORY_CLOCK_RATE: i32 = 36;
const MEMORY_BUS_WIDTH: i32 = 37;
const PAGEABLE_MEMORY_ACCESS: i32 = 88;

/// `NVML_CLOCK_MEM`, `NVML_CLOCK_VIDEO`; the others are those of the multiprocessors.
const MEMORY_CLOCK: u32 = 2;
const LAST_CLOCK: u32 = 3;

/// `nvmlDeviceArchitecture_t` of a compute capability.
fn architecture((major, minor): (i32, i32)) -> u32 {
    match (major, minor) {
        (7, 5) => 6,     // Turing
        (7, _) => 5,     // Volta
        (8, 9) => 8,     // Ada
        (8, _) => 7,     // Ampere
        (9, _) => 9,     // Hopper
        (10.., _) => 10, // Blackwell
        _ => u32::MAX,
    }
}

/// The greatest rate, in MHz.
fn greatest_clock(device: *const c_void, kind: u32, rate: Out<u32>) -> Outcome {
    let known = self::device(device)?;
    if kind > LAST_CLOCK {
        return Err(INVALID_ARGUMENT);
    }
    let which = if kind == MEMORY_CLOCK { MEMORY_CLOCK_RATE } else { CLOCK_RATE };
    put(rate, attribute(known.attribute(which))? / 1000)
}

/// The rate now, in MHz; the greatest one, where NVML does not say.
fn clock(device: *const c_void, kind: u32, rate: Out<u32>) -> Outcome {
    self::device(device)?;
    match sensors::clock_now(kind) {
        Some(now) if kind <= LAST_CLOCK => put(rate, now),
        _ => greatest_clock(device, kind, rate),
    }
}

fn put_both(both: [Out<u32>; 2], value: u32) -> Outcome {
    both.into_iter().try_for_each(|place| put(place, value))
}

nvml_functions! {
    fn nvmlDeviceGetCudaComputeCapability(device: *const c_void, major: Out<i32>, minor: Out<i32>) {
        let (found_major, found_minor) = self::device(device)?.compute_capability().ok_or(UNKNOWN)?;
        put(major, found_major)?;
        put(minor, found_minor)
    }

    fn nvmlDeviceGetArchitecture(device: *const c_void, architecture: Out<u32>) {
        let capability = self::device(device)?.compute_capability().ok_or(UNKNOWN)?;
        put(architecture, self::architecture(capability))
    }

    /// `NVML_BRAND_NVIDIA`
    fn nvmlDeviceGetBrand(device: *const c_void, brand: Out<u32>) {
        self::device(device)?;
        put(brand, 14)
    }

    fn nvmlDeviceGetMaxClockInfo | nvmlDeviceGetApplicationsClock | nvmlDeviceGetDefaultApplicationsClock
        (device: *const c_void, kind: u32, rate: Out<u32>)
    {
        greatest_clock(device, kind, rate)
    }

    fn nvmlDeviceGetClockInfo(device: *const c_void, kind: u32, rate: Out<u32>) {
        clock(device, kind, rate)
    }

    fn nvmlDeviceGetClock(device: *const c_void, kind: u32, which: u32, rate: Out<u32>) {
        /// `NVML_CLOCK_ID_CURRENT`
        const CURRENT: u32 = 0;
        if which == CURRENT { clock(device, kind, rate) } else { greatest_clock(device, kind, rate) }
    }

    fn nvmlDeviceGetMemoryBusWidth(device: *const c_void, bits: Out<u32>) {
        put(bits, attribute(self::device(device)?.attribute(MEMORY_BUS_WIDTH))?)
    }

    /// 128 of each multiprocessor since Ampere (CUDA programming guide), but 64 of the A100's.
    fn nvmlDeviceGetNumGpuCores(device: *const c_void, cores: Out<u32>) {
        let known = self::device(device)?;
        let each = if known.compute_capability() == Some((8, 0)) { 64 } else { 128 };
        put(cores, attribute(known.attribute(MULTIPROCESSORS))?.saturating_mul(each))
    }

    /// `nvmlComputeMode_t` has CUDA's numbers.
    fn nvmlDeviceGetComputeMode(device: *const c_void, mode: Out<u32>) {
        put(mode, attribute(self::device(device)?.attribute(COMPUTE_MODE))?)
    }

    fn nvmlDeviceGetEccMode(device: *const c_void, current: Out<u32>, pending: Out<u32>) {
        put_both([current, pending], attribute(self::device(device)?.attribute(ECC_ENABLED))?)
    }

    /// On: a server keeps the driver loaded.
    fn nvmlDeviceGetPersistenceMode(device: *const c_void, mode: Out<u32>) {
        self::device(device)?;
        put(mode, 1)
    }

    fn nvmlDeviceGetMigMode(device: *const c_void, current: Out<u32>, pending: Out<u32>) {
        self::device(device)?;
        put_both([current, pending], 0)
    }

    /// What these devices are not and do not have; chip-to-chip links are those of other processors.
    fn nvmlDeviceIsMigDeviceHandle | nvmlDeviceGetMaxMigDeviceCount | nvmlDeviceGetVirtualizationMode
        | nvmlDeviceGetDisplayMode | nvmlDeviceGetDisplayActive | nvmlDeviceGetMultiGpuBoard
        | nvmlDeviceGetC2cModeInfoV
        (device: *const c_void, answer: Out<u32>)
    {
        self::device(device)?;
        put(answer, 0)
    }

    /// `NVML_DEVICE_ADDRESSING_MODE_NONE` or `…_HMM`: whether kernels reach memory of `malloc`.
    fn nvmlDeviceGetAddressingMode(device: *const c_void, mode: Out<[u32; 2]>) {
        let known = self::device(device)?;
        expect_version(mode, 1)?;
        put(mode.within(size_of::<u32>()), attribute(known.attribute(PAGEABLE_MEMORY_ACCESS))?)
    }

    fn nvmlDeviceGetMigDeviceHandleByIndex(device: *const c_void, _index: u32, _handle: Out<*const c_void>) {
        self::device(device)?;
        Err(NOT_FOUND)
    }
}
