//! Placement: whether a client that waits for its turn goes to another GPU.

mod deadline;
mod idle;

use crate::policy::placement::deadline::Deadline;
use crate::policy::placement::idle::{First, Longest, MostFree, Quiet, Random};
use std::fmt;
use std::time::Duration;

/// A GPU, as seen by one client that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// It serves, and the client may be there.
    pub usable: bool,
    /// Somebody has it, waits for it, or is on the way to it.
    pub taken: bool,
    /// Device memory that the client could have there, if everybody who may be evicted were.
    pub room_bytes: u64,
    /// Device memory that nobody has.
    pub free_bytes: u64,
    /// Somebody's memory comes over its link to the host.
    pub loading: bool,
    /// When it was last seen with work, since the node began.
    pub last_used: Duration,
    /// Until those that are before the client there are expected to be done.
    pub wait: Duration,
    /// What it takes to go there and to bring what is missing there, over its path as that is used now.
    pub bring: Duration,
}

/// A client that waits for its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    /// Where it waits.
    pub here: usize,
    /// Its device memory.
    pub needed_bytes: u64,
    /// How long its turns last.
    pub takes: Duration,
}

/// Whoever decides where clients go that wait.
pub trait Policy: fmt::Debug + Send {
    /// The GPU that a client is to go to; `None` if it had better stay.
    fn choose(&mut self, asker: Asker, gpus: &[Gpu]) -> Option<usize>;
}

/// The policies that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Placement {
    /// An idle GPU, of several the one with most free memory
    MostFree,
    /// The GPU where the request is expected to be answered first, idle or not
    Deadline,
    /// An idle GPU, one over whose link to the host nobody loads before others
    Interference,
    /// Of the idle GPUs the one that was used longest ago
    Lru,
    /// Of the idle GPUs the first
    Fifo,
    /// Any idle GPU
    Random,
}

impl Placement {
    /// The policy. `seed` is what [`Self::Random`] draws from.
    #[must_use]
    pub fn policy(self, seed: u64) -> Box<dyn Policy> {
        match self {
            Self::MostFree => Box::new(MostFree),
            Self::Deadline => Box::new(Deadline),
            Self::Interference => Box::new(Quiet),
            Self::Lru => Box::new(Longest),
            Self::Fifo => Box::new(First),
            Self::Random => Box::new(Random::new(seed)),
        }
    }
}

/// The GPUs other than its own on which a client could begin at once.
fn idle(asker: Asker, gpus: &[Gpu]) -> impl Iterator<Item = (usize, &Gpu)> {
    let fits = move |&(at, gpu): &(usize, &Gpu)| {
        at != asker.here && gpu.usable && !gpu.taken && gpu.room_bytes >= asker.needed_bytes
    };
    gpus.iter().enumerate().filter(fits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;
    use proptest::prelude::*;

    pub(super) const IDLE: Gpu = Gpu {
        usable: true,
        taken: false,
        room_bytes: 100,
        free_bytes: 100,
        loading: false,
        last_used: Duration::ZERO,
        wait: Duration::ZERO,
        bring: Duration::from_millis(10),
    };

    /// One that waits at the first GPU with one byte.
    pub(super) const ASKER: Asker = Asker { here: 0, needed_bytes: 1, takes: Duration::from_millis(20) };

    /// A GPU where so much is to be done first.
    pub(super) fn busy(wait_ms: u64) -> Gpu {
        Gpu { taken: true, wait: Duration::from_millis(wait_ms), ..IDLE }
    }

    fn gpus() -> impl Strategy<Value = Vec<Gpu>> {
        let gpu = (any::<[bool; 3]>(), 0..100_u64, 0..100_u64, 0..500_u64, 0..500_u64, 0..50_u64);
        let gpu = gpu.prop_map(|([usable, taken, loading], room_bytes, free_bytes, wait, bring, used)| Gpu {
            usable,
            taken,
            room_bytes,
            free_bytes,
            loading,
            last_used: Duration::from_millis(used),
            wait: Duration::from_millis(if taken { wait } else { 0 }),
            bring: Duration::from_millis(bring),
        });
        prop::collection::vec(gpu, 0..6)
    }

    #[test]
    fn nobody_goes_where_there_is_nothing_to_gain() {
        for placement in Placement::value_variants() {
            let choose = |asker, gpus: &[Gpu]| placement.policy(1).choose(asker, gpus);
            assert_eq!(choose(ASKER, &[]), None, "{placement:?}");
            assert_eq!(choose(ASKER, &[busy(0)]), None, "{placement:?}: it is there already");
            assert_eq!(choose(ASKER, &[busy(500), Gpu { usable: false, ..IDLE }]), None, "{placement:?}");
            assert_eq!(choose(ASKER, &[busy(500), Gpu { room_bytes: 0, ..IDLE }]), None, "{placement:?}");
            assert_eq!(choose(ASKER, &[busy(500), IDLE]), Some(1), "{placement:?}");
        }
    }

    proptest! {
        #[test]
        fn whoever_goes_has_room_and_may_be_there(gpus in gpus(), here in 0..6_usize, needed_bytes in 0..100_u64) {
            let asker = Asker { here, needed_bytes, ..ASKER };
            for placement in Placement::value_variants() {
                if let Some(to) = placement.policy(7).choose(asker, &gpus) {
                    prop_assert!(to != here && gpus[to].usable && gpus[to].room_bytes >= needed_bytes);
                    prop_assert!(!gpus[to].taken || *placement == Placement::Deadline, "{placement:?}");
                }
            }
        }

        #[test]
        fn no_gpu_is_idle_while_somebody_waits_unless_that_is_faster(gpus in gpus(), here in 0..6_usize) {
            let asker = Asker { here, ..ASKER };
            let has_idle = idle(asker, &gpus).next().is_some();
            for placement in Placement::value_variants().iter().filter(|one| **one != Placement::Deadline) {
                prop_assert_eq!(placement.policy(7).choose(asker, &gpus).is_some(), has_idle, "{:?}", placement);
            }
        }
    }
}
