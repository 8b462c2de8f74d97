//! 7cb63f9b: what CUPTI asks for before all else, also to say its version, which JAX checks at its start. CUPTI 13.5 leaves its
//! functions to a driver whose table is longer than this one, and has its own if it is not.

use super::{Unused, unused_slots};

pub(super) const ID: [u8; 16] = super::uuid("7cb63f9b-9ca4-8e42-a484-beb66e6aed7f");

#[repr(C)]
pub(super) struct Table {
    size_bytes: usize,
    unused_1: [Unused; 66],
}

/// A function in the slot behind these, at byte 0x218, is what CUPTI would ask for its own functions.
const _: () = assert!(size_of::<Table>() == 0x218);

pub(super) static TABLE: Table = Table { size_bytes: size_of::<Table>(), unused_1: [unused; 66] };

unused_slots!("7cb63f9b");
