//! A server's flags as a command line again.

use crate::server::options::{DriverChoice, TuningArgs};
use crate::server::size::ByteSize;
use std::ffi::OsString;

impl TuningArgs {
    /// These flags as a command line again, for a server that is started as a process of its own.
    #[must_use]
    pub fn to_arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = Vec::new();
        let mut flag = |name: &str, value: OsString| arguments.extend([format!("--{name}").into(), value]);
        let driver = match &self.driver {
            DriverChoice::Auto => "auto".into(),
            DriverChoice::Simulated => "simulated".into(),
            DriverChoice::Library(path) => path.clone().into_os_string(),
        };
        flag("driver", driver);
        if let Some(gpus) = &self.gpus {
            flag("gpus", gpus.iter().map(u32::to_string).collect::<Vec<_>>().join(",").into());
        }
        if let Some(config) = &self.config {
            flag("config", config.into());
        }
        let bytes = |size: &ByteSize| format!("{}B", size.0);
        if let Some(limit) = &self.memory_limit {
            flag("memory-limit", bytes(limit).into());
        }
        if let Some(limits) = &self.gpu_limit {
            flag("gpu-limit", limits.iter().map(bytes).collect::<Vec<_>>().join(",").into());
        }
        if let Some(clients) = self.active_per_gpu {
            flag("active-per-gpu", clients.to_string().into());
        }
        if let Some(cover) = self.cover {
            flag("cover", cover.to_string().into());
        }
        if let Some(spare) = self.spare_worker {
            flag("spare-worker", spare.to_string().into());
        }
        if let Some(placement) = self.placement {
            flag("placement", placement.to_string().into());
        }
        if let Some(eviction) = self.eviction {
            flag("eviction", eviction.to_string().into());
        }
        flag("swap", self.swap.name().into());
        flag("swap-group", format!("{}B", self.swap_group.0).into());
        if let Some(time) = self.linger {
            flag("linger", time.to_string().into());
        }
        flag("pinned-limit", format!("{}B", self.pinned_limit.0).into());
        flag("staging", format!("{}B", self.staging.0).into());
        if let Some(pool) = self.host_pool {
            flag("host-pool", format!("{}B", pool.0).into());
        }
        flag("host-slab", format!("{}B", self.host_slab.0).into());
        if let Some(directory) = &self.spill_dir {
            flag("spill-dir", directory.into());
        }
        if let Some(limit) = self.spill_limit {
            flag("spill-limit", format!("{}B", limit.0).into());
        }
        flag("spin-us", self.spin_us.to_string().into());
        flag("wait-spin-us", self.wait_spin_us.to_string().into());
        if let Some(level) = &self.log {
            flag("log", level.into());
        }
        arguments
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, clap::Parser)]
    struct Program {
        #[command(flatten)]
        tuning: TuningArgs,
    }

    fn parse(arguments: &[&str]) -> TuningArgs {
        Program::try_parse_from(["serve"].iter().chain(arguments)).unwrap().tuning
    }

    #[test]
    fn flags_survive_being_passed_on() {
        let given = [
            ["--driver", "/opt/my libcuda.so"],
            ["--gpus", "0,3"],
            ["--config", "/etc/my torpor.toml"],
            ["--memory-limit", "1.5GiB"],
            ["--gpu-limit", "4GiB,8GiB"],
            ["--active-per-gpu", "2"],
            ["--linger", "1.5ms"],
            ["--cover", "false"],
            ["--spare-worker", "false"],
            ["--placement", "interference"],
            ["--eviction", "heavy-last"],
            ["--swap", "pipelined"],
            ["--host-pool", "64MiB"],
            ["--host-slab", "16MiB"],
            ["--spill-dir", "/my spill"],
            ["--spill-limit", "8MiB"],
            ["--log", "debug"],
        ];
        let first = parse(given.as_flattened());
        let again: Vec<String> =
            first.to_arguments().into_iter().map(|argument| argument.into_string().unwrap()).collect();
        let second = parse(&again.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(first, second);
        assert_ne!(first, TuningArgs::default());
        assert_eq!(second.driver, DriverChoice::Library("/opt/my libcuda.so".into()));
    }
}
