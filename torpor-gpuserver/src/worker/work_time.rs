//! How long a client has had work, or its turn: noted by its session where that begins and ends, read by anybody.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Instead of a beginning, while there is no work.
const NO_WORK: u64 = u64::MAX;

/// A time in whole microseconds.
pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// The time in which a client had commands that were not finished.
#[derive(Debug)]
pub(crate) struct WorkTime {
    origin: Instant,
    /// Of work that has ended.
    ended_us: AtomicU64,
    /// When the present work began, after `origin`.
    began_us: AtomicU64,
}

impl WorkTime {
    pub(crate) fn new() -> Self {
        Self { origin: Instant::now(), ended_us: AtomicU64::new(0), began_us: AtomicU64::new(NO_WORK) }
    }

    /// There is work from now on. False if there was some before. For the session alone, as [`Self::end`].
    #[inline]
    pub(crate) fn begin(&self) -> bool {
        let begins = !self.is_working();
        if begins {
            self.began_us.store(self.now_us(), Ordering::Relaxed);
        }
        begins
    }

    /// There is none any more.
    pub(crate) fn end(&self) {
        let began_us = self.began_us.swap(NO_WORK, Ordering::Relaxed);
        self.ended_us.fetch_add(self.now_us().saturating_sub(began_us), Ordering::Relaxed);
    }

    /// Whether there is work.
    pub(crate) fn is_working(&self) -> bool {
        self.began_us.load(Ordering::Relaxed) != NO_WORK
    }

    /// How long the work has lasted that there is, if there is any.
    pub(crate) fn lasts(&self) -> Duration {
        Duration::from_micros(self.now_us().saturating_sub(self.began_us.load(Ordering::Relaxed)))
    }

    /// How long there has been in all. Whoever reads it while work begins or ends may be told of that a moment later.
    pub(crate) fn total(&self) -> Duration {
        Duration::from_micros(self.ended_us.load(Ordering::Relaxed)) + self.lasts()
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(NO_WORK - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_counted_while_there_is_some() {
        let time = WorkTime { origin: Instant::now() - Duration::from_secs(10), ..WorkTime::new() };
        assert_eq!((time.is_working(), time.total()), (false, Duration::ZERO));
        time.began_us.store(4_000_000, Ordering::Relaxed);
        assert!(time.is_working() && time.total() >= Duration::from_secs(6));
        assert!(time.lasts() >= Duration::from_secs(6));
        time.begin();
        assert!(time.total() >= Duration::from_secs(6), "it began before");
        time.end();
        time.end();
        let ended = time.total();
        assert!(!time.is_working() && ended >= Duration::from_secs(6));
        assert_eq!(time.lasts(), Duration::ZERO);
        assert_eq!(time.total(), ended);
        time.begin();
        assert!(time.is_working() && time.total() >= ended);
    }
}
