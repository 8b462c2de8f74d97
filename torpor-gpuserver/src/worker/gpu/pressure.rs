//! Pressure: how soon those that wait for a turn want it.
//!
//! Clients that never pause and do not fit beside each other would, if each gave its turn up after an answer, be swapped for every
//! request. So those whose programs are busy with the GPU alone wait for some time since they were put out
//! ([`Tuning::busy_turn`](crate::worker::gpu::tuning::Tuning)), which is the same for all: were it longer for whoever takes longer to bring, the
//! smallest would wait for turns of the largest, and have none worth speaking of. Who asks now and then, and
//! who would else begin too late, waits for a pause and no longer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// One that waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiter {
    /// By when it must begin.
    pub(crate) due: Duration,
    /// When its last turn ended.
    pub(crate) away_since: Duration,
}

/// Of all that wait. Read by every idle session, so it needs no lock; times count from when the turns began.
#[derive(Debug)]
pub(crate) struct Pressure {
    /// The earliest of all, in nanoseconds; [`NOBODY`] if none waits.
    due_ns: AtomicU64,
    away_since_ns: AtomicU64,
}

const NOBODY: u64 = u64::MAX;

impl Pressure {
    /// Nobody waits.
    pub(crate) fn new() -> Self {
        Self { due_ns: AtomicU64::new(NOBODY), away_since_ns: AtomicU64::new(NOBODY) }
    }

    /// These wait, and nobody else.
    pub(crate) fn note(&self, waiters: impl Iterator<Item = Waiter>) {
        let mut earliest = [NOBODY; 2];
        for waiter in waiters {
            for (earliest, time) in earliest.iter_mut().zip([waiter.due, waiter.away_since]) {
                *earliest = (*earliest).min(u64::try_from(time.as_nanos()).unwrap_or(NOBODY - 1));
            }
        }
        // A reader that sees one of the two before the other is wrong once, by one look.
        self.due_ns.store(earliest[0], Ordering::Relaxed);
        self.away_since_ns.store(earliest[1], Ordering::Relaxed);
    }

    /// Whether somebody waits.
    #[inline]
    pub(crate) fn exists(&self) -> bool {
        self.due_ns.load(Ordering::Relaxed) != NOBODY
    }

    /// Whether somebody waits that has been away for so long, or must begin.
    pub(crate) fn outlasts(&self, turn: Duration, now: Duration) -> bool {
        let reached = |time: &AtomicU64, more| match time.load(Ordering::Relaxed) {
            NOBODY => false,
            time => now >= Duration::from_nanos(time) + more,
        };
        reached(&self.due_ns, Duration::ZERO) || reached(&self.away_since_ns, turn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TURN: Duration = Duration::from_millis(200);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn pressure(waiters: &[(u64, u64)]) -> Pressure {
        let pressure = Pressure::new();
        pressure.note(
            waiters.iter().map(|&(due, away_since)| Waiter { due: ms(due), away_since: ms(away_since) }),
        );
        pressure
    }

    #[test]
    fn where_nobody_waits_there_is_none() {
        assert!(!pressure(&[]).exists() && !pressure(&[]).outlasts(Duration::ZERO, Duration::MAX));
    }

    #[test]
    fn who_was_there_just_before_waits_for_a_turn() {
        let pressure = pressure(&[(2000, 1000)]);
        assert!(pressure.exists());
        assert!(!pressure.outlasts(TURN, ms(1199)) && pressure.outlasts(TURN, ms(1200)));
        assert!(pressure.outlasts(Duration::ZERO, ms(1000)), "turns of no length");
    }

    #[test]
    fn who_must_begin_or_has_been_away_for_long_does_not() {
        assert!(pressure(&[(2000, 1000), (1050, 1000)]).outlasts(TURN, ms(1050)));
        assert!(pressure(&[(2000, 1000), (2000, 0)]).outlasts(TURN, ms(1001)));
    }
}
