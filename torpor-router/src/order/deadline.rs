//! Earliest deadline first, less what the request will take: a long one must begin earlier to be in time.

use super::standing::Standings;
use super::{Candidate, Ended, Order, first_by};
use std::time::{Duration, Instant};

/// Knows how long each function's requests take.
#[derive(Debug, Default)]
pub(super) struct Deadline {
    standings: Standings,
}

impl Order for Deadline {
    fn next(&mut self, _now: Instant, candidates: &[Candidate]) -> Option<usize> {
        first_by(candidates, |one| {
            let mean_s = self.standings.get(&one.function).map_or(0.0, |standing| standing.mean_s);
            one.due.checked_sub(Duration::from_secs_f64(mean_s))
        })
    }

    fn ended(&mut self, _now: Instant, ended: &Ended) {
        self.standings.entry(ended.function.clone()).or_default().note(ended);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::tests::{candidate, ended};

    #[test]
    fn the_one_that_must_begin_first_is_first() {
        let now = Instant::now();
        let waiting = [candidate("short", now, 100, 1), candidate("long", now, 150, 2)];
        let mut order = Deadline::default();
        assert_eq!(order.next(now, &waiting), Some(0), "nothing is known of either");
        order.ended(now, &ended("short", 10, true));
        order.ended(now, &ended("long", 90, true));
        assert_eq!(order.next(now, &waiting), Some(1), "it must begin within 60 ms, the other within 90");
    }
}
