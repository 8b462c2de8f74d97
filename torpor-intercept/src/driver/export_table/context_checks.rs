//! 263e8860: checks of a context, all of which pass.

use std::ffi::{c_int, c_void};
use std::mem::offset_of;

use super::{SUCCESS, Unused, give, unused_slots};
use crate::driver::guard;

pub(super) const ID: [u8; 16] = super::uuid("263e8860-7cd2-6143-92f6-bbd5006dfa7e");

#[repr(C)]
pub(super) struct Table {
    size_bytes: usize,
    unused_1: Unused,
    check: unsafe extern "C" fn(*mut c_void, *mut u32, *mut *const c_void) -> c_int,
    check_function: extern "C" fn() -> c_int,
    unused_4: [Unused; 11],
}

const _: () = {
    assert!(size_of::<Table>() == 120);
    assert!(offset_of!(Table, check) == 2 * 8);
    assert!(offset_of!(Table, check_function) == 3 * 8);
};

pub(super) static TABLE: Table =
    Table { size_bytes: size_of::<Table>(), unused_1: unused, check, check_function, unused_4: [unused; 11] };

unused_slots!("263e8860");

/// Nothing is wrong with the context: the first result is 0, and the second one is left alone then.
unsafe extern "C" fn check(_context: *mut c_void, result: *mut u32, _detail: *mut *const c_void) -> c_int {
    // SAFETY: cudart, which calls this, promises a writable place.
    guard(|| unsafe { give(result, 0) })
}

extern "C" fn check_function() -> c_int {
    SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_passes_and_the_second_result_is_left_alone() {
        let (mut result, mut detail) = (9, std::ptr::dangling());
        let before = detail;
        // SAFETY: both are writable.
        assert_eq!(unsafe { (TABLE.check)(std::ptr::null_mut(), &mut result, &mut detail) }, SUCCESS);
        assert_eq!((result, detail), (0, before));
    }
}
