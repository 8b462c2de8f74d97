//! Which slots are free: runs of slots side by side, none of which reaches over the end of a slab.

use std::collections::{BTreeMap, BTreeSet};

/// The free slots of all slabs.
#[derive(Debug)]
pub struct Slots {
    /// Length of each free run, by its first slot.
    runs: BTreeMap<u32, u32>,
    slab_slots: u32,
    total: u32,
    free: u32,
}

impl Slots {
    /// No slab yet; each will have `slab_slots`, of which there is at least one.
    #[must_use]
    pub fn new(slab_slots: u32) -> Self {
        Self { runs: BTreeMap::new(), slab_slots: slab_slots.max(1), total: 0, free: 0 }
    }

    /// Those of so many slabs, of which some are taken. `None` if one of these is of none.
    #[must_use]
    pub fn with_taken(slab_slots: u32, slabs: u32, taken: &BTreeSet<u32>) -> Option<Self> {
        let mut slots = Self::new(slab_slots);
        slots.total = slabs.checked_mul(slots.slab_slots)?;
        if taken.last().is_some_and(|&last| last >= slots.total) {
            return None;
        }
        for first in (0..slots.total).step_by(slots.slab_slots as usize) {
            let (mut begin, end) = (first, first + slots.slab_slots);
            for &next in taken.range(first..end).chain([&end]) {
                if next > begin {
                    slots.runs.insert(begin, next - begin);
                    slots.free += next - begin;
                }
                begin = next + 1;
            }
        }
        Some(slots)
    }

    /// There is another slab.
    pub fn grow(&mut self) {
        self.runs.insert(self.total, self.slab_slots);
        self.total += self.slab_slots;
        self.free += self.slab_slots;
    }

    /// The last slab is none any more, if all of its slots are free and it is not the only one.
    pub fn shrink(&mut self) -> bool {
        let first = self.total.saturating_sub(self.slab_slots);
        let goes = first > 0 && self.runs.get(&first) == Some(&self.slab_slots);
        if goes {
            self.runs.remove(&first);
            self.total = first;
            self.free -= self.slab_slots;
        }
        goes
    }

    /// Slots of all slabs.
    #[must_use]
    pub fn total(&self) -> usize {
        self.total as usize
    }

    /// Slots that are free.
    #[must_use]
    pub fn free(&self) -> usize {
        self.free as usize
    }

    /// Takes slots, in ascending order: side by side at the lowest place where that is possible, else out of the longest
    /// runs. `None` if so many are not free.
    pub fn take(&mut self, count: usize) -> Option<Vec<u32>> {
        let wanted = u32::try_from(count).ok().filter(|&wanted| wanted <= self.free)?;
        if wanted == 0 {
            return Some(Vec::new());
        }
        let whole = self.runs.iter().find(|&(_, &length)| length >= wanted).map(|(&start, _)| start);
        let starts = match whole {
            Some(start) => vec![start],
            None => {
                let mut runs: Vec<(u32, u32)> =
                    self.runs.iter().map(|(&start, &length)| (start, length)).collect();
                runs.sort_by_key(|&(start, length)| (u32::MAX - length, start));
                runs.into_iter().map(|(start, _)| start).collect()
            }
        };
        let mut taken = Vec::with_capacity(count);
        for start in starts {
            let Some(length) = self.runs.remove(&start) else { continue };
            let missing = wanted - taken.len() as u32;
            let used = length.min(missing);
            taken.extend(start..start + used);
            if used < length {
                self.runs.insert(start + used, length - used);
            }
            if used == missing {
                break;
            }
        }
        self.free -= wanted;
        taken.sort_unstable();
        Some(taken)
    }

    /// Gives a slot back that was taken.
    pub fn give(&mut self, slot: u32) {
        debug_assert!(slot < self.total && !self.is_free(slot), "slot {slot} was not taken");
        let (mut start, mut length) = (slot, 1);
        if !slot.is_multiple_of(self.slab_slots)
            && let Some((&before, &its)) = self.runs.range(..slot).next_back()
            && before + its == slot
        {
            self.runs.remove(&before);
            (start, length) = (before, its + 1);
        }
        if !(slot + 1).is_multiple_of(self.slab_slots)
            && let Some(its) = self.runs.remove(&(slot + 1))
        {
            length += its;
        }
        self.runs.insert(start, length);
        self.free += 1;
    }

    /// Whether a slot is free.
    #[must_use]
    pub fn is_free(&self, slot: u32) -> bool {
        self.runs.range(..=slot).next_back().is_some_and(|(&start, &length)| slot - start < length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_lowest_run_that_fits_is_taken_whole() {
        let mut slots = Slots::new(8);
        slots.grow();
        slots.grow();
        assert_eq!(slots.take(5).unwrap(), [0, 1, 2, 3, 4]);
        assert_eq!(slots.take(4).unwrap(), [8, 9, 10, 11]);
        slots.give(1);
        // The longest runs first, when none is long enough.
        assert_eq!(slots.take(5).unwrap(), [5, 12, 13, 14, 15]);
        assert_eq!(slots.take(4), None);
        assert_eq!(slots.take(3).unwrap(), [1, 6, 7]);
        assert_eq!((slots.free(), slots.total()), (0, 16));
    }

    #[test]
    fn the_last_slab_goes_when_nothing_lies_there_and_never_the_first() {
        let mut slots = Slots::new(4);
        (0..3).for_each(|_| slots.grow());
        assert_eq!(slots.take(5).unwrap(), [0, 1, 2, 3, 4]);
        assert!(slots.shrink());
        assert_eq!((slots.total(), slots.free()), (8, 3));
        assert!(!slots.shrink(), "a chunk lies in it");
        slots.give(4);
        assert!(slots.shrink());
        (0..4).for_each(|slot| slots.give(slot));
        assert!(!slots.shrink(), "the only one");
        slots.grow();
        assert_eq!(slots.take(5).unwrap(), [0, 1, 2, 3, 4]);
    }

    proptest! {
        #[test]
        fn no_slot_is_given_out_twice(steps in prop::collection::vec((any::<bool>(), 0..12_usize), 0..200)) {
            let mut slots = Slots::new(7);
            (0..4).for_each(|_| slots.grow());
            let mut taken: BTreeSet<u32> = BTreeSet::new();
            for (take, number) in steps {
                if take {
                    match slots.take(number) {
                        Some(got) => {
                            prop_assert_eq!(got.len(), number);
                            prop_assert!(got.is_sorted());
                            for slot in got {
                                prop_assert!(taken.insert(slot));
                            }
                        }
                        None => prop_assert!(number > 28 - taken.len()),
                    }
                } else if let Some(&slot) = taken.iter().nth(number) {
                    taken.remove(&slot);
                    slots.give(slot);
                }
                prop_assert_eq!(slots.free(), 28 - taken.len());
                for slot in 0..28 {
                    prop_assert_eq!(slots.is_free(slot), !taken.contains(&slot));
                }
                prop_assert_eq!(slots.runs.values().sum::<u32>() as usize, slots.free());
                let again = Slots::with_taken(7, 4, &taken).unwrap();
                prop_assert_eq!((&again.runs, again.free), (&slots.runs, slots.free));
                prop_assert!(slots.runs.iter().all(|(&start, &length)| start / 7 == (start + length - 1) / 7));
            }
        }
    }
}
