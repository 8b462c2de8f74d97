//! Occupancy.

use super::launch::RawLaunchConfig;
use super::{kernel, ready, runtime_functions};
use crate::driver::argument::{In, Out};
use std::ffi::c_void;

runtime_functions! {
    fn cudaOccupancyMaxActiveBlocksPerMultiprocessor(
        blocks: Out<i32>, function: *const c_void, block_threads: i32, shared_bytes: usize,
    ) {
        ready()?;
        blocks.put(kernel::find(function)?.occupancy_blocks(block_threads, shared_bytes as u64, 0)? as i32)
    }

    fn cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        blocks: Out<i32>, function: *const c_void, block_threads: i32, shared_bytes: usize, flags: u32,
    ) {
        ready()?;
        blocks.put(kernel::find(function)?.occupancy_blocks(block_threads, shared_bytes as u64, flags)? as i32)
    }

    fn cudaOccupancyAvailableDynamicSMemPerBlock(
        bytes: Out<usize>, function: *const c_void, blocks: i32, block_threads: i32,
    ) {
        ready()?;
        bytes.put(kernel::find(function)?.occupancy_shared(blocks, block_threads)? as usize)
    }

    fn cudaOccupancyMaxActiveClusters(clusters: Out<i32>, function: *const c_void, config: In<RawLaunchConfig>) {
        ready()?;
        let config = config.get()?;
        let attributes = config.attributes()?;
        clusters.put(kernel::find(function)?.occupancy_clusters(&config.with(&attributes)?)? as i32)
    }

    fn cudaOccupancyMaxPotentialClusterSize(size: Out<i32>, function: *const c_void, config: In<RawLaunchConfig>) {
        ready()?;
        let config = config.get()?;
        let attributes = config.attributes()?;
        size.put(kernel::find(function)?.occupancy_cluster_size(&config.with(&attributes)?)? as i32)
    }
}
