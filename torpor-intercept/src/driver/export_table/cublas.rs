//! 21318c60: the identities of contexts and streams, for cuBLAS, cuBLASLt and cuFFT. Without this table cuBLAS calls SGEMM
//! "not supported".
//!
//! cuBLAS asks for a stream's identity before kernels that keep something per stream (the multiplications in cuSOLVER's
//! `orgqr` of 32 rows do), and fails with an internal error if it gets none.

use std::ffi::{c_int, c_void};
use std::mem::offset_of;

use super::{INVALID_CONTEXT, INVALID_VALUE, Unused, give, host, unused_slots};
use crate::driver::guard;

pub(super) const ID: [u8; 16] = super::uuid("21318c60-9714-3248-8ca6-41ff7324c8f2");

#[repr(C)]
pub(super) struct Table {
    size_bytes: usize,
    unused_1: [Unused; 3],
    context_id: unsafe extern "C" fn(*mut c_void, *mut u64) -> c_int,
    unused_5: [Unused; 34],
    stream_id: unsafe extern "C" fn(*mut c_void, *mut c_void, *mut u64) -> c_int,
    unused_40: [Unused; 11],
    private_stream: unsafe extern "C" fn(*mut c_void, *mut c_void, *mut *mut c_void, c_int) -> c_int,
    unused_52: [Unused; 41],
}

const _: () = {
    assert!(size_of::<Table>() == 744);
    assert!(offset_of!(Table, context_id) == 4 * 8);
    assert!(offset_of!(Table, stream_id) == 39 * 8);
    assert!(offset_of!(Table, private_stream) == 51 * 8);
};

pub(super) static TABLE: Table = Table {
    size_bytes: size_of::<Table>(),
    unused_1: [unused; 3],
    context_id,
    unused_5: [unused; 34],
    stream_id,
    unused_40: [unused; 11],
    private_stream,
    unused_52: [unused; 41],
};

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

/// The driver's own object behind a stream: with us nothing that anybody looks into, so it is the identity itself.
unsafe extern "C" fn private_stream(
    _context: *mut c_void,
    stream: *mut c_void,
    private: *mut *mut c_void,
    per_thread: c_int,
) -> c_int {
    guard(|| match host::stream_id(stream, per_thread != 0) {
        // SAFETY: the calling library promises a writable place.
        Ok(id) => unsafe { give(private, std::ptr::without_provenance_mut(id as usize)) },
        Err(error) => error.0.cast_signed(),
    })
}

/// What cuStreamGetId gives for the stream behind what [`private_stream`] gave.
unsafe extern "C" fn stream_id(_context: *mut c_void, private: *mut c_void, id: *mut u64) -> c_int {
    // SAFETY: the calling library promises a writable place.
    guard(|| if private.is_null() { INVALID_VALUE } else { unsafe { give(id, private.addr() as u64) } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use torpor_proto::error::CudaError;

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

    #[test]
    fn streams_have_identities_of_their_own() {
        let identity = |stream: usize, per_thread| {
            let (mut private, mut id) = (std::ptr::null_mut(), 0);
            let (null, stream) = (std::ptr::null_mut(), std::ptr::without_provenance_mut(stream));
            // SAFETY: the places are writable, and a stream is looked up before anything is read.
            let results = unsafe {
                let made = (TABLE.private_stream)(null, stream, &mut private, per_thread);
                (made, (TABLE.stream_id)(null, private, &mut id))
            };
            (results, id)
        };
        let ((made, asked), legacy) = identity(0, 0);
        assert_eq!((made, asked), (super::super::SUCCESS, super::super::SUCCESS));
        assert_ne!(legacy, 0);
        assert_eq!(identity(1, 0).1, legacy, "CU_STREAM_LEGACY");
        assert_eq!(identity(1, 1).1, legacy);
        assert_eq!(identity(77, 0).0, (CudaError::INVALID_HANDLE.0.cast_signed(), INVALID_VALUE));
    }
}
