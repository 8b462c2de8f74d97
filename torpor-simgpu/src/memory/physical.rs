//! Physical device memory: a file in memory of which only touched pages exist.
//!
//! A fresh page reads as poison, not as zero: [`POISON`] bytes are a NaN in every floating-point format and −1 as an
//! integer, so what a program computes from memory it never wrote shows. Poison is laid lazily, a granule at a time, when
//! the granule is first accessed by anything but a write of all of it.
//!
//! Memory that may be given to other processes is zero instead: which granules are poisoned is known in one process alone. Its
//! file's name says which device it is of.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{MemfdFlags, fstat, ftruncate, memfd_create, readlink};
use rustix::io::fcntl_dupfd_cloexec;

use crate::check::Shadow;
use crate::error::{CudaError, Result};
use crate::lock;

/// What memory is full of before it is written.
pub const POISON: u8 = 0xff;
/// What the file of memory that may be given to other processes is called, before the number of its device.
const SHAREABLE: &str = "torpor-simgpu-device-";
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
    /// What it is a part of, unless that is another process's.
    budget: Option<Arc<Budget>>,
    /// One bit a granule: its contents are in place.
    ready: Box<[AtomicU64]>,
    poisoning: Mutex<()>,
    /// Which bytes were written, if that is checked.
    pub written: Option<Shadow>,
    is_shareable: bool,
}

impl Physical {
    /// `bytes` of a device's memory, rounded up to [`GRANULARITY`].
    pub fn new(device: usize, budget: &Arc<Budget>, bytes: u64, track_writes: bool) -> Result<Arc<Self>> {
        let (file, bytes) = Self::take(budget, bytes, "torpor-simgpu")?;
        let mut physical = Self::of_file(device, bytes, file, Some(Arc::clone(budget)));
        physical.ready = blank(bytes, 0);
        physical.written = track_writes.then(|| Shadow::new(bytes));
        physical.is_shareable = false;
        Ok(Arc::new(physical))
    }

    /// The same, which other processes may be given.
    pub fn shareable(device: usize, budget: &Arc<Budget>, bytes: u64) -> Result<Arc<Self>> {
        let (file, bytes) = Self::take(budget, bytes, &format!("{SHAREABLE}{device}"))?;
        Ok(Arc::new(Self::of_file(device, bytes, file, Some(Arc::clone(budget)))))
    }

    /// What another process has given, of one of so many devices.
    pub fn given(file: OwnedFd, devices: usize) -> Result<Arc<Self>> {
        let name = readlink(format!("/proc/self/fd/{}", file.as_raw_fd()), Vec::new());
        let name = name.map_err(|_| CudaError::INVALID_VALUE)?;
        let name = name.to_str().map_err(|_| CudaError::INVALID_VALUE)?;
        let device = name
            .strip_prefix("/memfd:")
            .and_then(|name| name.strip_prefix(SHAREABLE)?.split(' ').next()?.parse().ok())
            .filter(|&device: &usize| device < devices)
            .ok_or(CudaError::INVALID_VALUE)?;
        let size = fstat(&file).map_err(|_| CudaError::INVALID_VALUE)?.st_size;
        let bytes = u64::try_from(size).map_err(|_| CudaError::INVALID_VALUE)?;
        Ok(Arc::new(Self::of_file(device, bytes, file, None)))
    }

    fn take(budget: &Arc<Budget>, bytes: u64, name: &str) -> Result<(OwnedFd, u64)> {
        let bytes = bytes.max(1).checked_next_multiple_of(GRANULARITY).ok_or(CudaError::OUT_OF_MEMORY)?;
        budget.take(bytes)?;
        let give_back = |_| {
            budget.used.fetch_sub(bytes, Ordering::Relaxed);
            CudaError::OUT_OF_MEMORY
        };
        let file = memfd_create(name, MemfdFlags::CLOEXEC).map_err(give_back)?;
        ftruncate(&file, bytes).map_err(give_back)?;
        Ok((file, bytes))
    }

    /// All of it counts as written.
    fn of_file(device: usize, bytes: u64, file: OwnedFd, budget: Option<Arc<Budget>>) -> Self {
        let (ready, poisoning) = (blank(bytes, u64::MAX), Mutex::default());
        Self { device, bytes, file, budget, ready, poisoning, written: None, is_shareable: true }
    }

    /// The file, for another process, if that may have it.
    pub fn give(&self) -> Result<OwnedFd> {
        if !self.is_shareable {
            return Err(CudaError::INVALID_VALUE);
        }
        fcntl_dupfd_cloexec(&self.file, 0).map_err(|_| CudaError::OPERATING_SYSTEM)
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
        if let Some(budget) = &self.budget {
            budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

/// As many bits as there are granules, in words that are all the same.
fn blank(bytes: u64, word: u64) -> Box<[AtomicU64]> {
    let words = (bytes / GRANULE).div_ceil(64);
    (0..words).map(|_| AtomicU64::new(word)).collect()
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
