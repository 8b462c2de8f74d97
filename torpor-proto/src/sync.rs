//! The only door to atomics, fences and futexes, so that the model checker (`loom`) can stand behind it.

#[cfg(not(loom))]
pub use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

#[cfg(loom)]
pub use self::modelled::{futex_wait, futex_wake};
#[cfg(not(loom))]
pub use self::real::{futex_wait, futex_wake};

#[cfg(not(loom))]
mod real {
    use super::AtomicU32;
    use rustix::thread::futex;
    use std::time::Duration;

    /// Sleeps while `word` holds `expected`, until woken or for `timeout` at most. May return early: look again.
    ///
    /// The word may lie in memory shared between processes. Source: futex(2), FUTEX_WAIT without FUTEX_PRIVATE_FLAG.
    pub fn futex_wait(word: &AtomicU32, expected: u32, timeout: Duration) {
        let timeout = futex::Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        // Every outcome (woken, time-out, interrupted, value changed) means the same to the caller: look again.
        let _ = futex::wait(word, futex::Flags::empty(), expected, Some(&timeout));
    }

    /// Wakes every sleeper of [`futex_wait`] on `word`.
    pub fn futex_wake(word: &AtomicU32) {
        let _ = futex::wake(word, futex::Flags::empty(), i32::MAX as u32);
    }
}

#[cfg(loom)]
mod modelled {
    use super::{AtomicU32, Ordering};
    use std::time::Duration;

    /// A futex sleeps until the word changes; the model has no time-outs, so a lost wake-up is a deadlock it finds.
    pub fn futex_wait(word: &AtomicU32, expected: u32, _timeout: Duration) {
        while word.load(Ordering::SeqCst) == expected {
            loom::thread::yield_now();
        }
    }

    /// The model's sleepers watch the word themselves.
    pub fn futex_wake(_word: &AtomicU32) {}
}
