//! Tenure: how long a client that has its turn keeps it while others wait.
//!
//! A turn ends when its client pauses. How long a pause is one depends on what the turn has cost: where memory had to leave
//! and to come for it, giving it up too early means to pay that again for the next piece of the same request.

use std::time::{Duration, Instant};

/// How long a drained client may think about its next command while others wait, if it has just been given an answer...
const GRACE_AFTER_ANSWER: Duration = Duration::from_micros(200);
/// ...and if it has not.
pub(crate) const GRACE: Duration = Duration::from_millis(1);

/// How long it keeps its turn while nobody waits, if clients have to leave for others: longer than programs think between two kernels, but no longer
/// than that, since who has a turn is not among those of whom the [policy](crate::policy::eviction) chooses.
pub(crate) const LINGER_IN_SHORTAGE: Duration = Duration::from_millis(20);

/// After a turn of this length, while others wait, any pause ends it: a client that asks for the next inference as soon as it
/// has the last would else keep the GPU for [`LONGEST_TURN`].
const FULL_TURN: Duration = Duration::from_millis(100);

/// A pause: longer than a program needs between two launches.
const PAUSE: Duration = Duration::from_micros(20);

/// Turns of busy clients last so many times as long as it took to bring them, at least: else swaps are most of what the GPU does.
const WAYS: u32 = 4;

/// The longest turn while others wait, unless it cost more than that.
const LONGEST_TURN: Duration = Duration::from_secs(1);

/// What a turn may cost at most: others may have kept it waiting for memory for any time.
const MOST_COST: Duration = Duration::from_secs(4);

/// How long a client may have nothing to do while nobody waits that does not wait for its turn. `thought` is how long it thinks about an
/// answer, `way` how long it took to bring it the last time. None if its next request is too far: waiting for that costs the others more than
/// bringing the client again.
pub(crate) fn patience_among_rivals(thought: Duration, way: Duration) -> Option<Duration> {
    (thought <= way).then(|| GRACE + 2 * thought)
}

/// For how long those that were put out just before wait for a client's turn, which was brought in within `way`; not at all for one that
/// has always been there, beside whom everybody has room.
pub(crate) fn busy_turn(least: Duration, way: Duration) -> Duration {
    if least.is_zero() || way.is_zero() { Duration::ZERO } else { least.max((WAYS * way).min(LONGEST_TURN)) }
}

/// A turn, from when its client's memory began to come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tenure {
    since: Instant,
    /// How long others had to make room for it and its memory to come.
    cost: Duration,
    /// It is for one command: it lasts no longer than it cost.
    is_brief: bool,
}

impl Tenure {
    /// A turn that cost nothing.
    pub(crate) fn new() -> Self {
        Self { since: Instant::now(), cost: Duration::ZERO, is_brief: false }
    }

    /// The turn begins now; what it has cost is known as far as it was paid before.
    pub(crate) fn begin(&mut self, cost: Duration, is_brief: bool) {
        *self = Self { is_brief, ..Self::new() };
        self.costs(cost);
    }

    /// It turned out to have cost so much.
    pub(crate) fn costs(&mut self, cost: Duration) {
        self.cost = self.cost.max(cost.min(MOST_COST));
    }

    /// Whether it is for one command alone.
    pub(crate) fn is_brief(&self) -> bool {
        self.is_brief
    }

    /// Whether it ends between two commands: it has lasted long enough, and longer than it took to begin.
    #[inline]
    pub(crate) fn is_overdue(&self) -> bool {
        let longest = if self.is_brief { Duration::ZERO } else { LONGEST_TURN };
        self.since.elapsed() > longest.max(self.cost)
    }

    /// Whether its client, which has had nothing to do for so long, came before its first command and may be left to think about
    /// that: as long again as it took to come.
    pub(crate) fn awaits_first_command(&self, idle: Duration) -> bool {
        let age = self.since.elapsed();
        idle > age && age < GRACE + 2 * self.cost
    }

    /// How long its client may have nothing to do. `cpu_delay` is how long a program that has something to do may have to
    /// wait for a CPU first.
    pub(crate) fn patience(&self, answered: bool, cpu_delay: impl FnOnce() -> Duration) -> Duration {
        let thought = match answered {
            _ if self.since.elapsed() >= FULL_TURN.max(self.cost) => return PAUSE,
            true => GRACE_AFTER_ANSWER,
            false => GRACE,
        };
        if self.cost.is_zero() { thought } else { thought + cpu_delay().min(self.cost) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUSY: Duration = Duration::from_millis(50);

    fn lasting(elapsed: Duration, cost: Duration) -> Tenure {
        Tenure { since: Instant::now() - elapsed, cost, is_brief: false }
    }

    #[test]
    fn a_turn_that_cost_nothing_is_given_up_at_once_however_busy_the_cpus() {
        let turn = lasting(Duration::ZERO, Duration::ZERO);
        assert_eq!(turn.patience(true, || BUSY), GRACE_AFTER_ANSWER);
        assert_eq!(turn.patience(false, || BUSY), GRACE);
        assert!(lasting(2 * LONGEST_TURN, Duration::ZERO).is_overdue());
    }

    #[test]
    fn who_was_brought_in_may_wait_for_a_cpu_but_no_longer_than_it_took_to_bring_it() {
        let cost = Duration::from_millis(300);
        let turn = lasting(FULL_TURN, cost);
        assert_eq!(turn.patience(true, || BUSY), GRACE_AFTER_ANSWER + BUSY);
        assert_eq!(turn.patience(false, || Duration::MAX), GRACE + cost);
        assert_eq!(turn.patience(false, || Duration::ZERO), GRACE);
        assert_eq!(lasting(cost, cost).patience(true, || BUSY), PAUSE);
    }

    #[test]
    fn who_came_before_its_first_command_is_waited_for_as_long_as_it_took_to_come() {
        let cost = Duration::from_secs(1);
        assert!(lasting(cost, cost).awaits_first_command(Duration::from_secs(9)));
        assert!(!lasting(cost, cost).awaits_first_command(Duration::ZERO), "it has had commands");
        assert!(!lasting(3 * cost, cost).awaits_first_command(Duration::from_secs(9)));
    }

    #[test]
    fn turns_of_busy_clients_are_equally_long_unless_swaps_would_be_most_of_them() {
        let (least, ms) = (Duration::from_millis(200), Duration::from_millis);
        assert_eq!([ms(5), ms(50)].map(|way| busy_turn(least, way)), [least; 2]);
        assert_eq!(busy_turn(least, ms(100)), ms(400));
        assert_eq!(busy_turn(least, ms(9000)), LONGEST_TURN);
        assert_eq!(busy_turn(least, Duration::ZERO), Duration::ZERO);
        assert_eq!(busy_turn(Duration::ZERO, ms(100)), Duration::ZERO);
    }

    #[test]
    fn among_rivals_who_asks_again_soon_is_waited_for_and_who_does_not_is_not() {
        let way = Duration::from_millis(10);
        assert_eq!(patience_among_rivals(Duration::ZERO, way), Some(GRACE));
        assert_eq!(patience_among_rivals(way / 10, way), Some(GRACE + way / 5));
        assert_eq!(patience_among_rivals(2 * way, way), None);
    }

    #[test]
    fn a_turn_for_one_command_is_over_once_it_has_lasted_as_long_as_it_cost() {
        let cost = Duration::from_millis(300);
        let brief = |elapsed| Tenure { is_brief: true, ..lasting(elapsed, cost) };
        assert!(!brief(cost / 2).is_overdue() && brief(2 * cost).is_overdue());
        let mut turn = lasting(Duration::ZERO, cost);
        turn.begin(Duration::ZERO, true);
        std::thread::sleep(Duration::from_micros(1));
        assert!(turn.is_overdue());
    }

    #[test]
    fn a_turn_lasts_as_long_as_it_cost_but_not_for_ever() {
        let mut turn = lasting(2 * LONGEST_TURN, Duration::ZERO);
        turn.costs(3 * LONGEST_TURN);
        assert!(!turn.is_overdue());
        turn.costs(Duration::MAX);
        assert_eq!(turn.cost, MOST_COST);
        assert!(lasting(2 * MOST_COST, MOST_COST).is_overdue());
    }
}
