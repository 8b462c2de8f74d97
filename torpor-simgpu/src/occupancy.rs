//! Occupancy: how many blocks and clusters of a kernel fit on the device.

use crate::abi::{In, LaunchConfig, Out};
use crate::attributes::Architecture;
use crate::code::KernelInfo;
use crate::error::{CudaError, Result};
use crate::function;
use crate::launch::Request;
use crate::machine::Machine;

/// Registers are handed out to warps in units of this many.
const REGISTER_UNIT: u32 = 256;
/// Shared memory is handed out in units of this many bytes.
const SHARED_UNIT: u32 = 128;
/// The largest cluster that every device with clusters can run.
const PORTABLE_CLUSTER: u32 = 8;

/// Blocks of a kernel that are resident on one multiprocessor at a time.
pub fn max_blocks(architecture: &Architecture, info: &KernelInfo, threads: u32, dynamic_shared: u32) -> u32 {
    if threads == 0 || threads > 1024 || threads > info.max_threads_per_block {
        return 0;
    }
    let limit = |value: i32| value.unsigned_abs();
    let warps = threads.div_ceil(32);
    let by_warps = limit(architecture.threads_per_multiprocessor) / 32 / warps;
    let registers = (info.registers.max(1) * 32).next_multiple_of(REGISTER_UNIT) * warps;
    let by_registers = limit(architecture.registers) / registers;
    let shared = shared_of_block(architecture, info, dynamic_shared);
    if shared - limit(architecture.shared_reserved_per_block) > limit(architecture.shared_per_block_optin) {
        return 0;
    }
    let by_shared = limit(architecture.shared_per_multiprocessor).checked_div(shared).unwrap_or(u32::MAX);
    limit(architecture.blocks_per_multiprocessor).min(by_warps).min(by_registers).min(by_shared)
}

fn shared_of_block(architecture: &Architecture, info: &KernelInfo, dynamic_shared: u32) -> u32 {
    let asked = info.static_shared_bytes.saturating_add(dynamic_shared).min(1 << 24);
    (asked + architecture.shared_reserved_per_block.unsigned_abs()).next_multiple_of(SHARED_UNIT)
}

fn number(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

pub fn blocks(
    machine: &Machine,
    blocks: Out<i32>,
    function: u64,
    threads: i32,
    shared: usize,
    flags: u32,
) -> Result {
    let function = function::find(machine, function)?;
    let threads =
        u32::try_from(threads).ok().filter(|&threads| threads > 0).ok_or(CudaError::INVALID_VALUE)?;
    if flags > 1 {
        return Err(CudaError::INVALID_VALUE);
    }
    let shared = u32::try_from(shared).unwrap_or(u32::MAX);
    if shared > function.max_dynamic_shared() {
        return blocks.set(0);
    }
    blocks.set(number(max_blocks(&machine.config.profile.architecture, function.info(), threads, shared)))
}

/// Blocks in a cluster, or an error if the device has none of that size.
fn cluster_size(architecture: &Architecture, cluster: [u32; 3]) -> Result<u32> {
    let size = cluster.iter().try_fold(1_u32, |product, &extent| product.checked_mul(extent));
    let largest = if architecture.has_clusters() { 2 * PORTABLE_CLUSTER } else { 1 };
    size.filter(|&size| size > 0 && size <= largest).ok_or(CudaError::INVALID_CLUSTER_SIZE)
}

pub fn clusters(machine: &Machine, clusters: Out<i32>, function: u64, config: In<LaunchConfig>) -> Result {
    let function = function::find(machine, function)?;
    let request = Request::from_config(config.get()?)?;
    let architecture = &machine.config.profile.architecture;
    let cluster = request.cluster.unwrap_or_else(|| function.required_cluster());
    let size = cluster_size(architecture, cluster)?;
    let threads = request.block.iter().try_fold(1_u32, |product, &extent| product.checked_mul(extent));
    let threads = threads.filter(|&threads| threads > 0).ok_or(CudaError::INVALID_VALUE)?;
    let blocks = max_blocks(architecture, function.info(), threads, request.shared_bytes);
    clusters.set(number(blocks.saturating_mul(architecture.multiprocessors.unsigned_abs()) / size))
}

pub fn cluster_limit(machine: &Machine, size: Out<i32>, function: u64, config: In<LaunchConfig>) -> Result {
    let function = function::find(machine, function)?;
    Request::from_config(config.get()?)?;
    size.set(match machine.config.profile.architecture.has_clusters() {
        true if function.allows_non_portable_clusters() => 2 * number(PORTABLE_CLUSTER),
        true => number(PORTABLE_CLUSTER),
        false => 1,
    })
}

pub fn dynamic_shared(
    machine: &Machine,
    bytes: Out<usize>,
    function: u64,
    blocks: i32,
    threads: i32,
) -> Result {
    let function = function::find(machine, function)?;
    let (Ok(blocks @ 1..), Ok(threads @ 1..)) = (u32::try_from(blocks), u32::try_from(threads)) else {
        return Err(CudaError::INVALID_VALUE);
    };
    let architecture = &machine.config.profile.architecture;
    if max_blocks(architecture, function.info(), threads, 0) < blocks {
        return bytes.set(0);
    }
    let share = architecture.shared_per_multiprocessor.unsigned_abs() / blocks / SHARED_UNIT * SHARED_UNIT;
    let fixed = architecture.shared_reserved_per_block.unsigned_abs() + function.info().static_shared_bytes;
    let largest = match function.has_asked_for_shared() {
        true => architecture
            .shared_per_block_optin
            .unsigned_abs()
            .saturating_sub(function.info().static_shared_bytes),
        false => function.max_dynamic_shared(),
    };
    bytes.set(share.saturating_sub(fixed).min(largest) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(registers: u32, static_shared_bytes: u32) -> KernelInfo {
        let name = c"k".to_owned();
        KernelInfo {
            name,
            parameters: Vec::new(),
            static_shared_bytes,
            local_bytes: 0,
            registers,
            max_threads_per_block: 1024,
        }
    }

    #[test]
    fn each_resource_limits() {
        let hopper = Architecture::hopper();
        assert_eq!(max_blocks(&hopper, &kernel(16, 0), 32, 0), 32, "blocks");
        assert_eq!(max_blocks(&hopper, &kernel(16, 0), 1024, 0), 2, "threads");
        assert_eq!(max_blocks(&hopper, &kernel(128, 0), 256, 0), 2, "registers");
        assert_eq!(max_blocks(&hopper, &kernel(16, 0), 128, 100 << 10), 2, "shared memory");
        assert_eq!(max_blocks(&hopper, &kernel(16, 0), 128, 227 << 10), 1, "all of it");
        assert_eq!(max_blocks(&hopper, &kernel(16, 0), 128, 228 << 10), 0, "more than there is");
        assert_eq!(max_blocks(&hopper, &kernel(16, 0), 2000, 0), 0);
    }
}
