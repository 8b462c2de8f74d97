//! What the flags and the settings file of a server come to, checked.

use crate::chunk::CHUNK_BYTES;
use crate::policy::placement::Placement;
use crate::server::entrance::group::Group;
use crate::server::installation::{MissingPart, SERVER_PROGRAM};
use crate::server::logging::{self, InvalidLevel};
use crate::server::machine;
use crate::server::options::{Flags, ServeArgs};
use crate::server::settings::{FileError, MemorySection, SchedulerSection, SettingsFile, Stamp};
use crate::server::size::ByteSize;
use crate::server::store::{SpillOptions, StoreOptions};
use std::env;
use std::io;
use std::path::PathBuf;
use torpor_proto::directory::ServerDirectory;
use torpor_proto::layout::{self, MIN_STAGING_BYTES};

/// What clients may page-lock in all on a machine with little memory, unless told otherwise.
const LEAST_PINNED_BYTES: u64 = 1 << 30;

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
    /// To whom it is open beside this user.
    pub group: Option<Group>,
    /// What no section says: flags, then the environment.
    pub flags: Flags,
    /// What `[memory]` says: flags, then the file.
    pub memory: MemorySection,
    /// What `[scheduler]` says: flags, then the file.
    pub scheduler: SchedulerSection,
    /// The policy of a flag, which stands above whatever the file comes to say.
    pub placement: Option<Placement>,
    /// The settings file, and when it was looked at.
    pub config: Option<(PathBuf, Option<Stamp>)>,
    /// What it says.
    pub settings: SettingsFile,
    /// The host range of a client: staging and page-locked memory, a whole number of pages.
    pub host_bytes: u64,
    /// Staging at the beginning of the host range, a whole number of pages.
    pub staging_bytes: u64,
    /// Page-locked host memory that all functions together may have on one GPU.
    pub pinned_limit_bytes: u64,
    /// How large the host store may become.
    pub store: StoreOptions,
    /// What to log.
    pub log: String,
    /// The program whose subcommands are the workers.
    pub program: PathBuf,
}

impl ServerOptions {
    /// The limit that was set for the GPU at this place among those that serve, in bytes; 0 if none was.
    #[must_use]
    pub fn gpu_limit_bytes(&self, gpu: usize) -> u64 {
        let limit = match self.memory.gpu_limit.as_deref() {
            Some([all]) => Some(all),
            limits => limits.and_then(|each| each.get(gpu)),
        };
        limit.map_or(0, |limit| limit.0)
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
        let flags = self.tuning.flags.or(from_environment());
        let (staging, pinned) = (flags.staging(), flags.pinned_limit());
        if staging.0 < MIN_STAGING_BYTES {
            return Err(OptionsError::Staging(staging));
        }
        let pages = |bytes: u64| bytes.checked_next_multiple_of(layout::PAGE_BYTES);
        let host_bytes = staging.0.checked_add(pinned.0).and_then(pages);
        let host_bytes =
            host_bytes.map(layout::host_range_bytes).filter(|&bytes| bytes <= layout::MAX_HOST_RANGE_BYTES);
        let host_bytes = host_bytes.ok_or(OptionsError::HostRange { staging, pinned })?;
        if let Some(gpus) = &flags.gpus {
            let twice = |(at, gpu): (usize, &u32)| gpus[..at].contains(gpu);
            if gpus.is_empty() || gpus.iter().enumerate().any(twice) {
                return Err(OptionsError::Gpus);
            }
        }
        let (config, settings) = match &flags.config {
            Some(path) => {
                let (stamp, settings) = SettingsFile::read_in_time(path)?;
                (Some((path.clone(), stamp)), settings)
            }
            None => (None, SettingsFile::default()),
        };
        let memory = self.tuning.memory.or(settings.memory.clone());
        let placement = self.tuning.scheduler.placement;
        let scheduler = self.tuning.scheduler.or(settings.scheduler.clone());
        let store = store_options(&memory, flags.host_slab())?;
        let log = flags.log.clone().unwrap_or_else(|| "info".to_owned());
        logging::filter(&log)?;
        Ok(ServerOptions {
            directory,
            group: self.group,
            pinned_limit_bytes: memory.pinned_limit.map_or_else(
                || (machine::memory_bytes().saturating_sub(store.pool_bytes) / 2).max(LEAST_PINNED_BYTES),
                |limit| limit.0,
            ),
            flags,
            memory,
            scheduler,
            placement,
            config,
            settings,
            host_bytes,
            staging_bytes: pages(staging.0).unwrap_or(host_bytes).min(host_bytes),
            store,
            log,
            program: SERVER_PROGRAM.find()?,
        })
    }
}

/// What environment variables say in the place of flags.
fn from_environment() -> Flags {
    Flags {
        config: env::var_os("TORPOR_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from),
        log: env::var("TORPOR_LOG").ok().filter(|level| !level.is_empty()),
        ..Flags::default()
    }
}

/// What is said of the host store.
fn store_options(memory: &MemorySection, slab: ByteSize) -> Result<StoreOptions, OptionsError> {
    let pool_bytes =
        memory.host_pool.map_or_else(|| (machine::memory_bytes() / 2).max(slab.0), |pool| pool.0);
    let slab_bytes = slab.0.min(pool_bytes) / CHUNK_BYTES * CHUNK_BYTES;
    if slab_bytes == 0 {
        return Err(OptionsError::HostPool);
    }
    let limit_bytes = memory.spill_limit.map_or(u64::MAX, |limit| limit.0);
    let spill = memory.spill_dir.as_ref().map(|directory| match std::path::absolute(directory) {
        Ok(directory) => Ok(SpillOptions { directory, limit_bytes }),
        Err(error) => Err(OptionsError::Directory { path: directory.clone(), error }),
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
