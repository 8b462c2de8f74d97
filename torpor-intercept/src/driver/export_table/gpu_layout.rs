//! 1734dc26: how the GPU's TPCs (pairs of multiprocessors) lie in its GPCs, for cuBLASLt's half-precision products.
//!
//! cuBLASLt follows the table's pointer without a check, so refusing the table ends the process.

use std::ffi::c_int;
use std::mem::offset_of;

use super::{INVALID_VALUE, SUCCESS, Unused, give, host, unused_slots};
use crate::driver::guard;

pub(super) const ID: [u8; 16] = super::uuid("1734dc26-800d-4745-8726-c0f1e7dd8bca");

/// Room behind the last TPC, in case a caller believes in more of them than the driver told.
const SPARE_BYTES: usize = 256;

#[repr(C)]
pub(super) struct Table {
    size_bytes: usize,
    unused_1: [Unused; 3],
    allocate: unsafe extern "C" fn(*mut *mut u8, *mut *mut u8) -> c_int,
    unused_5: [Unused; 8],
    free: unsafe extern "C" fn(*mut u8, *mut u8) -> c_int,
    unused_14: [Unused; 3],
}

const _: () = {
    assert!(size_of::<Table>() == 136);
    assert!(offset_of!(Table, allocate) == 4 * 8);
    assert!(offset_of!(Table, free) == 13 * 8);
};

pub(super) static TABLE: Table = Table {
    size_bytes: size_of::<Table>(),
    unused_1: [unused; 3],
    allocate,
    unused_5: [unused; 8],
    free,
    unused_14: [unused; 3],
};

unused_slots!("1734dc26");

/// A zeroed C allocation that begins with `bytes`; null if there is no memory.
fn copy(bytes: &[u8]) -> *mut u8 {
    // SAFETY: any sizes are allowed.
    let place = unsafe { libc::calloc(bytes.len() + SPARE_BYTES, 1) }.cast::<u8>();
    if !place.is_null() {
        // SAFETY: the allocation is fresh and longer than the bytes.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len()) };
    }
    place
}

/// Gives the GPC of each TPC, and its place in it; one byte each, in memory that [`free`] gives back.
unsafe extern "C" fn allocate(cluster: *mut *mut u8, place: *mut *mut u8) -> c_int {
    guard(|| {
        if cluster.is_null() || place.is_null() {
            return INVALID_VALUE;
        }
        let (clusters, places) = host::gpu_layout();
        // SAFETY: the calling library promises two writable places.
        unsafe { give(cluster, copy(&clusters)) | give(place, copy(&places)) }
    })
}

unsafe extern "C" fn free(cluster: *mut u8, place: *mut u8) -> c_int {
    // SAFETY: the calling library gives back what `allocate` gave it; null is nothing.
    unsafe {
        libc::free(cluster.cast());
        libc::free(place.cast());
    }
    SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_arrays_are_given_and_taken_back() {
        let (mut cluster, mut place) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: two writable places; what was given is given back once.
        unsafe {
            assert_eq!((TABLE.allocate)(&mut cluster, &mut place), SUCCESS);
            assert!(!cluster.is_null() && !place.is_null());
            assert_eq!((TABLE.free)(cluster, place), SUCCESS);
            assert_eq!((TABLE.allocate)(std::ptr::null_mut(), &mut place), INVALID_VALUE);
        }
    }
}
