//! The address space that host and devices share: reservations, and the mappings in them.
//!
//! Readers take a snapshot, a sorted list that never changes; a running kernel keeps one and looks addresses up without
//! a lock.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, RwLock};

use super::mapping::{Extents, Mapping, give_back, reserve};
use super::physical::{GRANULARITY, Physical};
use crate::error::{CudaError, Result};
use crate::lock;

/// How many freed ranges are remembered, to name them when they are used.
const FREED_REMEMBERED: usize = 4096;

/// All mappings at one moment, sorted by address, without overlap.
pub type Snapshot = Vec<Arc<Mapping>>;

/// The mapping around `address`.
pub fn find(snapshot: &[Arc<Mapping>], address: u64) -> Option<&Arc<Mapping>> {
    let after = snapshot.partition_point(|mapping| mapping.start <= address);
    snapshot.get(after.checked_sub(1)?).filter(|mapping| address < mapping.end())
}

/// The mappings that cover `bytes` at `address` without a gap.
pub fn cover(snapshot: &[Arc<Mapping>], address: u64, bytes: u64) -> Option<&[Arc<Mapping>]> {
    let end = address.checked_add(bytes)?;
    let after = snapshot.partition_point(|mapping| mapping.start <= address);
    let first = after.checked_sub(1)?;
    let mut reached = address;
    for (index, mapping) in snapshot.iter().enumerate().skip(first) {
        if mapping.start > reached || mapping.end() <= reached {
            return None;
        }
        reached = mapping.end();
        if reached >= end {
            return Some(&snapshot[first..=index]);
        }
    }
    None
}

/// Whether any mapping touches the range.
pub fn touches(snapshot: &[Arc<Mapping>], address: u64, bytes: u64) -> bool {
    let end = address.saturating_add(bytes);
    let first = snapshot.partition_point(|mapping| mapping.end() <= address);
    snapshot.get(first).is_some_and(|mapping| mapping.start < end)
}

/// The address space.
#[derive(Debug, Default)]
pub struct Space {
    current: RwLock<Arc<Snapshot>>,
    reservations: Mutex<BTreeMap<u64, u64>>,
    extents: Arc<Extents>,
    freed: Mutex<VecDeque<(u64, u64)>>,
}

impl Space {
    /// The mappings now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.current.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    fn change<T>(&self, change: impl FnOnce(&mut Snapshot) -> Result<T>) -> Result<T> {
        let mut current = self.current.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut next = Snapshot::clone(&current);
        let result = change(&mut next)?;
        let old = std::mem::replace(&mut *current, Arc::new(next));
        // Mappings end here, outside the lock.
        drop(current);
        drop(old);
        Ok(result)
    }

    /// Reserves addresses; at `wanted` if it can be.
    pub fn reserve(&self, wanted: u64, bytes: u64, alignment: u64) -> Result<u64> {
        let start = reserve(wanted, bytes, alignment)?;
        lock(&self.reservations).insert(start, bytes);
        Ok(start)
    }

    /// Gives a whole reservation back, in which nothing may be mapped.
    pub fn free_reservation(&self, start: u64, bytes: u64) -> Result {
        let mut reservations = lock(&self.reservations);
        if reservations.get(&start) != Some(&bytes) || touches(&self.snapshot(), start, bytes) {
            return Err(CudaError::INVALID_VALUE);
        }
        reservations.remove(&start);
        // Addresses that a running operation still uses are kept for good.
        if !self.extents.touches(start, start + bytes) {
            give_back(start, bytes);
        }
        Ok(())
    }

    fn is_reserved(&self, start: u64, bytes: u64) -> bool {
        let reservations = lock(&self.reservations);
        let Some((&first, &length)) = reservations.range(..=start).next_back() else { return false };
        start.checked_add(bytes).is_some_and(|end| end <= first + length)
    }

    /// Maps physical memory at a reserved, free address.
    pub fn map(&self, start: u64, physical: &Arc<Physical>) -> Result {
        if !start.is_multiple_of(GRANULARITY) || !self.is_reserved(start, physical.bytes) {
            return Err(CudaError::INVALID_VALUE);
        }
        self.change(|mappings| {
            if touches(mappings, start, physical.bytes) {
                return Err(CudaError::INVALID_VALUE);
            }
            insert(mappings, Mapping::reserved(start, Arc::clone(physical), &self.extents)?);
            Ok(())
        })
    }

    /// Maps physical memory wherever there is room.
    pub fn map_anywhere(
        &self,
        physical: Arc<Physical>,
        asked_bytes: u64,
        quarantine: bool,
    ) -> Result<Arc<Mapping>> {
        let mapping = Mapping::anywhere(physical, asked_bytes, quarantine, &self.extents)?;
        self.change(|mappings| {
            insert(mappings, Arc::clone(&mapping));
            Ok(mapping)
        })
    }

    /// Maps physical memory where nobody but its owner finds it.
    pub fn hide(&self, physical: Arc<Physical>, asked_bytes: u64) -> Result<Arc<Mapping>> {
        Mapping::anywhere(physical, asked_bytes, false, &self.extents)
    }

    /// Adds host memory: at `start`, or new.
    pub fn add_host(&self, start: Option<u64>, bytes: u64, flags: u32) -> Result<Arc<Mapping>> {
        self.change(|mappings| {
            if start.is_some_and(|start| touches(mappings, start, bytes)) {
                return Err(CudaError::HOST_MEMORY_ALREADY_REGISTERED);
            }
            let mapping = Mapping::host(start, bytes, flags, &self.extents)?;
            insert(mappings, Arc::clone(&mapping));
            Ok(mapping)
        })
    }

    /// Unmaps everything in a range whose ends are ends of mappings. What was there.
    pub fn unmap(&self, start: u64, bytes: u64) -> Result<Vec<Arc<Mapping>>> {
        let end = start.checked_add(bytes).ok_or(CudaError::INVALID_VALUE)?;
        let removed = self.change(|mappings| {
            let covered = cover(mappings, start, bytes).ok_or(CudaError::INVALID_VALUE)?;
            let whole = covered.first().is_some_and(|first| first.start == start)
                && covered.last().is_some_and(|last| last.end() == end);
            if !whole || covered.iter().any(|mapping| mapping.physical().is_none()) {
                return Err(CudaError::INVALID_VALUE);
            }
            let removed = covered.to_vec();
            mappings.retain(|mapping| mapping.end() <= start || mapping.start >= end);
            Ok(removed)
        })?;
        self.remember(&removed);
        Ok(removed)
    }

    /// Removes the one mapping that starts at `start`, if `which` accepts it.
    pub fn remove(&self, start: u64, which: impl FnOnce(&Mapping) -> bool) -> Result<Arc<Mapping>> {
        let removed = self.change(|mappings| {
            let index = mappings.binary_search_by_key(&start, |mapping| mapping.start);
            let index = index.map_err(|_| CudaError::INVALID_VALUE)?;
            if !which(&mappings[index]) {
                return Err(CudaError::INVALID_VALUE);
            }
            Ok(mappings.remove(index))
        })?;
        self.remember(std::slice::from_ref(&removed));
        Ok(removed)
    }

    fn remember(&self, removed: &[Arc<Mapping>]) {
        let mut freed = lock(&self.freed);
        for mapping in removed {
            if freed.len() == FREED_REMEMBERED {
                freed.pop_front();
            }
            freed.push_back((mapping.start, mapping.end()));
        }
    }

    /// Whether memory that is mapped no more was here.
    pub fn was_freed(&self, address: u64) -> bool {
        lock(&self.freed).iter().any(|&(start, end)| start <= address && address < end)
    }
}

fn insert(mappings: &mut Snapshot, mapping: Arc<Mapping>) {
    let at = mappings.partition_point(|other| other.start < mapping.start);
    mappings.insert(at, mapping);
}

#[cfg(test)]
mod tests {
    use super::super::physical::Budget;
    use super::*;

    const WINDOW: u64 = 0x2a00_0000_0000;

    fn piece(budget: &Arc<Budget>) -> Arc<Physical> {
        Physical::new(0, budget, GRANULARITY, false).expect("memory")
    }

    #[test]
    fn pieces_side_by_side_are_one_range() {
        let (space, budget) = (Space::default(), Budget::new(1 << 30));
        assert_eq!(space.reserve(WINDOW, 1 << 40, GRANULARITY), Ok(WINDOW));
        assert_ne!(space.reserve(WINDOW, 1 << 30, GRANULARITY), Ok(WINDOW), "taken already");
        for index in 0..3 {
            space.map(WINDOW + index * GRANULARITY, &piece(&budget)).expect("free");
        }
        let snapshot = space.snapshot();
        assert_eq!(cover(&snapshot, WINDOW + 5, 3 * GRANULARITY - 5).map(<[_]>::len), Some(3));
        assert!(cover(&snapshot, WINDOW + 5, 3 * GRANULARITY).is_none());
        assert!(cover(&snapshot, WINDOW - 1, 2).is_none());
        assert!(find(&snapshot, WINDOW + 3 * GRANULARITY).is_none());
        assert_eq!(space.map(WINDOW + GRANULARITY, &piece(&budget)), Err(CudaError::INVALID_VALUE));
        assert_eq!(space.map(WINDOW + (1 << 40), &piece(&budget)), Err(CudaError::INVALID_VALUE));
    }

    #[test]
    fn a_mapping_in_use_outlives_its_unmapping() {
        let (space, budget) = (Space::default(), Budget::new(1 << 30));
        let window = space.reserve(0, 1 << 30, GRANULARITY).expect("room");
        space.map(window, &piece(&budget)).expect("free");
        let running = space.snapshot();
        let used = || (1 << 30) - budget.free();
        space.unmap(window, GRANULARITY).expect("mapped");
        assert!(space.was_freed(window + 1));
        assert_eq!(used(), GRANULARITY);
        // SAFETY: `running` keeps the mapping.
        unsafe { running[0].base().write(7) };
        // A new mapping at the same address survives the end of the old one.
        space.map(window, &piece(&budget)).expect("free again");
        let now = space.snapshot();
        // SAFETY: `now` keeps the mapping.
        unsafe { now[0].base().write(9) };
        drop(running);
        // SAFETY: as above.
        assert_eq!(unsafe { now[0].base().read() }, 9);
        assert_eq!(used(), GRANULARITY);
        assert_eq!(space.free_reservation(window, 1 << 30), Err(CudaError::INVALID_VALUE));
        drop(now);
        space.unmap(window, GRANULARITY).expect("mapped");
        assert_eq!(space.free_reservation(window, 1 << 30), Ok(()));
    }

    #[test]
    fn only_whole_mappings_are_unmapped() {
        let (space, budget) = (Space::default(), Budget::new(1 << 30));
        let window = space.reserve(0, 1 << 30, GRANULARITY).expect("room");
        let two = Physical::new(0, &budget, 2 * GRANULARITY, false).expect("memory");
        space.map(window, &two).expect("free");
        assert_eq!(space.unmap(window, GRANULARITY).err(), Some(CudaError::INVALID_VALUE));
        assert_eq!(space.unmap(window, 3 * GRANULARITY).err(), Some(CudaError::INVALID_VALUE));
        assert_eq!(space.unmap(window, 2 * GRANULARITY).map(|removed| removed.len()), Ok(1));
    }
}
