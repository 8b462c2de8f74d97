//! What callers get from the functions that stand in, over an NVRTC that counts.

use super::*;
use std::sync::atomic::{AtomicU32, Ordering};

/// An NVRTC that compiles anything to its options and knows one program at a time.
mod fake {
    use super::*;

    pub(super) static COMPILED: AtomicU32 = AtomicU32::new(0);
    pub(super) const CUBIN: &[u8] = b"cubin";

    pub(super) unsafe extern "C" fn create(program: *mut Handle) -> Status {
        // SAFETY: the test's own place.
        unsafe { program.write(std::ptr::without_provenance_mut(64)) };
        SUCCESS
    }

    pub(super) unsafe extern "C" fn compile(_: Handle, count: c_int, _: *const *const c_char) -> Status {
        COMPILED.fetch_add(1, Ordering::Relaxed);
        if count == 0 { 5 } else { SUCCESS }
    }

    pub(super) unsafe extern "C" fn cubin_size(_: Handle, size: *mut usize) -> Status {
        // SAFETY: the caller's place.
        unsafe { size.write(CUBIN.len()) };
        SUCCESS
    }

    pub(super) unsafe extern "C" fn cubin(_: Handle, bytes: *mut u8) -> Status {
        // SAFETY: the caller's room.
        unsafe { bytes.copy_from_nonoverlapping(CUBIN.as_ptr(), CUBIN.len()) };
        SUCCESS
    }

    pub(super) unsafe extern "C" fn no_ptx(_: Handle, _: *mut c_void) -> Status {
        9
    }

    pub(super) unsafe extern "C" fn log_size(_: Handle, size: *mut usize) -> Status {
        // SAFETY: the caller's place.
        unsafe { size.write(1) };
        SUCCESS
    }

    pub(super) unsafe extern "C" fn destroy(_: *mut Handle) -> Status {
        SUCCESS
    }
}

type CreateEncoded = unsafe extern "C" fn(
    *mut Handle,
    *const c_char,
    *const c_char,
    c_int,
    *const *const c_char,
    *const *const c_char,
    u32,
    *const c_void,
    *const c_void,
) -> Status;

/// A program's way through NVRTC as a library goes it: its cubin, and how often NVRTC has compiled since it began.
fn cubin_of(source: &CStr, parts: u32, asks_for_log: bool) -> (Vec<u8>, u32) {
    let before = fake::COMPILED.load(Ordering::Relaxed);
    let ours = |name: &CStr, real: *const ()| instead_of(name, real.cast_mut().cast());
    let (mut program, mut size) = (std::ptr::null_mut(), 0_usize);
    // SAFETY: each has the type that nvrtc.h gives it, and places of this function.
    unsafe {
        let create: CreateEncoded = transmute(ours(c"__nvrtcCPEx", fake::create as *const ()));
        let compile: unsafe extern "C" fn(Handle, c_int, *const *const c_char) -> Status =
            transmute(ours(c"nvrtcCompileProgram", fake::compile as *const ()));
        let cubin_size: unsafe extern "C" fn(Handle, *mut usize) -> Status =
            transmute(ours(c"nvrtcGetCUBINSize", fake::cubin_size as *const ()));
        let cubin: unsafe extern "C" fn(Handle, *mut u8) -> Status =
            transmute(ours(c"nvrtcGetCUBIN", fake::cubin as *const ()));
        let log_size: unsafe extern "C" fn(Handle, *mut usize) -> Status =
            transmute(ours(c"nvrtcGetProgramLogSize", fake::log_size as *const ()));
        let destroy: unsafe extern "C" fn(*mut Handle) -> Status =
            transmute(ours(c"nvrtcDestroyProgram", fake::destroy as *const ()));
        ours(c"nvrtcGetPTXSize", fake::no_ptx as *const ());
        ours(c"nvrtcGetPTX", fake::no_ptx as *const ());
        let nothing = std::ptr::null::<c_void>();
        let created = create(
            &mut program,
            source.as_ptr(),
            c"name".as_ptr(),
            0,
            nothing.cast(),
            nothing.cast(),
            parts,
            nothing,
            nothing,
        );
        let options = [c"-arch=sm_90a".as_ptr()];
        assert_eq!((created, compile(program, 1, options.as_ptr())), (SUCCESS, SUCCESS));
        if asks_for_log {
            assert_eq!((log_size(program, &mut size), size), (SUCCESS, 1));
        }
        assert_eq!(cubin_size(program, &mut size), SUCCESS);
        let mut code = vec![0; size];
        assert_eq!((cubin(program, code.as_mut_ptr()), destroy(&mut program)), (SUCCESS, SUCCESS));
        (code, fake::COMPILED.load(Ordering::Relaxed) - before)
    }
}

#[test]
fn what_was_compiled_once_is_compiled_again_only_for_something_else_than_code() {
    let of = |source, parts, asks_for_log| cubin_of(source, parts, asks_for_log);
    let expected = |compiled| (fake::CUBIN.to_vec(), compiled);
    assert_eq!(of(c"encoded", 2, false), expected(1));
    assert_eq!(of(c"encoded", 2, false), expected(0), "it is known");
    assert_eq!(of(c"encoded", 2, true), expected(1), "there is no log without");
    assert_eq!(of(c"other", 2, false), expected(1));
    assert_eq!(of(c"plain", 0, false), expected(1));
    assert_eq!(of(c"plain", 0, false), expected(1), "it may include what has changed");
    assert!(!instead_of(c"nvrtcGetPTXSize", fake::no_ptx as *mut c_void).is_null());
    assert!(instead_of(c"nvrtcCompileProgram", libc::getpid as *mut c_void).is_null(), "another library's");
    assert!(instead_of(c"nvrtcVersion", fake::no_ptx as *mut c_void).is_null());
    assert!(instead_of(c"nvrtcNewerThanThis", fake::no_ptx as *mut c_void).is_null());
    assert_eq!(of(c"encoded", 2, false), expected(1), "it might want a program compiled");
}
