//! When work of the program was on the GPU, for a profiler in the program ([`crate::cupti`]).
//!
//! While a kind of work is wanted, each post of that kind is put between two events of this library's own in the same stream
//! ([`bracket`]). When somebody collects, the worker tells how far these are from a [`base`], a moment that both clocks know, so
//! that nothing is waited for while the program runs. While nothing is wanted, a post costs one load more.

mod base;
mod bracket;
mod pairs;
mod timeline;

pub(super) use bracket::{Bracket, bracketed};
pub use timeline::Finished;

use super::CudaResult;
use super::kernel::Kernel;
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use timeline::TIMELINE;

/// A kind of work that somebody may want to know of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum WorkKind {
    /// Kernels, and graphs, which are launched as one.
    Kernels = 1,
    /// Copies.
    Copies = 2,
    /// Fills.
    Fills = 4,
}

/// Whose memory one side of a copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Of the program, and not page-locked.
    Pageable,
    /// Page-locked.
    Pinned,
    /// Of the device.
    Device,
}

/// What was on the GPU.
#[derive(Clone, Copy)]
pub enum Work {
    /// A kernel.
    Kernel {
        /// Which.
        kernel: &'static Kernel,
        /// Blocks in x, y, z.
        grid: [u32; 3],
        /// Threads of a block in x, y, z.
        block: [u32; 3],
        /// Dynamic shared memory of a block.
        shared_bytes: u32,
    },
    /// A launch of a graph, from its first node's start to its last node's end.
    Graph {
        /// Its number.
        graph: u32,
    },
    /// A copy.
    Copy {
        /// Where the bytes come from.
        from: Side,
        /// Where they go.
        to: Side,
        /// How many.
        bytes: u64,
    },
    /// A fill.
    Fill {
        /// Bytes written.
        bytes: u64,
        /// The element's value.
        value: u32,
    },
}

static WANTED: AtomicU8 = AtomicU8::new(0);
/// Whether something was collected that nobody has taken.
static HAS_FINISHED: AtomicBool = AtomicBool::new(false);
static LOST: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// The number of the call that the thread is in.
    static CALL: Cell<u32> = const { Cell::new(0) };
}

/// Wants a kind of work from now on, or no longer.
pub fn want(kind: WorkKind, is_wanted: bool) {
    if is_wanted {
        WANTED.fetch_or(kind as u8, Ordering::Relaxed);
    } else {
        WANTED.fetch_and(!(kind as u8), Ordering::Relaxed);
    }
}

#[inline]
fn is_wanted(kind: WorkKind) -> bool {
    WANTED.load(Ordering::Relaxed) & kind as u8 != 0
}

/// From now on, what this thread posts belongs to this call.
pub fn enter_call(number: u32) {
    CALL.set(number);
}

/// Everything that is known to be over, in the order in which it was posted: what was found before, and what is found now.
pub fn collect() -> Vec<Finished> {
    let mut timeline = TIMELINE.lock();
    timeline.collect(usize::MAX);
    HAS_FINISHED.store(false, Ordering::Relaxed);
    timeline.take_finished()
}

/// As [`collect`], of what was found before alone; nearly always nothing.
#[inline]
pub fn collected() -> Option<Vec<Finished>> {
    if !HAS_FINISHED.load(Ordering::Relaxed) {
        return None;
    }
    HAS_FINISHED.store(false, Ordering::Relaxed);
    Some(TIMELINE.lock().take_finished())
}

/// A wait for everything that is posted. Work that was posted before is over when it ends, whatever the clocks say.
#[inline]
pub(super) fn seen_over(wait: impl FnOnce() -> CudaResult<()>) -> CudaResult<()> {
    if WANTED.load(Ordering::Relaxed) == 0 {
        return wait();
    }
    let posted = TIMELINE.lock().posted();
    wait()?;
    TIMELINE.lock().mark_seen(posted, host_ns());
    Ok(())
}

/// How many times are lost since the last time: too many were under way, or their events failed.
pub fn take_lost() -> u64 {
    LOST.swap(0, Ordering::Relaxed)
}

/// Nanoseconds of the host's clock that never goes back.
#[must_use]
pub fn host_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}
