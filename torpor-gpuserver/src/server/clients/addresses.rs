//! Which addresses a client gets: how many, and where. Pure bookkeeping.
//!
//! Allocators reserve far more addresses than they use, so clients get many times what they may allocate, as long as
//! enough is left for all who may still come. Places are random: a kernel that guesses addresses meets nobody.

use std::collections::BTreeMap;
use torpor_proto::layout::{AddressRange, DEVICE_WINDOW, HOST_WINDOW, MAX_VARIABLES_BYTES};

const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// A client gets no more than this part of what nobody is expected to need: who comes first should not have all of it. Reservations that
/// do not fit in what a client has overlap (`core/reservations.rs` of the shim), so little is enough.
const SHARE: u64 = 16;

/// A place is one of the lowest free ones in so many bytes, so that long ranges stay free behind them.
const SPREAD_BYTES: u64 = 4 * TIB;

/// A place is one of so many, if there are so many.
const LEAST_CHOICE: u64 = 8;

/// Allocators reserve up to twice the function's memory for each of their pools (PyTorch's expandable segments 1.125
/// times for each pool of each stream); with so many times what a client needs, a dozen of them do not overlap.
const ARENAS_IN_ONE: u64 = 32;

/// Arenas are a multiple of this.
const ARENA_GRANULE_BYTES: u64 = GIB;

/// How many bytes somebody wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// No use with fewer.
    pub least_bytes: u64,
    /// No use for more.
    pub most_bytes: u64,
}

impl Demand {
    /// Device addresses of a client that may allocate so much: an eighth more at least, for what fragmentation takes, and
    /// what is for variables.
    #[must_use]
    pub fn arena(limit_bytes: u64) -> Self {
        let needed = limit_bytes.saturating_add(limit_bytes / 8);
        let needed = needed.saturating_add((needed / 3).min(MAX_VARIABLES_BYTES));
        let least_bytes = needed.div_ceil(ARENA_GRANULE_BYTES).max(1).saturating_mul(ARENA_GRANULE_BYTES);
        Self { least_bytes, most_bytes: least_bytes.saturating_mul(ARENAS_IN_ONE) }
    }

    /// Host addresses of a client with so much staging and page-locked memory; of the latter, 1 GiB will do.
    #[must_use]
    pub fn host(host_bytes: u64, staging_bytes: u64) -> Self {
        let least_bytes = host_bytes.min(staging_bytes.saturating_add(GIB));
        Self { least_bytes, most_bytes: host_bytes }
    }
}

/// What a client has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Of the device.
    pub arena: AddressRange,
    /// Of page-locked memory.
    pub host: AddressRange,
}

/// Both windows of the node.
#[derive(Debug)]
pub struct AddressPlan {
    arenas: Window,
    hosts: Window,
}

impl Default for AddressPlan {
    fn default() -> Self {
        // With so much kept for each, the most clients there can be fit with 14 GiB each, and 1200 get host ranges of
        // 16 GiB before later ones become shorter.
        let arenas = Window::new(DEVICE_WINDOW, ARENA_GRANULE_BYTES, 18 * GIB);
        let hosts = Window::new(HOST_WINDOW, 2 << 20, GIB);
        Self { arenas, hosts }
    }
}

impl AddressPlan {
    /// Takes addresses for a client, after which `to_come` others may come. Of `random`, any number will do.
    #[must_use]
    pub fn take(&mut self, arena: Demand, host: Demand, to_come: u32, random: [u64; 2]) -> Option<Addresses> {
        let arena = self.arenas.take(arena, to_come, random[0])?;
        let Some(host) = self.hosts.take(host, to_come, random[1]) else {
            self.arenas.give_back(arena);
            return None;
        };
        Some(Addresses { arena, host })
    }

    /// A client of the server before has these.
    pub fn keep(&mut self, addresses: Addresses) {
        self.arenas.taken.insert(addresses.arena.address, addresses.arena.bytes);
        self.hosts.taken.insert(addresses.host.address, addresses.host.bytes);
    }

    /// Nobody uses them any more.
    pub fn give_back(&mut self, addresses: Addresses) {
        self.arenas.give_back(addresses.arena);
        self.hosts.give_back(addresses.host);
    }
}

/// Addresses that are given out in ranges.
#[derive(Debug)]
struct Window {
    range: AddressRange,
    granule: u64,
    kept_bytes: u64,
    /// Length by first address.
    taken: BTreeMap<u64, u64>,
}

impl Window {
    /// Ranges are multiples of `granule` long. `kept_bytes` are kept for each client that may come.
    fn new(range: AddressRange, granule: u64, kept_bytes: u64) -> Self {
        Self { range, granule, kept_bytes, taken: BTreeMap::new() }
    }

    fn take(&mut self, demand: Demand, to_come: u32, random: u64) -> Option<AddressRange> {
        let least = demand.least_bytes.max(1).checked_next_multiple_of(self.granule)?;
        let most = demand.most_bytes.checked_next_multiple_of(self.granule)?.max(least);
        let free: u64 = self.holes().map(|hole| hole.bytes).sum();
        let spare = free.saturating_sub(u64::from(to_come).saturating_mul(self.kept_bytes));
        let doubled = std::iter::successors(Some(least), |bytes| bytes.checked_mul(2));
        // Twice, four times the least, and so on: so those of one limit leave no gaps that are too short for another.
        let mut lengths: Vec<u64> = doubled.take_while(|&bytes| bytes < most).collect();
        lengths.push(most);
        let fitting = lengths.into_iter().rev().filter(|&bytes| bytes == least || bytes <= spare / SHARE);
        let (address, bytes) =
            fitting.filter_map(|bytes| Some((self.place(bytes, random)?, bytes))).next()?;
        self.taken.insert(address, bytes);
        Some(AddressRange { address, bytes })
    }

    fn give_back(&mut self, range: AddressRange) {
        self.taken.remove(&range.address);
    }

    /// Places are multiples of the length, so that ranges of one length leave no gaps between them.
    fn place(&self, bytes: u64, random: u64) -> Option<u64> {
        let mut wanted = (SPREAD_BYTES / bytes).max(LEAST_CHOICE);
        let mut places = Vec::new();
        for hole in self.holes() {
            let first = (hole.address - self.range.address).next_multiple_of(bytes) + self.range.address;
            let count = (hole.end().saturating_sub(first) / bytes).min(wanted);
            if count > 0 {
                places.push((first, count));
                wanted -= count;
            }
            if wanted == 0 {
                break;
            }
        }
        let count: u64 = places.iter().map(|&(_, count)| count).sum();
        let Some(mut choice) = random.checked_rem(count) else { return self.best_fit(bytes) };
        for (first, count) in places {
            if choice < count {
                return Some(first + choice * bytes);
            }
            choice -= count;
        }
        None
    }

    fn best_fit(&self, bytes: u64) -> Option<u64> {
        let fitting = self.holes().filter(|hole| hole.bytes >= bytes);
        fitting.min_by_key(|hole| hole.bytes).map(|hole| hole.address)
    }

    /// What is free, by address.
    fn holes(&self) -> impl Iterator<Item = AddressRange> {
        let starts =
            std::iter::once(self.range.address).chain(self.taken.iter().map(|(at, bytes)| at + bytes));
        let ends = self.taken.keys().copied().chain(std::iter::once(self.range.end()));
        starts
            .zip(ends)
            .filter(|(start, end)| start < end)
            .map(|(start, end)| AddressRange { address: start, bytes: end - start })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use torpor_proto::layout::MAX_CLIENTS;

    const HOST: Demand = Demand { least_bytes: GIB, most_bytes: 16 * GIB };

    /// Numbers that look random enough.
    fn random(seed: u64) -> [u64; 2] {
        let scramble = |seed: u64| {
            let seed = (seed ^ (seed >> 31)).wrapping_mul(0x7fb5_d329_728e_a185);
            (seed ^ (seed >> 27)).wrapping_mul(0x81da_def4_bc2d_d44d)
        };
        [scramble(seed + 1), scramble(seed + 77_777)]
    }

    fn take(plan: &mut AddressPlan, number: u32, limit_bytes: u64) -> Option<Addresses> {
        plan.take(Demand::arena(limit_bytes), HOST, MAX_CLIENTS - number - 1, random(number.into()))
    }

    #[test]
    fn the_first_get_many_times_their_limit_and_the_last_with_a_small_one_still_fits() {
        let mut plan = AddressPlan::default();
        for number in 0..16 {
            let limit = 141 * GIB;
            let arena = take(&mut plan, number, limit).unwrap().arena;
            let times = arena.bytes / limit;
            assert!(times >= if number < 4 { 4 } else { 2 }, "{number}: {times} times");
        }
        for number in 16..1024 {
            let limit = [GIB / 16, 4 * GIB, 16 * GIB][number as usize % 3];
            let addresses = take(&mut plan, number, limit).unwrap_or_else(|| panic!("client {number}"));
            assert!(addresses.arena.for_allocations().bytes >= limit + limit / 8);
        }
    }

    #[test]
    fn the_most_clients_there_can_be_fit_with_14_gib_each() {
        let mut plan = AddressPlan::default();
        let fitted = (0..MAX_CLIENTS).take_while(|&number| take(&mut plan, number, 14 * GIB).is_some());
        assert_eq!(fitted.count(), MAX_CLIENTS as usize);
    }

    #[test]
    fn two_hundred_clients_without_a_limit_fit_on_the_largest_gpus() {
        let mut plan = AddressPlan::default();
        let fitted = (0..MAX_CLIENTS).take_while(|&number| take(&mut plan, number, 141 * GIB).is_some());
        assert!(fitted.count() >= 200);
    }

    #[test]
    fn a_thousand_clients_get_all_the_page_locked_memory_of_the_default() {
        let mut plan = AddressPlan::default();
        let hosts = (0..1024).map(|number| take(&mut plan, number, GIB).unwrap().host.bytes);
        assert!(hosts.min().unwrap() == 16 * GIB);
    }

    #[test]
    fn the_next_place_is_not_known_beforehand() {
        let mut places: Vec<u64> = (0..100)
            .map(|seed| {
                let mut plan = AddressPlan::default();
                plan.take(Demand::arena(GIB), HOST, 1024, random(seed)).unwrap().arena.address
            })
            .collect();
        places.sort_unstable();
        places.dedup();
        assert!(places.len() > 40, "{}", places.len());
    }

    proptest! {
        #[test]
        fn ranges_are_long_enough_never_overlap_and_all_comes_back(
            steps in prop::collection::vec((0..3_u8, 0..1_u64 << 44, any::<u64>()), 1..300)
        ) {
            let whole = AddressRange { address: 0x1000_0000_0000, bytes: 1 << 44 };
            let mut window = Window::new(whole, GIB, 18 * GIB);
            let mut held: Vec<AddressRange> = Vec::new();
            for (step, number, random) in steps {
                if step == 0 && !held.is_empty() {
                    window.give_back(held.swap_remove(random as usize % held.len()));
                    continue;
                }
                let demand = Demand::arena(number >> (step * 8));
                match window.take(demand, 100, random) {
                    Some(range) => {
                        prop_assert!(whole.contains(range.address, range.bytes));
                        prop_assert!(range.bytes >= demand.least_bytes);
                        prop_assert!(range.bytes <= demand.most_bytes);
                        prop_assert!(range.address % GIB == 0 && range.bytes % GIB == 0);
                        prop_assert!(held.iter().all(|other| !other.overlaps(range)));
                        held.push(range);
                    }
                    None => {
                        let hole = window.holes().map(|hole| hole.bytes).max().unwrap_or(0);
                        prop_assert!(hole < demand.least_bytes.next_multiple_of(GIB));
                    }
                }
            }
            held.into_iter().for_each(|range| window.give_back(range));
            let all = Demand { least_bytes: whole.bytes, most_bytes: whole.bytes };
            prop_assert_eq!(window.take(all, 0, 5), Some(whole));
        }
    }
}
