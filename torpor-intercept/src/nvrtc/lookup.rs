//! `dlsym`, by which libraries in the program find NVRTC.
//!
//! All that is not NVRTC's goes on to the C library's own function by a jump, with the stack as it came: what `RTLD_NEXT` means
//! depends on the return address.

use super::functions;
use libc::{RTLD_DEFAULT, RTLD_NEXT, c_char, c_void};
use std::arch::naked_asm;
use std::ffi::CStr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// Every exported name.
pub const NAMES: [&str; 1] = ["dlsym"];

/// The C library's `dlsym`; never null once [`ours`] has returned.
static NEXT: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());

type Lookup = unsafe extern "C" fn(*mut c_void, *const c_char) -> *mut c_void;

/// `dlsym`(3)
///
/// # Safety
/// As the C library's.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void {
    // Both arguments are kept over the call; with 8 bytes more the stack is aligned for it (System V ABI for x86-64, 3.2.2).
    naked_asm!(
        "push rdi",
        "push rsi",
        "sub rsp, 8",
        "call {ours}",
        "add rsp, 8",
        "pop rsi",
        "pop rdi",
        "test rax, rax",
        "jne 2f",
        "jmp qword ptr [rip + {next}]",
        "2:",
        "ret",
        ours = sym ours,
        next = sym NEXT,
    )
}

/// The function that the caller gets instead of the one that it asks for, or null.
///
/// # Safety
/// `name` is null or a C string.
unsafe extern "C" fn ours(handle: *mut c_void, name: *const c_char) -> *mut c_void {
    let next = next();
    if name.is_null() || handle == RTLD_DEFAULT || handle == RTLD_NEXT {
        return std::ptr::null_mut();
    }
    // SAFETY: not null, so the caller promises a C string.
    let wanted = unsafe { CStr::from_ptr(name) };
    if !wanted.to_bytes().starts_with(b"nvrtc") && !wanted.to_bytes().starts_with(b"__nvrtc") {
        return std::ptr::null_mut();
    }
    let instead = std::panic::catch_unwind(|| {
        // SAFETY: the caller's arguments; what is null here is asked for once more, which is what tells the caller why.
        let real = unsafe { next(handle, name) };
        functions::instead_of(wanted, real)
    });
    instead.unwrap_or(std::ptr::null_mut())
}

/// Looked up at the first call: it has had this version since there is glibc for x86-64.
fn next() -> Lookup {
    let mut found = NEXT.load(Ordering::Relaxed);
    if found.is_null() {
        // SAFETY: C strings.
        found = unsafe { libc::dlvsym(RTLD_NEXT, c"dlsym".as_ptr(), c"GLIBC_2.2.5".as_ptr()) };
        if found.is_null() {
            found = finds_nothing as *const () as *mut c_void;
        }
        NEXT.store(found, Ordering::Relaxed);
    }
    // SAFETY: not null, so a function of this type.
    unsafe { std::mem::transmute::<*mut c_void, Lookup>(found) }
}

/// In place of a C library's that is not there.
extern "C" fn finds_nothing(_handle: *mut c_void, _name: *const c_char) -> *mut c_void {
    std::ptr::null_mut()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_else_finds_what_the_c_library_finds() {
        // SAFETY: C strings, and handles of dlopen(3) and of dlsym(3).
        unsafe {
            let library = libc::dlopen(c"libc.so.6".as_ptr(), libc::RTLD_LAZY);
            for handle in [library, RTLD_DEFAULT, RTLD_NEXT] {
                let found = dlsym(handle, c"getpid".as_ptr());
                assert!(!found.is_null());
                assert_eq!(found, next()(handle, c"getpid".as_ptr()));
            }
            assert!(dlsym(library, c"nvrtcCompileProgram".as_ptr()).is_null());
            assert!(dlsym(library, c"no such function".as_ptr()).is_null());
            assert!(!libc::dlerror().is_null(), "it says why");
        }
    }
}
