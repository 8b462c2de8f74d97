//! Reservations: addresses that the program keeps for what it may map some day.
//!
//! Allocators reserve as much as the GPU has for each of their pools, of which they map the beginning. So a process comes to the end of
//! its arena long before it comes to the end of anything else. From then on reservations overlap: each *owns* the first part of what was
//! promised to it, and when addresses are wanted for something that is to be there, the one that owns most without a
//! mapping gives up the second half of that. Whoever maps what is no longer its own is out of memory.

use std::collections::BTreeMap;
use torpor_proto::layout::{AddressRange, SEGMENT_GRANULE_BYTES};

/// What is less than this is left to whoever owns it.
const LEAST_BYTES: u64 = 64 << 20;

/// By first address. Pure bookkeeping.
#[derive(Debug, Default)]
pub(super) struct Reservations {
    by_start: BTreeMap<u64, Reservation>,
}

#[derive(Clone, Copy, Debug)]
struct Reservation {
    promised_bytes: u64,
    owned_bytes: u64,
}

/// Whose addresses are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// One reservation's own.
    Owned,
    /// Promised to one, at least, that does not own all of them (any more).
    Promised,
    /// In none.
    Nowhere,
}

impl Reservations {
    /// The program has been given `promised_bytes` at the beginning of what it owns.
    pub(super) fn insert(&mut self, owned: AddressRange, promised_bytes: u64) {
        self.by_start.insert(owned.address, Reservation { promised_bytes, owned_bytes: owned.bytes });
    }

    /// What a whole reservation owns.
    pub(super) fn owned(&self, address: u64, promised_bytes: u64) -> Option<AddressRange> {
        let found = self.by_start.get(&address).filter(|found| found.promised_bytes == promised_bytes)?;
        Some(AddressRange { address, bytes: found.owned_bytes })
    }

    /// Ends one.
    pub(super) fn remove(&mut self, address: u64) {
        self.by_start.remove(&address);
    }

    /// Whose a range is.
    pub(super) fn place(&self, range: AddressRange) -> Place {
        let holds =
            |start: u64, bytes| AddressRange { address: start, bytes }.contains(range.address, range.bytes);
        let mut before = self.by_start.range(..=range.address).rev().map(|(&start, &found)| (start, found));
        if before.clone().next().is_some_and(|(start, found)| holds(start, found.owned_bytes)) {
            return Place::Owned;
        }
        let is_promised = before.any(|(start, found)| holds(start, found.promised_bytes));
        if is_promised { Place::Promised } else { Place::Nowhere }
    }

    /// Whether a range that one reservation owns was promised to another one, too.
    pub(super) fn is_disputed(&self, range: AddressRange) -> bool {
        let before = self.by_start.range(..=range.address).rev();
        let promised = |(&start, found): (&u64, &Reservation)| {
            AddressRange { address: start, bytes: found.promised_bytes }.contains(range.address, 1)
        };
        before.filter(|&one| promised(one)).count() > 1
    }

    /// Takes `bytes` at least, and else half, of what the one owns that has most of it unused, from its end. `used_until` says of what
    /// one owns where the last of its mappings ends. Gives where what is left begins, and how long it is.
    pub(super) fn give_up(
        &mut self,
        bytes: u64,
        used_until: impl Fn(AddressRange) -> u64,
    ) -> Option<AddressRange> {
        let unused = |(&address, found): (&u64, &Reservation)| {
            let owned = AddressRange { address, bytes: found.owned_bytes };
            // Something stays, so that the reservation's first address is nobody else's.
            let used_bytes = used_until(owned).saturating_sub(address).max(SEGMENT_GRANULE_BYTES);
            (owned.bytes.saturating_sub(used_bytes), address)
        };
        let (unused_bytes, address) = self.by_start.iter().map(unused).max()?;
        let bytes = bytes.checked_next_multiple_of(SEGMENT_GRANULE_BYTES)?;
        let half = unused_bytes / 2 / SEGMENT_GRANULE_BYTES * SEGMENT_GRANULE_BYTES;
        let given_bytes = half.max(bytes);
        if given_bytes > unused_bytes || unused_bytes < LEAST_BYTES {
            return None;
        }
        let found = self.by_start.get_mut(&address)?;
        found.owned_bytes -= given_bytes;
        Some(AddressRange { address, bytes: found.owned_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    fn range(address: u64, bytes: u64) -> AddressRange {
        AddressRange { address, bytes }
    }

    #[test]
    fn the_one_with_most_to_spare_gives_up_the_second_half_of_that() {
        let mut reservations = Reservations::default();
        reservations.insert(range(GIB, 8 * GIB), 8 * GIB);
        reservations.insert(range(16 * GIB, 4 * GIB), 4 * GIB);
        let used = |owned: AddressRange| owned.address + 2 * GIB;
        assert_eq!(reservations.give_up(MIB, used), Some(range(GIB, 5 * GIB)));
        assert_eq!(reservations.give_up(3 * GIB, used), Some(range(GIB, 2 * GIB)), "as much as is wanted");
        assert_eq!(reservations.give_up(MIB, used), Some(range(16 * GIB, 3 * GIB)));
        assert_eq!(reservations.give_up(3 * GIB, used), None);
        assert_eq!(reservations.owned(GIB, 8 * GIB), Some(range(GIB, 2 * GIB)));
        assert_eq!(reservations.owned(GIB, 2 * GIB), None, "it is freed as it was made");
    }

    #[test]
    fn what_was_promised_and_is_no_longer_owned_is_told_from_what_never_was() {
        let mut reservations = Reservations::default();
        reservations.insert(range(GIB, GIB), 8 * GIB);
        reservations.insert(range(3 * GIB, GIB), 2 * GIB);
        assert_eq!(reservations.place(range(GIB, GIB)), Place::Owned);
        assert_eq!(reservations.place(range(GIB, GIB + MIB)), Place::Promised);
        assert_eq!(reservations.place(range(6 * GIB, MIB)), Place::Promised);
        assert_eq!(reservations.place(range(9 * GIB, MIB)), Place::Nowhere);
        assert_eq!(reservations.place(range(0, MIB)), Place::Nowhere);
        assert!(reservations.is_disputed(range(3 * GIB, MIB)) && !reservations.is_disputed(range(GIB, MIB)));
    }

    proptest! {
        #[test]
        fn nothing_that_is_used_is_given_up(
            owned in prop::collection::vec((1..1000_u64, 0..1000_u64), 1..8), wanted in prop::collection::vec(1..500_u64, 1..20)
        ) {
            let mut reservations = Reservations::default();
            let start = |at: usize| (at as u64 + 1) << 40;
            let used: Vec<u64> = owned.iter().map(|&(owned, used)| used.min(owned) * 2 * MIB).collect();
            for (at, &(owned, _)) in owned.iter().enumerate() {
                reservations.insert(range(start(at), owned * 2 * MIB), GIB);
            }
            for wanted in wanted {
                let until = |owned: AddressRange| owned.address + used[(owned.address >> 40) as usize - 1];
                if let Some(left) = reservations.give_up(wanted * MIB, until) {
                    let at = (left.address >> 40) as usize - 1;
                    prop_assert!(left.bytes >= used[at].max(2 * MIB) && left.bytes < owned[at].0 * 2 * MIB);
                    prop_assert!(left.bytes.is_multiple_of(2 * MIB));
                }
            }
        }
    }
}
