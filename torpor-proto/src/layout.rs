//! The node's address plan: which device and host addresses belong to whom.
//!
//! Every client gets a *slot*. A slot owns a range of device addresses (its arena) and a range of host addresses
//! (its pinned memory) that nobody else on the node uses, so a pointer means the same in the client, in every worker
//! and on every GPU.
//!
//! ```text
//! 0x1000_0000_0000 ┌────────────────────────────┐
//!                  │ arena of slot 0, 192 GiB   │  device window, 48 TiB:
//!                  │ arena of slot 1            │  reserved by the driver in workers,
//!                  │ …                          │  kept PROT_NONE in clients
//! 0x4000_0000_0000 ├────────────────────────────┤
//!                  │ host range of slot 0, 64 G │  host window, 16 TiB:
//!                  │ host range of slot 1       │  each mapped in its client
//!                  │ …                          │  and in the workers that serve it
//! 0x5000_0000_0000 └────────────────────────────┘
//! ```
//!
//! Linux places programs, heaps and libraries of 64-bit processes above 0x5500_0000_0000 or below 4 GiB.

const GIB: u64 = 1 << 30;

/// Clients that a node can have at once.
pub const SLOTS: u32 = 256;

/// First device address of the window.
pub const DEVICE_WINDOW_ADDRESS: u64 = 0x1000_0000_0000;

/// Device addresses of one client: more than the memory of any one GPU, so fragmentation has room.
pub const ARENA_BYTES: u64 = 192 * GIB;

/// First host address of the window.
pub const HOST_WINDOW_ADDRESS: u64 = 0x4000_0000_0000;

/// Host addresses of one client.
pub const HOST_RANGE_BYTES: u64 = 64 * GIB;

/// Granularity of physical device memory (cuMemGetAllocationGranularity, 2 MiB on every GPU since Pascal).
pub const SEGMENT_GRANULE_BYTES: u64 = 2 << 20;

/// The least that a client's staging area may have: uploads and downloads each need a few pieces of 1 MiB.
pub const MIN_STAGING_BYTES: u64 = 4 << 20;

/// Slabs of the host store, at most.
pub const MAX_SLABS: u32 = 1 << 14;

/// Host pages, the granularity of page-locking.
pub const PAGE_BYTES: u64 = 4096;

const _: () = assert!(DEVICE_WINDOW_ADDRESS + SLOTS as u64 * ARENA_BYTES == HOST_WINDOW_ADDRESS);
const _: () = assert!(HOST_WINDOW_ADDRESS + SLOTS as u64 * HOST_RANGE_BYTES == 0x5000_0000_0000);

/// A range of addresses. Empty ranges hold nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRange {
    /// First address.
    pub address: u64,
    /// Length.
    pub bytes: u64,
}

impl AddressRange {
    /// The device arena of a slot, or `None` past the last slot.
    #[must_use]
    pub fn arena(slot: u32) -> Option<Self> {
        (slot < SLOTS).then(|| Self {
            address: DEVICE_WINDOW_ADDRESS + u64::from(slot) * ARENA_BYTES,
            bytes: ARENA_BYTES,
        })
    }

    /// The host range of a slot, or `None` past the last slot.
    #[must_use]
    pub fn host(slot: u32) -> Option<Self> {
        (slot < SLOTS).then(|| Self {
            address: HOST_WINDOW_ADDRESS + u64::from(slot) * HOST_RANGE_BYTES,
            bytes: HOST_RANGE_BYTES,
        })
    }

    /// Whether `bytes` bytes from `address` lie wholly inside. Never overflows, whatever the numbers.
    #[must_use]
    pub fn contains(&self, address: u64, bytes: u64) -> bool {
        address
            .checked_sub(self.address)
            .and_then(|offset| offset.checked_add(bytes))
            .is_some_and(|end| end <= self.bytes)
    }

    /// One past the last address.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.address.saturating_add(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_do_not_overlap_and_end_where_the_next_begins() {
        for slot in 1..SLOTS {
            let (before, this) = (AddressRange::arena(slot - 1).unwrap(), AddressRange::arena(slot).unwrap());
            assert_eq!(before.end(), this.address);
            let (before, this) = (AddressRange::host(slot - 1).unwrap(), AddressRange::host(slot).unwrap());
            assert_eq!(before.end(), this.address);
        }
        assert_eq!(AddressRange::arena(SLOTS), None);
        assert_eq!(AddressRange::host(SLOTS), None);
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
}
