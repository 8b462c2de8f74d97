//! Handing out addresses of a range: next fit from a place that can be chosen, neighbours merged on return.

use std::collections::BTreeMap;
use torpor_proto::layout::AddressRange;

/// Free and taken pieces of an address range. Pure bookkeeping: nothing is mapped.
#[derive(Debug)]
pub struct RangeAllocator {
    granule: u64,
    free: BTreeMap<u64, u64>,
    taken: BTreeMap<u64, u64>,
    /// Where the search begins.
    first: u64,
    total: u64,
}

impl RangeAllocator {
    /// All of `range` is free. Sizes are rounded up to `granule`, a power of two that the range is aligned to.
    #[must_use]
    pub fn new(range: AddressRange, granule: u64) -> Self {
        let bytes = range.bytes / granule * granule;
        Self {
            granule,
            free: BTreeMap::from([(range.address, bytes)]),
            taken: BTreeMap::new(),
            first: range.address,
            total: bytes,
        }
    }

    /// As [`Self::new`], but what lies below `first` is given out only when there is no room above.
    #[must_use]
    pub fn starting_at(first: u64, range: AddressRange, granule: u64) -> Self {
        Self { first: first / granule * granule, ..Self::new(range, granule) }
    }

    /// Takes the lowest free piece that is large enough. `None` if there is none, or for no bytes.
    pub fn allocate(&mut self, bytes: u64) -> Option<AddressRange> {
        self.allocate_aligned(bytes, self.granule)
    }

    /// As [`Self::allocate`], at a multiple of `alignment`, a power of two.
    pub fn allocate_aligned(&mut self, bytes: u64, alignment: u64) -> Option<AddressRange> {
        let alignment = alignment.max(self.granule);
        let bytes = bytes.checked_next_multiple_of(self.granule).filter(|&bytes| bytes > 0)?;
        let fits = |hole: AddressRange, from: u64| {
            let address = from.max(hole.address).checked_next_multiple_of(alignment)?;
            hole.contains(address, bytes).then_some((hole, address))
        };
        let holes = || self.free.iter().map(|(&address, &bytes)| AddressRange { address, bytes });
        let above = holes().find_map(|hole| fits(hole, self.first));
        let (hole, address) = above.or_else(|| holes().find_map(|hole| fits(hole, 0)))?;
        Some(self.take(hole, AddressRange { address, bytes }))
    }

    /// Takes exactly this piece, if it is free and made of granules.
    pub fn allocate_at(&mut self, piece: AddressRange) -> Option<AddressRange> {
        let (&address, &bytes) = self.free.range(..=piece.address).next_back()?;
        let hole = AddressRange { address, bytes };
        let whole = [piece.address, piece.bytes].iter().all(|number| number.is_multiple_of(self.granule));
        let fits = whole && piece.bytes > 0 && hole.contains(piece.address, piece.bytes);
        fits.then(|| self.take(hole, piece))
    }

    /// Takes a piece out of a free one that contains it.
    fn take(&mut self, hole: AddressRange, piece: AddressRange) -> AddressRange {
        self.free.remove(&hole.address);
        if piece.address > hole.address {
            self.free.insert(hole.address, piece.address - hole.address);
        }
        if hole.end() > piece.end() {
            self.free.insert(piece.end(), hole.end() - piece.end());
        }
        self.taken.insert(piece.address, piece.bytes);
        piece
    }

    /// Takes the longest free piece, less what it takes to be at a multiple of `alignment`, or half of it where that is enough for
    /// `least_bytes`.
    pub fn allocate_half(&mut self, least_bytes: u64, alignment: u64) -> Option<AddressRange> {
        let alignment = alignment.max(self.granule);
        let usable = |(&address, &bytes): (&u64, &u64)| {
            let hole = AddressRange { address, bytes };
            let at = address.checked_next_multiple_of(alignment)?;
            Some((hole.end().checked_sub(at)?, hole, at))
        };
        let (bytes, hole, address) = self.free.iter().filter_map(usable).max_by_key(|&(bytes, ..)| bytes)?;
        let half = bytes / 2 / self.granule * self.granule;
        let bytes = if half >= least_bytes { half } else { bytes };
        (bytes > 0 && bytes >= least_bytes).then(|| self.take(hole, AddressRange { address, bytes }))
    }

    /// Gives the end of a piece back, so that it is `bytes` long, a multiple of the granule.
    pub fn shorten(&mut self, piece: AddressRange) {
        let Some(length) = self.taken.get(&piece.address).copied().filter(|&length| length > piece.bytes)
        else {
            return;
        };
        self.taken.insert(piece.address, piece.bytes);
        self.taken.insert(piece.end(), length - piece.bytes);
        self.release(piece.end());
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
            steps in prop::collection::vec((any::<bool>(), 1..5000u64), 1..200), first in 0..1u64 << 16
        ) {
            let range = AddressRange { address: 1 << 20, bytes: 1 << 16 };
            let mut allocator = RangeAllocator::starting_at(range.address + first, range, 256);
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
    fn the_search_begins_where_it_is_told_and_ends_with_what_is_below() {
        let range = AddressRange { address: 4096, bytes: 4096 };
        let mut allocator = RangeAllocator::starting_at(4096 + 1024, range, 512);
        let addresses: Vec<u64> = (0..2).map(|_| allocator.allocate(1536).unwrap().address).collect();
        assert_eq!(addresses, [4096 + 1024, 4096 + 1024 + 1536]);
        assert_eq!(allocator.allocate(1024).unwrap().address, 4096);
        assert_eq!(allocator.allocate(1), None);
    }

    #[test]
    fn an_address_or_an_alignment_can_be_asked_for() {
        let mut allocator = RangeAllocator::new(AddressRange { address: 4096, bytes: 1 << 20 }, 512);
        let piece = AddressRange { address: 8192, bytes: 1024 };
        assert_eq!(allocator.allocate_at(piece), Some(piece));
        assert_eq!(allocator.allocate_at(piece), None);
        assert_eq!(allocator.allocate_at(AddressRange { address: 8192 + 1024 + 1, bytes: 512 }), None);
        assert_eq!(allocator.allocate_aligned(512, 1 << 16).unwrap().address, 1 << 16);
        assert_eq!(allocator.allocate(4096).unwrap().address, 4096);
        assert_eq!(allocator.allocate(512).unwrap().address, 8192 + 1024);
    }

    #[test]
    fn a_piece_can_be_shortened_and_half_of_what_is_left_be_taken() {
        let range = AddressRange { address: 4096, bytes: 8192 };
        let mut allocator = RangeAllocator::new(range, 512);
        assert_eq!(allocator.allocate(8192), Some(range));
        assert_eq!(allocator.allocate_half(512, 0), None);
        allocator.shorten(AddressRange { bytes: 2048, ..range });
        assert_eq!(allocator.find(4096 + 2048), None);
        assert_eq!(allocator.allocate_half(512, 4096), Some(AddressRange { address: 8192, bytes: 2048 }));
        assert_eq!(
            allocator.allocate_half(2048, 0),
            Some(AddressRange { address: 8192 + 2048, bytes: 2048 })
        );
        for address in [4096, 8192, 8192 + 2048] {
            allocator.release(address).expect("it was taken");
        }
        assert_eq!(allocator.allocate(8192), Some(range));
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
