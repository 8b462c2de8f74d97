//! Memory pools: allocations in the order of streams (`cuMemAllocAsync`).
//!
//! A pool keeps what was freed and gives it out again without asking the worker: at once to the stream that freed it, to another
//! stream once that work is known to be done. A synchronisation gives back what is above the pool's threshold, as the CUDA
//! programming guide says ("Stream-Ordered Memory Allocator", *Physical Page Caching Behavior*). Blocks are whole
//! allocations of [`Client::allocate`] in few lengths, so what was freed fits again; they are never split.

mod attribute;
mod blocks;
mod free;
mod kind;
mod sharing;

pub use attribute::Attribute;
pub(in crate::core) use blocks::block_bytes;
pub use free::free_in_order;
pub(in crate::core) use free::{allocate_or_give_back, free_after_all, release_surplus};
pub use kind::{PoolKind, PoolMemory};
pub use sharing::{PoolName, Sharing};

use super::handle::Table;
use super::stream::Stream;
use super::{Client, CudaResult, client, devices};
use blocks::{Blocks, Free};
use free::give_back;
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use torpor_proto::error::CudaError;

/// A memory pool. Serves as `CUmemoryPool` and `cudaMemPool_t`.
pub struct Pool {
    number: u32,
    /// The ordinal of its device.
    device: AtomicU32,
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

/// Those that `cuMemAllocAsync` takes from on each device, where the program chose one.
static CURRENT: Mutex<[Option<&Pool>; devices::MOST]> = Mutex::new([None; devices::MOST]);

/// The blocks of all pools, by address.
static BLOCKS: Mutex<Option<HashMap<u64, Block>>> = Mutex::new(None);

/// Whether any pool may have more than its threshold says.
static HAS_SURPLUS: AtomicBool = AtomicBool::new(false);

/// Whether a block of a pool begins there.
pub(in crate::core) fn has(address: u64) -> bool {
    all_blocks().as_ref().is_some_and(|blocks| blocks.contains_key(&address))
}

impl Pool {
    fn new(number: u32, device: u32) -> Self {
        Self {
            number,
            device: AtomicU32::new(device),
            release_threshold: AtomicU64::new(0),
            reuse: [const { AtomicBool::new(true) }; 3],
            blocks: Mutex::default(),
        }
    }

    /// `cuMemPoolCreate`, of a device; one of other memory has the first.
    ///
    /// # Errors
    /// `OUT_OF_MEMORY` with thousands of pools.
    pub fn create(device: u32, kind: PoolKind) -> CudaResult<&'static Self> {
        let renew = |pool: &Self| {
            pool.device.store(device, Ordering::Relaxed);
            pool.release_threshold.store(0, Ordering::Relaxed);
            pool.reuse.iter().for_each(|reuse| reuse.store(true, Ordering::Relaxed));
            *pool.lock() = Blocks::default();
        };
        let pool = POOLS.insert(|number| Self::new(number, device), renew).ok_or(CudaError::OUT_OF_MEMORY)?;
        pool.lock().kind = kind;
        live().push(pool);
        Ok(pool)
    }

    /// The pool of a device that nobody gave another.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn of_device(device: u32) -> CudaResult<&'static Self> {
        static DEFAULT: [OnceLock<Option<&'static Pool>>; devices::MOST] =
            [const { OnceLock::new() }; devices::MOST];
        let own = &DEFAULT[device as usize % devices::MOST];
        own.get_or_init(|| Self::create(device, PoolKind::default()).ok()).ok_or(CudaError::OUT_OF_MEMORY)
    }

    /// The pool that `cuMemAllocAsync` takes from on a device.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn current_of(device: u32) -> CudaResult<&'static Self> {
        let chosen = CURRENT.lock().unwrap_or_else(PoisonError::into_inner)[device as usize % devices::MOST];
        chosen.map_or_else(|| Self::of_device(device), Ok)
    }

    /// Makes it the one that `cuMemAllocAsync` takes from on a device.
    pub fn make_current(&'static self, device: u32) {
        CURRENT.lock().unwrap_or_else(PoisonError::into_inner)[device as usize % devices::MOST] = Some(self);
    }

    /// The ordinal of its device.
    #[must_use]
    pub fn device(&self) -> u32 {
        self.device.load(Ordering::Relaxed)
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
        if self.is_default()? {
            return Err(CudaError::INVALID_VALUE);
        }
        self.forget_choice();
        {
            let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
            let is_it = |chosen: &&mut Option<&Pool>| chosen.is_some_and(|chosen| std::ptr::eq(chosen, self));
            current.iter_mut().filter(is_it).for_each(|chosen| *chosen = None);
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
    /// `OUT_OF_MEMORY`, also beyond the pool's limit; `INVALID_VALUE` for no bytes, and of a pool of another process.
    pub fn allocate(&'static self, bytes: u64, stream: &'static Stream) -> CudaResult<u64> {
        let client = client()?;
        client.check()?;
        if matches!(self.sharing(), Sharing::Imported(_)) {
            return Err(CudaError::INVALID_VALUE);
        }
        if stream.is_capturing() {
            // What a graph allocates is the device's.
            if self.memory() != PoolMemory::Device {
                return Err(CudaError::NOT_SUPPORTED);
            }
            return stream.current_capture()?.allocate(stream, bytes);
        }
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
        let allocated = self.make_room(bytes).and_then(|()| self.memory().allocate(client, bytes));
        // Whatever device is current.
        allocated.iter().for_each(|&address| client.give_to(address, self.device()));
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

fn live() -> MutexGuard<'static, Vec<&'static Pool>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn all_blocks() -> MutexGuard<'static, Option<HashMap<u64, Block>>> {
    BLOCKS.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_that_are_measured_cannot_be_set() {
        let pool = Pool::new(1, 0);
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
