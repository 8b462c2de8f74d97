//! What many sessions would do at the same time, done so often only, by whichever comes first.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Lets one pass, then nobody for a while.
#[derive(Debug)]
pub(crate) struct Throttle {
    pause: Duration,
    begun: Instant,
    /// Until when nobody passes, in nanoseconds since `begun`.
    closed_until: AtomicU64,
}

impl Throttle {
    /// Open.
    pub(crate) fn new(pause: Duration) -> Self {
        Self { pause, begun: Instant::now(), closed_until: AtomicU64::new(0) }
    }

    /// Whether the caller passes.
    pub(crate) fn pass(&self) -> bool {
        self.pass_at(self.begun.elapsed())
    }

    fn pass_at(&self, now: Duration) -> bool {
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let closed_until = self.closed_until.load(Ordering::Relaxed);
        // Of several that come at once, one alone changes it.
        nanoseconds(now) >= closed_until
            && self
                .closed_until
                .compare_exchange(
                    closed_until,
                    nanoseconds(now + self.pause),
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                )
                .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_passes_in_each_pause() {
        let throttle = Throttle::new(Duration::from_millis(1));
        let passed = (0..1000).filter(|&tens| throttle.pass_at(Duration::from_micros(10 * tens)));
        assert_eq!(passed.count(), 10);
    }
}
