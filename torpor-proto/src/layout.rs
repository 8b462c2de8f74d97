//! The node's address plan: where device and host addresses of clients lie.
//!
//! Every client has a range of device addresses (its arena) and a range of host addresses (its pinned memory) that
//! nobody else on the node uses, so a pointer means the same in the client, in every worker and on every GPU. The node
//! server chooses both when the client says hello, and how long they are.
//!
//! ```text
//! 0x1000_0000_0000 ┌────────────────────────┐
//!                  │ arenas                 │  device window, 48 TiB: reserved by the driver in workers,
//!                  │                        │  each arena kept PROT_NONE in its client
//! 0x4000_0000_0000 ├────────────────────────┤
//!                  │ host ranges            │  host window, 20 TiB: each range mapped in its client
//!                  │                        │  and in the workers that serve it
//! 0x5400_0000_0000 └────────────────────────┘
//! ```
//!
//! Linux places programs, heaps and libraries of 64-bit processes above 0x5500_0000_0000 or below 4 GiB.

const TIB: u64 = 1 << 40;

/// Clients that a node can have at once.
pub const MAX_CLIENTS: u32 = 2048;

/// Where arenas are.
pub const DEVICE_WINDOW: AddressRange = AddressRange { address: 0x1000_0000_0000, bytes: 48 * TIB };

/// Where host ranges are.
pub const HOST_WINDOW: AddressRange = AddressRange { address: 0x4000_0000_0000, bytes: 20 * TIB };

/// The longest host range that a client can have.
pub const MAX_HOST_RANGE_BYTES: u64 = TIB;

/// The most of an arena that is for the variables of images, which are at most 2 GiB each (ELF) and some KiB as a rule.
pub const MAX_VARIABLES_BYTES: u64 = 2 << 30;

/// The most of a host range that is for the `__managed__` variables of images.
pub const MAX_MANAGED_VARIABLES_BYTES: u64 = 512 << 20;

/// Granularity of physical device memory (cuMemGetAllocationGranularity, 2 MiB on every GPU since Pascal).
pub const SEGMENT_GRANULE_BYTES: u64 = 2 << 20;

/// The least that a client's staging area may have: uploads and downloads each need a few pieces of 1 MiB.
pub const MIN_STAGING_BYTES: u64 = 4 << 20;

/// Slabs of the host store, at most.
pub const MAX_SLABS: u32 = 1 << 14;

/// Host pages, the granularity of page-locking.
pub const PAGE_BYTES: u64 = 4096;

const _: () = assert!(DEVICE_WINDOW.address + DEVICE_WINDOW.bytes <= HOST_WINDOW.address);
const _: () = assert!(HOST_WINDOW.address + HOST_WINDOW.bytes <= 0x5500_0000_0000);

/// How long a host range is that has so much beside what is for managed variables.
#[must_use]
pub fn host_range_bytes(bytes: u64) -> u64 {
    let variables = bytes.div_ceil(3).min(MAX_MANAGED_VARIABLES_BYTES);
    bytes.saturating_add(variables.next_multiple_of(PAGE_BYTES))
}

/// A range of addresses. Empty ranges hold nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRange {
    /// First address.
    pub address: u64,
    /// Length.
    pub bytes: u64,
}

impl AddressRange {
    /// Of an arena: the addresses that the client gives to its allocations.
    #[must_use]
    pub fn for_allocations(&self) -> Self {
        Self { address: self.address, bytes: self.bytes - self.for_variables().bytes }
    }

    /// Of an arena: the addresses that the worker gives to the variables of the client's images, its last quarter
    /// or 2 GiB.
    #[must_use]
    pub fn for_variables(&self) -> Self {
        let bytes = (self.bytes / 4).min(MAX_VARIABLES_BYTES) / SEGMENT_GRANULE_BYTES * SEGMENT_GRANULE_BYTES;
        Self { address: self.end() - bytes, bytes }
    }

    /// Of a host range: the addresses that the worker gives to the `__managed__` variables of the client's images, its last
    /// quarter or 512 MiB.
    #[must_use]
    pub fn for_managed_variables(&self) -> Self {
        let bytes = (self.bytes / 4).min(MAX_MANAGED_VARIABLES_BYTES) / PAGE_BYTES * PAGE_BYTES;
        Self { address: self.end() - bytes, bytes }
    }

    /// Whether `bytes` bytes from `address` lie wholly inside. Never overflows, whatever the numbers.
    #[must_use]
    pub fn contains(&self, address: u64, bytes: u64) -> bool {
        address
            .checked_sub(self.address)
            .and_then(|offset| offset.checked_add(bytes))
            .is_some_and(|end| end <= self.bytes)
    }

    /// Whether any address is in both.
    #[must_use]
    pub fn overlaps(&self, other: Self) -> bool {
        self.bytes > 0 && other.bytes > 0 && self.address < other.end() && other.address < self.end()
    }

    /// One past the last address.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.address.saturating_add(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arena_is_allocations_and_variables() {
        for arena in [DEVICE_WINDOW, AddressRange { address: 1 << 40, bytes: 6 << 20 }] {
            let (allocations, variables) = (arena.for_allocations(), arena.for_variables());
            assert_eq!((allocations.address, allocations.end()), (arena.address, variables.address));
            assert_eq!(variables.end(), arena.end());
            assert!(variables.address.is_multiple_of(SEGMENT_GRANULE_BYTES));
            assert!(variables.bytes <= MAX_VARIABLES_BYTES);
        }
    }

    #[test]
    fn a_host_range_has_what_was_asked_for_beside_its_variables() {
        for bytes in [PAGE_BYTES, 3 * PAGE_BYTES, 12 << 20, 1 << 30, 16 << 30, MAX_HOST_RANGE_BYTES] {
            let range = AddressRange { address: HOST_WINDOW.address, bytes: host_range_bytes(bytes) };
            let variables = range.for_managed_variables();
            assert!(
                range.bytes - variables.bytes >= bytes && range.bytes.is_multiple_of(PAGE_BYTES),
                "{bytes:#x}"
            );
            assert!(variables.end() == range.end() && variables.bytes <= MAX_MANAGED_VARIABLES_BYTES);
            assert!(variables.address.is_multiple_of(PAGE_BYTES));
        }
    }

    #[test]
    fn containment_survives_absurd_numbers() {
        let range = AddressRange { address: 100, bytes: 10 };
        assert!(range.contains(100, 10));
        assert!(range.contains(110, 0));
        assert!(!range.contains(100, 11));
        assert!(!range.contains(99, 1));
        assert!(!range.contains(u64::MAX, 1));
        assert!(!range.contains(105, u64::MAX));
    }

    #[test]
    fn ranges_that_touch_do_not_overlap() {
        let range = |address, bytes| AddressRange { address, bytes };
        assert!(range(100, 10).overlaps(range(109, 1)));
        assert!(range(100, 10).overlaps(range(0, 1000)));
        assert!(!range(100, 10).overlaps(range(110, 1)));
        assert!(!range(100, 10).overlaps(range(105, 0)));
    }
}
