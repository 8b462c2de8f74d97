//! What NVML says of the node's GPUs now: programs ask it for load, temperature and power, and their containers may have no NVML.
//!
//! A number that NVML does not give is left out. Reading takes microseconds to milliseconds, on a thread that may wait.

use crate::server::probe::UsableDriver;
use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::time::timeout;
use torpor_proto::control::client::Sensors;

/// The system's library.
const LIBRARY: &str = "libnvidia-ml.so.1";

/// How long a program waits for NVML, which hangs with a GPU that does.
const PATIENCE: Duration = Duration::from_millis(500);

/// NVLinks of a GPU, at most.
const MOST_NVLINKS: u32 = 18;

/// So many threads wait for NVML at most.
const MOST_READERS: usize = 8;

/// NVML, loaded when it is first asked.
#[derive(Debug)]
pub struct SensorReader {
    library: PathBuf,
    readers: AtomicUsize,
    nvml: OnceLock<Option<Nvml>>,
}

impl SensorReader {
    /// The system's, or that of the simulated machine, which is in its driver.
    #[must_use]
    pub fn new(driver: &UsableDriver) -> Self {
        Self::of(if driver.simulated { driver.library.clone() } else { LIBRARY.into() })
    }

    fn of(library: PathBuf) -> Self {
        Self { library, readers: AtomicUsize::new(0), nvml: OnceLock::new() }
    }

    /// What it says of the GPU with this UUID (16 bytes); nothing, if it does not say so soon.
    pub async fn read(self: &Arc<Self>, uuid: Vec<u8>) -> Sensors {
        let reader = self.clone();
        let read = tokio::task::spawn_blocking(move || {
            let readers = reader.readers.fetch_add(1, Ordering::Relaxed);
            let sensors = if readers < MOST_READERS { reader.read_now(&uuid) } else { Sensors::default() };
            reader.readers.fetch_sub(1, Ordering::Relaxed);
            sensors
        });
        timeout(PATIENCE, read).await.ok().and_then(Result::ok).unwrap_or_default()
    }

    /// How many NVLinks of a GPU are up; nothing, if it does not say so soon.
    pub async fn nvlinks(self: &Arc<Self>, uuid: Vec<u8>) -> Option<u32> {
        let reader = self.clone();
        let count = move || {
            let device = reader.nvml()?.device_by_uuid(uuid_text(&uuid)).ok()?;
            let up: Vec<bool> =
                (0..MOST_NVLINKS).map_while(|link| device.link_wrapper_for(link).is_active().ok()).collect();
            (!up.is_empty()).then(|| up.into_iter().map(u32::from).sum())
        };
        timeout(PATIENCE, tokio::task::spawn_blocking(count)).await.ok().and_then(Result::ok).flatten()
    }

    fn read_now(&self, uuid: &[u8]) -> Sensors {
        let device = self.nvml().and_then(|nvml| nvml.device_by_uuid(uuid_text(uuid)).ok());
        let Some(device) = device else { return Sensors::default() };
        let load = device.utilization_rates().ok();
        Sensors {
            gpu_percent: load.as_ref().map(|load| load.gpu),
            memory_percent: load.map(|load| load.memory),
            temperature_celsius: device.temperature(TemperatureSensor::Gpu).ok(),
            power_milliwatts: device.power_usage().ok(),
            power_limit_milliwatts: device.enforced_power_limit().ok(),
            fan_percent: device.fan_speed(0).ok(),
            performance_state: device.performance_state().ok().map(|state| state.as_c()),
            energy_millijoules: device.total_energy_consumption().ok(),
            graphics_clock_mhz: device.clock_info(Clock::Graphics).ok(),
            multiprocessor_clock_mhz: device.clock_info(Clock::SM).ok(),
            memory_clock_mhz: device.clock_info(Clock::Memory).ok(),
            video_clock_mhz: device.clock_info(Clock::Video).ok(),
            pcie_generation: device.current_pcie_link_gen().ok(),
            pcie_lanes: device.current_pcie_link_width().ok(),
            greatest_pcie_generation: device.max_pcie_link_gen().ok(),
            greatest_pcie_lanes: device.max_pcie_link_width().ok(),
            clock_reasons: device.current_throttle_reasons().ok().map(|reasons| reasons.bits()),
            supported_clock_reasons: device.supported_throttle_reasons().ok().map(|reasons| reasons.bits()),
        }
    }

    fn nvml(&self) -> Option<&Nvml> {
        let load = || {
            let loaded = Nvml::builder().lib_path(self.library.as_os_str()).init();
            loaded
                .inspect_err(|error| {
                    tracing::info!("programs are told no load and no temperature of GPUs: NVML: {error}")
                })
                .ok()
        };
        self.nvml.get_or_init(load).as_ref()
    }
}

/// As NVML has it: `GPU-` and hexadecimal digits in groups.
fn uuid_text(uuid: &[u8]) -> String {
    let digits: String = uuid.iter().map(|byte| format!("{byte:02x}")).collect();
    let groups = [0..8, 8..12, 12..16, 16..20, 20..32].map(|group| digits.get(group).unwrap_or_default());
    format!("GPU-{}", groups.join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_are_as_nvml_writes_them() {
        assert_eq!(uuid_text(b"torpor simgpu 00"), "GPU-746f7270-6f72-2073-696d-677075203030");
    }

    #[test]
    fn without_nvml_nothing_is_said() {
        let reader = SensorReader::of("/nonexistent/libnvidia-ml.so.1".into());
        assert_eq!(reader.read_now(&[0; 16]), Sensors::default());
    }
}
