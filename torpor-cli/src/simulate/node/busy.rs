//! How busy a GPU has been just now.

use std::time::Duration;

/// What was longer ago than this counts little.
const JUST_NOW: Duration = Duration::from_millis(200);

/// The part of the time in which a GPU was at work, of which the latest counts most.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Busy {
    part: f64,
    since: Duration,
}

impl Busy {
    /// Until `now` it was at work, or it was not.
    pub(super) fn pass(&mut self, now: Duration, is_at_work: bool) {
        let forgotten = (-(now.saturating_sub(self.since).div_duration_f64(JUST_NOW))).exp();
        let was = if is_at_work { 1.0 } else { 0.0 };
        (self.part, self.since) = (was + forgotten * (self.part - was), now);
    }

    pub(super) fn part(self) -> f64 {
        self.part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_long_ago_is_forgotten() {
        let (mut busy, second) = (Busy::default(), Duration::from_secs(1));
        busy.pass(second, true);
        assert!(busy.part() > 0.99);
        busy.pass(second + JUST_NOW, false);
        assert!((0.3..0.4).contains(&busy.part()), "{}", busy.part());
        busy.pass(9 * second, false);
        assert!(busy.part() < 0.01);
    }
}
