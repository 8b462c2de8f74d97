//! What processes of one function have together: memory and events as handles of 64 bytes (`cuIpc*`), memory objects and pools
//! as file descriptors.
//!
//! Whatever travels carries what the worker answered an export with, a secret that nobody guesses. Who has it is believed to
//! have been given it; that it is of the same function is the worker's to check.

mod descriptor;
mod event;
mod handle;
mod opened;
mod pool;

pub use handle::IpcHandle;

use super::stream::Stream;
use super::{Client, CudaResult};
use opened::OpenedMemory;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a worker answers an export with.
pub(super) type Secret = [u64; 2];

/// What this process has together with others.
#[derive(Default)]
pub(super) struct Ipc {
    is_used: AtomicBool,
    opened: Mutex<OpenedMemory>,
}

impl Ipc {
    /// Whether others may see what this process does: then what the program waited for is done, not only in order.
    #[inline]
    pub(super) fn is_used(&self) -> bool {
        self.is_used.load(Ordering::Relaxed)
    }

    /// Also keeps others from importing the same thing at once.
    fn lock(&self) -> MutexGuard<'_, OpenedMemory> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    /// Before the first thing that other processes may have: what was answered without waiting for it is waited for.
    fn begin_sharing(&'static self) -> CudaResult<()> {
        if !self.ipc.is_used.swap(true, Ordering::Relaxed) {
            Stream::synchronize_all()?;
        }
        Ok(())
    }
}
