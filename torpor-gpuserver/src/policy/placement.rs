//! Placement: whether a client that waits for its turn goes to another GPU.

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
}

/// The GPU that a client with `needed_bytes`, waiting at `here`, is to go to: an idle one with room for it, of several the
/// one with most free memory. `None` if it had better stay.
///
/// ```
/// use torpor_gpuserver::policy::placement::{Gpu, elsewhere};
///
/// let idle = |free_bytes| Gpu { usable: true, taken: false, room_bytes: 80, free_bytes };
/// let taken = Gpu { taken: true, ..idle(80) };
/// assert_eq!(elsewhere(0, 50, &[taken, idle(10), idle(20)]), Some(2));
/// assert_eq!(elsewhere(0, 50, &[taken, taken]), None);
/// assert_eq!(elsewhere(0, 90, &[taken, idle(10)]), None);
/// ```
#[must_use]
pub fn elsewhere(here: usize, needed_bytes: u64, gpus: &[Gpu]) -> Option<usize> {
    let others = gpus
        .iter()
        .enumerate()
        .filter(|&(at, gpu)| at != here && gpu.usable && !gpu.taken && gpu.room_bytes >= needed_bytes);
    // Of equal ones the first.
    let best = others.min_by_key(|&(at, gpu)| (std::cmp::Reverse(gpu.free_bytes), at));
    best.map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const IDLE: Gpu = Gpu { usable: true, taken: false, room_bytes: 100, free_bytes: 100 };

    #[test]
    fn nobody_goes_where_there_is_nothing_to_gain() {
        assert_eq!(elsewhere(0, 1, &[IDLE]), None, "it is there already");
        assert_eq!(elsewhere(0, 1, &[IDLE, Gpu { usable: false, ..IDLE }]), None);
        assert_eq!(elsewhere(0, 1, &[]), None);
        assert_eq!(elsewhere(1, 1, &[IDLE, IDLE, IDLE]), Some(0), "of equal ones the first");
    }

    proptest! {
        #[test]
        fn the_choice_is_idle_has_room_and_none_such_has_more_free(
            gpus in prop::collection::vec((any::<bool>(), any::<bool>(), 0..100_u64, 0..100_u64), 0..6),
            here in 0..6_usize,
            needed in 0..100_u64,
        ) {
            let gpu = |&(usable, taken, room_bytes, free_bytes): &_| Gpu { usable, taken, room_bytes, free_bytes };
            let gpus: Vec<Gpu> = gpus.iter().map(gpu).collect();
            let fits = |at: usize| {
                at != here && gpus[at].usable && !gpus[at].taken && gpus[at].room_bytes >= needed
            };
            match elsewhere(here, needed, &gpus) {
                None => prop_assert!(!(0..gpus.len()).any(fits)),
                Some(chosen) => {
                    prop_assert!(fits(chosen));
                    let best = (0..gpus.len()).filter(|&at| fits(at)).map(|at| gpus[at].free_bytes).max();
                    prop_assert_eq!(best, Some(gpus[chosen].free_bytes));
                }
            }
        }
    }
}
