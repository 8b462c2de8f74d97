//! da9151d3: the driver's compile cache, for NVRTC and nvJitLink. Without it cuDNN compiles its attention anew for each length of
//! a sequence, in each process.
//!
//! NVRTC asks for it once, at the first compilation. For each of two stages it makes a key, asks for the result, puts it if
//! there was none, and drops the key. nvJitLink asks once for each link, and makes the key of a cubin inside the stage before:
//!
//! | caller | stage | code | what is put |
//! |---|---|---|---|
//! | NVRTC | 2 | LLVM bitcode | PTX |
//! | NVRTC | 1 | the same bitcode | a cubin |
//! | nvJitLink | 2 | bitcode linked of LTO-IR, its options those of both stages | the cubin; PTX if only that is asked for |
//! | nvJitLink | 1 | PTX of stage 2 or of the program | a cubin |
//!
//! nvJitLink forgets the table when a key is refused, and then puts the outer stage's result by it, at address 0. So every
//! caller gets a key: one under which nothing is found or kept, where what it asks for cannot be told apart.

use std::arch::naked_asm;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::offset_of;

use super::{INVALID_VALUE, SUCCESS, Unused, give, unused_slots};
use crate::compile_cache::{CallerIdentity, CompileCache, Key, Stage, is_disabled};
use crate::driver::guard;
use torpor_proto::error::CudaError;

pub(super) const ID: [u8; 16] = super::uuid("da9151d3-3ae6-cc41-a5c0-4f26d533e328");

/// What callers have for a key. None: nothing is found or kept under it.
type Handle = Option<Key>;

/// (out) key, stage, code and its length, options, kind of host.
type MakeKey =
    unsafe extern "C" fn(*mut *mut Handle, u32, *const c_void, usize, *const c_char, *const c_char) -> c_int;

#[repr(C)]
pub(super) struct Table {
    size_bytes: usize,
    make_key: MakeKey,
    drop_key: unsafe extern "C" fn(*mut Handle) -> c_int,
    find: unsafe extern "C" fn(*const Handle, usize, *mut *mut c_void, *mut u32) -> c_int,
    put: unsafe extern "C" fn(*const Handle, usize, *const c_void, usize) -> c_int,
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

/// Where a compiler begins: passes on its return address, by which its library is known, as a seventh argument.
///
/// The first six are in registers, the seventh is at the stack's top when `make_key_for` is called (System V ABI for
/// x86-64, 3.2.3), which aligns the stack as well.
#[unsafe(naked)]
unsafe extern "C" fn make_key(
    key: *mut *mut Handle,
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
    key: *mut *mut Handle,
    stage: u32,
    code: *const c_void,
    bytes: usize,
    options: *const c_char,
    host: *const c_char,
    caller: usize,
) -> c_int {
    guard(|| {
        if key.is_null() {
            return INVALID_VALUE;
        }
        // SAFETY: as the caller promises.
        let made = unsafe { read_key(stage, code.cast(), bytes, options, host, caller) };
        // SAFETY: the caller promises that it is writable.
        unsafe { give(key, Box::into_raw(Box::new(made))) }
    })
}

/// The key of what a compiler asks for; none if that cannot be read or told apart.
///
/// # Safety
/// `code` is null or so many bytes, `options` and `host` null or C strings.
unsafe fn read_key(
    stage: u32,
    code: *const u8,
    bytes: usize,
    options: *const c_char,
    host: *const c_char,
    caller: usize,
) -> Handle {
    let stage = match stage {
        1 => Stage::Cubin,
        2 => Stage::Ptx,
        _ => return None,
    };
    // More than this is no length, but a negative number.
    let is_readable = !code.is_null() && isize::try_from(bytes).is_ok();
    if !is_readable || options.is_null() || host.is_null() {
        return None;
    }
    // SAFETY: not null, so the caller promises so many bytes, and C strings.
    let (code, options, host) = unsafe {
        (
            std::slice::from_raw_parts(code, bytes),
            CStr::from_ptr(options).to_bytes(),
            CStr::from_ptr(host).to_bytes(),
        )
    };
    Key::new(stage, code, options, host, &CallerIdentity::at(caller)?)
}

/// # Safety
/// `key` is null or was made by [`make_key`] and not dropped.
unsafe extern "C" fn drop_key(key: *mut Handle) -> c_int {
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
unsafe extern "C" fn find(
    key: *const Handle,
    _zero: usize,
    data: *mut *mut c_void,
    bytes: *mut u32,
) -> c_int {
    guard(|| {
        if key.is_null() || data.is_null() || bytes.is_null() {
            return INVALID_VALUE;
        }
        // SAFETY: not null, so the caller promises a key.
        let key = unsafe { &*key }.as_ref();
        let found = key.and_then(|key| CompileCache::of_process().find(key));
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
unsafe extern "C" fn put(key: *const Handle, _zero: usize, data: *const c_void, bytes: usize) -> c_int {
    guard(|| {
        if key.is_null() || data.is_null() || isize::try_from(bytes).is_err() {
            return INVALID_VALUE;
        }
        // SAFETY: not null, so the caller promises a key and so many bytes.
        let (key, code) = unsafe { (&*key, std::slice::from_raw_parts(data.cast(), bytes)) };
        if let Some(key) = key {
            CompileCache::of_process().put(key, code);
        }
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

    fn key(stage: u32, code: &[u8], options: &CStr) -> *mut Handle {
        // SAFETY: so many bytes, and C strings.
        unsafe { key_of(stage, code.as_ptr(), code.len(), options.as_ptr(), c"HOST64".as_ptr()) }
    }

    /// # Safety
    /// As for [`make_key`].
    unsafe fn key_of(
        stage: u32,
        code: *const u8,
        bytes: usize,
        options: *const c_char,
        host: *const c_char,
    ) -> *mut Handle {
        let mut key = std::ptr::null_mut();
        // SAFETY: as the table wants them.
        let made = unsafe { (TABLE.make_key)(&mut key, stage, code.cast(), bytes, options, host) };
        assert_eq!(made, SUCCESS);
        key
    }

    #[test]
    fn keys_are_those_of_their_inputs_and_of_this_program() {
        let caller = CallerIdentity::at(key as *const () as usize).unwrap();
        let ptx = key(2, b"code", c" -opt");
        let cubin = key(1, b"code", c" -arch");
        let expected = Key::new(Stage::Ptx, b"code", b" -opt", b"HOST64", &caller);
        // SAFETY: two keys that were made above.
        unsafe {
            assert!(expected.is_some() && *ptx == expected);
            assert!((*cubin).is_some() && *cubin != expected);
            assert_eq!(((TABLE.drop_key)(ptx), (TABLE.drop_key)(cubin)), (SUCCESS, SUCCESS));
        }
    }

    #[test]
    fn under_a_key_that_cannot_be_read_nothing_is_found_or_kept() {
        let (code, options, host) = (b"BC\xc0\xde", c" -opt".as_ptr(), c"HOST64".as_ptr());
        let (at, bytes, null) = (code.as_ptr(), code.len(), std::ptr::null());
        // SAFETY: what is not null is readable, but where the length says that it cannot be.
        let keys = unsafe {
            [
                key_of(0, at, bytes, options, host),
                key_of(3, at, bytes, options, host),
                key_of(u32::MAX, at, bytes, options, host),
                key_of(2, std::ptr::null(), bytes, options, host),
                key_of(2, at, usize::MAX, options, host),
                key_of(2, at, bytes, null, host),
                key_of(2, at, bytes, options, null),
                key_of(1, at, bytes, options, host),
            ]
        };
        for (index, key) in keys.into_iter().enumerate() {
            let (mut data, mut bytes) = (std::ptr::null_mut(), 0);
            // SAFETY: keys made above; each pointer is writable or as long as said.
            unsafe {
                assert_eq!((TABLE.put)(key, 0, code.as_ptr().cast(), code.len()), SUCCESS, "{index}");
                let found = (TABLE.find)(key, 0, &mut data, &mut bytes);
                assert_eq!(found, CudaError::NOT_FOUND.0.cast_signed(), "{index}");
                assert_eq!((TABLE.drop_key)(key), SUCCESS, "{index}");
            }
            assert_eq!((data, bytes), (std::ptr::null_mut(), 0), "{index}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let (mut data, mut bytes) = (std::ptr::null_mut(), 0);
        let nowhere = std::ptr::null_mut();
        let key = key(2, b"code", c"");
        // SAFETY: each pointer is null or writable, or as long as said where that may be read.
        unsafe {
            let made = (TABLE.make_key)(nowhere, 2, c"code".as_ptr().cast(), 4, c"".as_ptr(), c"".as_ptr());
            assert_eq!(made, INVALID_VALUE);
            assert_eq!((TABLE.find)(std::ptr::null(), 0, &mut data, &mut bytes), INVALID_VALUE);
            assert_eq!((TABLE.put)(std::ptr::null(), 0, data, 0), INVALID_VALUE);
            assert_eq!((TABLE.put)(key, 0, key.cast(), usize::MAX), INVALID_VALUE);
            assert_eq!((TABLE.drop_key)(std::ptr::null_mut()), INVALID_VALUE);
            assert_eq!((TABLE.free)(data), SUCCESS);
            assert_eq!((TABLE.drop_key)(key), SUCCESS);
        }
    }
}
