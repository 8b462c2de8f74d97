//! Policies that send a client that waits to an idle GPU, and differ in which.

use crate::policy::placement::{Asker, Gpu, Policy, idle};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use std::cmp::Reverse;

/// The one with most free memory: whoever is there already keeps what it has.
#[derive(Debug)]
pub(super) struct MostFree;

impl Policy for MostFree {
    fn choose(&mut self, asker: Asker, gpus: &[Gpu]) -> Option<usize> {
        // Of equal ones the first.
        idle(asker, gpus).min_by_key(|&(at, gpu)| (Reverse(gpu.free_bytes), at)).map(|(at, _)| at)
    }
}

/// One over whose link nobody loads, as in the paper: two that load over one link take twice as long. It need not look for the GPU
/// that holds the memory: that is where the client waits.
#[derive(Debug)]
pub(super) struct Quiet;

impl Policy for Quiet {
    fn choose(&mut self, asker: Asker, gpus: &[Gpu]) -> Option<usize> {
        let best = idle(asker, gpus).min_by_key(|&(at, gpu)| (gpu.loading, Reverse(gpu.free_bytes), at));
        best.map(|(at, _)| at)
    }
}

/// The one that was used longest ago.
#[derive(Debug)]
pub(super) struct Longest;

impl Policy for Longest {
    fn choose(&mut self, asker: Asker, gpus: &[Gpu]) -> Option<usize> {
        idle(asker, gpus).min_by_key(|&(at, gpu)| (gpu.last_used, at)).map(|(at, _)| at)
    }
}

/// The first.
#[derive(Debug)]
pub(super) struct First;

impl Policy for First {
    fn choose(&mut self, asker: Asker, gpus: &[Gpu]) -> Option<usize> {
        idle(asker, gpus).next().map(|(at, _)| at)
    }
}

/// Any.
#[derive(Debug)]
pub(super) struct Random(ChaCha8Rng);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }
}

impl Policy for Random {
    fn choose(&mut self, asker: Asker, gpus: &[Gpu]) -> Option<usize> {
        let count = idle(asker, gpus).count();
        let drawn = (self.0.next_u64() as usize).checked_rem(count)?;
        idle(asker, gpus).nth(drawn).map(|(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::placement::tests::{ASKER, IDLE, busy};
    use std::time::Duration;

    #[test]
    fn each_has_its_own_choice_among_idle_gpus() {
        let gpus = [
            busy(50),
            Gpu { free_bytes: 10, last_used: Duration::from_millis(9), ..IDLE },
            Gpu { free_bytes: 30, last_used: Duration::from_millis(8), loading: true, ..IDLE },
            Gpu { free_bytes: 20, last_used: Duration::from_millis(7), ..IDLE },
        ];
        assert_eq!(MostFree.choose(ASKER, &gpus), Some(2));
        assert_eq!(Quiet.choose(ASKER, &gpus), Some(3));
        assert_eq!(Quiet.choose(ASKER, &gpus[..3]), Some(1));
        assert_eq!(Longest.choose(ASKER, &gpus), Some(3));
        assert_eq!(First.choose(ASKER, &gpus), Some(1));
    }

    #[test]
    fn chance_leaves_no_idle_gpu_out_and_is_the_same_again() {
        let gpus = [busy(50), IDLE, busy(50), IDLE, IDLE];
        let draw = |seed| {
            let mut random = Random::new(seed);
            (0..50).map(|_| random.choose(ASKER, &gpus).unwrap()).collect::<Vec<_>>()
        };
        assert!([1, 3, 4].iter().all(|gpu| draw(1).contains(gpu)));
        assert!(draw(1) == draw(1) && draw(1) != draw(2));
    }
}
