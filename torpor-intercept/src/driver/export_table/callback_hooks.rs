//! a094798c: where a profiler would hook into cudart. Nobody profiles, so all hooks are zero.

use std::ffi::{c_int, c_void};
use std::mem::offset_of;
use std::sync::atomic::AtomicU32;

use super::{SUCCESS, give};
use crate::driver::guard;

pub(super) const ID: [u8; 16] = super::uuid("a094798c-2e74-2e74-93f2-0800200c0a66");

/// (out) address of an array, (out) number of its elements.
type GetArray = unsafe extern "C" fn(*mut *mut c_void, *mut usize) -> c_int;

#[repr(C)]
pub(super) struct Table {
    size_bytes: usize,
    nothing_1: extern "C" fn() -> c_int,
    functions: GetArray,
    nothing_3: [extern "C" fn() -> c_int; 3],
    domains: GetArray,
}

const _: () = {
    assert!(size_of::<Table>() == 56);
    assert!(offset_of!(Table, functions) == 2 * 8);
    assert!(offset_of!(Table, domains) == 6 * 8);
};

pub(super) static TABLE: Table =
    Table { size_bytes: size_of::<Table>(), nothing_1: nothing, functions, nothing_3: [nothing; 3], domains };

// Callers read these; atomics because a caller that writes must not make the shim's own reading undefined.
static FUNCTIONS: [AtomicU32; 1024] = [const { AtomicU32::new(0) }; 1024];
static DOMAINS: [AtomicU32; 14] = [const { AtomicU32::new(0) }; 14];

/// Gives one of the arrays.
///
/// # Safety
/// `array` and `count` are null or writable.
unsafe fn give_array(array: *mut *mut c_void, count: *mut usize, elements: &'static [AtomicU32]) -> c_int {
    guard(|| {
        let address = elements.as_ptr().cast_mut().cast();
        // SAFETY: as the caller promises.
        match unsafe { give(array, address) } {
            // SAFETY: as the caller promises.
            SUCCESS => unsafe { give(count, elements.len()) },
            error => error,
        }
    })
}

unsafe extern "C" fn functions(array: *mut *mut c_void, count: *mut usize) -> c_int {
    // SAFETY: as cudart, which calls this, promises.
    unsafe { give_array(array, count, &FUNCTIONS) }
}

unsafe extern "C" fn domains(array: *mut *mut c_void, count: *mut usize) -> c_int {
    // SAFETY: as cudart, which calls this, promises.
    unsafe { give_array(array, count, &DOMAINS) }
}

/// Their arguments are unknown, so they touch none.
extern "C" fn nothing() -> c_int {
    SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arrays_are_zero_and_as_long_as_said() {
        for (get, expected) in [(TABLE.functions, 1024), (TABLE.domains, 14)] {
            let (mut array, mut count) = (std::ptr::null_mut(), 0);
            // SAFETY: both are writable; the array has as many elements as it says.
            let elements = unsafe {
                assert_eq!(get(&mut array, &mut count), SUCCESS);
                assert_eq!(count, expected);
                std::slice::from_raw_parts(array.cast::<u32>(), count)
            };
            assert!(elements.iter().all(|element| *element == 0));
        }
    }
}
