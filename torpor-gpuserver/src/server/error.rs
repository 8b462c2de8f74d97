//! Why a server does not serve, for people to read.

use crate::server::entrance::tree::TreeError;
use crate::server::node::FunctionError;
use crate::server::probe::ProbeError;
use crate::server::settings::LimitAboveGpu;
use crate::server::size::ByteSize;
use crate::server::store::SpillDirectoryError;
use std::io;
use std::path::PathBuf;

/// Why a server does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The directory cannot be its.
    #[error(transparent)]
    Directory(#[from] TreeError),
    /// There is no driver.
    #[error(transparent)]
    Driver(#[from] ProbeError),
    /// A GPU that is not there.
    #[error("--gpus names GPU {gpu}, but the driver {driver} counts {devices} from 0")]
    NoSuchGpu {
        /// Which.
        gpu: u32,
        /// How many there are.
        devices: u32,
        /// Who counts.
        driver: PathBuf,
    },
    /// As many limits as GPUs, or one.
    #[error("gpu_limit lists {limits} sizes for {gpus} GPUs; give one for all, or one for each")]
    GpuLimits {
        /// How many limits there are.
        limits: usize,
        /// How many GPUs are served.
        gpus: usize,
    },
    /// A limit beyond the GPU's memory.
    #[error("gpu_limit is {} ({limit} bytes) for GPU {gpu}, which has {} ({total} bytes)", ByteSize(*limit), ByteSize(*total))]
    GpuLimit {
        /// Which GPU.
        gpu: u32,
        /// What was asked for, in bytes.
        limit: u64,
        /// What it has, in bytes.
        total: u64,
    },
    /// A function that fits on no GPU.
    #[error(transparent)]
    Settings(#[from] LimitAboveGpu),
    /// The host store cannot be.
    #[error(transparent)]
    Spill(#[from] SpillDirectoryError),
    /// No worker could be started.
    #[error("no GPU can be used: {0}")]
    NoGpu(String),
    /// A GPU's compiler has no socket.
    #[error("the compiler of GPU {gpu} cannot listen in the server's directory: {error}")]
    Compiler {
        /// Whose.
        gpu: u32,
        /// Why not.
        error: io::Error,
    },
    /// The default function cannot be made.
    #[error(transparent)]
    Function(#[from] FunctionError),
    /// The kernel refused something else.
    #[error("the server cannot run: {0}")]
    Io(#[from] io::Error),
}
