//! The kernels that a thread used last, by host function: found without touching memory that another thread writes.

use crate::core::Kernel;
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

/// Entries of a thread. A power of two.
const ENTRIES: usize = 64;

#[derive(Clone, Copy)]
struct Entry {
    host_function: usize,
    generation: u64,
    kernel: Option<&'static Kernel>,
}

/// Grows whenever something that a thread may remember is no longer true.
static GENERATION: AtomicU64 = AtomicU64::new(1);

thread_local! {
    static REMEMBERED: [Cell<Entry>; ENTRIES] = const {
        [const { Cell::new(Entry { host_function: 0, generation: 0, kernel: None }) }; ENTRIES]
    };
}

/// Host functions are at least 16 bytes apart.
fn place(host_function: usize) -> usize {
    (host_function >> 4 ^ host_function >> 10) % ENTRIES
}

/// The kernel, if this thread remembers it.
#[inline]
pub(super) fn get(host_function: usize) -> Option<&'static Kernel> {
    let entry = REMEMBERED.try_with(|all| all[place(host_function)].get()).ok()?;
    let is_current =
        entry.host_function == host_function && entry.generation == GENERATION.load(Ordering::Acquire);
    if is_current { entry.kernel } else { None }
}

/// The generation of what is looked up from now on.
pub(super) fn generation() -> u64 {
    GENERATION.load(Ordering::Acquire)
}

/// Remembers what was looked up since `generation` was asked for.
pub(super) fn put(host_function: usize, kernel: &'static Kernel, generation: u64) {
    let entry = Entry { host_function, generation, kernel: Some(kernel) };
    let _ = REMEMBERED.try_with(|all| all[place(host_function)].set(entry));
}

/// Makes every thread forget.
pub(super) fn forget() {
    GENERATION.fetch_add(1, Ordering::AcqRel);
}
