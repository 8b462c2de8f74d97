//! Freeing: what the program frees is kept by its pool, and what pools keep goes back to the worker.

use super::blocks::Free;
use super::{Block, HAS_SURPLUS, all_blocks, kind, live};
use crate::core::memory::SMALL_BYTES;
use crate::core::stream::Stream;
use crate::core::{Client, CudaResult, client, graph};
use std::sync::atomic::Ordering;
use torpor_proto::error::CudaError;

/// `cuMemFreeAsync`: memory that no work after this in the stream uses. Memory of `cuMemAlloc` may be freed so, too.
///
/// # Errors
/// `INVALID_VALUE` if no allocation begins there, or if the stream is capturing and the memory is no graph's.
pub fn free_in_order(address: u64, stream: &'static Stream) -> CudaResult<()> {
    let client = client()?;
    client.check()?;
    if stream.is_capturing() {
        return stream.current_capture()?.free(stream, address);
    }
    if graph::memory::take_from_program(address)? {
        return Ok(());
    }
    match take_used(address)? {
        Some(block) => give_to_pool(client, block, address, stream),
        None => client.free(address),
    }
}

/// `cuMemFree` of a pool's memory; false if it is none. Waits for all work, as the driver does.
///
/// # Errors
/// `INVALID_VALUE` for what was freed already.
pub(in crate::core) fn free_after_all(client: &'static Client, address: u64) -> CudaResult<bool> {
    if !all_blocks().as_ref().is_some_and(|all| all.contains_key(&address)) {
        return Ok(false);
    }
    // First, for the program has the block if this fails.
    Stream::synchronize_all()?;
    let block = take_used(address)?.ok_or(CudaError::INVALID_VALUE)?;
    give_to_pool(client, block, address, Stream::legacy_of(block.pool.device())).map(|()| true)
}

/// Gives back what pools keep beyond their thresholds, after a synchronisation of a stream or an event, or of everything.
///
/// Blocks that share a segment are left: freeing one waits for all work.
#[inline]
pub(in crate::core) fn release_surplus(is_all_done: bool) -> CudaResult<()> {
    if HAS_SURPLUS.load(Ordering::Relaxed) { release_surplus_of_all(is_all_done) } else { Ok(()) }
}

#[cold]
fn release_surplus_of_all(is_all_done: bool) -> CudaResult<()> {
    HAS_SURPLUS.store(false, Ordering::Relaxed);
    let (mut surplus, mut is_more) = (Vec::new(), false);
    for pool in live().iter() {
        let threshold = pool.release_threshold.load(Ordering::Relaxed);
        let mut blocks = pool.lock();
        surplus.extend(
            blocks.take_free(threshold, |bytes, block| {
                bytes >= SMALL_BYTES && (is_all_done || block.is_done())
            }),
        );
        is_more |=
            blocks.reserved.now_bytes > threshold && blocks.free.keys().any(|&bytes| bytes >= SMALL_BYTES);
    }
    if is_more {
        HAS_SURPLUS.store(true, Ordering::Relaxed);
    }
    give_back(&surplus)
}

/// The block at an address, which the program has no more; `None` if it is no pool's.
fn take_used(address: u64) -> CudaResult<Option<Block>> {
    let mut all = all_blocks();
    let Some(block) = all.as_mut().and_then(|all| all.get_mut(&address)) else { return Ok(None) };
    if std::mem::replace(&mut block.is_used, false) {
        Ok(Some(*block))
    } else {
        Err(CudaError::INVALID_VALUE)
    }
}

fn give_to_pool(
    client: &'static Client,
    Block { pool, bytes, .. }: Block,
    address: u64,
    stream: &'static Stream,
) -> CudaResult<()> {
    let posted = client.posted.load(Ordering::Relaxed);
    let block = Free { address, stream, stream_id: stream.id(), position: stream.position(), posted };
    pool.take_back(block, bytes).map_or(Ok(()), |block| give_back_one(client, &block))
}

/// Frees blocks that no pool has any more. All are freed, and the first error is told.
pub(super) fn give_back(blocks: &[Free]) -> CudaResult<()> {
    let client = client()?;
    blocks.iter().map(|block| give_back_one(client, block)).fold(Ok(()), Result::and)
}

fn give_back_one(client: &'static Client, block: &Free) -> CudaResult<()> {
    if let Some(all) = all_blocks().as_mut() {
        all.remove(&block.address);
    }
    kind::free(client, block.address)
}

/// Memory from the worker; if there is none, after all pools gave back all that they keep.
pub(in crate::core) fn allocate_or_give_back(client: &'static Client, bytes: u64) -> CudaResult<u64> {
    match client.allocate(bytes) {
        Err(CudaError::OUT_OF_MEMORY) => {
            let kept: Vec<Free> =
                live().iter().flat_map(|pool| pool.lock().take_free(0, |_, _| true)).collect();
            if kept.is_empty() {
                return Err(CudaError::OUT_OF_MEMORY);
            }
            give_back(&kept)?;
            client.allocate(bytes)
        }
        allocated => allocated,
    }
}
