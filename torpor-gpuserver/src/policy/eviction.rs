//! Eviction: whose memory leaves a GPU when somebody else needs room.

use std::cmp::Reverse;
use std::time::Duration;

/// What bringing a client's memory back costs its request at least: some 1.2 ms were measured where the way is shorter than the work
/// (docs/benchmarks/swapping.md).
const SWAP: Duration = Duration::from_millis(1);

/// Of those that wait for nothing, who leaves first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Eviction {
    /// Whoever used its memory longest ago
    Lru,
    /// The same, but last those whose memory takes longer to come back than their work takes
    HeavyLast,
    /// Whoever is likely to need most memory latest, by the time between its uses so far and what bringing it back costs
    Predicted,
    /// Whoever is likely to need most memory latest, whatever bringing it back costs: so fewest have to come back
    Fewest,
}

/// A client with memory on the GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resident {
    /// Its number.
    pub client: u64,
    /// Device memory that evicting it frees.
    pub bytes: u64,
    /// Grows with every use: the smallest was used longest ago.
    pub last_used: u64,
    /// How long it is likely to be until it uses its memory again (see [`reuse`](crate::policy::reuse)).
    pub until_used: Duration,
    /// Its place among those that wait for their turn, if it does: it uses its memory again then.
    pub next_turn: Option<usize>,
    /// By how much its memory takes longer to come back than its work takes, which cannot hide that.
    pub shows: Duration,
    /// Whether it may be evicted now: it is idle, and not pinned.
    pub evictable: bool,
}

/// Clients that together free at least `needed_bytes`: first those that wait for nothing, the longest unused first (or as [`Eviction`] says), then
/// those that wait for their turn, the last in line first, since it is longest until they use what they have. Fewer if one of
/// them turns out to be enough alone. `None` if all that may be evicted is not enough.
///
/// ```
/// use std::time::Duration;
/// use torpor_gpuserver::policy::eviction::{Eviction, Resident, victims};
///
/// let resident = |client, bytes, last_used, next_turn| {
///     let until_used = Duration::from_secs(if client == 1 { 60 } else { 1 });
///     let shows = Duration::from_millis(if client == 2 { 9 } else { 0 });
///     Resident { client, bytes, last_used, until_used, next_turn, shows, evictable: true }
/// };
/// let victims = |residents: &[_], needed| victims(residents, needed, Eviction::Lru);
/// let residents = [resident(1, 10, 7, None), resident(2, 10, 3, None), resident(3, 50, 5, None)];
/// assert_eq!(victims(&residents, 5), Some(vec![2]));
/// assert_eq!(victims(&residents, 40), Some(vec![3]));
/// assert_eq!(victims(&residents, 71), None);
///
/// // Used longest ago, but about to be used again.
/// let waiting = [resident(1, 10, 1, Some(0)), resident(2, 10, 2, Some(1)), resident(3, 10, 3, Some(2))];
/// assert_eq!(victims(&waiting, 20), Some(vec![3, 2]));
///
/// // Used longest ago, but slow to come back.
/// assert_eq!(torpor_gpuserver::policy::eviction::victims(&residents, 5, Eviction::HeavyLast), Some(vec![3]));
///
/// // Used a moment ago, and not again for a while.
/// assert_eq!(torpor_gpuserver::policy::eviction::victims(&residents, 5, Eviction::Predicted), Some(vec![1]));
///
/// // Needed as soon as the others, but it has room for five of them.
/// let alike = residents.map(|one| Resident { until_used: Duration::from_secs(1), ..one });
/// assert_eq!(torpor_gpuserver::policy::eviction::victims(&alike, 5, Eviction::Fewest), Some(vec![3]));
/// ```
#[must_use]
pub fn victims(residents: &[Resident], needed_bytes: u64, eviction: Eviction) -> Option<Vec<u64>> {
    let mut candidates: Vec<_> = residents.iter().filter(|one| one.evictable && one.bytes > 0).collect();
    let stays = |one: &Resident| eviction == Eviction::HeavyLast && !one.shows.is_zero();
    // Room for so long, by what it costs to have had it.
    let rests = |one: &Resident| match eviction {
        Eviction::Predicted => {
            one.until_used.as_micros().saturating_mul(one.bytes.into())
                / SWAP.saturating_add(one.shows).as_micros()
        }
        Eviction::Fewest => one.until_used.as_micros().saturating_mul(one.bytes.into()),
        Eviction::Lru | Eviction::HeavyLast => 0,
    };
    candidates
        .sort_by_key(|one| (one.next_turn.map(Reverse), stays(one), Reverse(rests(one)), one.last_used));
    let (mut chosen, mut freed) = (Vec::new(), 0_u64);
    for candidate in candidates {
        if freed >= needed_bytes {
            break;
        }
        freed = freed.saturating_add(candidate.bytes);
        chosen.push(candidate);
    }
    if freed < needed_bytes {
        return None;
    }
    // Those before the last may be spared where the others are enough without them.
    let mut kept = Vec::new();
    for candidate in chosen {
        if freed - candidate.bytes >= needed_bytes {
            freed -= candidate.bytes;
        } else {
            kept.push(candidate.client);
        }
    }
    Some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn victims_are_enough_none_is_superfluous_and_all_may_be_evicted(
            clients in prop::collection::vec(
                (0..100_u64, 0..1000_u64, prop::option::of(0..20_usize), any::<bool>(), any::<[Duration; 2]>()),
                0..20,
            ),
            needed in 0..1000_u64,
            eviction in prop::sample::select(Eviction::value_variants()),
        ) {
            let residents: Vec<_> = clients
                .iter()
                .zip(1..)
                .map(|(&(bytes, last_used, next_turn, evictable, [shows, until_used]), client)| {
                    Resident { client, bytes, last_used, until_used, next_turn, shows, evictable }
                })
                .collect();
            let all: u64 = residents.iter().filter(|one| one.evictable).map(|one| one.bytes).sum();
            match victims(&residents, needed, eviction) {
                None => prop_assert!(all < needed),
                Some(victims) => {
                    let chosen: Vec<_> =
                        victims.iter().map(|client| residents[*client as usize - 1]).collect();
                    let freed: u64 = chosen.iter().map(|one| one.bytes).sum();
                    prop_assert!(freed >= needed);
                    prop_assert!(chosen.iter().all(|one| one.evictable && freed - one.bytes < needed));
                }
            }
        }
    }
}
