//! Initialisation and versions.

use super::argument::Out;
use super::cuda_functions;
use crate::core::{client, initialize};
use torpor_proto::error::CudaError;

/// What `cuDriverGetVersion` says before there is a server to ask: the version of the surface.
const SURFACE_VERSION: i32 = 13000;

/// No newer than the surface: a program that believes in more would miss functions.
pub(crate) fn driver_version() -> i32 {
    client().map_or(SURFACE_VERSION, |client| client.device().driver_version.min(SURFACE_VERSION))
}

cuda_functions! {
    fn cuInit(flags: u32) {
        if flags != 0 {
            return Err(CudaError::INVALID_VALUE);
        }
        initialize()
    }

    fn cuDriverGetVersion(version: Out<i32>) {
        version.put(driver_version())
    }
}
