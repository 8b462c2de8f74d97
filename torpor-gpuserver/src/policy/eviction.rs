//! Eviction: whose memory leaves a GPU when somebody else needs room.

/// A client with memory on the GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resident {
    /// Its number.
    pub client: u64,
    /// Device memory that evicting it frees.
    pub bytes: u64,
    /// Grows with every use: the smallest was used longest ago.
    pub last_used: u64,
    /// Whether it may be evicted now: it is idle, and not pinned.
    pub evictable: bool,
}

/// The least recently used clients that together free at least `needed_bytes`, the longest unused first; fewer if one of
/// them turns out to be enough alone. `None` if all that may be evicted is not enough.
///
/// ```
/// use torpor_gpuserver::policy::eviction::{Resident, least_recently_used};
///
/// let resident = |client, bytes, last_used| Resident { client, bytes, last_used, evictable: true };
/// let residents = [resident(1, 10, 7), resident(2, 10, 3), resident(3, 50, 5)];
/// assert_eq!(least_recently_used(&residents, 5), Some(vec![2]));
/// assert_eq!(least_recently_used(&residents, 40), Some(vec![3]));
/// assert_eq!(least_recently_used(&residents, 71), None);
/// ```
#[must_use]
pub fn least_recently_used(residents: &[Resident], needed_bytes: u64) -> Option<Vec<u64>> {
    let mut candidates: Vec<_> = residents.iter().filter(|one| one.evictable && one.bytes > 0).collect();
    candidates.sort_by_key(|one| one.last_used);
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
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn victims_are_enough_none_is_superfluous_and_all_may_be_evicted(
            clients in prop::collection::vec((0..100_u64, 0..1000_u64, any::<bool>()), 0..20),
            needed in 0..1000_u64,
        ) {
            let residents: Vec<_> = clients
                .iter()
                .zip(1..)
                .map(|(&(bytes, last_used, evictable), client)| Resident { client, bytes, last_used, evictable })
                .collect();
            let all: u64 = residents.iter().filter(|one| one.evictable).map(|one| one.bytes).sum();
            match least_recently_used(&residents, needed) {
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
