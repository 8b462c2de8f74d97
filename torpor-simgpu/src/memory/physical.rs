//! Physical device memory: a file in memory of which only touched pages exist.
//!
//! A fresh page reads as poison, not as zero: [`POISON`] bytes are a NaN in every floating-point format and −1 as an
//! integer, so what a program computes from memory it never wrote shows. Poison is laid lazily, a granule at a time, when
//! the granule is first accessed by anything but a write of all of it.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use crate::check::Shadow;
use crate::error::{CudaError, Result};
use crate::lock;

/// What memory is full of before it is written.
pub const POISON: u8 = 0xff;
/// Bytes that are poisoned at a time.
const GRANULE: u64 = 64 << 10;
/// What sizes of physical memory are a multiple of.
pub const GRANULARITY: u64 = 2 << 20;

/// How much of a device's memory is taken.
#[derive(Debug)]
pub struct Budget {
    total: u64,
    used: AtomicU64,
}

impl Budget {
    /// A device with `total` bytes, all of them free.
    pub fn new(total: u64) -> Arc<Self> {
        Arc::new(Self { total, used: AtomicU64::new(0) })
    }

    /// Bytes in all.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Bytes nobody has.
    pub fn free(&self) -> u64 {
        self.total.saturating_sub(self.used.load(Ordering::Relaxed))
    }

    fn take(&self, bytes: u64) -> Result {
        let fits = |used: u64| used.checked_add(bytes).filter(|&used| used <= self.total);
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        taken.map(drop).map_err(|_| CudaError::OUT_OF_MEMORY)
    }
}

/// A piece of a device's memory.
#[derive(Debug)]
pub struct Physical {
    /// The device it belongs to.
    pub device: usize,
    /// Its size.
    pub bytes: u64,
    file: OwnedFd,
    budget: Arc<Budget>,
    /// One bit a granule: its contents are in place.
    ready: Box<[AtomicU64]>,
    poisoning: Mutex<()>,
    /// Which bytes were written, if that is checked.
    pub written: Option<Shadow>,
}

impl Physical {
    /// `bytes` of a device's memory, rounded up to [`GRANULARITY`].
    pub fn new(device: usize, budget: &Arc<Budget>, bytes: u64, track_writes: bool) -> Result<Arc<Self>> {
        let bytes = bytes.max(1).checked_next_multiple_of(GRANULARITY).ok_or(CudaError::OUT_OF_MEMORY)?;
        budget.take(bytes)?;
        let give_back = |_| {
            budget.used.fetch_sub(bytes, Ordering::Relaxed);
            CudaError::OUT_OF_MEMORY
        };
        let file = memfd_create("torpor-simgpu", MemfdFlags::CLOEXEC).map_err(give_back)?;
        ftruncate(&file, bytes).map_err(give_back)?;
        let words = (bytes / GRANULE).div_ceil(64);
        Ok(Arc::new(Self {
            device,
            bytes,
            file,
            budget: Arc::clone(budget),
            ready: (0..words).map(|_| AtomicU64::new(0)).collect(),
            poisoning: Mutex::default(),
            written: track_writes.then(|| Shadow::new(bytes)),
        }))
    }

    /// The file that holds it.
    pub fn file(&self) -> &OwnedFd {
        &self.file
    }

    fn is_ready(&self, granule: u64) -> bool {
        let word = usize::try_from(granule / 64).ok().and_then(|word| self.ready.get(word));
        word.is_none_or(|word| word.load(Ordering::Acquire) >> (granule % 64) & 1 == 1)
    }

    /// Makes `bytes` at `offset` ready for an access; `overwrites` says that it writes all of them.
    ///
    /// `base` is where the start of this memory is mapped.
    pub fn prepare(&self, base: *mut u8, offset: u64, bytes: u64, overwrites: bool) {
        if bytes == 0 {
            return;
        }
        let end = offset.saturating_add(bytes).min(self.bytes);
        for granule in offset / GRANULE..end.div_ceil(GRANULE) {
            if self.is_ready(granule) {
                continue;
            }
            let _poisoning = lock(&self.poisoning);
            if self.is_ready(granule) {
                continue;
            }
            let start = granule * GRANULE;
            if !(overwrites && offset <= start && start + GRANULE <= end) {
                // SAFETY: the caller's mapping at `base` covers all of this memory, whose size is a multiple of
                // `GRANULE`, and `start` lies inside. Only this thread writes a granule that is not ready.
                unsafe { base.add(start as usize).write_bytes(POISON, GRANULE as usize) };
            }
            self.ready[(granule / 64) as usize].fetch_or(1 << (granule % 64), Ordering::Release);
        }
    }

    /// The range of offsets around `offset` that is ready, at least its granule, which is made ready.
    pub fn ready_around(&self, base: *mut u8, offset: u64) -> (u64, u64) {
        /// Granules looked at in each direction: 64 MiB.
        const REACH: u64 = 1024;
        self.prepare(base, offset, 1, false);
        let granule = offset / GRANULE;
        let lowest = granule.saturating_sub(REACH);
        let highest = (granule + REACH).min(self.bytes / GRANULE);
        let first =
            (lowest..granule).rev().take_while(|&granule| self.is_ready(granule)).last().unwrap_or(granule);
        let last =
            (granule + 1..highest).take_while(|&granule| self.is_ready(granule)).last().unwrap_or(granule);
        (first * GRANULE, (last + 1) * GRANULE)
    }
}

impl Drop for Physical {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_finite_and_comes_back() {
        let budget = Budget::new(4 << 20);
        let first = Physical::new(0, &budget, 1, false).expect("two of four MiB");
        let second = Physical::new(0, &budget, 2 << 20, false).expect("the rest");
        assert_eq!(Physical::new(0, &budget, 1, false).err(), Some(CudaError::OUT_OF_MEMORY));
        drop((first, second));
        assert_eq!(budget.free(), 4 << 20);
        assert_eq!(Physical::new(0, &budget, u64::MAX, false).err(), Some(CudaError::OUT_OF_MEMORY));
        assert_eq!(budget.free(), 4 << 20);
    }
}
