//! How far the staging area of a client is free again, and how its client waits for that.
//!
//! Positions count the bytes that were ever staged. SYNC POINT `staging`: the client announces its sleep in `waiting`,
//! fences, and looks at `released` once more; the worker releases, fences, and looks at `waiting`. One of the two sees the
//! other.

use crate::sync::{AtomicU32, AtomicU64, Ordering, fence, futex_wait, futex_wake};
use std::time::Duration;

/// The part of a channel that is about staging.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Staging {
    released: AtomicU64,
    /// Set by the client before it sleeps; only one of its threads at a time does.
    waiting: AtomicU32,
    /// Threads of the client that are in the middle of a copy of pageable memory.
    copying: AtomicU32,
}

impl Staging {
    /// Worker: staged bytes up to this position are free again.
    pub fn release(&self, position: u64) {
        self.released.fetch_max(position, Ordering::Release);
        // SYNC POINT staging
        fence(Ordering::SeqCst);
        if self.waiting.load(Ordering::Relaxed) != 0 {
            self.waiting.store(0, Ordering::SeqCst);
            futex_wake(&self.waiting);
        }
    }

    /// Client: see [`Self::release`].
    #[must_use]
    pub fn released(&self) -> u64 {
        self.released.load(Ordering::Acquire)
    }

    /// Client: sleeps until more than `known` is free again, for `timeout` at most. May return early: look again.
    pub fn wait(&self, known: u64, timeout: Duration) {
        self.waiting.store(1, Ordering::Relaxed);
        // SYNC POINT staging
        fence(Ordering::SeqCst);
        if self.released.load(Ordering::Acquire) == known {
            futex_wait(&self.waiting, 1, timeout);
        }
        self.waiting.store(0, Ordering::Relaxed);
    }

    /// Client: a copy of several commands begins: the client is not idle between them. It ends with the guard.
    pub fn begin_copy(&self) -> Copying<'_> {
        self.copying.fetch_add(1, Ordering::Relaxed);
        Copying(self)
    }

    /// Worker: whether the client says that more commands of a copy come.
    #[must_use]
    pub fn is_copying(&self) -> bool {
        self.copying.load(Ordering::Relaxed) != 0
    }
}

/// A copy that is under way.
#[derive(Debug)]
pub struct Copying<'a>(&'a Staging);

impl Drop for Copying<'_> {
    fn drop(&mut self) {
        self.0.copying.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_is_released_never_goes_back() {
        let staging = Staging::default();
        staging.release(7);
        staging.release(5);
        assert_eq!(staging.released(), 7);
        // There is more than is known, so there is nothing to wait for.
        staging.wait(5, Duration::MAX);
    }

    #[test]
    fn a_copy_lasts_as_long_as_one_of_the_threads_makes_one() {
        let staging = Staging::default();
        let (first, second) = (staging.begin_copy(), staging.begin_copy());
        drop(first);
        assert!(staging.is_copying());
        drop(second);
        assert!(!staging.is_copying());
    }
}

#[cfg(all(test, loom))]
mod model {
    use super::*;
    use loom::sync::Arc;

    #[test]
    fn who_waits_for_staging_is_always_woken() {
        loom::model(|| {
            let staging = Arc::new(Staging::default());
            let theirs = staging.clone();
            let worker = loom::thread::spawn(move || {
                theirs.release(1);
                theirs.release(2);
            });
            // Looked at once for both: to wait for more than all that comes would be to wait for ever.
            let mut known = staging.released();
            while known < 2 {
                staging.wait(known, Duration::MAX);
                known = staging.released();
            }
            worker.join().unwrap();
        });
    }
}
