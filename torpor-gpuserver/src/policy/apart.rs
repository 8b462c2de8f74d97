//! Apart: the processes of one function that use different devices of it are on different GPUs, as far as there are some.
//!
//! The device that a process uses first is its *home* (torchrun's `LOCAL_RANK`). Another process of the function with another home is
//! a *stranger* to it: the two work at the same time, and want two GPUs. Who says its home goes where fewest strangers are, and
//! no move brings it to more than it has where it is. With fewer GPUs than homes they share.

/// A GPU, as one client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The client may go there.
    pub usable: bool,
    /// Strangers to the client that are there, or on the way to it.
    pub strangers: usize,
    /// All clients that are.
    pub clients: usize,
}

/// Where a client goes that has just said its home, if it does not stay where it is.
///
/// ```
/// use torpor_gpuserver::policy::apart::{Place, apart};
///
/// let place = |strangers, clients| Place { usable: true, strangers, clients };
/// // The second rank leaves the first one's GPU for the one with fewest other clients.
/// assert_eq!(apart(0, &[place(1, 2), place(0, 5), place(0, 3)]), Some(2));
/// // The third of three on two GPUs stays: everywhere is one.
/// assert_eq!(apart(0, &[place(1, 2), place(1, 1)]), None);
/// ```
#[must_use]
pub fn apart(here: usize, places: &[Place]) -> Option<usize> {
    let now = places.get(here)?.strangers;
    let usable = places.iter().enumerate().filter(|(_, place)| place.usable);
    let (to, best) = usable.min_by_key(|&(at, place)| (place.strangers, place.clients, at))?;
    (best.strangers < now).then_some(to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn who_goes_has_fewer_strangers_and_nowhere_are_fewer(
            places in prop::collection::vec((any::<bool>(), 0..4_usize, 0..9_usize), 1..9), here in 0..9_usize,
        ) {
            let place = |(usable, strangers, others)| Place { usable, strangers, clients: strangers + others };
            let places: Vec<Place> = places.into_iter().map(place).collect();
            let here = here % places.len();
            let fewest = places.iter().filter(|place| place.usable).map(|place| place.strangers).min();
            match apart(here, &places) {
                Some(to) => {
                    prop_assert!(places[to].usable && places[to].strangers < places[here].strangers);
                    prop_assert_eq!(Some(places[to].strangers), fewest);
                }
                None => prop_assert!(fewest.is_none_or(|fewest| fewest >= places[here].strangers)),
            }
        }
    }
}
