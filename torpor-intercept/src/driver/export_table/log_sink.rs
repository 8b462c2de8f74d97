//! f8cff951: the first table that cudart asks for, and never calls.

use std::ffi::c_int;

use super::Unused;

pub(super) const ID: [u8; 16] = super::uuid("f8cff951-2146-8b4e-b9e2-fb469e7c0dd9");

#[repr(C)]
pub(super) struct Table {
    size_bytes: usize,
    /// A log sink, by what is said of it.
    log: extern "C" fn(),
    unused_2: Unused,
}

const _: () = assert!(size_of::<Table>() == 24);

pub(super) static TABLE: Table = Table { size_bytes: size_of::<Table>(), log, unused_2: nothing };

extern "C" fn log() {}

extern "C" fn nothing() -> c_int {
    super::SUCCESS
}
