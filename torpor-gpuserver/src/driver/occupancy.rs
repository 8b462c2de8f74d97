//! Questions about how many blocks of a kernel fit.

use super::{Device, Kernel, LaunchConfig, Stream};
use torpor_proto::error::CudaError;

impl Device {
    /// cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags.
    ///
    /// # Errors
    /// The driver's.
    pub fn occupancy_blocks(
        &self,
        kernel: Kernel,
        block_threads: i32,
        shared_bytes: usize,
        flags: u32,
    ) -> Result<i32, CudaError> {
        let mut blocks = 0;
        // SAFETY: a kernel of a loaded library; writes one number.
        CudaError::check(unsafe {
            (self.table().cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags)(
                &mut blocks,
                kernel.function,
                block_threads,
                shared_bytes,
                flags,
            )
        })?;
        Ok(blocks)
    }

    /// cuOccupancyAvailableDynamicSMemPerBlock, in bytes.
    ///
    /// # Errors
    /// The driver's.
    pub fn occupancy_shared(
        &self,
        kernel: Kernel,
        blocks: i32,
        block_threads: i32,
    ) -> Result<u64, CudaError> {
        let mut bytes = 0;
        // SAFETY: a kernel of a loaded library; writes one size.
        CudaError::check(unsafe {
            (self.table().cuOccupancyAvailableDynamicSMemPerBlock)(
                &mut bytes,
                kernel.function,
                blocks,
                block_threads,
            )
        })?;
        Ok(bytes as u64)
    }
}

impl Stream {
    /// cuOccupancyMaxActiveClusters for a launch on this stream.
    ///
    /// # Errors
    /// The driver's.
    pub fn occupancy_clusters(&self, kernel: Kernel, config: &LaunchConfig<'_>) -> Result<i32, CudaError> {
        let mut clusters = 0;
        let raw = config.raw(self);
        // SAFETY: a kernel of a loaded library; reads the configuration, writes one number.
        CudaError::check(unsafe {
            (self.device().table().cuOccupancyMaxActiveClusters)(&mut clusters, kernel.function, &raw)
        })?;
        Ok(clusters)
    }

    /// cuOccupancyMaxPotentialClusterSize for a launch on this stream.
    ///
    /// # Errors
    /// The driver's.
    pub fn occupancy_cluster_size(
        &self,
        kernel: Kernel,
        config: &LaunchConfig<'_>,
    ) -> Result<i32, CudaError> {
        let mut size = 0;
        let raw = config.raw(self);
        // SAFETY: a kernel of a loaded library; reads the configuration, writes one number.
        CudaError::check(unsafe {
            (self.device().table().cuOccupancyMaxPotentialClusterSize)(&mut size, kernel.function, &raw)
        })?;
        Ok(size)
    }
}
