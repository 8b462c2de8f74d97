//! Kernels that have to end in time, seen by the fences behind them.

use crate::worker::gpu::fence::{Fence, Fences};
use std::time::{Duration, Instant};

/// The kernels of a client that have not ended.
#[derive(Debug)]
pub(crate) struct Watched {
    /// How long one may run.
    timeout: Option<Duration>,
    fences: Vec<Fence>,
    /// When the last one ended, or when the first one of these was launched.
    since: Instant,
}

impl Watched {
    pub(crate) fn new() -> Self {
        Self { timeout: None, fences: Vec::new(), since: Instant::now() }
    }

    /// Sets the timeout in milliseconds; 0 for none.
    pub(crate) fn limit(&mut self, timeout_ms: u64) {
        self.timeout = (timeout_ms > 0).then(|| Duration::from_millis(timeout_ms));
        self.fences.clear();
    }

    /// Whether kernels are to be watched.
    #[inline]
    pub(crate) fn is_limited(&self) -> bool {
        self.timeout.is_some()
    }

    /// A kernel was launched; the fence is behind it.
    pub(crate) fn push(&mut self, fence: Fence) {
        if self.fences.is_empty() {
            self.since = Instant::now();
        }
        self.fences.push(fence);
    }

    /// The timeout, if a kernel has run for longer.
    pub(crate) fn overdue(&mut self, fences: &Fences) -> Option<Duration> {
        let timeout = self.timeout?;
        let before = self.fences.len();
        if fences.all_reached(&mut self.fences) || self.fences.len() < before {
            self.since = Instant::now();
        }
        (!self.fences.is_empty() && self.since.elapsed() > timeout).then_some(timeout)
    }

    /// They may have waited for something else until now.
    pub(crate) fn excuse(&mut self) {
        self.since = Instant::now();
    }
}
