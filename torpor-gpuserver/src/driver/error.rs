//! Why a driver cannot be used.

use std::path::PathBuf;
use torpor_proto::error::CudaError;

/// Why a driver cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The library did not load.
    #[error(
        "the CUDA driver {path} does not load ({source}): install an NVIDIA driver, or name another library"
    )]
    Load {
        /// Which file.
        path: PathBuf,
        /// What the loader says.
        source: libloading::Error,
    },
    /// A function is missing.
    #[error("the CUDA driver {path} has no function {symbol}: Torpor needs a driver for CUDA 13.0 or newer")]
    Symbol {
        /// Which file.
        path: PathBuf,
        /// Which function.
        symbol: &'static str,
    },
    /// A call failed.
    #[error("{what}: the CUDA driver said {error}")]
    Cuda {
        /// What was tried.
        what: &'static str,
        /// What it said.
        error: CudaError,
    },
    /// The address plan does not fit this process.
    #[error(
        "device addresses from {wanted:#x} are taken (the driver offered {got:#x}): start the worker without other libraries preloaded"
    )]
    Address {
        /// What the plan asks for.
        wanted: u64,
        /// What the driver gave.
        got: u64,
    },
}

impl DriverError {
    /// For `map_err`: names what was tried.
    pub(crate) fn during(what: &'static str) -> impl FnOnce(CudaError) -> Self {
        move |error| Self::Cuda { what, error }
    }
}
