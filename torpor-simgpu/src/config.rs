//! What the environment says about the simulated machine. Read once, at the first `cuInit`.

use std::path::PathBuf;

use crate::check::Checks;
use crate::fault::{FaultError, Faults};
use crate::profile::{Profile, ProfileError};

/// How many devices are simulated at most.
pub const MAX_DEVICES: usize = 64;

/// Whether operations take the time that the profile says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeMode {
    /// Operations run as fast as the CPU can; events carry the times that the profile computes.
    Virtual,
    /// An operation completes no sooner than the profile says.
    Real,
}

/// What a launch of a kernel does that exists only as a cubin, which the simulator cannot execute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CubinKernels {
    /// It returns `CUDA_ERROR_NOT_SUPPORTED`.
    Refused,
    /// It takes the time of the shortest kernel and writes nothing: what a program computes is wrong, what it does on the
    /// CPU is as on hardware.
    Skipped,
}

/// Which handles texture and surface objects have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectHandles {
    /// The lowest that is free in the word of the last one, or in the next word, as drivers do.
    InWord,
    /// One that was never given out.
    New,
}

/// The whole configuration.
#[derive(Debug)]
pub struct Config {
    /// Number of devices, `TORPOR_SIMGPU_DEVICES`.
    pub devices: usize,
    /// What each device is, `TORPOR_SIMGPU_PROFILE` and `TORPOR_SIMGPU_MEMORY`.
    pub profile: Profile,
    /// `TORPOR_SIMGPU_TIME`.
    pub time: TimeMode,
    /// `TORPOR_SIMGPU_CUBINS`.
    pub cubins: CubinKernels,
    /// `TORPOR_SIMGPU_HANDLES`.
    pub object_handles: ObjectHandles,
    /// `TORPOR_SIMGPU_FAULTS`.
    pub faults: Faults,
    /// `TORPOR_SIMGPU_CHECKS`.
    pub checks: Checks,
    /// `TORPOR_SIMGPU_LOG`.
    pub log: Option<PathBuf>,
}

/// Why the environment was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The number of devices.
    #[error("TORPOR_SIMGPU_DEVICES is `{0}`: give a number from 0 to {MAX_DEVICES}")]
    Devices(String),
    /// The memory size.
    #[error("TORPOR_SIMGPU_MEMORY is `{0}`: give bytes with a unit, such as 512MiB or 16GiB")]
    Memory(String),
    /// The kind of time.
    #[error("TORPOR_SIMGPU_TIME is `{0}`: give `virtual` or `real`")]
    Time(String),
    /// What becomes of cubins' kernels.
    #[error("TORPOR_SIMGPU_CUBINS is `{0}`: give `refuse` or `skip`")]
    Cubins(String),
    /// The handles.
    #[error("TORPOR_SIMGPU_HANDLES is `{0}`: give `in-word` or `new`")]
    Handles(String),
    /// The checks.
    #[error("TORPOR_SIMGPU_CHECKS names `{0}`: give a list of {names}, or `all`", names = Checks::NAMES.join(", "))]
    Checks(String),
    /// The profile.
    #[error("TORPOR_SIMGPU_PROFILE: {0}")]
    Profile(#[from] ProfileError),
    /// The faults.
    #[error("TORPOR_SIMGPU_FAULTS: {0}")]
    Faults(#[from] FaultError),
}

impl Config {
    /// The configuration that the process environment describes.
    pub fn from_environment() -> Result<Self, ConfigError> {
        Self::from_variables(&|name| std::env::var(name).ok())
    }

    /// The configuration that `variable` describes; what it does not name or leaves empty has its default.
    pub fn from_variables(variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let set = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let mut profile = Profile::parse(set("TORPOR_SIMGPU_PROFILE").as_deref().unwrap_or("h200"))?;
        let devices = match set("TORPOR_SIMGPU_DEVICES") {
            None => 1,
            Some(text) => match text.trim().parse() {
                Ok(count) if count <= MAX_DEVICES => count,
                _ => return Err(ConfigError::Devices(text)),
            },
        };
        if let Some(text) = set("TORPOR_SIMGPU_MEMORY") {
            profile.memory_bytes =
                bytes_with_unit(&text).filter(|&bytes| bytes > 0).ok_or(ConfigError::Memory(text))?;
        }
        let time = match set("TORPOR_SIMGPU_TIME").as_deref().map(str::trim) {
            None | Some("virtual") => TimeMode::Virtual,
            Some("real") => TimeMode::Real,
            Some(other) => return Err(ConfigError::Time(other.to_owned())),
        };
        let cubins = match set("TORPOR_SIMGPU_CUBINS").as_deref().map(str::trim) {
            None | Some("refuse") => CubinKernels::Refused,
            Some("skip") => CubinKernels::Skipped,
            Some(other) => return Err(ConfigError::Cubins(other.to_owned())),
        };
        let object_handles = match set("TORPOR_SIMGPU_HANDLES").as_deref().map(str::trim) {
            None | Some("in-word") => ObjectHandles::InWord,
            Some("new") => ObjectHandles::New,
            Some(other) => return Err(ConfigError::Handles(other.to_owned())),
        };
        let checks = Checks::parse(set("TORPOR_SIMGPU_CHECKS").as_deref().unwrap_or(""))
            .map_err(ConfigError::Checks)?;
        let faults = Faults::parse(set("TORPOR_SIMGPU_FAULTS").as_deref().unwrap_or(""))?;
        let log = set("TORPOR_SIMGPU_LOG").map(PathBuf::from);
        Ok(Self { devices, profile, time, cubins, object_handles, faults, checks, log })
    }
}

/// `512MiB`, `16 GiB`, `2GB`, `4096`: bytes with an optional binary or decimal unit.
pub fn bytes_with_unit(text: &str) -> Option<u64> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let scale: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return None,
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(scale);
    }
    let bytes = number.parse::<f64>().ok()? * scale as f64;
    (bytes >= 0.0 && bytes < u64::MAX as f64).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::from_variables(&|name| {
            pairs.iter().find(|pair| name.ends_with(pair.0)).map(|pair| pair.1.to_owned())
        })
    }

    #[test]
    fn units() {
        assert_eq!(bytes_with_unit("4096"), Some(4096));
        assert_eq!(bytes_with_unit(" 1.5 GiB "), Some(3 << 29));
        assert_eq!(bytes_with_unit("2GB"), Some(2_000_000_000));
        for wrong in ["", "GiB", "1 parsec", "-1", "99999999999TiB", "nan"] {
            assert_eq!(bytes_with_unit(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn defaults_are_one_h200_in_virtual_time() {
        let config = config(&[]).expect("defaults");
        assert_eq!((config.devices, config.time), (1, TimeMode::Virtual));
        assert_eq!(config.profile.name, "NVIDIA H200");
        assert_eq!(config.profile.memory_bytes >> 30, 141);
        assert_eq!((config.checks, config.cubins), (Checks::default(), CubinKernels::Refused));
    }

    #[test]
    fn wrong_values_are_named() {
        let message = config(&[("DEVICES", "many")]).expect_err("not a number").to_string();
        assert!(message.contains("many"), "{message}");
        assert!(matches!(config(&[("MEMORY", "lots")]), Err(ConfigError::Memory(_))));
        assert!(matches!(config(&[("TIME", "soon")]), Err(ConfigError::Time(_))));
        assert!(matches!(config(&[("CUBINS", "melt")]), Err(ConfigError::Cubins(_))));
        assert!(matches!(config(&[("HANDLES", "some")]), Err(ConfigError::Handles(_))));
        assert!(matches!(config(&[("CHECKS", "all,luck")]), Err(ConfigError::Checks(_))));
        assert!(matches!(config(&[("PROFILE", "abacus")]), Err(ConfigError::Profile(_))));
        assert!(matches!(config(&[("FAULTS", "launch")]), Err(ConfigError::Faults(_))));
    }
}
