//! Telling people seldom what may happen often: a program that tries again and again must not fill the log.

use std::time::{Duration, Instant};

/// Between two times that something is told.
const PAUSE: Duration = Duration::from_secs(60);

/// When something was told last, and how often it has happened since.
#[derive(Debug, Default)]
pub(crate) struct Seldom {
    told: Option<Instant>,
    untold: u64,
}

impl Seldom {
    /// It happened. If it is to be told now: how often it was not told since the last time.
    pub(crate) fn tell(&mut self, now: Instant) -> Option<u64> {
        if self.told.is_some_and(|told| now.duration_since(told) < PAUSE) {
            self.untold += 1;
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_time_is_told_at_once_and_those_that_follow_are_counted() {
        let (mut seldom, begin) = (Seldom::default(), Instant::now());
        let at = |seconds| begin + Duration::from_secs(seconds);
        let told = [0, 1, 59, 60, 61, 200].map(|seconds| seldom.tell(at(seconds)));
        assert_eq!(told, [Some(0), None, None, Some(2), None, Some(1)]);
    }
}
