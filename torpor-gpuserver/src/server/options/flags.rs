//! The flags of a server, as they are written.

use crate::server::entrance::group::Group;
use crate::server::settings::declare::{
    Kind, Setting, arguments, default, help, setting, settings, text, what_holds,
};
use crate::server::settings::written::Written;
use crate::server::settings::{MemorySection, SchedulerSection, device_memory};
use crate::server::size::ByteSize;
use crate::server::time::Time;
use crate::swap_mode::SwapMode;
use std::convert::Infallible;
use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// The flags of a server that serves, shared by `torpor serve`, `torpor run` and `torpor-gpuserver serve`.
#[derive(Clone, Debug, clap::Args)]
pub struct ServeArgs {
    /// Where it listens [default: $TORPOR_SERVER, else $XDG_RUNTIME_DIR/torpor, else /run/torpor]
    #[arg(long, value_name = "DIR")]
    pub directory: Option<PathBuf>,

    /// A group, by name or number, whose members may do what this user may: run functions, load, unload, stop the server. Name the
    /// same --directory to them, in a place that they can reach [default: nobody else may]
    #[arg(long, value_name = "GROUP")]
    pub group: Option<Group>,

    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would show a description of the group as that of the command")]
    pub tuning: TuningArgs,
}

/// The flags that do not say where a server listens.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
#[allow(missing_docs, reason = "clap would show a description of a group as that of the command")]
pub struct TuningArgs {
    #[command(flatten)]
    pub flags: Flags,
    #[command(flatten)]
    pub memory: MemorySection,
    #[command(flatten)]
    pub scheduler: SchedulerSection,
}

settings! {
    /// What no section of the settings file says.
    pub struct Flags;

    flags {
        /// The CUDA driver: "auto" (the system's, or the simulated one where there is none), "simulated", or a path
        #[arg(value_name = "DRIVER")]
        driver: DriverChoice = DriverChoice::Auto;

        /// The GPUs to serve with, as the driver counts them
        #[arg(value_name = "N,N,...", value_delimiter = ',')]
        gpus: Vec<u32>, "all";

        /// The settings file, read again when it changes (docs/configuration.md)
        #[arg(value_name = "FILE")]
        config: PathBuf, "$TORPOR_CONFIG, else none";

        /// Whether a keeper process starts the server again if it is killed, and programs go on (docs/operating.md)
        #[arg(value_name = "BOOL")]
        keeper: bool = false;

        /// What to tell on standard error: error, warn, info, debug or trace
        #[arg(value_name = "LEVEL")]
        log: String, "$TORPOR_LOG, else info";

        /// Device memory that a client may allocate, unless its function's settings say otherwise
        #[arg(value_name = "SIZE", value_parser = device_memory)]
        memory_limit: ByteSize, "--gpu-limit";

        /// Page-locked host memory that a client may allocate
        #[arg(value_name = "SIZE")]
        pinned_limit: ByteSize = ByteSize(16 << 30);

        /// Host memory per client through which copies from and to pageable memory go
        #[arg(value_name = "SIZE")]
        staging: ByteSize = ByteSize(32 << 20);

        /// How long a client asks for nothing until that memory is given back; its next request takes some milliseconds more
        #[arg(value_name = "TIME")]
        staging_idle: Time = Time(Duration::from_secs(300));

        /// How much the host pool grows at a time
        #[arg(value_name = "SIZE")]
        host_slab: ByteSize = ByteSize(256 << 20);

        /// How a function's memory comes to its GPU; the others than the default are for measuring what each idea brings
        #[arg(value_name = "MODE")]
        swap: SwapMode = SwapMode::Grouped;

        /// Device memory that is swapped in as one group, at least
        #[arg(value_name = "SIZE")]
        swap_group: ByteSize = ByteSize(8 << 20);

        /// How long a worker spins for a client's next command before it sleeps, in microseconds
        #[arg(value_name = "N")]
        spin_us: u32 = 200;

        /// How long a client's thread spins for an answer before it sleeps, in microseconds. NVIDIA's driver spins without end
        #[arg(value_name = "N")]
        wait_spin_us: u32 = 20_000;
    }
}

/// Which CUDA driver the workers load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DriverChoice {
    /// The system's if it works, else the simulated one.
    Auto,
    /// The simulated one.
    Simulated,
    /// This library.
    Library(PathBuf),
}

impl FromStr for DriverChoice {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "auto" => Self::Auto,
            "simulated" => Self::Simulated,
            path => Self::Library(path.into()),
        })
    }
}

impl Written for DriverChoice {
    fn written(&self) -> OsString {
        match self {
            Self::Auto => "auto".into(),
            Self::Simulated => "simulated".into(),
            Self::Library(path) => path.into(),
        }
    }
}

impl TuningArgs {
    /// These flags as a command line again, for a server that is started as a process of its own.
    #[must_use]
    pub fn to_arguments(&self) -> Vec<OsString> {
        arguments(self.settings())
    }

    fn settings(&self) -> Vec<Setting> {
        [self.flags.settings(), self.memory.settings(), self.scheduler.settings()].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::settings::declare::flag;
    use clap::{CommandFactory, Parser};

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
            ["--busy-turn", "150ms"],
            ["--cover", "false"],
            ["--lean", "false"],
            ["--spare-worker", "false"],
            ["--strict-per-gpu", "3"],
            ["--placement", "interference"],
            ["--eviction", "heavy-last"],
            ["--swap", "pipelined"],
            ["--swap-group", "1000000B"],
            ["--pinned-limit", "1GiB"],
            ["--staging", "8MiB"],
            ["--staging-idle", "7s"],
            ["--host-pool", "64MiB"],
            ["--host-slab", "16MiB"],
            ["--spill-dir", "/my spill"],
            ["--spill-limit", "8MiB"],
            ["--peer-buffer", "16MiB"],
            ["--spin-us", "7"],
            ["--wait-spin-us", "8"],
            ["--keeper", "true"],
            ["--log", "debug"],
        ];
        let first = parse(given.as_flattened());
        let again: Vec<String> =
            first.to_arguments().into_iter().map(|argument| argument.into_string().unwrap()).collect();
        let second = parse(&again.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(first, second);
        assert_eq!(second.flags.driver(), DriverChoice::Library("/opt/my libcuda.so".into()));
        let flags = Program::command().get_arguments().count();
        assert_eq!(given.len(), flags, "a flag is not tried here");
        assert!(TuningArgs::default().to_arguments().is_empty());
    }

    #[test]
    fn help_has_each_flag_with_what_holds_without_it() {
        let help = Program::command().term_width(0).render_long_help().to_string();
        let flags = TuningArgs::default().settings().into_iter().filter(|setting| setting.kind.is_flag());
        for Setting { name, default, .. } in flags {
            let (_, text) = help.split_once(&format!("{} <", flag(name))).unwrap();
            let own = text.split("\n      --").next().unwrap();
            assert!(own.contains(&format!("[default: {default}]")), "{name}: {own}");
        }
    }
}
