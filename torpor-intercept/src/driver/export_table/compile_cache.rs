//! da9151d3: the driver's compile cache, for NVRTC. Without it cuDNN compiles its attention anew for each length of a sequence,
//! in each process.
//!
//! NVRTC asks for it once, at the first compilation. For each of two stages it makes a key, asks for the result, puts it if
//! there was none, and drops the key. What fails here costs time alone: the stage is compiled.

use std::arch::naked_asm;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::offset_of;

use super::{INVALID_VALUE, SUCCESS, Unused, give, unused_slots};
use crate::compile_cache::{CallerIdentity, CompileCache, Key, Stage, is_disabled};
use crate::driver::guard;
use torpor_proto::error::CudaError;

pub(super) const ID: [u8; 16] = super::uuid("da9151d3-3ae6-cc41-a5c0-4f26d533e328");

/// (out) key, stage, code and its length, options, kind of host.
type MakeKey =
    unsafe extern "C" fn(*mut *mut Key, u32, *const c_void, usize, *const c_char, *const c_char) -> c_int;

#[repr(C)]
pub(super) struct Table {
    size_bytes: usize,
    make_key: MakeKey,
    drop_key: unsafe extern "C" fn(*mut Key) -> c_int,
    find: unsafe extern "C" fn(*const Key, usize, *mut *mut c_void, *mut u32) -> c_int,
    put: unsafe extern "C" fn(*const Key, usize, *const c_void, usize) -> c_int,
    unused_5: Unused,
    free: unsafe extern "C" fn(*mut c_void) -> c_int,
}

const _: () = {
    assert!(size_of::<Table>() == 56);
    assert!(offset_of!(Table, find) == 3 * 8);
    assert!(offset_of!(Table, free) == 6 * 8);
};

pub(super) static TABLE: Table =
    Table { size_bytes: size_of::<Table>(), make_key, drop_key, find, put, unused_5: unused, free };

unused_slots!("da9151d3");

/// Whether the table is given out.
pub(super) fn is_wanted() -> bool {
    !is_disabled()
}

/// Where NVRTC begins: passes on its return address, by which NVRTC's library is known, as a seventh argument.
///
/// The first six are in registers, the seventh is at the stack's top when `make_key_for` is called (System V ABI for
/// x86-64, 3.2.3), which aligns the stack as well.
#[unsafe(naked)]
unsafe extern "C" fn make_key(
    key: *mut *mut Key,
    stage: u32,
    code: *const c_void,
    bytes: usize,
    options: *const c_char,
    host: *const c_char,
) -> c_int {
    naked_asm!("push qword ptr [rsp]", "call {make}", "add rsp, 8", "ret", make = sym make_key_for)
}

/// # Safety
/// `key` is null or writable, `code` null or so many bytes, `options` and `host` null or C strings.
unsafe extern "C" fn make_key_for(
    key: *mut *mut Key,
    stage: u32,
    code: *const c_void,
    bytes: usize,
    options: *const c_char,
    host: *const c_char,
    caller: usize,
) -> c_int {
    guard(|| {
        if key.is_null() || code.is_null() || options.is_null() || host.is_null() {
            return INVALID_VALUE;
        }
        let stage = match stage {
            1 => Stage::Cubin,
            2 => Stage::Ptx,
            _ => return INVALID_VALUE,
        };
        // SAFETY: not null, so the caller promises so many bytes, and C strings.
        let (code, options, host) = unsafe {
            (
                std::slice::from_raw_parts(code.cast(), bytes),
                CStr::from_ptr(options).to_bytes(),
                CStr::from_ptr(host).to_bytes(),
            )
        };
        let made =
            CallerIdentity::at(caller).and_then(|caller| Key::new(stage, code, options, host, &caller));
        match made {
            // SAFETY: the caller promises that it is writable.
            Some(made) => unsafe { give(key, Box::into_raw(Box::new(made))) },
            None => INVALID_VALUE,
        }
    })
}

/// # Safety
/// `key` is null or was made by [`make_key`] and not dropped.
unsafe extern "C" fn drop_key(key: *mut Key) -> c_int {
    guard(|| {
        if key.is_null() {
            return INVALID_VALUE;
        }
        // SAFETY: as the caller promises.
        drop(unsafe { Box::from_raw(key) });
        SUCCESS
    })
}

/// Gives the result in memory that [`free`] takes back, or says that there is none.
///
/// # Safety
/// `key` is null or a key; `data` and `bytes` are null or writable.
unsafe extern "C" fn find(key: *const Key, _zero: usize, data: *mut *mut c_void, bytes: *mut u32) -> c_int {
    guard(|| {
        if key.is_null() || data.is_null() || bytes.is_null() {
            return INVALID_VALUE;
        }
        // SAFETY: not null, so the caller promises a key.
        let found = CompileCache::of_process().find(unsafe { &*key });
        let Some((code, length)) =
            found.and_then(|code| u32::try_from(code.len()).ok().map(|length| (code, length)))
        else {
            return CudaError::NOT_FOUND.0.cast_signed();
        };
        // SAFETY: malloc(3) takes any size; its result is checked, and as long as what is copied there.
        let copy = unsafe {
            let copy = libc::malloc(code.len());
            if copy.is_null() {
                return CudaError::NOT_FOUND.0.cast_signed();
            }
            copy.copy_from_nonoverlapping(code.as_ptr().cast(), code.len());
            copy
        };
        // SAFETY: the caller promises that both are writable.
        unsafe {
            give(data, copy);
            give(bytes, length)
        }
    })
}

/// # Safety
/// `key` is null or a key, `data` null or so many bytes.
unsafe extern "C" fn put(key: *const Key, _zero: usize, data: *const c_void, bytes: usize) -> c_int {
    guard(|| {
        if key.is_null() || data.is_null() {
            return INVALID_VALUE;
        }
        // SAFETY: not null, so the caller promises a key and so many bytes.
        let (key, code) = unsafe { (&*key, std::slice::from_raw_parts(data.cast(), bytes)) };
        CompileCache::of_process().put(key, code);
        SUCCESS
    })
}

/// # Safety
/// `data` is null or what [`find`] gave, and was not freed.
unsafe extern "C" fn free(data: *mut c_void) -> c_int {
    // SAFETY: it is malloc's, see `find`.
    unsafe { libc::free(data) };
    SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(stage: u32, code: &[u8], options: &CStr) -> (c_int, *mut Key) {
        let mut key = std::ptr::null_mut();
        let (bytes, host) = (code.len(), c"HOST64".as_ptr());
        // SAFETY: as the table wants them.
        let made =
            unsafe { (TABLE.make_key)(&mut key, stage, code.as_ptr().cast(), bytes, options.as_ptr(), host) };
        (made, key)
    }

    #[test]
    fn keys_are_those_of_their_inputs_and_of_this_program() {
        let caller = CallerIdentity::at(key as *const () as usize).unwrap();
        let (made, ptx) = key(2, b"code", c" -opt");
        let (made_too, cubin) = key(1, b"code", c" -arch");
        assert_eq!((made, made_too), (SUCCESS, SUCCESS));
        let expected = Key::new(Stage::Ptx, b"code", b" -opt", b"HOST64", &caller);
        // SAFETY: two keys that were made above.
        unsafe {
            assert_eq!(Some(*ptx), expected);
            assert_ne!(*ptx, *cubin);
            assert_eq!(((TABLE.drop_key)(ptx), (TABLE.drop_key)(cubin)), (SUCCESS, SUCCESS));
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for stage in [0, 1, 3, u32::MAX] {
            assert_eq!(key(stage, b"code", c"").0, INVALID_VALUE, "{stage}");
        }
        let (mut data, mut bytes) = (std::ptr::null_mut(), 0);
        // SAFETY: each pointer is null or writable.
        unsafe {
            assert_eq!((TABLE.find)(std::ptr::null(), 0, &mut data, &mut bytes), INVALID_VALUE);
            assert_eq!((TABLE.put)(std::ptr::null(), 0, data, 0), INVALID_VALUE);
            assert_eq!((TABLE.drop_key)(std::ptr::null_mut()), INVALID_VALUE);
            assert_eq!((TABLE.free)(data), SUCCESS);
        }
    }
}
