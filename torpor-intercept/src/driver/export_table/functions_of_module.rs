//! 6e163fbe: visits the functions of a module, for cuFFT.

use std::ffi::{c_int, c_void};
use std::mem::offset_of;

use super::{Unused, host, unused_slots};
use crate::driver::guard;

pub(super) const ID: [u8; 16] = super::uuid("6e163fbe-b958-444d-835c-e182aff1991e");

/// (user, function, owner of the function).
type Visit = unsafe extern "C" fn(*mut c_void, *mut c_void, *mut c_void);

#[repr(C)]
pub(super) struct Table {
    size_bytes: usize,
    unused_1: [Unused; 6],
    visit_functions: unsafe extern "C" fn(*mut c_void, *mut c_void, Option<Visit>, *mut c_void) -> c_int,
    unused_8: [Unused; 91],
}

const _: () = {
    assert!(size_of::<Table>() == 792);
    assert!(offset_of!(Table, visit_functions) == 7 * 8);
};

pub(super) static TABLE: Table =
    Table { size_bytes: size_of::<Table>(), unused_1: [unused; 6], visit_functions, unused_8: [unused; 91] };

unused_slots!("6e163fbe");

/// Calls `visit` with each function of `module` and returns how many there are: 0 if the module is unknown.
unsafe extern "C" fn visit_functions(
    _context: *mut c_void,
    module: *mut c_void,
    visit: Option<Visit>,
    user: *mut c_void,
) -> c_int {
    // A count, not an error code; still no panic may leave.
    let mut visited = 0;
    guard(|| {
        for function in host::module_functions(module).unwrap_or_default() {
            if let Some(visit) = visit {
                // SAFETY: cuFFT, which calls this, promises a function that takes these, and its own `user`.
                unsafe { visit(user, function, module) };
            }
            visited += 1;
        }
        super::SUCCESS
    });
    visited
}

#[cfg(test)]
mod tests {
    use super::*;

    unsafe extern "C" fn never(_user: *mut c_void, _function: *mut c_void, _owner: *mut c_void) {
        // Not a panic: that could not leave a C function.
        std::process::abort();
    }

    #[test]
    fn an_unknown_module_has_no_functions() {
        let null = std::ptr::null_mut();
        // SAFETY: null is no module, and `never` takes any arguments.
        let visited = unsafe { (TABLE.visit_functions)(null, null, Some(never), null) };
        assert_eq!(visited, 0);
    }
}
