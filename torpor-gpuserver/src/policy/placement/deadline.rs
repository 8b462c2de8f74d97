//! The GPU where the request is expected to be answered first: those before it there, then the way of its memory, under which
//! its own work begins, are weighed against waiting where it is. Whose deadline is first is asked first (see `due`), so whatever
//! is left goes to those that can still be in time.

use crate::policy::placement::{Asker, Gpu, Policy};
use std::time::Duration;

/// A gain that is less than what predictions are wrong by.
const LEAST_GAIN: Duration = Duration::from_millis(1);

/// Predicts, and compares.
#[derive(Debug)]
pub(super) struct Deadline;

impl Policy for Deadline {
    fn choose(&mut self, asker: Asker, gpus: &[Gpu]) -> Option<usize> {
        let finish = |gpu: &Gpu| gpu.wait + gpu.bring.max(asker.takes);
        let stays = gpus.get(asker.here).filter(|here| here.usable).map_or(Duration::MAX, finish);
        let fits = |&(at, gpu): &(usize, &Gpu)| {
            at != asker.here && gpu.usable && gpu.room_bytes >= asker.needed_bytes
        };
        let others = gpus.iter().enumerate().filter(fits);
        let (at, best) = others.min_by_key(|&(at, gpu)| (finish(gpu), gpu.loading, gpu.last_used, at))?;
        (finish(best).saturating_add(LEAST_GAIN) < stays).then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::placement::tests::{ASKER, IDLE, busy};

    fn here(wait_ms: u64) -> Gpu {
        Gpu { bring: Duration::ZERO, ..busy(wait_ms) }
    }

    fn brings(bring_ms: u64, gpu: Gpu) -> Gpu {
        Gpu { bring: Duration::from_millis(bring_ms), ..gpu }
    }

    #[test]
    fn a_large_model_waits_for_its_busy_gpu_and_a_small_one_does_not() {
        assert_eq!(Deadline.choose(ASKER, &[here(30), brings(400, IDLE)]), None);
        assert_eq!(Deadline.choose(ASKER, &[here(30), brings(15, IDLE)]), Some(1));
        // Its work hides a way that is not longer than that.
        assert_eq!(Deadline.choose(ASKER, &[here(2), brings(20, IDLE)]), Some(1));
        assert_eq!(Deadline.choose(ASKER, &[here(1), brings(20, IDLE)]), None, "that is no gain");
    }

    #[test]
    fn the_shorter_line_is_chosen_where_all_are_busy() {
        assert_eq!(Deadline.choose(ASKER, &[here(90), brings(20, busy(60)), brings(20, busy(40))]), Some(2));
        assert_eq!(Deadline.choose(ASKER, &[here(40), brings(20, busy(60))]), None);
    }

    #[test]
    fn of_two_the_quiet_link_is_the_faster_one() {
        assert_eq!(Deadline.choose(ASKER, &[here(90), brings(41, IDLE), brings(25, IDLE)]), Some(2));
    }
}
