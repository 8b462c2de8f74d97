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
