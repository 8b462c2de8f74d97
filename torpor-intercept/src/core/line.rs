//! A line of threads that sleep until something that others have is given back.
//!
//! SYNC POINT line: who waits counts itself and then looks at the thing once more; who gives it back does so and then looks at
//! the count. One of the two sees the other.

use super::channel::LOOK;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

/// Threads that wait.
#[derive(Default)]
pub(super) struct Line {
    sleepers: AtomicUsize,
    lock: Mutex<()>,
    next: Condvar,
}

impl Line {
    /// Sleeps while there is nothing to be had, until the next one is woken, or for [`LOOK`] at most: look again.
    #[cold]
    pub(super) fn wait_while(&self, is_gone: impl Fn() -> bool) {
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        // SYNC POINT line
        if is_gone() {
            drop(self.next.wait_timeout(guard, LOOK).unwrap_or_else(PoisonError::into_inner));
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }

    /// Something was given back.
    #[inline]
    pub(super) fn next(&self) {
        // SYNC POINT line
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            // A thread between its look and its sleep has the lock.
            drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
            self.next.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicI32;

    #[test]
    fn of_more_threads_than_things_everybody_has_one_in_the_end() {
        let (line, free, had) = (Line::default(), AtomicI32::new(2), AtomicI32::new(0));
        let take =
            || free.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |free| (free > 0).then(|| free - 1));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        while take().is_err() {
                            line.wait_while(|| free.load(Ordering::SeqCst) == 0);
                        }
                        had.fetch_add(1, Ordering::SeqCst);
                        free.fetch_add(1, Ordering::SeqCst);
                        line.next();
                    }
                });
            }
        });
        assert_eq!(had.into_inner(), 800);
    }
}
