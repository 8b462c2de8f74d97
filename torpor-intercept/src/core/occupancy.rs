//! Occupancy: asked of the driver once for each question, remembered afterwards.

use super::kernel::Kernel;
use super::launch::LaunchConfig;
use super::{CudaResult, client};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use torpor_proto::command::{
    LaunchAttribute, OccupancyBlocks, OccupancyClusterSize, OccupancyClusters, OccupancyShared,
};

/// Answers of one kernel, by question.
#[derive(Default)]
pub(super) struct OccupancyCache(Mutex<HashMap<Question, u64>>);

#[derive(Clone, PartialEq, Eq, Hash)]
enum Question {
    Blocks { block_threads: i32, shared_bytes: u64, flags: u32 },
    Shared { blocks: i32, block_threads: i32 },
    Clusters(ClusterLaunch),
    ClusterSize(ClusterLaunch),
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct ClusterLaunch {
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
    attributes: Vec<u8>,
}

impl OccupancyCache {
    /// After an attribute of the kernel changed.
    pub(super) fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn answer(&self, question: Question, ask: impl FnOnce() -> CudaResult<u64>) -> CudaResult<u64> {
        if let Some(answer) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&question) {
            return Ok(*answer);
        }
        let answer = ask()?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(question, answer);
        Ok(answer)
    }
}

impl Kernel {
    /// `cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags`.
    ///
    /// # Errors
    /// What the driver says.
    pub fn occupancy_blocks(&self, block_threads: i32, shared_bytes: u64, flags: u32) -> CudaResult<u64> {
        let client = client()?;
        self.occupancy.answer(Question::Blocks { block_threads, shared_bytes, flags }, || {
            let kernel = self.number;
            let command = OccupancyBlocks { kernel, block_threads, shared_bytes, flags, reserved: 0 };
            Ok(client.call(&command, &[])?.reply.value)
        })
    }

    /// `cuOccupancyAvailableDynamicSMemPerBlock`, in bytes.
    ///
    /// # Errors
    /// What the driver says.
    pub fn occupancy_shared(&self, blocks: i32, block_threads: i32) -> CudaResult<u64> {
        let client = client()?;
        self.occupancy.answer(Question::Shared { blocks, block_threads }, || {
            let command = OccupancyShared { kernel: self.number, blocks, block_threads, reserved: 0 };
            Ok(client.call(&command, &[])?.reply.value)
        })
    }

    /// `cuOccupancyMaxPotentialBlockSize`: the fewest blocks with which the most threads are active at once, and how many
    /// threads each has. No more than `limit`, if that is not 0.
    ///
    /// # Errors
    /// What the driver says.
    pub fn potential_block_size(
        &self,
        shared_bytes: impl Fn(i32) -> u64,
        limit: i32,
        flags: u32,
    ) -> CudaResult<(i32, i32)> {
        // CU_DEVICE_ATTRIBUTE_ of these names, and CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK.
        let [max_block, warp, processors, most_active] =
            [1, 10, 16, 39].map(|attribute| client().and_then(|client| client.device().attribute(attribute)));
        let (warp, most_active) = (warp?.max(1), most_active?);
        let most = max_block?.min(self.attribute(0)?).min(if limit > 0 { limit } else { i32::MAX });
        let (mut best_blocks, mut best_threads, mut most_found) = (0, 0, 0);
        // The whole warps that hold so many threads, then one warp less each time.
        for warps in (1..=(most + warp - 1) / warp).rev() {
            let threads = most.min(warps * warp);
            let blocks = self.occupancy_blocks(threads, shared_bytes(threads), flags)? as i32;
            if blocks * threads > most_found {
                (best_blocks, best_threads, most_found) = (blocks, threads, blocks * threads);
            }
            if most_found >= most_active {
                break;
            }
        }
        Ok((best_blocks * processors?, best_threads))
    }

    /// `cuOccupancyMaxActiveClusters`.
    ///
    /// # Errors
    /// What the driver says.
    pub fn occupancy_clusters(&self, config: &LaunchConfig<'_>) -> CudaResult<u64> {
        let client = client()?;
        let attributes = config.portable_attributes()?;
        self.occupancy.answer(Question::Clusters(question(config, &attributes)), || {
            let command = OccupancyClusters { shape: config.shape(self, 0) };
            Ok(client.call(&command, bytemuck::cast_slice(&attributes))?.reply.value)
        })
    }

    /// `cuOccupancyMaxPotentialClusterSize`.
    ///
    /// # Errors
    /// What the driver says.
    pub fn occupancy_cluster_size(&self, config: &LaunchConfig<'_>) -> CudaResult<u64> {
        let client = client()?;
        let attributes = config.portable_attributes()?;
        self.occupancy.answer(Question::ClusterSize(question(config, &attributes)), || {
            let command = OccupancyClusterSize { shape: config.shape(self, 0) };
            Ok(client.call(&command, bytemuck::cast_slice(&attributes))?.reply.value)
        })
    }
}

fn question(config: &LaunchConfig<'_>, attributes: &[LaunchAttribute]) -> ClusterLaunch {
    let attributes = bytemuck::cast_slice(attributes).to_vec();
    ClusterLaunch { grid: config.grid, block: config.block, shared_bytes: config.shared_bytes, attributes }
}
