//! Where a client's images have their variables: in its arena, or in its host range if they are managed.
//!
//! Blocks of at most 2 MiB share segments, larger ones have their own.

use std::collections::BTreeMap;
use torpor_proto::image::relocate::BLOCK_ALIGN_BYTES;
use torpor_proto::layout::{AddressRange, SEGMENT_GRANULE_BYTES};

/// A range that is for variables.
#[derive(Debug)]
pub(crate) struct VariableRoom {
    part: AddressRange,
    /// Length by address.
    blocks: BTreeMap<u64, u64>,
}

impl VariableRoom {
    /// Whose addresses are all free.
    pub(crate) fn new(part: AddressRange) -> Self {
        Self { part, blocks: BTreeMap::new() }
    }

    /// Addresses for a block of so many bytes (not 0), with the segment that they lie in.
    pub(crate) fn take(&mut self, bytes: u64) -> Option<(AddressRange, AddressRange)> {
        let bytes = rounded(bytes)?;
        let mut candidate = self.part.address;
        for (&start, &taken) in &self.blocks {
            candidate = fitted(candidate, bytes);
            if candidate.checked_add(bytes)? <= start {
                break;
            }
            candidate = candidate.max(start + taken);
        }
        let block = AddressRange { address: fitted(candidate, bytes), bytes };
        self.part.contains(block.address, bytes).then(|| {
            self.blocks.insert(block.address, bytes);
            (block, segment_of(block))
        })
    }

    /// A block is at these addresses, because it was at another worker. False if it cannot be.
    pub(crate) fn take_at(&mut self, address: u64, bytes: u64) -> bool {
        let Some(bytes) = rounded(bytes) else { return false };
        let before = self.blocks.range(..address.saturating_add(bytes)).next_back();
        let is_free = before.is_none_or(|(&start, &taken)| start + taken <= address);
        let fits = is_free && self.part.contains(address, bytes) && fitted(address, bytes) == address;
        fits && self.blocks.insert(address, bytes).is_none()
    }

    /// Gives a block back. Returns its segment if nothing is left in it.
    pub(crate) fn release(&mut self, address: u64) -> Option<AddressRange> {
        let bytes = self.blocks.remove(&address)?;
        let segment = segment_of(AddressRange { address, bytes });
        self.blocks.range(segment.address..segment.end()).next().is_none().then_some(segment)
    }
}

/// What a block takes.
fn rounded(bytes: u64) -> Option<u64> {
    let unit = if bytes > SEGMENT_GRANULE_BYTES { SEGMENT_GRANULE_BYTES } else { BLOCK_ALIGN_BYTES };
    bytes.checked_next_multiple_of(unit)
}

/// The first place from `address` on where a block of so many (rounded) bytes lies in one segment.
fn fitted(address: u64, bytes: u64) -> u64 {
    let next = address.next_multiple_of(SEGMENT_GRANULE_BYTES);
    if address + bytes <= next || (address == next && bytes <= SEGMENT_GRANULE_BYTES) {
        address
    } else {
        next
    }
}

fn segment_of(block: AddressRange) -> AddressRange {
    let address = block.address / SEGMENT_GRANULE_BYTES * SEGMENT_GRANULE_BYTES;
    AddressRange { address, bytes: block.bytes.next_multiple_of(SEGMENT_GRANULE_BYTES) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ARENA: AddressRange = AddressRange { address: 1 << 40, bytes: 64 << 20 };

    proptest! {
        #[test]
        fn blocks_never_overlap_and_each_lies_in_one_segment(
            steps in prop::collection::vec((any::<bool>(), prop_oneof![1..5000_u64, 1..6_u64 << 20]), 1..80)
        ) {
            let mut room = VariableRoom::new(ARENA.for_variables());
            let mut held: Vec<(AddressRange, AddressRange)> = Vec::new();
            for (give, size) in steps {
                if give && !held.is_empty() {
                    let (block, segment) = held.swap_remove(size as usize % held.len());
                    let shared = held.iter().any(|(_, other)| other.address == segment.address);
                    prop_assert_eq!(room.release(block.address), (!shared).then_some(segment));
                    continue;
                }
                let Some((block, segment)) = room.take(size) else { continue };
                prop_assert!(block.bytes >= size && ARENA.for_variables().contains(block.address, block.bytes));
                prop_assert!(segment.contains(block.address, block.bytes));
                prop_assert_eq!((block.address % BLOCK_ALIGN_BYTES, segment.address % SEGMENT_GRANULE_BYTES), (0, 0));
                for (other, others) in &held {
                    prop_assert!(block.end() <= other.address || other.end() <= block.address);
                    prop_assert!(segment == *others || segment.end() <= others.address || others.end() <= segment.address);
                }
                held.push((block, segment));
            }
            let mut other = VariableRoom::new(ARENA.for_variables());
            for (block, _) in &held {
                prop_assert!(other.take_at(block.address, block.bytes));
                prop_assert!(!other.take_at(block.address, block.bytes));
            }
        }
    }

    #[test]
    fn a_block_elsewhere_or_across_segments_is_refused() {
        let mut room = VariableRoom::new(ARENA.for_variables());
        let part = ARENA.for_variables();
        for (address, bytes) in [
            (ARENA.address, 512),
            (part.address + SEGMENT_GRANULE_BYTES - 512, 1024),
            (part.address + 512, 3 << 20),
            (u64::MAX - 511, 512),
            (part.address, u64::MAX),
        ] {
            assert!(!room.take_at(address, bytes), "{address:#x} {bytes}");
        }
        assert!(room.take(u64::MAX).is_none() && room.take(part.bytes + 1).is_none());
        assert_eq!(room.release(part.address), None);
    }
}
