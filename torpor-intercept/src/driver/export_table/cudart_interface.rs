//! 6bd5fb6c: what cudart uses to load its own modules and to find the primary context.

use std::ffi::{c_int, c_void};
use std::mem::offset_of;

use super::{INVALID_VALUE, SUCCESS, Unused, give, host, unused_slots};
use crate::driver::guard;

pub(super) const ID: [u8; 16] = super::uuid("6bd5fb6c-5bf4-e74a-8987-d93912fd9df9");

#[repr(C)]
pub(super) struct Table {
    size_bytes: usize,
    load_wrapper: unsafe extern "C" fn(*mut *mut c_void, *const c_void) -> c_int,
    primary_context: unsafe extern "C" fn(*mut *mut c_void, c_int) -> c_int,
    unused_3: [Unused; 3],
    load_wrapper_extended: unsafe extern "C" fn(*mut *mut c_void, *const c_void, usize, usize, u32) -> c_int,
    set_size: extern "C" fn(usize) -> c_int,
    load_container: unsafe extern "C" fn(*const c_void, *mut *mut c_void) -> c_int,
    unused_9: [Unused; 3],
    load_compilers: extern "C" fn() -> c_int,
}

const _: () = {
    assert!(size_of::<Table>() == 104);
    assert!(offset_of!(Table, load_wrapper_extended) == 6 * 8);
    assert!(offset_of!(Table, load_container) == 8 * 8);
    assert!(offset_of!(Table, load_compilers) == 12 * 8);
};

pub(super) static TABLE: Table = Table {
    size_bytes: size_of::<Table>(),
    load_wrapper,
    primary_context,
    unused_3: [unused; 3],
    load_wrapper_extended,
    set_size,
    load_container,
    unused_9: [unused; 3],
    load_compilers,
};

unused_slots!("6bd5fb6c");

/// Loads the image at `image` and gives its module.
///
/// # Safety
/// `module` is null or writable; `image` is null or an image lies there.
unsafe fn load(module: *mut *mut c_void, image: *const c_void) -> c_int {
    guard(|| {
        if module.is_null() || image.is_null() {
            return INVALID_VALUE;
        }
        // SAFETY: not null, so the caller promises an image.
        match host::load_module(image) {
            // SAFETY: the caller promises that it is writable.
            Ok(loaded) => unsafe { give(module, loaded) },
            Err(error) => error.0 as i32,
        }
    })
}

unsafe extern "C" fn load_wrapper(module: *mut *mut c_void, wrapper: *const c_void) -> c_int {
    // SAFETY: as cudart, which calls this, promises.
    unsafe { load(module, wrapper) }
}

/// The last three are zero wherever this was seen; what else they may mean is unknown.
unsafe extern "C" fn load_wrapper_extended(
    module: *mut *mut c_void,
    wrapper: *const c_void,
    zero_1: usize,
    zero_2: usize,
    zero_3: u32,
) -> c_int {
    if (zero_1, zero_2, zero_3) != (0, 0, 0) {
        return INVALID_VALUE;
    }
    // SAFETY: as cudart, which calls this, promises.
    unsafe { load(module, wrapper) }
}

/// Takes more arguments, which the C calling convention allows to ignore.
unsafe extern "C" fn load_container(container: *const c_void, module: *mut *mut c_void) -> c_int {
    // SAFETY: as cudart, which calls this, promises.
    unsafe { load(module, container) }
}

/// The primary context's handle; unlike cuDevicePrimaryCtxRetain this does not retain it.
unsafe extern "C" fn primary_context(context: *mut *mut c_void, device: c_int) -> c_int {
    guard(|| match host::primary_context(device) {
        // SAFETY: as cudart, which calls this, promises.
        Ok(handle) => unsafe { give(context, handle) },
        Err(error) => error.0 as i32,
    })
}

extern "C" fn set_size(_size: usize) -> c_int {
    SUCCESS
}

extern "C" fn load_compilers() -> c_int {
    SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loading_nothing_is_refused() {
        let mut module = std::ptr::null_mut();
        // SAFETY: each pointer is null or writable; null images are not followed.
        unsafe {
            assert_eq!((TABLE.load_wrapper)(&mut module, std::ptr::null()), INVALID_VALUE);
            assert_eq!((TABLE.load_container)(std::ptr::null(), &mut module), INVALID_VALUE);
            let image = std::ptr::dangling();
            assert_eq!((TABLE.load_wrapper_extended)(&mut module, image, 0, 1, 0), INVALID_VALUE);
            assert_eq!((TABLE.load_wrapper)(std::ptr::null_mut(), image), INVALID_VALUE);
        }
        assert!(module.is_null());
    }
}
