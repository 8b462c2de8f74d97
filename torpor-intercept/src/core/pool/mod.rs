//! Memory pools: allocations in the order of streams (`cuMemAllocAsync`).
//!
//! A pool keeps what was freed and gives it out again without asking the worker: at once to the stream that freed it, to another
//! stream once that work is known to be done. A synchronisation gives back what is above the pool's threshold, as the CUDA
//! programming guide says ("Stream-Ordered Memory Allocator", *Physical Page Caching Behavior*). Blocks are whole
//! allocations of [`Client::allocate`] in few lengths, so what was freed fits again; they are never split.

mod attribute;
mod blocks;

pub use attribute::Attribute;

use super::handle::Table;
use super::memory::SMALL_BYTES;
use super::stream::Stream;
use super::{Client, CudaResult, client};
use blocks::{Blocks, Free, block_bytes};
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use torpor_proto::error::CudaError;

/// A memory pool. Serves as `CUmemoryPool` and `cudaMemPool_t`.
pub struct Pool {
    number: u32,
    /// `CU_MEMPOOL_ATTR_RELEASE_THRESHOLD`, in bytes.
    release_threshold: AtomicU64,
    /// `CU_MEMPOOL_ATTR_REUSE_…`, which are remembered and change nothing.
    reuse: [AtomicBool; 3],
    blocks: Mutex<Blocks>,
}

/// A block of a pool.
#[derive(Clone, Copy)]
struct Block {
    pool: &'static Pool,
    bytes: u64,
    /// Whether the program has it.
    is_used: bool,
}

static POOLS: Table<Pool> = Table::new(4096);

/// Those that are in use.
static LIVE: Mutex<Vec<&Pool>> = Mutex::new(Vec::new());

/// The one that `cuMemAllocAsync` takes from, if the program chose one.
static CURRENT: Mutex<Option<&Pool>> = Mutex::new(None);

/// The blocks of all pools, by address.
static BLOCKS: Mutex<Option<HashMap<u64, Block>>> = Mutex::new(None);

/// Whether any pool may have more than its threshold says.
static HAS_SURPLUS: AtomicBool = AtomicBool::new(false);

impl Pool {
    fn new(number: u32) -> Self {
        Self {
            number,
            release_threshold: AtomicU64::new(0),
            reuse: [const { AtomicBool::new(true) }; 3],
            blocks: Mutex::default(),
        }
    }

    /// `cuMemPoolCreate`.
    ///
    /// # Errors
    /// `OUT_OF_MEMORY` with thousands of pools.
    pub fn create() -> CudaResult<&'static Self> {
        let renew = |pool: &Self| {
            pool.release_threshold.store(0, Ordering::Relaxed);
            pool.reuse.iter().for_each(|reuse| reuse.store(true, Ordering::Relaxed));
            *pool.lock() = Blocks::default();
        };
        let pool = POOLS.insert(Self::new, renew).ok_or(CudaError::OUT_OF_MEMORY)?;
        live().push(pool);
        Ok(pool)
    }

    /// The pool of a device that nobody gave another.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn of_device() -> CudaResult<&'static Self> {
        static DEFAULT: OnceLock<Option<&'static Pool>> = OnceLock::new();
        DEFAULT.get_or_init(|| Self::create().ok()).ok_or(CudaError::OUT_OF_MEMORY)
    }

    /// The pool that `cuMemAllocAsync` takes from.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn current() -> CudaResult<&'static Self> {
        let chosen = *CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        chosen.map_or_else(Self::of_device, Ok)
    }

    /// Makes it the one that `cuMemAllocAsync` takes from.
    pub fn make_current(&'static self) {
        *CURRENT.lock().unwrap_or_else(PoisonError::into_inner) = Some(self);
    }

    /// The pool behind a handle.
    ///
    /// # Errors
    /// `INVALID_VALUE`.
    pub fn find(handle: *mut c_void) -> CudaResult<&'static Self> {
        POOLS.get(handle).filter(|pool| !pool.lock().is_destroyed).ok_or(CudaError::INVALID_VALUE)
    }

    /// What the program is given for it.
    #[must_use]
    pub fn handle(&'static self) -> *mut c_void {
        Table::handle(self)
    }

    /// `cuMemPoolDestroy`: what the program still has stays until it is freed.
    ///
    /// # Errors
    /// `INVALID_VALUE` for the device's own pool; what freeing gives.
    pub fn destroy(&'static self) -> CudaResult<()> {
        if std::ptr::eq(self, Self::of_device()?) {
            return Err(CudaError::INVALID_VALUE);
        }
        {
            let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
            if current.is_some_and(|current| std::ptr::eq(current, self)) {
                *current = None;
            }
        }
        let (free, is_unused) = {
            let mut blocks = self.lock();
            blocks.is_destroyed = true;
            (blocks.take_free(0, |_, _| true), blocks.used.now_bytes == 0)
        };
        live().retain(|pool| !std::ptr::eq(*pool, self));
        if is_unused {
            POOLS.retire(self.number);
        }
        give_back(&free)
    }

    /// `cuMemAllocFromPoolAsync`: memory that work in the stream may use from now on.
    ///
    /// # Errors
    /// `OUT_OF_MEMORY`; `INVALID_VALUE` for no bytes; `STREAM_CAPTURE_UNSUPPORTED` while capturing.
    pub fn allocate(&'static self, bytes: u64, stream: &'static Stream) -> CudaResult<u64> {
        let client = client()?;
        client.check()?;
        refuse_capture(stream)?;
        if bytes == 0 {
            return Err(CudaError::INVALID_VALUE);
        }
        let bytes = block_bytes(bytes).ok_or(CudaError::OUT_OF_MEMORY)?;
        let address = match self.take_kept(bytes, stream)? {
            Some(address) => address,
            None => self.allocate_new(client, bytes)?,
        };
        all_blocks().get_or_insert_default().insert(address, Block { pool: self, bytes, is_used: true });
        Ok(address)
    }

    /// Counts a block as the program's, and gives the address of one that is kept for it, if there is one.
    fn take_kept(&self, bytes: u64, stream: &Stream) -> CudaResult<Option<u64>> {
        let mut blocks = self.lock();
        if blocks.is_destroyed {
            return Err(CudaError::INVALID_VALUE);
        }
        blocks.used.add(bytes);
        Ok(blocks.reuse(bytes, stream))
    }

    /// Memory from the worker for a block that is counted as the program's.
    fn allocate_new(&self, client: &'static Client, bytes: u64) -> CudaResult<u64> {
        let allocated = allocate_or_give_back(client, bytes);
        let mut blocks = self.lock();
        match allocated {
            Ok(_) => blocks.reserved.add(bytes),
            Err(_) => blocks.used.now_bytes -= bytes,
        }
        allocated
    }

    /// `cuMemPoolTrimTo`: gives back what is done with until no more than so many bytes are kept.
    ///
    /// # Errors
    /// What freeing gives.
    pub fn trim_to(&self, keep_bytes: u64) -> CudaResult<()> {
        Stream::synchronize_all()?;
        let free = self.lock().take_free(keep_bytes, |_, _| true);
        give_back(&free)
    }

    /// `cuMemPoolGetAttribute`.
    #[must_use]
    pub fn attribute(&self, attribute: Attribute) -> u64 {
        let blocks = self.lock();
        match attribute {
            Attribute::Reuse(which) => self.reuse[which].load(Ordering::Relaxed).into(),
            Attribute::ReleaseThreshold => self.release_threshold.load(Ordering::Relaxed),
            Attribute::ReservedNow => blocks.reserved.now_bytes,
            Attribute::ReservedMost => blocks.reserved.most_bytes,
            Attribute::UsedNow => blocks.used.now_bytes,
            Attribute::UsedMost => blocks.used.most_bytes,
        }
    }

    /// `cuMemPoolSetAttribute`.
    ///
    /// # Errors
    /// `INVALID_VALUE` for what can only be asked, and for a highest amount other than 0.
    pub fn set_attribute(&self, attribute: Attribute, value: u64) -> CudaResult<()> {
        let mut blocks = self.lock();
        match (attribute, value) {
            (Attribute::Reuse(which), _) => self.reuse[which].store(value != 0, Ordering::Relaxed),
            (Attribute::ReleaseThreshold, _) => self.release_threshold.store(value, Ordering::Relaxed),
            (Attribute::ReservedMost, 0) => blocks.reserved.most_bytes = blocks.reserved.now_bytes,
            (Attribute::UsedMost, 0) => blocks.used.most_bytes = blocks.used.now_bytes,
            _ => return Err(CudaError::INVALID_VALUE),
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Blocks> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes back what the program had. `Some` of it if it must go to the worker, for the pool is no more.
    fn take_back(&'static self, block: Free, bytes: u64) -> Option<Free> {
        let mut blocks = self.lock();
        blocks.used.now_bytes -= bytes;
        if !blocks.is_destroyed {
            blocks.free.entry(bytes).or_default().push(block);
            HAS_SURPLUS.store(true, Ordering::Relaxed);
            return None;
        }
        blocks.reserved.now_bytes -= bytes;
        if blocks.used.now_bytes == 0 {
            drop(blocks);
            POOLS.retire(self.number);
        }
        Some(block)
    }
}

/// `cuMemFreeAsync`: memory that no work after this in the stream uses. Memory of `cuMemAlloc` may be freed so, too.
///
/// # Errors
/// `INVALID_VALUE` if no allocation begins there; `STREAM_CAPTURE_UNSUPPORTED` while capturing.
pub fn free_in_order(address: u64, stream: &'static Stream) -> CudaResult<()> {
    let client = client()?;
    client.check()?;
    refuse_capture(stream)?;
    match take_used(address)? {
        Some(block) => give_to_pool(client, block, address, stream),
        None => client.free(address),
    }
}

/// `cuMemFree` of a pool's memory; false if it is none. Waits for all work, as the driver does.
///
/// # Errors
/// `INVALID_VALUE` for what was freed already.
pub(super) fn free_after_all(client: &'static Client, address: u64) -> CudaResult<bool> {
    if !all_blocks().as_ref().is_some_and(|all| all.contains_key(&address)) {
        return Ok(false);
    }
    // First, for the program has the block if this fails.
    Stream::synchronize_all()?;
    let block = take_used(address)?.ok_or(CudaError::INVALID_VALUE)?;
    give_to_pool(client, block, address, Stream::legacy()).map(|()| true)
}

/// Gives back what pools keep beyond their thresholds, after a synchronisation of a stream or an event, or of everything.
///
/// Blocks that share a segment are left: freeing one waits for all work.
#[inline]
pub(super) fn release_surplus(is_all_done: bool) -> CudaResult<()> {
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

/// A graph with allocations among its nodes is not offered.
fn refuse_capture(stream: &Stream) -> CudaResult<()> {
    if stream.is_capturing() { Err(CudaError::STREAM_CAPTURE_UNSUPPORTED) } else { Ok(()) }
}

fn live() -> MutexGuard<'static, Vec<&'static Pool>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn all_blocks() -> MutexGuard<'static, Option<HashMap<u64, Block>>> {
    BLOCKS.lock().unwrap_or_else(PoisonError::into_inner)
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
fn give_back(blocks: &[Free]) -> CudaResult<()> {
    let client = client()?;
    blocks.iter().map(|block| give_back_one(client, block)).fold(Ok(()), Result::and)
}

fn give_back_one(client: &'static Client, block: &Free) -> CudaResult<()> {
    if let Some(all) = all_blocks().as_mut() {
        all.remove(&block.address);
    }
    client.free(block.address)
}

/// Memory from the worker; if there is none, after all pools gave back all that they keep.
fn allocate_or_give_back(client: &'static Client, bytes: u64) -> CudaResult<u64> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_that_are_measured_cannot_be_set() {
        let pool = Pool::new(1);
        pool.lock().reserved.add(100);
        assert_eq!(pool.set_attribute(Attribute::ReservedNow, 0), Err(CudaError::INVALID_VALUE));
        assert_eq!(pool.set_attribute(Attribute::UsedMost, 1), Err(CudaError::INVALID_VALUE));
        assert_eq!(pool.set_attribute(Attribute::ReleaseThreshold, u64::MAX), Ok(()));
        assert_eq!(pool.attribute(Attribute::ReleaseThreshold), u64::MAX);
        pool.lock().reserved.now_bytes = 30;
        assert_eq!(pool.attribute(Attribute::ReservedMost), 100);
        assert_eq!(pool.set_attribute(Attribute::ReservedMost, 0), Ok(()));
        assert_eq!(pool.attribute(Attribute::ReservedMost), 30);
        assert_eq!(Attribute::of(9), Err(CudaError::INVALID_VALUE));
    }
}
