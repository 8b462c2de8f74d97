//! How a gang is brought to the end of its turn. Its ranks cannot simply be stopped: where one has posted more than another one, its
//! work waits for what that one has not posted yet. Nor may all go on as they like, or one of them always has work.
//!
//! For a while each rank that wants a turn has one as long as a sibling has work. Then it has one for a single command, and in *rounds*:
//! those that have work when a round begins are waited for, and while they are not done, the others go on. When they are done, those that
//! went on too far are who is waited for in the next round. Each round begins with a wait that is longer than the last one's: work that
//! ends by itself, without a sibling, ends in it, and nobody goes on.

use super::Gate;
use std::time::Duration;

/// How long ranks have turns as they like while others wait.
const LONGEST_TURN: Duration = Duration::from_secs(1);

/// How much longer each round waits than the one before, before anybody goes on.
const LONGER: Duration = Duration::from_millis(50);

/// Others wait for the end of a gang's turn.
#[derive(Debug)]
pub(super) struct Pressed {
    since: Duration,
    round: u32,
    began: Duration,
    awaited: Vec<u64>,
}

impl Pressed {
    pub(super) fn new(now: Duration) -> Self {
        Self { since: now, round: 0, began: now, awaited: Vec::new() }
    }

    /// What ranks may do that wait, while these have work.
    pub(super) fn permit(&mut self, now: Duration, active: &[u64]) -> Option<Gate> {
        if now.saturating_sub(self.since) < LONGEST_TURN {
            return Some(Gate::Once);
        }
        self.awaited.retain(|client| active.contains(client));
        if self.awaited.is_empty() && !active.is_empty() {
            (self.began, self.awaited) = (now, active.to_vec());
            self.round += 1;
        }
        let waits = LONGER * self.round.saturating_sub(1);
        (!active.is_empty() && now.saturating_sub(self.began) >= waits).then_some(Gate::Briefly)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn ranks_have_whole_turns_for_a_while_and_then_single_commands() {
        let mut pressed = Pressed::new(ms(500));
        assert_eq!(pressed.permit(ms(1499), &[1]), Some(Gate::Once));
        assert_eq!(pressed.permit(ms(1500), &[1]), Some(Gate::Briefly));
        assert_eq!(pressed.permit(ms(1500), &[]), None, "nobody is waited for");
    }

    #[test]
    fn who_went_on_too_far_is_waited_for_in_the_next_round_which_waits_longer_before_anybody_goes_on() {
        let mut pressed = Pressed::new(ms(0));
        assert_eq!(pressed.permit(ms(1000), &[1]), Some(Gate::Briefly));
        assert_eq!(
            pressed.permit(ms(1001), &[1, 2]),
            Some(Gate::Briefly),
            "it goes on for the first one's sake"
        );
        assert_eq!(pressed.permit(ms(1002), &[2]), None);
        assert_eq!(pressed.permit(ms(1052), &[2]), Some(Gate::Briefly));
        assert_eq!(pressed.permit(ms(1053), &[1]), None);
        assert_eq!(pressed.permit(ms(1103), &[1]), None, "twice as long");
        assert_eq!(pressed.permit(ms(1153), &[1]), Some(Gate::Briefly));
    }
}
