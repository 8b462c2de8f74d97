//! Units of reach: segments that work goes through without a pointer to each, since views of objects lie side by side.

use crate::worker::memory::address_space::AddressSpace;
use std::collections::HashMap;

/// Which segments belong together. One that is no object is alone.
#[derive(Debug, Default)]
pub(crate) struct Units {
    /// One of the unit's homes, by home; those that are alone are left out.
    first: HashMap<u64, u64>,
    /// All homes of a unit, by that one.
    members: HashMap<u64, Vec<u64>>,
}

impl Units {
    /// As the program has mapped its objects now.
    pub(crate) fn of(space: &AddressSpace) -> Self {
        let mut units = Self::default();
        let mut last: Option<(u64, u64)> = None;
        for (view, home) in space.views() {
            if let Some((end, neighbour)) = last
                && end == view.address
            {
                units.join(neighbour, home);
            }
            last = Some((view.end(), home));
        }
        units
    }

    /// A name of the unit that a segment belongs to.
    pub(crate) fn of_segment(&self, home: u64) -> u64 {
        self.first.get(&home).copied().unwrap_or(home)
    }

    /// The segments of the same unit.
    pub(crate) fn beside(&self, home: u64) -> &[u64] {
        self.members.get(&self.of_segment(home)).map_or(&[], Vec::as_slice)
    }

    /// An object with several views joins what is beside each of them. The smaller unit is taken over, so each home is moved a
    /// few times at most.
    fn join(&mut self, one: u64, other: u64) {
        let (mut one, mut other) = (self.of_segment(one), self.of_segment(other));
        if one == other {
            return;
        }
        let size = |unit| self.members.get(&unit).map_or(1, Vec::len);
        if size(one) < size(other) {
            std::mem::swap(&mut one, &mut other);
        }
        let moved = self.members.remove(&other).unwrap_or_else(|| vec![other]);
        self.first.extend(moved.iter().map(|&home| (home, one)));
        self.first.insert(one, one);
        self.members.entry(one).or_insert_with(|| vec![one]).extend(moved);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_side_by_side_anywhere_is_one_unit() {
        let mut units = Units::default();
        units.join(1, 2);
        units.join(3, 4);
        assert_ne!(units.of_segment(1), units.of_segment(3));
        assert_eq!(units.of_segment(9), 9);
        assert!(units.beside(9).is_empty());
        units.join(2, 4);
        units.join(4, 1);
        let mut members = units.beside(3).to_vec();
        members.sort_unstable();
        assert_eq!(members, [1, 2, 3, 4]);
        assert!([1, 2, 4].iter().all(|&home| units.of_segment(home) == units.of_segment(3)));
    }
}
