//! What is wrong with attributes of a launch that the driver refuses at once. A worker would only tell a later call.

use super::green::Green;
use super::kernel::Kernel;
use super::launch::LaunchConfig;
use super::stream::Stream;
use super::{CudaResult, client};
use torpor_proto::command::LaunchAttribute;
use torpor_proto::error::CudaError;

// CUlaunchAttributeID (cuda.h).
const COOPERATIVE: u32 = 2;
const CLUSTER_DIMENSION: u32 = 4;
/// The last one of CUDA 13.0 but for [`AFTER_THE_GAP`].
const LAST: u32 = 14;
/// `CU_LAUNCH_ATTRIBUTE_NVLINK_UTIL_CENTRIC_SCHEDULING`
const AFTER_THE_GAP: u32 = 16;

/// `CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED`
const NON_PORTABLE_CLUSTERS: u32 = 14;
/// `CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT`
const MULTIPROCESSORS: i32 = 16;

/// Blocks of a cluster that every GPU with clusters takes, and that any takes (CUDA programming guide).
const PORTABLE_CLUSTER: u64 = 8;
const LARGEST_CLUSTER: u64 = 16;

/// `CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE`
const COOPERATIVE_LAUNCH_TOO_LARGE: CudaError = CudaError(720);
/// `CUDA_ERROR_INVALID_CLUSTER_SIZE`
const INVALID_CLUSTER_SIZE: CudaError = CudaError(912);

impl Kernel {
    /// # Errors
    /// `INVALID_VALUE` for what is no attribute or no division of the grid, `INVALID_CLUSTER_SIZE`, or
    /// `COOPERATIVE_LAUNCH_TOO_LARGE` for blocks that cannot all be active at once.
    pub(super) fn check_attributes(&self, config: &LaunchConfig<'_>, stream: &Stream) -> CudaResult<()> {
        for attribute in config.attributes {
            match attribute.id {
                COOPERATIVE if attribute.value[0] as u32 != 0 => self.check_cooperative(config, stream)?,
                CLUSTER_DIMENSION => self.check_cluster(config, attribute)?,
                0..=LAST | AFTER_THE_GAP => {}
                _ => return Err(CudaError::INVALID_VALUE),
            }
        }
        Ok(())
    }

    fn check_cluster(&self, config: &LaunchConfig<'_>, attribute: &LaunchAttribute) -> CudaResult<()> {
        let [x_and_y, z, ..] = attribute.value;
        let cluster = [x_and_y as u32, (x_and_y >> 32) as u32, z as u32];
        let divides = |(&blocks, &side): (&u32, &u32)| side > 0 && blocks % side == 0;
        if !config.grid.iter().zip(&cluster).all(divides) {
            return Err(CudaError::INVALID_VALUE);
        }
        let blocks = cluster.iter().fold(1_u64, |product, &side| product.saturating_mul(side.into()));
        let is_portable_only = self.attribute(NON_PORTABLE_CLUSTERS)? == 0;
        let most = if is_portable_only { PORTABLE_CLUSTER } else { LARGEST_CLUSTER };
        if blocks > most { Err(INVALID_CLUSTER_SIZE) } else { Ok(()) }
    }

    fn check_cooperative(&self, config: &LaunchConfig<'_>, stream: &Stream) -> CudaResult<()> {
        let product =
            |sides: [u32; 3]| sides.iter().fold(1_u64, |product, &side| product.saturating_mul(side.into()));
        let threads = product(config.block).min(i32::MAX as u64) as i32;
        let each = self.occupancy_blocks(threads, config.shared_bytes.into(), 0)?;
        let processors = match Green::of_stream(stream) {
            Some(green) => green.multiprocessors()?,
            None => client()?.device().attribute(MULTIPROCESSORS)?.unsigned_abs(),
        };
        let fits = product(config.grid) <= each.saturating_mul(processors.into());
        if fits { Ok(()) } else { Err(COOPERATIVE_LAUNCH_TOO_LARGE) }
    }
}
