//! Handing out addresses of a range: first fit, neighbours merged on return.

use std::collections::BTreeMap;
use torpor_proto::layout::AddressRange;

/// Free and taken pieces of an address range. Pure bookkeeping: nothing is mapped.
#[derive(Debug)]
pub struct RangeAllocator {
    granule: u64,
    free: BTreeMap<u64, u64>,
    taken: BTreeMap<u64, u64>,
    total: u64,
}

impl RangeAllocator {
    /// All of `range` is free. Sizes are rounded up to `granule`, a power of two that the range is aligned to.
    #[must_use]
    pub fn new(range: AddressRange, granule: u64) -> Self {
        let bytes = range.bytes / granule * granule;
        Self { granule, free: BTreeMap::from([(range.address, bytes)]), taken: BTreeMap::new(), total: bytes }
    }

    /// Takes the lowest free piece that is large enough. `None` if there is none, or for no bytes.
    pub fn allocate(&mut self, bytes: u64) -> Option<AddressRange> {
        let bytes = bytes.checked_next_multiple_of(self.granule).filter(|&bytes| bytes > 0)?;
        let (address, room) =
            self.free.iter().map(|(&at, &room)| (at, room)).find(|&(_, room)| room >= bytes)?;
        self.free.remove(&address);
        if room > bytes {
            self.free.insert(address + bytes, room - bytes);
        }
        self.taken.insert(address, bytes);
        Some(AddressRange { address, bytes })
    }

    /// Gives a piece back by its first address. `None` if no piece begins there.
    pub fn release(&mut self, address: u64) -> Option<AddressRange> {
        let bytes = self.taken.remove(&address)?;
        let (mut start, mut end) = (address, address + bytes);
        if let Some((&before, &room)) = self.free.range(..address).next_back()
            && before + room == address
        {
            self.free.remove(&before);
            start = before;
        }
        if let Some(room) = self.free.remove(&end) {
            end += room;
        }
        self.free.insert(start, end - start);
        Some(AddressRange { address, bytes })
    }

    /// The taken piece that an address lies in.
    #[must_use]
    pub fn find(&self, address: u64) -> Option<AddressRange> {
        let (&start, &bytes) = self.taken.range(..=address).next_back()?;
        (address - start < bytes).then_some(AddressRange { address: start, bytes })
    }

    /// Whether nothing is taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }

    /// Bytes in all, free and taken.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_never_overlap_and_all_comes_back(
            steps in prop::collection::vec((any::<bool>(), 1..5000u64), 1..200)
        ) {
            let range = AddressRange { address: 1 << 20, bytes: 1 << 16 };
            let mut allocator = RangeAllocator::new(range, 256);
            let mut held: Vec<AddressRange> = Vec::new();
            for (give, size) in steps {
                if give && !held.is_empty() {
                    let piece = held.swap_remove(size as usize % held.len());
                    prop_assert_eq!(allocator.release(piece.address), Some(piece));
                } else if let Some(piece) = allocator.allocate(size) {
                    prop_assert!(piece.bytes >= size && range.contains(piece.address, piece.bytes));
                    prop_assert_eq!(piece.address % 256, 0);
                    for other in &held {
                        prop_assert!(piece.end() <= other.address || other.end() <= piece.address);
                    }
                    prop_assert_eq!(allocator.find(piece.address + size - 1), Some(piece));
                    held.push(piece);
                } else {
                    let held: u64 = held.iter().map(|piece| piece.bytes).sum();
                    prop_assert!(held > 0, "an empty allocator refused {}", size);
                }
            }
            for piece in held {
                allocator.release(piece.address).unwrap();
            }
            prop_assert!(allocator.is_empty());
            prop_assert_eq!(allocator.allocate(range.bytes), Some(range));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let mut allocator = RangeAllocator::new(AddressRange { address: 4096, bytes: 4096 }, 512);
        assert_eq!(allocator.allocate(0), None);
        assert_eq!(allocator.allocate(u64::MAX), None);
        assert_eq!(allocator.release(4096), None);
        assert_eq!(allocator.find(4096), None);
    }
}
