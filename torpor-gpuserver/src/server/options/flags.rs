//! The flags of a server, as they are written.

use crate::policy::eviction::Eviction;
use crate::policy::placement::Placement;
use crate::policy::sharing::ActiveLimit;
use crate::server::settings::device_memory;
use crate::server::size::ByteSize;
use crate::server::time::Time;
use crate::swap_mode::SwapMode;
use std::convert::Infallible;
use std::path::PathBuf;
use std::str::FromStr;

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
    /// less 1GiB or 5 %, whichever is smaller, and less another 576MiB or 2.5 % for a spare worker]
    #[arg(long, value_name = "SIZE,...", value_delimiter = ',', value_parser = device_memory)]
    pub gpu_limit: Option<Vec<ByteSize>>,

    /// Clients that may use one GPU at the same time: a number, or "auto" for those whose memory is there together
    /// [default: auto]
    #[arg(long, value_name = "N")]
    pub active_per_gpu: Option<ActiveLimit>,

    /// How long a client keeps its GPU after its last command [default: 100ms]
    #[arg(long, value_name = "TIME")]
    pub linger: Option<Time>,

    /// Whether idle functions' state and memory are saved, so that they survive a fault of another one [default: true]
    #[arg(long, value_name = "BOOL")]
    pub cover: Option<bool>,

    /// Whether a second worker of each GPU stands ready, with a context of its own, to take over at once when the first one ends
    /// [default: true]
    #[arg(long, value_name = "BOOL")]
    pub spare_worker: Option<bool>,

    /// Where a client goes that waits for its turn [default: most-free]
    #[arg(long, value_enum)]
    pub placement: Option<Placement>,

    /// Who leaves a GPU first when others need the room [default: lru]
    #[arg(long, value_enum)]
    pub eviction: Option<Eviction>,

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

    /// Page-locked host memory in which functions are kept while they have no GPU; it grows as needed [default: half of
    /// the machine's]
    #[arg(long, value_name = "SIZE")]
    pub host_pool: Option<ByteSize>,

    /// How much the host pool grows at a time
    #[arg(long, value_name = "SIZE", default_value = "256MiB")]
    pub host_slab: ByteSize,

    /// Where idle functions' memory goes when the host pool is full [default: nowhere, new allocations fail then]
    #[arg(long, value_name = "DIR")]
    pub spill_dir: Option<PathBuf>,

    /// How much may lie in the spill directory [default: what the disk has]
    #[arg(long, value_name = "SIZE")]
    pub spill_limit: Option<ByteSize>,

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
