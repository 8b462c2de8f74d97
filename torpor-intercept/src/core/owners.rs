//! Whose an allocation is, of the devices that the program sees: known of those that are not the first device's, by their first
//! addresses. With one device nothing is noted, and nobody looks.

use super::{Client, devices};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use torpor_proto::layout::AddressRange;

/// Ordinals by first address.
#[derive(Default)]
pub(super) struct Owners(Mutex<HashMap<u64, u32>>);

impl Owners {
    /// What begins there is a device's.
    pub(super) fn note(&self, address: u64, ordinal: u32) {
        if !devices::are_several() {
            return;
        }
        match ordinal {
            // It may have been another's before.
            0 => _ = self.lock().remove(&address),
            _ => _ = self.lock().insert(address, ordinal),
        }
    }

    /// Nothing begins there any more.
    pub(super) fn forget(&self, address: u64) {
        if devices::are_several() {
            self.lock().remove(&address);
        }
    }

    fn of(&self, address: u64) -> u32 {
        self.lock().get(&address).copied().unwrap_or(0)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    /// The ordinal of the device that an allocation is of: of page-locked and managed memory, of that which was current when it was
    /// allocated.
    #[must_use]
    pub fn owner_of(&self, allocation: AddressRange) -> u32 {
        if !devices::are_several() {
            return 0;
        }
        self.virtual_memory.owner_of(allocation.address).unwrap_or_else(|| self.owners.of(allocation.address))
    }

    /// An allocation is of a device, whichever was current when it was made.
    pub(super) fn give_to(&self, address: u64, ordinal: u32) {
        self.owners.note(address, ordinal);
    }
}
