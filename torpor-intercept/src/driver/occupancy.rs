//! Occupancy.

use super::argument::{In, Out};
use super::cuda_functions;
use super::launch::RawLaunchConfig;
use crate::core::{CudaResult, Kernel, client};
use std::ffi::c_void;

/// `CUoccupancyB2DSize`: the dynamic shared memory of a block of so many threads.
type SharedBytesOf = Option<unsafe extern "C" fn(i32) -> usize>;

fn potential_block_size(
    (min_grid, block): (Out<i32>, Out<i32>),
    function: *mut c_void,
    shared_bytes_of: SharedBytesOf,
    shared_bytes: usize,
    limit: i32,
    flags: u32,
) -> CudaResult<()> {
    client()?;
    let shared_bytes = |threads| match shared_bytes_of {
        None => shared_bytes as u64,
        // SAFETY: the program gave it to be called with numbers of threads (cuOccupancyMaxPotentialBlockSize).
        Some(function) => unsafe { function(threads) as u64 },
    };
    let (blocks, threads) = Kernel::find(function)?.potential_block_size(shared_bytes, limit, flags)?;
    min_grid.put(blocks)?;
    block.put(threads)
}

cuda_functions! {
    fn cuOccupancyMaxPotentialBlockSize(
        min_grid: Out<i32>, block: Out<i32>, function: *mut c_void, shared_bytes_of: SharedBytesOf,
        shared_bytes: usize, limit: i32,
    ) {
        potential_block_size((min_grid, block), function, shared_bytes_of, shared_bytes, limit, 0)
    }

    fn cuOccupancyMaxPotentialBlockSizeWithFlags(
        min_grid: Out<i32>, block: Out<i32>, function: *mut c_void, shared_bytes_of: SharedBytesOf,
        shared_bytes: usize, limit: i32, flags: u32,
    ) {
        potential_block_size((min_grid, block), function, shared_bytes_of, shared_bytes, limit, flags)
    }

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
