//! What a server can be told: the command line's flags, and what they mean.

use crate::server::installation::{MissingPart, SERVER_PROGRAM};
use crate::server::logging::{self, InvalidLevel};
use crate::server::settings::{FileError, PerGpu, SettingsFile, Stamp, device_memory};
use crate::server::size::ByteSize;
use crate::server::time::Time;
use crate::swap_mode::SwapMode;
use std::convert::Infallible;
use std::env;
use std::ffi::OsString;
use std::io;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;
use torpor_proto::directory::ServerDirectory;
use torpor_proto::layout::{self, MIN_STAGING_BYTES};

/// Clients that may use one GPU at the same time, unless told otherwise.
const DEFAULT_ACTIVE_PER_GPU: usize = 1;

/// How long a client keeps its GPU after its last command, unless told otherwise.
const DEFAULT_LINGER: Duration = Duration::from_millis(100);

/// The flags of a server that serves, shared by `torpor serve`, `torpor run` and `torpor-gpuserver serve`.
#[derive(Clone, Debug, clap::Args)]
pub struct ServeArgs {
    /// Where it listens [default: $TORPOR_SERVER, else $XDG_RUNTIME_DIR/torpor, else /run/torpor]
    #[arg(long, value_name = "DIR")]
    pub directory: Option<PathBuf>,

    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would show a description of the group as that of the command")]
    pub tuning: TuningArgs,
}

/// The flags that do not say where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct TuningArgs {
    /// The CUDA driver: "auto" (the system's, or the simulated one where there is none), "simulated", or a path
    #[arg(long, value_name = "DRIVER", default_value = "auto")]
    pub driver: DriverChoice,

    /// The GPUs to serve with, as the driver counts them [default: all]
    #[arg(long, value_name = "N,N,...", value_delimiter = ',')]
    pub gpus: Option<Vec<u32>>,

    /// The settings file, read again when it changes (docs/configuration.md) [default: $TORPOR_CONFIG, else none]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Device memory that a client may allocate, unless its function's settings say otherwise [default: --gpu-limit]
    #[arg(long, value_name = "SIZE", value_parser = device_memory)]
    pub memory_limit: Option<ByteSize>,

    /// Device memory that all functions together may use on one GPU; a list has one for each GPU [default: the GPU's
    /// less 1GiB or 5 %, whichever is smaller]
    #[arg(long, value_name = "SIZE,...", value_delimiter = ',', value_parser = device_memory)]
    pub gpu_limit: Option<Vec<ByteSize>>,

    /// Clients that may use one GPU at the same time [default: 1]
    #[arg(long, value_name = "N")]
    pub active_per_gpu: Option<NonZeroUsize>,

    /// How long a client keeps its GPU after its last command [default: 100ms]
    #[arg(long, value_name = "TIME")]
    pub linger: Option<Time>,

    /// How a function's memory comes to its GPU; the others than the default are for measuring what each idea brings
    #[arg(long, value_name = "MODE", default_value = "grouped")]
    pub swap: SwapMode,

    /// Device memory that is swapped in as one group, at least
    #[arg(long, value_name = "SIZE", default_value = "8MiB")]
    pub swap_group: ByteSize,

    /// Page-locked host memory that a client may allocate
    #[arg(long, value_name = "SIZE", default_value = "16GiB")]
    pub pinned_limit: ByteSize,

    /// Host memory per client through which copies from and to pageable memory go
    #[arg(long, value_name = "SIZE", default_value = "32MiB")]
    pub staging: ByteSize,

    /// How long a worker spins for a client's next command before it sleeps, in microseconds
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub spin_us: u32,

    /// How long a client's thread spins for an answer before it sleeps, in microseconds. NVIDIA's driver spins without end
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    pub wait_spin_us: u32,

    /// What to tell on standard error: error, warn, info, debug or trace [default: $TORPOR_LOG, else info]
    #[arg(long, value_name = "LEVEL")]
    pub log: Option<String>,
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

/// Why a server cannot be as it is told.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// The level is none.
    #[error(transparent)]
    Log(#[from] InvalidLevel),
    /// The program that the workers run is not there.
    #[error(transparent)]
    Installation(#[from] MissingPart),
    /// The settings file says something that it cannot say.
    #[error(transparent)]
    Settings(#[from] FileError),
    /// Staging and page-locked memory share a client's host range.
    #[error(
        "--staging {staging} and --pinned-limit {pinned} are more than the {} of host addresses that a client has",
        ByteSize(layout::HOST_RANGE_BYTES)
    )]
    HostRange {
        /// What staging was to be.
        staging: ByteSize,
        /// What the limit was to be.
        pinned: ByteSize,
    },
    /// Copies through so little staging make no progress.
    #[error("--staging {0} is too little: use 4MiB or more")]
    Staging(ByteSize),
    /// No GPU is named.
    #[error("--gpus names no GPU, or one twice")]
    Gpus,
    /// The working directory is gone.
    #[error("the directory {path} cannot be found out: {error}")]
    Directory {
        /// As it was given.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
}

/// What a server is told, checked.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Where it listens; absolute.
    pub directory: ServerDirectory,
    /// Which driver the workers load.
    pub driver: DriverChoice,
    /// The GPUs to serve with, or all.
    pub gpus: Option<Vec<u32>>,
    /// The settings file, and when it was looked at.
    pub config: Option<(PathBuf, Option<Stamp>)>,
    /// What it says.
    pub settings: SettingsFile,
    /// Device memory that a client may allocate by default, whatever the settings file says.
    pub memory_limit_bytes: Option<u64>,
    /// Device memory that all functions together may use on one GPU, if that is said.
    pub gpu_limits: Option<PerGpu>,
    /// Clients that may use one GPU at the same time.
    pub active_clients: usize,
    /// How long a client keeps its GPU after its last command.
    pub linger: Duration,
    /// How memory is swapped in.
    pub swap: SwapMode,
    /// Bytes of a group of segments that are swapped in.
    pub swap_group_bytes: u64,
    /// The host range of a client: staging and page-locked memory, a whole number of pages.
    pub host_bytes: u64,
    /// Staging at the beginning of the host range, a whole number of pages.
    pub staging_bytes: u64,
    /// How long a worker spins for the next command before sleeping.
    pub spin: Duration,
    /// How long a client spins for an answer before sleeping.
    pub wait_spin: Duration,
    /// What to log.
    pub log: String,
    /// The program whose subcommands are the workers.
    pub program: PathBuf,
}

impl ServerOptions {
    /// The limit that was set for the GPU at this place among those that serve, in bytes; 0 if none was.
    #[must_use]
    pub fn gpu_limit_bytes(&self, gpu: usize) -> u64 {
        self.gpu_limits.as_ref().and_then(|limits| limits.of(gpu)).map_or(0, |limit| limit.0)
    }
}

impl ServeArgs {
    /// The directory that is meant.
    #[must_use]
    pub fn directory(&self) -> ServerDirectory {
        self.directory.clone().map_or_else(ServerDirectory::from_environment, ServerDirectory::new)
    }

    /// Checks the flags.
    ///
    /// # Errors
    /// [`OptionsError`].
    pub fn options(self) -> Result<ServerOptions, OptionsError> {
        let directory = absolute(&self.directory())?;
        let tuning = self.tuning;
        let (staging, pinned) = (tuning.staging, tuning.pinned_limit);
        if staging.0 < MIN_STAGING_BYTES {
            return Err(OptionsError::Staging(staging));
        }
        let pages = |bytes: u64| bytes.checked_next_multiple_of(layout::PAGE_BYTES);
        let host_bytes = staging.0.checked_add(pinned.0).and_then(pages);
        let host_bytes = host_bytes.filter(|&bytes| bytes <= layout::HOST_RANGE_BYTES);
        let host_bytes = host_bytes.ok_or(OptionsError::HostRange { staging, pinned })?;
        if let Some(gpus) = &tuning.gpus {
            let twice = |(at, gpu): (usize, &u32)| gpus[..at].contains(gpu);
            if gpus.is_empty() || gpus.iter().enumerate().any(twice) {
                return Err(OptionsError::Gpus);
            }
        }
        let config = tuning
            .config
            .or_else(|| env::var_os("TORPOR_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from));
        let config = config.map(|path| {
            let stamp = Stamp::of(&path);
            (path, stamp)
        });
        let settings =
            config.as_ref().map(|(path, _)| SettingsFile::read(path)).transpose()?.unwrap_or_default();
        let from_environment = || env::var("TORPOR_LOG").ok().filter(|level| !level.is_empty());
        let log = tuning.log.or_else(from_environment).unwrap_or_else(|| "info".to_owned());
        logging::filter(&log)?;
        Ok(ServerOptions {
            directory,
            driver: tuning.driver,
            gpus: tuning.gpus,
            memory_limit_bytes: tuning.memory_limit.map(|limit| limit.0),
            gpu_limits: tuning.gpu_limit.map(PerGpu).or_else(|| settings.memory.gpu_limit.clone()),
            active_clients: tuning
                .active_per_gpu
                .or(settings.scheduler.active_per_gpu)
                .map_or(DEFAULT_ACTIVE_PER_GPU, NonZeroUsize::get),
            swap: tuning.swap,
            swap_group_bytes: tuning.swap_group.0,
            linger: tuning.linger.or(settings.scheduler.linger).map_or(DEFAULT_LINGER, |time| time.0),
            config,
            settings,
            host_bytes,
            staging_bytes: pages(staging.0).unwrap_or(host_bytes).min(host_bytes),
            spin: Duration::from_micros(tuning.spin_us.into()),
            wait_spin: Duration::from_micros(tuning.wait_spin_us.into()),
            log,
            program: SERVER_PROGRAM.find()?,
        })
    }
}

impl Default for TuningArgs {
    /// What holds when no flag is given.
    fn default() -> Self {
        #[derive(clap::Parser)]
        struct Nothing {
            #[command(flatten)]
            tuning: TuningArgs,
        }
        <Nothing as clap::Parser>::parse_from(["torpor"]).tuning
    }
}

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
        flag("swap", self.swap.name().into());
        flag("swap-group", format!("{}B", self.swap_group.0).into());
        if let Some(time) = self.linger {
            flag("linger", time.to_string().into());
        }
        flag("pinned-limit", format!("{}B", self.pinned_limit.0).into());
        flag("staging", format!("{}B", self.staging.0).into());
        flag("spin-us", self.spin_us.to_string().into());
        flag("wait-spin-us", self.wait_spin_us.to_string().into());
        if let Some(level) = &self.log {
            flag("log", level.into());
        }
        arguments
    }
}

fn absolute(directory: &ServerDirectory) -> Result<ServerDirectory, OptionsError> {
    let path = directory.path();
    let absolute = std::path::absolute(path);
    absolute
        .map(ServerDirectory::new)
        .map_err(|error| OptionsError::Directory { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, clap::Parser)]
    struct Program {
        #[command(flatten)]
        serve: ServeArgs,
    }

    fn parse(arguments: &[&str]) -> ServeArgs {
        Program::try_parse_from(["serve"].iter().chain(arguments)).unwrap().serve
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
            ["--log", "debug"],
        ];
        let first = parse(given.as_flattened()).tuning;
        let again: Vec<String> =
            first.to_arguments().into_iter().map(|argument| argument.into_string().unwrap()).collect();
        let second = parse(&again.iter().map(String::as_str).collect::<Vec<_>>()).tuning;
        assert_eq!(first, second);
        assert_ne!(first, TuningArgs::default());
        assert_eq!(second.driver, DriverChoice::Library("/opt/my libcuda.so".into()));
    }

    #[test]
    fn impossible_flags_say_why() {
        let refused = |arguments: &[&str]| parse(arguments).options().unwrap_err();
        assert!(matches!(refused(&["--pinned-limit", "64GiB"]), OptionsError::HostRange { .. }));
        assert!(matches!(
            refused(&["--pinned-limit", "18446744073709551615B"]),
            OptionsError::HostRange { .. }
        ));
        assert!(matches!(refused(&["--staging", "4KiB"]), OptionsError::Staging(_)));
        assert!(matches!(refused(&["--gpus", "1,1"]), OptionsError::Gpus));
        assert!(matches!(refused(&["--log", "shout louder"]), OptionsError::Log(_)));
    }
}
