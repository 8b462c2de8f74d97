//! What a session does that has nothing to execute, from what it is about and how long there has been nothing: pure, so that who
//! burns a core, and for how long, is said in one place.

use std::time::Duration;

/// How long a session keeps its core while it waits for the GPU alone. Longer than most requests take.
const WATCH: Duration = Duration::from_millis(20);
/// Then, between two looks at the GPU.
pub(crate) const WATCH_NAP: Duration = Duration::from_micros(50);
/// Between two looks at a GPU for which nobody waits.
pub(crate) const BUSY_NAP: Duration = Duration::from_millis(1);
/// Between two looks at everything when there is nothing to do; whoever wants the session wakes it.
pub(crate) const IDLE_NAP: Duration = Duration::from_millis(100);
/// The same of a session that has rested for long.
const LONG_NAP: Duration = Duration::from_secs(1);
/// A session sleeps such a part of the time that it has rested.
const PART_OF_REST: u32 = 16;

/// The shortest nap of a session that has its turn and nothing to do.
const SHORT_NAP: Duration = Duration::from_micros(100);

/// What a session is about whose ring is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quiet {
    /// Its memory comes piece by piece, each posted by it: a nap between two would leave the bus without work.
    Coming,
    /// Something of it waits for the GPU.
    Watching,
    /// It has its turn.
    Holding,
    /// It has no turn.
    Resting,
}

/// What it does until it looks at its ring again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pause {
    /// Nothing, on its core.
    Spin,
    /// Lets others have its core if they want it.
    Yield,
    /// Sleeps for so long at most.
    Sleep(Duration),
    /// Sleeps as long as the turn and the GPU let it: [`holding_nap`].
    Hold,
    /// Saves what can be saved, and sleeps: nobody waits for it.
    Rest,
}

/// What a session does after so much time without a command. `spin`: how long it looks for one without a pause.
pub(super) fn pause(quiet: Quiet, idle: Duration, spin: Duration) -> Pause {
    match quiet {
        _ if idle < spin => Pause::Spin,
        Quiet::Coming => Pause::Yield,
        Quiet::Watching if idle < WATCH => Pause::Yield,
        Quiet::Watching => Pause::Sleep(WATCH_NAP),
        Quiet::Holding => Pause::Hold,
        Quiet::Resting => Pause::Rest,
    }
}

/// How long a session sleeps that has its turn. `patience`: how long it may have nothing to do before the turn ends.
pub(super) fn holding_nap(is_busy: bool, idle: Duration, patience: Duration) -> Duration {
    if is_busy { BUSY_NAP } else { patience.saturating_sub(idle).clamp(SHORT_NAP, IDLE_NAP) }
}

/// How long a session sleeps that has no turn. `is_settled`: nothing of it is still to be saved, which others may keep it from.
pub(super) fn resting_nap(is_settled: bool, idle: Duration) -> Duration {
    if is_settled { (idle / PART_OF_REST).clamp(IDLE_NAP, LONG_NAP) } else { IDLE_NAP }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SPIN: Duration = Duration::from_micros(20);
    const ALL: [Quiet; 4] = [Quiet::Coming, Quiet::Watching, Quiet::Holding, Quiet::Resting];

    #[test]
    fn a_command_that_comes_soon_finds_the_session_on_its_core_whatever_it_is_about() {
        for quiet in ALL {
            assert_eq!(pause(quiet, SPIN / 2, SPIN), Pause::Spin);
            assert_ne!(pause(quiet, SPIN, SPIN), Pause::Spin);
            assert_ne!(pause(quiet, Duration::ZERO, Duration::ZERO), Pause::Spin);
        }
    }

    #[test]
    fn who_waits_for_the_gpu_keeps_its_core_for_a_request_s_time_and_who_brings_memory_always() {
        let long = Duration::from_secs(1);
        assert_eq!(pause(Quiet::Watching, WATCH / 2, SPIN), Pause::Yield);
        assert_eq!(pause(Quiet::Watching, WATCH, SPIN), Pause::Sleep(WATCH_NAP));
        assert_eq!(pause(Quiet::Coming, long, SPIN), Pause::Yield);
        assert_eq!(pause(Quiet::Holding, long, SPIN), Pause::Hold);
        assert_eq!(pause(Quiet::Resting, long, SPIN), Pause::Rest);
    }

    #[test]
    fn who_has_rested_for_long_looks_around_seldom_but_not_while_something_is_to_be_saved() {
        let hour = Duration::from_secs(3600);
        assert_eq!(resting_nap(true, Duration::from_secs(1)), IDLE_NAP);
        assert_eq!(resting_nap(true, Duration::from_secs(8)), Duration::from_millis(500));
        assert_eq!(resting_nap(true, hour), LONG_NAP);
        assert_eq!(resting_nap(false, hour), IDLE_NAP);
    }

    proptest! {
        #[test]
        fn who_has_its_turn_wakes_when_that_may_end_and_never_sleeps_for_ever(
            is_busy: bool,
            idle in any::<Duration>(),
            patience in any::<Duration>(),
        ) {
            let nap = holding_nap(is_busy, idle, patience);
            prop_assert!((SHORT_NAP..=IDLE_NAP).contains(&nap));
            if !is_busy && nap > SHORT_NAP {
                prop_assert!(nap <= patience - idle, "it would oversleep");
            }
        }
    }
}
