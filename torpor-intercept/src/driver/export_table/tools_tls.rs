//! 42d85a81: the calling thread's current context, for cuBLASLt.
//!
//! A stub that writes nothing here silently disables kernels in cuBLASLt.

use std::ffi::{c_int, c_void};
use std::mem::offset_of;

use super::{Unused, give, host, unused_slots};
use crate::driver::guard;

pub(super) const ID: [u8; 16] = super::uuid("42d85a81-23f6-cb47-8298-f6e78a3aecdc");

#[repr(C)]
pub(super) struct Table {
    size_bytes: usize,
    unused_1: Unused,
    current_context: unsafe extern "C" fn(*mut *mut c_void) -> c_int,
}

const _: () = {
    assert!(size_of::<Table>() == 24);
    assert!(offset_of!(Table, current_context) == 2 * 8);
};

pub(super) static TABLE: Table = Table { size_bytes: size_of::<Table>(), unused_1: unused, current_context };

unused_slots!("42d85a81");

unsafe extern "C" fn current_context(context: *mut *mut c_void) -> c_int {
    // SAFETY: the calling library promises a writable place.
    guard(|| unsafe { give(context, host::current_context()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_current_context_is_written() {
        let mut context = std::ptr::dangling_mut();
        // SAFETY: a writable place, and null.
        unsafe {
            assert_eq!((TABLE.current_context)(&mut context), super::super::SUCCESS);
            assert_eq!((TABLE.current_context)(std::ptr::null_mut()), super::super::INVALID_VALUE);
        }
        assert_eq!(context, host::current_context());
    }
}
