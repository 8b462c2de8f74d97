//! Whether a worker still answers, and its driver: it is asked twice a second.

use std::fmt;
use std::time::{Duration, Instant};

/// Between two questions.
pub const HEARTBEAT: Duration = Duration::from_millis(500);

/// Silence that is told. With the time until the next question it comes to less than two seconds.
const SILENCE: Duration = Duration::from_millis(1200);

/// Who does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silent {
    /// The worker.
    Worker,
    /// The driver, says the worker.
    Driver,
}

/// Somebody does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silence {
    /// Who.
    pub who: Silent,
    /// Since when.
    pub since: Instant,
}

impl fmt::Display for Silence {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.since.elapsed().as_secs_f32();
        match self.who {
            Silent::Worker => write!(
                formatter,
                "the worker has not answered for {seconds:.1} s: it is stopped, or the node is too busy to run it"
            ),
            Silent::Driver => write!(
                formatter,
                "the driver has not answered the worker for {seconds:.1} s: it hangs, or compiles kernels"
            ),
        }
    }
}

/// What is known of a worker's answers.
#[derive(Debug, Default)]
pub struct Heartbeat {
    /// Since when the oldest question has had no answer.
    asked: Option<Instant>,
    /// Since when the driver has been silent, by the worker's last answer.
    driver: Option<Instant>,
    looked: Option<Instant>,
}

impl Heartbeat {
    /// Call every [`HEARTBEAT`]. True if the worker is to be asked now.
    pub fn look(&mut self, now: Instant) -> bool {
        // Whoever did not look for long may not have heard either.
        let slept = self.looked.replace(now).is_some_and(|looked| now - looked > 2 * HEARTBEAT);
        if slept && self.asked.is_some() {
            self.asked = Some(now);
        }
        let ask = self.asked.is_none();
        self.asked.get_or_insert(now);
        ask
    }

    /// The worker answered.
    pub fn hear(&mut self, driver_silent: Duration, now: Instant) {
        self.asked = None;
        self.driver = if driver_silent.is_zero() { None } else { now.checked_sub(driver_silent) };
    }

    /// Whether somebody has been silent for too long.
    #[must_use]
    pub fn silence(&self, now: Instant) -> Option<Silence> {
        let too_long = |since: &Instant| now.saturating_duration_since(*since) >= SILENCE;
        let worker = self.asked.filter(too_long).map(|since| Silence { who: Silent::Worker, since });
        worker.or_else(|| self.driver.filter(too_long).map(|since| Silence { who: Silent::Driver, since }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_of_worker_and_driver_is_told_within_two_seconds_and_ends_with_an_answer() {
        let begin = Instant::now();
        let at = |milliseconds| begin + Duration::from_millis(milliseconds);
        let mut heart = Heartbeat::default();
        assert!(heart.look(at(0)) && !heart.look(at(500)) && !heart.look(at(1000)));
        assert_eq!(heart.silence(at(1000)), None);
        assert!(!heart.look(at(1500)));
        assert_eq!(heart.silence(at(1500)), Some(Silence { who: Silent::Worker, since: at(0) }));
        heart.hear(Duration::ZERO, at(1600));
        assert_eq!(heart.silence(at(1600)), None);
        assert!(heart.look(at(2000)));
        heart.hear(Duration::from_millis(50), at(2050));
        assert_eq!(heart.silence(at(2050)), None);
        assert!(heart.look(at(2500)));
        heart.hear(Duration::from_millis(1500), at(3500));
        assert_eq!(heart.silence(at(3500)), Some(Silence { who: Silent::Driver, since: at(2000) }));
        heart.hear(Duration::ZERO, at(3600));
        assert_eq!(heart.silence(at(3600)), None);
    }

    #[test]
    fn a_server_that_slept_blames_nobody() {
        let begin = Instant::now();
        let mut heart = Heartbeat::default();
        heart.look(begin);
        let later = begin + Duration::from_secs(60);
        assert!(!heart.look(later));
        assert_eq!(heart.silence(later), None);
    }
}
