//! What the flags and the settings file of a server come to, checked.

use crate::chunk::CHUNK_BYTES;
use crate::policy::eviction::Eviction;
use crate::policy::placement::Placement;
use crate::policy::sharing::ActiveLimit;
use crate::server::installation::{MissingPart, SERVER_PROGRAM};
use crate::server::logging::{self, InvalidLevel};
use crate::server::machine;
use crate::server::options::{DriverChoice, ServeArgs, TuningArgs};
use crate::server::settings::{FileError, MemorySection, PerGpu, SettingsFile, Stamp};
use crate::server::size::ByteSize;
use crate::server::store::{SpillOptions, StoreOptions};
use crate::swap_mode::SwapMode;
use std::env;
use std::io;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;
use torpor_proto::directory::ServerDirectory;
use torpor_proto::layout::{self, MIN_STAGING_BYTES};

/// What clients may page-lock in all on a machine with little memory, unless told otherwise.
const LEAST_PINNED_BYTES: u64 = 1 << 30;

/// Images in files, unless told otherwise: more than all code of several releases of PyTorch.
const DEFAULT_IMAGE_LIMIT_BYTES: u64 = 8 << 30;

/// Images on a GPU that nobody uses, with those that are used, unless told otherwise.
const DEFAULT_CODE_LIMIT_BYTES: u64 = 1 << 30;

/// How long a client keeps its GPU after its last command, unless told otherwise.
const DEFAULT_LINGER: Duration = Duration::from_millis(100);

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
        "--staging {staging} and --pinned-limit {pinned} are more than the {} of host addresses that a client can have",
        ByteSize(layout::MAX_HOST_RANGE_BYTES)
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
    /// Not even one chunk.
    #[error("--host-pool and --host-slab must be {} or more", ByteSize(CHUNK_BYTES))]
    HostPool,
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
    pub active_clients: ActiveLimit,
    /// Where a client goes that waits for its turn.
    pub placement: Placement,
    /// Who leaves a GPU first when others need the room.
    pub eviction: Eviction,
    /// How long a client keeps its GPU after its last command.
    pub linger: Duration,
    /// Whether idle clients survive the end of their GPU's worker.
    pub cover: bool,
    /// Whether a second worker stands ready beside each GPU's.
    pub spare_worker: bool,
    /// How memory is swapped in.
    pub swap: SwapMode,
    /// Bytes of a group of segments that are swapped in.
    pub swap_group_bytes: u64,
    /// The host range of a client: staging and page-locked memory, a whole number of pages.
    pub host_bytes: u64,
    /// Staging at the beginning of the host range, a whole number of pages.
    pub staging_bytes: u64,
    /// Page-locked host memory that all functions together may have on one GPU.
    pub pinned_limit_bytes: u64,
    /// How much of images is kept in files.
    pub image_limit_bytes: u64,
    /// How much of images is loaded on a GPU, unless clients use more.
    pub code_limit_bytes: u64,
    /// How many clients there may be at a time.
    pub max_clients: u32,
    /// How large the host store may become.
    pub store: StoreOptions,
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
        let host_bytes =
            host_bytes.map(layout::host_range_bytes).filter(|&bytes| bytes <= layout::MAX_HOST_RANGE_BYTES);
        let host_bytes = host_bytes.ok_or(OptionsError::HostRange { staging, pinned })?;
        if let Some(gpus) = &tuning.gpus {
            let twice = |(at, gpu): (usize, &u32)| gpus[..at].contains(gpu);
            if gpus.is_empty() || gpus.iter().enumerate().any(twice) {
                return Err(OptionsError::Gpus);
            }
        }
        let config = tuning
            .config
            .clone()
            .or_else(|| env::var_os("TORPOR_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from));
        let (config, settings) = match config {
            Some(path) => {
                let (stamp, settings) = SettingsFile::read_in_time(&path)?;
                (Some((path, stamp)), settings)
            }
            None => (None, SettingsFile::default()),
        };
        let store = store_options(&tuning, &settings.memory)?;
        let from_environment = || env::var("TORPOR_LOG").ok().filter(|level| !level.is_empty());
        let log = tuning.log.or_else(from_environment).unwrap_or_else(|| "info".to_owned());
        logging::filter(&log)?;
        Ok(ServerOptions {
            directory,
            driver: tuning.driver,
            gpus: tuning.gpus,
            memory_limit_bytes: tuning.memory_limit.map(|limit| limit.0),
            gpu_limits: tuning.gpu_limit.map(PerGpu).or_else(|| settings.memory.gpu_limit.clone()),
            active_clients: tuning.active_per_gpu.or(settings.scheduler.active_per_gpu).unwrap_or_default(),
            placement: tuning.placement.or(settings.scheduler.placement).unwrap_or_default(),
            eviction: tuning.eviction.or(settings.scheduler.eviction).unwrap_or_default(),
            swap: tuning.swap,
            swap_group_bytes: tuning.swap_group.0,
            linger: tuning.linger.or(settings.scheduler.linger).map_or(DEFAULT_LINGER, |time| time.0),
            cover: tuning.cover.or(settings.scheduler.cover).unwrap_or(true),
            spare_worker: tuning.spare_worker.or(settings.scheduler.spare_worker).unwrap_or(true),
            pinned_limit_bytes: settings.memory.pinned_limit.map_or_else(
                || (machine::memory_bytes().saturating_sub(store.pool_bytes) / 2).max(LEAST_PINNED_BYTES),
                |limit| limit.0,
            ),
            image_limit_bytes: settings.memory.image_limit.map_or(DEFAULT_IMAGE_LIMIT_BYTES, |limit| limit.0),
            code_limit_bytes: settings.memory.code_limit.map_or(DEFAULT_CODE_LIMIT_BYTES, |limit| limit.0),
            max_clients: settings.scheduler.max_clients.map_or(layout::MAX_CLIENTS, NonZeroU32::get),
            config,
            settings,
            host_bytes,
            staging_bytes: pages(staging.0).unwrap_or(host_bytes).min(host_bytes),
            store,
            spin: Duration::from_micros(tuning.spin_us.into()),
            wait_spin: Duration::from_micros(tuning.wait_spin_us.into()),
            log,
            program: SERVER_PROGRAM.find()?,
        })
    }
}

/// What flags and file say of the host store; flags win.
fn store_options(tuning: &TuningArgs, file: &MemorySection) -> Result<StoreOptions, OptionsError> {
    let pool_bytes = match tuning.host_pool.or(file.host_pool) {
        Some(pool) => pool.0,
        None => (machine::memory_bytes() / 2).max(tuning.host_slab.0),
    };
    let slab_bytes = tuning.host_slab.0.min(pool_bytes) / CHUNK_BYTES * CHUNK_BYTES;
    if slab_bytes == 0 {
        return Err(OptionsError::HostPool);
    }
    let limit_bytes = tuning.spill_limit.or(file.spill_limit).map_or(u64::MAX, |limit| limit.0);
    let spill = tuning.spill_dir.as_ref().or(file.spill_dir.as_ref()).map(|directory| {
        match std::path::absolute(directory) {
            Ok(directory) => Ok(SpillOptions { directory, limit_bytes }),
            Err(error) => Err(OptionsError::Directory { path: directory.clone(), error }),
        }
    });
    Ok(StoreOptions { slab_bytes, pool_bytes, spill: spill.transpose()? })
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
    fn impossible_flags_say_why() {
        let refused = |arguments: &[&str]| parse(arguments).options().unwrap_err();
        assert!(matches!(refused(&["--pinned-limit", "1TiB"]), OptionsError::HostRange { .. }));
        assert!(matches!(
            refused(&["--pinned-limit", "18446744073709551615B"]),
            OptionsError::HostRange { .. }
        ));
        assert!(matches!(refused(&["--staging", "4KiB"]), OptionsError::Staging(_)));
        assert!(matches!(refused(&["--host-pool", "1MiB"]), OptionsError::HostPool));
        assert!(matches!(refused(&["--gpus", "1,1"]), OptionsError::Gpus));
        assert!(matches!(refused(&["--log", "shout louder"]), OptionsError::Log(_)));
    }
}
