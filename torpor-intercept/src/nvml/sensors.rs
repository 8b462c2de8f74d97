//! What the node's NVML says of the GPU at the moment. Other functions use the GPU too: load and power are everybody's.

use super::error::{INVALID_ARGUMENT, NOT_SUPPORTED, UNKNOWN};
use super::{Outcome, device, nvml_functions, put};
use crate::core::surveyed_sensors;
use crate::driver::argument::Out;
use std::ffi::c_void;
use torpor_proto::control::client::Sensors;

/// `nvmlUtilization_t`
#[repr(C)]
pub(super) struct Utilization {
    gpu: u32,
    memory: u32,
}

/// `nvmlTemperature_v1_t`
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Temperature {
    version: u32,
    sensor: u32,
    celsius: i32,
}

/// `NVML_MAX_GPU_UTILIZATIONS`: the GPU, its memory, and parts of which nothing is told.
const UTILIZATIONS: usize = 8;

/// `nvmlGpuDynamicPstatesInfo_t`
#[repr(C)]
pub(super) struct DynamicStates {
    flags: u32,
    /// Each: whether it is known, percent, and from where on the performance state changes, which is not told.
    utilizations: [[u32; 4]; UTILIZATIONS],
}

/// `NVML_TEMPERATURE_GPU`
const GPU_SENSOR: u32 = 0;

/// Puts one of the sensors' numbers.
fn tell<T>(device: *const c_void, place: Out<T>, which: impl FnOnce(&Sensors) -> Option<T>) -> Outcome {
    self::device(device)?;
    put(place, which(&surveyed_sensors().map_err(|_| UNKNOWN)?).ok_or(NOT_SUPPORTED)?)
}

/// `nvmlClockType_t`
pub(super) fn clock_now(kind: u32) -> Option<u32> {
    let sensors = surveyed_sensors().ok()?;
    match kind {
        0 => sensors.graphics_clock_mhz,
        1 => sensors.multiprocessor_clock_mhz,
        2 => sensors.memory_clock_mhz,
        _ => sensors.video_clock_mhz,
    }
}

nvml_functions! {
    fn nvmlDeviceGetUtilizationRates(device: *const c_void, place: Out<Utilization>) {
        tell(device, place, |sensors| {
            Some(Utilization { gpu: sensors.gpu_percent?, memory: sensors.memory_percent? })
        })
    }

    fn nvmlDeviceGetTemperature(device: *const c_void, sensor: u32, celsius: Out<u32>) {
        if sensor != GPU_SENSOR {
            return Err(INVALID_ARGUMENT);
        }
        tell(device, celsius, |sensors| sensors.temperature_celsius)
    }

    fn nvmlDeviceGetTemperatureV(device: *const c_void, place: Out<Temperature>) {
        self::device(device)?;
        let asked = place.get().map_err(|_| INVALID_ARGUMENT)?;
        if asked.sensor != GPU_SENSOR {
            return Err(INVALID_ARGUMENT);
        }
        tell(device, place, |sensors| {
            let celsius = sensors.temperature_celsius?.cast_signed();
            Some(Temperature { celsius, ..asked })
        })
    }

    fn nvmlDeviceGetPowerUsage(device: *const c_void, milliwatts: Out<u32>) {
        tell(device, milliwatts, |sensors| sensors.power_milliwatts)
    }

    fn nvmlDeviceGetEnforcedPowerLimit | nvmlDeviceGetPowerManagementLimit
        | nvmlDeviceGetPowerManagementDefaultLimit (device: *const c_void, milliwatts: Out<u32>)
    {
        tell(device, milliwatts, |sensors| sensors.power_limit_milliwatts)
    }

    fn nvmlDeviceGetFanSpeed(device: *const c_void, percent: Out<u32>) {
        tell(device, percent, |sensors| sensors.fan_percent)
    }

    fn nvmlDeviceGetPerformanceState | nvmlDeviceGetPowerState (device: *const c_void, state: Out<u32>) {
        tell(device, state, |sensors| sensors.performance_state)
    }

    fn nvmlDeviceGetDynamicPstatesInfo(device: *const c_void, place: Out<DynamicStates>) {
        tell(device, place, |sensors| {
            let mut utilizations = [[0; 4]; UTILIZATIONS];
            utilizations[0] = [1, sensors.gpu_percent?, 0, 0];
            utilizations[1] = [1, sensors.memory_percent?, 0, 0];
            Some(DynamicStates { flags: 0, utilizations })
        })
    }

    fn nvmlDeviceGetCurrPcieLinkGeneration(device: *const c_void, generation: Out<u32>) {
        tell(device, generation, |sensors| sensors.pcie_generation)
    }

    fn nvmlDeviceGetCurrPcieLinkWidth(device: *const c_void, lanes: Out<u32>) {
        tell(device, lanes, |sensors| sensors.pcie_lanes)
    }

    fn nvmlDeviceGetMaxPcieLinkGeneration(device: *const c_void, generation: Out<u32>) {
        tell(device, generation, |sensors| sensors.greatest_pcie_generation)
    }

    fn nvmlDeviceGetMaxPcieLinkWidth(device: *const c_void, lanes: Out<u32>) {
        tell(device, lanes, |sensors| sensors.greatest_pcie_lanes)
    }

    fn nvmlDeviceGetCurrentClocksThrottleReasons | nvmlDeviceGetCurrentClocksEventReasons
        (device: *const c_void, reasons: Out<u64>)
    {
        tell(device, reasons, |sensors| sensors.clock_reasons)
    }

    fn nvmlDeviceGetSupportedClocksThrottleReasons | nvmlDeviceGetSupportedClocksEventReasons
        (device: *const c_void, reasons: Out<u64>)
    {
        tell(device, reasons, |sensors| sensors.supported_clock_reasons)
    }

    fn nvmlDeviceGetTotalEnergyConsumption(device: *const c_void, millijoules: Out<u64>) {
        tell(device, millijoules, |sensors| sensors.energy_millijoules)
    }
}
