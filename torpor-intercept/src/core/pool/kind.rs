//! Where a pool's memory is. One of the host, or of managed memory, has blocks as `cuMemHostAlloc` and `cuMemAllocManaged` give them.

use super::{Pool, Sharing, allocate_or_give_back};
use crate::core::{Client, CudaResult};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use torpor_proto::error::CudaError;

/// What a pool's blocks are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PoolMemory {
    /// Memory of its device.
    #[default]
    Device,
    /// Page-locked memory of the host.
    Host,
    /// Managed memory, which is that, too.
    Managed,
}

/// What a pool is made as.
#[derive(Clone, Copy, Debug, Default)]
pub struct PoolKind {
    /// What its blocks are.
    pub memory: PoolMemory,
    /// What it may have, or 0.
    pub limit_bytes: u64,
    /// What it has to do with other processes.
    pub sharing: Sharing,
}

/// `CU_MEM_ATTACH_GLOBAL`
const ATTACH_GLOBAL: u32 = 1;

/// Of memory that is no device's, the pools that nobody made.
static DEFAULT: [OnceLock<Option<&'static Pool>>; 2] = [const { OnceLock::new() }; 2];

/// Those that the program chose in their place.
static CHOSEN: Mutex<[Option<&Pool>; 2]> = Mutex::new([None; 2]);

fn chosen() -> MutexGuard<'static, [Option<&'static Pool>; 2]> {
    CHOSEN.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PoolMemory {
    /// Its place in the lists.
    fn index(self) -> usize {
        usize::from(self == Self::Managed)
    }

    pub(super) fn allocate(self, client: &'static Client, bytes: u64) -> CudaResult<u64> {
        match self {
            Self::Device => allocate_or_give_back(client, bytes),
            Self::Host => client.allocate_pinned(bytes, 0),
            Self::Managed => client.allocate_managed(bytes, ATTACH_GLOBAL),
        }
    }
}

/// Frees what [`PoolMemory::allocate`] gave and no pool has any more.
pub(super) fn free(client: &'static Client, address: u64) -> CudaResult<()> {
    if !client.host.contains(address, 1) {
        client.free_unused(address)
    } else if client.pinned_allocation_of(address).is_some() {
        client.release_pinned(address)
    } else {
        client.free_managed(address)
    }
}

impl Pool {
    /// What its blocks are.
    #[must_use]
    pub fn memory(&self) -> PoolMemory {
        self.lock().kind.memory
    }

    /// The pool of memory on a device, or on none, that nobody gave another.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn default_of(memory: PoolMemory, device: u32) -> CudaResult<&'static Self> {
        if memory == PoolMemory::Device {
            return Self::of_device(device);
        }
        let create = || Self::create(0, PoolKind { memory, ..PoolKind::default() }).ok();
        DEFAULT[memory.index()].get_or_init(create).ok_or(CudaError::OUT_OF_MEMORY)
    }

    /// The pool of such memory that the program chose last, or the default one.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn chosen_of(memory: PoolMemory, device: u32) -> CudaResult<&'static Self> {
        match memory {
            PoolMemory::Device => Self::current_of(device),
            _ => chosen()[memory.index()].map_or_else(|| Self::default_of(memory, device), Ok),
        }
    }

    /// Makes it that.
    pub fn choose_for(&'static self, memory: PoolMemory, device: u32) {
        match memory {
            PoolMemory::Device => self.make_current(device),
            _ => chosen()[memory.index()] = Some(self),
        }
    }

    /// Whether nobody made it.
    pub(super) fn is_default(&'static self) -> CudaResult<bool> {
        Ok(std::ptr::eq(self, Self::default_of(self.memory(), self.device())?))
    }

    /// It is chosen no more.
    pub(super) fn forget_choice(&self) {
        let is_it = |chosen: &&mut Option<&Self>| chosen.is_some_and(|chosen| std::ptr::eq(chosen, self));
        chosen().iter_mut().filter(is_it).for_each(|chosen| *chosen = None);
    }
}
