//! What a simulated device is and how long its work takes.
//!
//! A profile is a name plus overrides: `h200`, or `v100-pcie3:memory=16GiB,host_gbps=6`. Bandwidths are in GB/s (10⁹ bytes a
//! second), which is the same number in bytes per nanosecond; times are in microseconds.

use crate::attributes::Architecture;
use crate::config::bytes_with_unit;

/// How devices reach each other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Peers {
    /// They do not.
    None,
    /// Every pair at the same rate, in GB/s.
    Uniform(f64),
    /// The four V100s of the paper's machine: three pairs joined by two links, three by one. GB/s of one link.
    FourByTwoSpeeds(f64),
}

/// A device with its costs.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// What `cuDeviceGetName` says.
    pub name: &'static str,
    /// Device memory.
    pub memory_bytes: u64,
    /// What attributes follow from.
    pub architecture: Architecture,
    /// Host to device and back, page-locked memory, GB/s.
    pub host_gbps: f64,
    /// The same for pageable memory.
    pub pageable_gbps: f64,
    /// Devices `2n` and `2n + 1` share one link to the host.
    pub paired_host_links: bool,
    /// Between devices.
    pub peers: Peers,
    /// Writing device memory, GB/s. A copy within the device reads and writes, so it runs at half of it.
    pub memory_gbps: f64,
    /// Fixed part of every copy, µs.
    pub copy_us: f64,
    /// CPU time of a launch, µs.
    pub launch_us: f64,
    /// The shortest kernel, µs.
    pub kernel_us: f64,
    /// Thread instructions the device executes in a microsecond.
    pub instructions_per_us: f64,
    /// Creating the primary context, µs.
    pub context_us: f64,
    /// `cuMemCreate`, µs.
    pub create_us: f64,
    /// Giving access to one mapped piece, µs.
    pub access_us: f64,
    /// Unmapping one piece, µs.
    pub unmap_us: f64,
}

/// Why a profile was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// No profile of this name.
    #[error("there is no profile `{0}`: use h200, v100-pcie3 or small")]
    Unknown(String),
    /// An override that is none.
    #[error(
        "`{0}` is no override: write key=value with one of the keys of docs/simulated-gpu.md and a positive number"
    )]
    Override(String),
}

impl Profile {
    /// NVIDIA H200, measured; see the project's table of facts.
    pub fn h200() -> Self {
        Self {
            name: "NVIDIA H200",
            memory_bytes: 141 << 30,
            architecture: Architecture::hopper(),
            host_gbps: 55.2,
            pageable_gbps: 7.2,
            paired_host_links: false,
            peers: Peers::Uniform(390.0),
            memory_gbps: 4500.0,
            copy_us: 2.5,
            launch_us: 3.2,
            kernel_us: 2.0,
            instructions_per_us: 132.0 * 128.0 * 1980.0,
            context_us: 114_000.0,
            create_us: 9.0,
            access_us: 12.0,
            unmap_us: 8.0,
        }
    }

    /// One of the four V100s of the paper's machine: PCIe 3 links shared by pairs, NVLink pairs of two speeds.
    pub fn v100_pcie3() -> Self {
        Self {
            name: "Tesla V100-SXM2-32GB",
            memory_bytes: 32 << 30,
            architecture: Architecture::volta(),
            host_gbps: 12.0,
            pageable_gbps: 4.0,
            paired_host_links: true,
            peers: Peers::FourByTwoSpeeds(24.0),
            memory_gbps: 800.0,
            copy_us: 6.0,
            launch_us: 5.0,
            kernel_us: 3.0,
            instructions_per_us: 80.0 * 64.0 * 1530.0,
            context_us: 250_000.0,
            create_us: 9.0,
            access_us: 12.0,
            unmap_us: 8.0,
        }
    }

    /// A slow device of 256 MiB for tests: everything takes long enough to be seen.
    pub fn small() -> Self {
        Self {
            name: "Torpor simulated GPU",
            memory_bytes: 256 << 20,
            architecture: Architecture { multiprocessors: 4, ..Architecture::hopper() },
            host_gbps: 1.0,
            pageable_gbps: 0.5,
            peers: Peers::Uniform(4.0),
            memory_gbps: 20.0,
            copy_us: 10.0,
            launch_us: 5.0,
            kernel_us: 10.0,
            instructions_per_us: 10_000.0,
            context_us: 1_000.0,
            ..Self::h200()
        }
    }

    /// The profile that `text` describes: a name, then perhaps `:` and overrides.
    pub fn parse(text: &str) -> Result<Self, ProfileError> {
        let (name, overrides) = text.split_once(':').unwrap_or((text, ""));
        let mut profile = match name.trim() {
            "h200" => Self::h200(),
            "v100-pcie3" => Self::v100_pcie3(),
            "small" => Self::small(),
            other => return Err(ProfileError::Unknown(other.to_owned())),
        };
        for item in overrides.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            profile.set(item).ok_or_else(|| ProfileError::Override(item.to_owned()))?;
        }
        Ok(profile)
    }

    fn set(&mut self, item: &str) -> Option<()> {
        let (key, value) = item.split_once('=')?;
        let value = value.trim();
        if key.trim() == "memory" {
            self.memory_bytes = bytes_with_unit(value).filter(|&bytes| bytes > 0)?;
            return Some(());
        }
        if key.trim() == "multiprocessors" {
            self.architecture.multiprocessors = value.parse().ok().filter(|&count| count > 0)?;
            return Some(());
        }
        if (key.trim(), value) == ("peer_gbps", "0") {
            self.peers = Peers::None;
            return Some(());
        }
        let number: f64 = value.parse().ok().filter(|&number: &f64| number.is_finite() && number > 0.0)?;
        match key.trim() {
            "host_gbps" => self.host_gbps = number,
            "pageable_gbps" => self.pageable_gbps = number,
            "peer_gbps" => self.peers = Peers::Uniform(number),
            "memory_gbps" => self.memory_gbps = number,
            "copy_us" => self.copy_us = number,
            "launch_us" => self.launch_us = number,
            "kernel_us" => self.kernel_us = number,
            "instructions_per_us" => self.instructions_per_us = number,
            "context_us" => self.context_us = number,
            "create_us" => self.create_us = number,
            "access_us" => self.access_us = number,
            "unmap_us" => self.unmap_us = number,
            _ => return None,
        }
        Some(())
    }

    /// GB/s between two devices, if they reach each other.
    pub fn peer_gbps(&self, a: usize, b: usize) -> Option<f64> {
        if a == b {
            return None;
        }
        match self.peers {
            Peers::None => None,
            Peers::Uniform(rate) => Some(rate),
            Peers::FourByTwoSpeeds(link) => match (a.min(b), a.max(b)) {
                (0, 3) | (1, 2) | (2, 3) => Some(2.0 * link),
                (0, 1) | (0, 2) | (1, 3) => Some(link),
                _ => None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overrides_apply() {
        let profile = Profile::parse("small: memory=32MiB, host_gbps=2.5,multiprocessors=2").expect("valid");
        assert_eq!((profile.memory_bytes, profile.host_gbps), (32 << 20, 2.5));
        assert_eq!(profile.architecture.multiprocessors, 2);
        for wrong in [
            "small:host_gbps",
            "small:host_gbps=0",
            "small:host_gbps=inf",
            "small:colour=1",
            "small:memory=0",
        ] {
            assert!(matches!(Profile::parse(wrong), Err(ProfileError::Override(_))), "{wrong}");
        }
    }

    #[test]
    fn the_four_v100s_have_links_of_two_speeds() {
        let profile = Profile::v100_pcie3();
        let rates = |rate| {
            (0..4)
                .flat_map(|a| (a + 1..4).map(move |b| (a, b)))
                .filter(|&(a, b)| profile.peer_gbps(a, b) == Some(rate))
                .count()
        };
        assert_eq!((rates(48.0), rates(24.0)), (3, 3));
        assert_eq!(profile.peer_gbps(1, 1), None);
        assert_eq!(profile.peer_gbps(0, 3), profile.peer_gbps(3, 0));
    }
}
