//! Occupancy.

use super::argument::{In, Out};
use super::cuda_functions;
use super::launch::RawLaunchConfig;
use crate::core::{Kernel, client};
use std::ffi::c_void;

cuda_functions! {
    fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
        blocks: Out<i32>, function: *mut c_void, block_threads: i32, shared_bytes: usize,
    ) {
        client()?;
        blocks.put(Kernel::find(function)?.occupancy_blocks(block_threads, shared_bytes as u64, 0)? as i32)
    }

    fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        blocks: Out<i32>, function: *mut c_void, block_threads: i32, shared_bytes: usize, flags: u32,
    ) {
        client()?;
        blocks.put(Kernel::find(function)?.occupancy_blocks(block_threads, shared_bytes as u64, flags)? as i32)
    }

    fn cuOccupancyAvailableDynamicSMemPerBlock(
        bytes: Out<usize>, function: *mut c_void, blocks: i32, block_threads: i32,
    ) {
        client()?;
        bytes.put(Kernel::find(function)?.occupancy_shared(blocks, block_threads)? as usize)
    }

    fn cuOccupancyMaxActiveClusters(clusters: Out<i32>, function: *mut c_void, config: In<RawLaunchConfig>) {
        client()?;
        let config = config.get()?;
        let attributes = config.attributes()?;
        clusters.put(Kernel::find(function)?.occupancy_clusters(&config.with(&attributes))? as i32)
    }

    fn cuOccupancyMaxPotentialClusterSize(size: Out<i32>, function: *mut c_void, config: In<RawLaunchConfig>) {
        client()?;
        let config = config.get()?;
        let attributes = config.attributes()?;
        size.put(Kernel::find(function)?.occupancy_cluster_size(&config.with(&attributes))? as i32)
    }
}
