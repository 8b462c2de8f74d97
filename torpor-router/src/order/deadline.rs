//! Earliest deadline first, less what the request will take: a long one must begin earlier to be in time.
//!
//! Who cannot be in time any more would be first of all, and make those late that still can be. So its deadline counts as
//! [`GRACE`] later: it goes behind all who are to be answered before that. Who is late even so takes [turns](Turns) with all others.

use super::standing::Standings;
use super::{Candidate, Ended, Order, first_by};
use crate::late::Turns;
use std::time::{Duration, Instant};

/// How much longer a request may wait once it is late, for the sake of those that are not.
const GRACE: Duration = Duration::from_secs(1);

/// Knows how long each function's requests take.
#[derive(Debug, Default)]
pub(super) struct Deadline {
    standings: Standings,
    turns: Turns,
}

impl Deadline {
    /// When a request must begin to be in time; [`GRACE`] later if that is over.
    fn must_begin(&self, now: Instant, one: &Candidate) -> Option<Instant> {
        let mean_s = self.standings.get(&one.function).map_or(0.0, |standing| standing.mean_s);
        let begin = one.due.checked_sub(Duration::from_secs_f64(mean_s))?;
        Some(if begin < now { begin + GRACE } else { begin })
    }
}

impl Order for Deadline {
    fn next(&mut self, now: Instant, candidates: &[Candidate]) -> Option<usize> {
        let is_turn_of_late = self.turns.is_of_late();
        let begin_of = |one: &Candidate| {
            let begin = self.must_begin(now, one);
            (begin.is_none_or(|begin| begin < now), begin)
        };
        let next = first_by(candidates, |one| {
            let (is_late, begin) = begin_of(one);
            (is_late != is_turn_of_late, begin)
        })?;
        let (is_late, _) = begin_of(&candidates[next]);
        self.turns.note(is_late);
        Some(next)
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

    #[test]
    fn who_is_late_lets_those_pass_that_can_be_in_time_but_not_for_ever() {
        let now = Instant::now();
        let after = |ms| now + Duration::from_millis(ms);
        let waiting = |at, in_time| [candidate("late", now, 10, 1), candidate("in time", at, in_time, 2)];
        let mut order = Deadline::default();
        assert_eq!(order.next(after(5), &waiting(after(5), 100)), Some(0), "it can be in time yet");
        assert_eq!(order.next(after(20), &waiting(after(20), 100)), Some(1));
        assert_eq!(order.next(after(20), &waiting(after(20), 2000)), Some(0), "there is time for both");
        assert_eq!(order.next(after(950), &waiting(after(950), 100)), Some(0), "it has waited long enough");
    }

    #[test]
    fn who_is_late_for_longer_has_one_turn_of_eight() {
        let begin = Instant::now();
        let now = begin + Duration::from_secs(2);
        let waiting = [candidate("late", begin, 10, 1), candidate("in time", now, 100, 2)];
        let mut order = Deadline::default();
        let turns = (0..16).filter(|_| order.next(now, &waiting) == Some(0));
        assert_eq!(turns.count(), 2);
        assert_eq!(order.next(now, &waiting[..1]), Some(0), "nobody else waits");
    }
}
