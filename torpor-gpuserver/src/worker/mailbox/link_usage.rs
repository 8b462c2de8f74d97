//! What a session tells of itself, to whoever asks and while it works.

use crate::worker::cost::Counts;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};

/// What a session tells of itself.
#[derive(Debug, Default)]
pub(crate) struct LinkUsage {
    /// Physical device memory.
    pub(crate) memory_bytes: AtomicU64,
    /// Page-locked host memory.
    pub(crate) pinned_bytes: AtomicU64,
    /// Commands executed.
    pub(crate) commands: AtomicU64,
    /// Device memory allocated, wherever it is.
    pub(crate) allocated_bytes: AtomicU64,
    /// Host store referred to.
    pub(crate) host_bytes: AtomicU64,
    /// What of its memory is on the GPU, and may need room of the host store that it does not have yet.
    pub(crate) unsaved_bytes: AtomicU64,
    /// Times that it was given the GPU.
    pub(crate) requests: AtomicU64,
    /// Of those, how often all its memory was there.
    pub(crate) hits: AtomicU64,
    /// Of those, how often it was not.
    pub(crate) swaps: AtomicU64,
    /// How long it waited for its turns, in microseconds.
    pub(crate) waited_us: AtomicU64,
    /// How long others took to make room for it and its memory to come.
    pub(crate) swapping_us: AtomicU64,
    /// How long it used the GPU, in nanoseconds, as far as that is shared out.
    pub(crate) gpu_ns: AtomicU64,
    /// It is covered, and nothing but a command changes that.
    pub(crate) covered: AtomicBool,
    /// A [`Phase`](torpor_proto::control::worker::Phase).
    pub(crate) phase: AtomicI32,
    /// Images whose variables keep it on its GPU.
    pub(crate) fixed_images: AtomicU32,
    /// Arrays, texture and surface objects.
    pub(crate) arrays: AtomicU32,
    /// Device memory of the arrays, wherever they are.
    pub(crate) array_bytes: AtomicU64,
    /// Texture and surface objects that keep it on its GPU.
    pub(crate) fixed_objects: AtomicU32,
}

impl LinkUsage {
    /// What requests cost is a difference of.
    pub(crate) fn counts(&self) -> Counts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counts {
            turns: read(&self.requests),
            swaps: read(&self.swaps),
            waited_us: read(&self.waited_us),
            swapping_us: read(&self.swapping_us),
            gpu_us: read(&self.gpu_ns) / 1000,
        }
    }
}
