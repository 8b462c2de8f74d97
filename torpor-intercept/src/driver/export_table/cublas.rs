//! 21318c60: the identity of a context, for cuBLASLt and cuFFT. Without this table cuBLAS calls SGEMM "not supported".

use std::ffi::{c_int, c_void};
use std::mem::offset_of;

use super::{INVALID_CONTEXT, Unused, give, host, unused_slots};
use crate::driver::guard;

pub(super) const ID: [u8; 16] = super::uuid("21318c60-9714-3248-8ca6-41ff7324c8f2");

#[repr(C)]
pub(super) struct Table {
    size_bytes: usize,
    unused_1: [Unused; 3],
    context_id: unsafe extern "C" fn(*mut c_void, *mut u64) -> c_int,
    unused_5: [Unused; 88],
}

const _: () = {
    assert!(size_of::<Table>() == 744);
    assert!(offset_of!(Table, context_id) == 4 * 8);
};

pub(super) static TABLE: Table =
    Table { size_bytes: size_of::<Table>(), unused_1: [unused; 3], context_id, unused_5: [unused; 88] };

unused_slots!("21318c60");

/// What cuCtxGetId gives for `context`, or for the current one if that is null.
unsafe extern "C" fn context_id(context: *mut c_void, id: *mut u64) -> c_int {
    guard(|| {
        let context = if context.is_null() { host::current_context() } else { context };
        match host::context_id(context) {
            0 => INVALID_CONTEXT,
            // SAFETY: the calling library promises a writable place.
            known => unsafe { give(id, known) },
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_context_there_is_no_identity() {
        // A new thread, because the current context is the thread's.
        let answer = std::thread::spawn(|| {
            let mut id = 7;
            // SAFETY: null means the current context; `id` is writable.
            (unsafe { (TABLE.context_id)(std::ptr::null_mut(), &mut id) }, id)
        });
        assert_eq!(answer.join().expect("it returns"), (INVALID_CONTEXT, 7));
    }
}
