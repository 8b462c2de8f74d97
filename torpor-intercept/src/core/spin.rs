//! How long a thread looks for its answer before it sleeps: long where CPUs are to spare, hardly where others wait for them.
//!
//! A thread that is taken off its CPU while it looks has kept somebody from it, maybe the worker that it waits for. So the
//! next look is short, and each one after that twice as long as the last, up to what the server asks for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A look that lasts so long without an end was interrupted: its turns take microseconds.
const TAKEN_AWAY: Duration = Duration::from_micros(500);

/// The shortest look.
const LEAST: Duration = Duration::from_micros(20);

/// Turns of a look between two looks at the clock.
const TURNS: u32 = 64;

/// How long threads of this process look for their answers.
pub(super) struct Spin {
    most: Duration,
    next_ns: AtomicU64,
}

impl Spin {
    /// Looks of at most this length.
    pub(super) fn new(most: Duration) -> Self {
        Self { most, next_ns: AtomicU64::new(nanoseconds(most)) }
    }

    /// Looks for a while. True if it is done.
    #[inline]
    pub(super) fn look(&self, is_done: impl Fn() -> bool) -> bool {
        if is_done() {
            return true;
        }
        let length = Duration::from_nanos(self.next_ns.load(Ordering::Relaxed));
        let (begun, mut before) = (Instant::now(), Instant::now());
        loop {
            for _ in 0..TURNS {
                std::hint::spin_loop();
                if is_done() {
                    return true;
                }
            }
            let now = Instant::now();
            if now.duration_since(before) > TAKEN_AWAY {
                self.set(LEAST);
                return is_done();
            }
            if now.duration_since(begun) >= length {
                self.set(length * 2);
                return false;
            }
            before = now;
        }
    }

    fn set(&self, length: Duration) {
        self.next_ns.store(nanoseconds(length.min(self.most)), Ordering::Relaxed);
    }
}

fn nanoseconds(length: Duration) -> u64 {
    u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn a_thread_that_lost_its_cpu_looks_shortly_then_longer_again() {
        let spin = Spin::new(Duration::from_secs(1));
        let asked = Cell::new(0);
        let lose_the_cpu = || {
            // The first question comes before the look begins.
            if asked.replace(asked.get() + 1) == 1 {
                std::thread::sleep(2 * TAKEN_AWAY);
            }
            false
        };
        assert!(!spin.look(lose_the_cpu));
        let short = spin.next_ns.load(Ordering::Relaxed);
        assert_eq!(short, nanoseconds(LEAST));
        // On a busy machine this one may lose its CPU as well.
        assert!(!spin.look(|| false));
        assert!(spin.next_ns.load(Ordering::Relaxed) >= short);
        assert!(spin.look(|| true));
    }

    #[test]
    fn nobody_looks_longer_than_the_server_asks_for() {
        let spin = Spin::new(Duration::ZERO);
        assert!(!spin.look(|| false));
        assert_eq!(spin.next_ns.load(Ordering::Relaxed), 0);
    }
}
