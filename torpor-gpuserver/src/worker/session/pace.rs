//! Pace: how mapping and commands share a session's thread during a swap-in.
//!
//! Where mapping a segment takes as long as copying it (an H100, whose calls wait for copies under way), the bus always asks for
//! the next one. Were it brought after every command, all of a request's launches would come behind the last segment, and their
//! kernels would run after the copies instead of beside them.

use std::time::{Duration, Instant};

/// While commands wait, they get the time that the last segment took, divided by this.
const SHARE: u32 = 6;

/// When a segment was mapped last, and how long that took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    mapped: Instant,
    took: Duration,
}

impl Pace {
    /// Nothing is mapped yet.
    pub(crate) fn new(now: Instant) -> Self {
        Self { mapped: now, took: Duration::ZERO }
    }

    /// A segment was mapped.
    pub(crate) fn note(&mut self, began: Instant, ended: Instant) {
        *self = Self { mapped: ended, took: ended.duration_since(began) };
    }

    /// Whether commands that wait go before the next segment.
    pub(crate) fn is_commands_turn(&self, now: Instant) -> bool {
        now.duration_since(self.mapped) < self.took / SHARE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_get_a_part_of_the_time_that_mapping_takes() {
        let began = Instant::now();
        let mut pace = Pace::new(began);
        assert!(!pace.is_commands_turn(began), "the first segment comes at once");
        let ended = began + Duration::from_micros(360);
        pace.note(began, ended);
        assert!(pace.is_commands_turn(ended + Duration::from_micros(59)));
        assert!(!pace.is_commands_turn(ended + Duration::from_micros(60)));
    }
}
