//! Shortage: whether clients had to leave for others a moment ago.

use super::GpuMemory;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long a moment is: who leaves less often is no matter.
const MOMENT: Duration = Duration::from_secs(1);

/// When the GPU's memory was short last. Sessions look at it whenever they have nothing to do, so it has no lock.
#[derive(Debug)]
pub(super) struct Shortage {
    began: Instant,
    /// After that, plus one; 0 if it never was.
    last_us: AtomicU64,
}

impl Shortage {
    /// It never was.
    pub(super) fn new() -> Self {
        Self { began: Instant::now(), last_us: AtomicU64::new(0) }
    }

    /// It is.
    pub(super) fn note(&self) {
        self.last_us.store(self.now_us() + 1, Ordering::Relaxed);
    }

    /// Whether it was a moment ago.
    fn is_recent(&self) -> bool {
        let last_us = self.last_us.load(Ordering::Relaxed);
        last_us > 0 && Duration::from_micros(self.now_us().saturating_sub(last_us)) < MOMENT
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX - 1)
    }
}

impl GpuMemory {
    /// Whether clients had to leave for others a moment ago.
    pub(crate) fn is_short(&self) -> bool {
        self.shortage.is_recent()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_short_for_a_moment() {
        let shortage = Shortage::new();
        assert!(!shortage.is_recent());
        shortage.note();
        assert!(shortage.is_recent());
        let began = shortage.began.checked_sub(2 * MOMENT).unwrap();
        assert!(!Shortage { began, ..shortage }.is_recent());
    }
}
