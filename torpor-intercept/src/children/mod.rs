//! Programs that this process starts with another environment (`subprocess.run(..., env={})`, `env -i`, `sudo`-like wrappers): they find
//! the GPU as a native driver is found, which needs no environment.
//!
//! The functions of the C library that start a program with an environment of the caller's choice are this library's, and pass
//! the caller's list on with what is missing in it (`inheritance.rs`). The process's own environment stays as it is.
//! They are called between `vfork` and the new program, so nothing here allocates, locks, or writes what the parent reads.
//!
//! Limits: where this library is not loaded (static and setuid programs), nothing is added; nor by `execl`, `execle`, `system`
//! and `popen`, which the C library ends in itself.

mod inheritance;

use inheritance::with_ours;
use libc::{c_char, c_int, c_void, pid_t};
use std::sync::atomic::{AtomicPtr, Ordering};

/// A list of strings that ends with a null.
type List = *const *const c_char;

/// Runs when the library is loaded, before the program can change what it was started with.
#[used]
#[unsafe(link_section = ".init_array")]
static PREPARE: extern "C" fn() = prepare;

extern "C" fn prepare() {
    // Nothing of this is worth ending the program for.
    let _ = std::panic::catch_unwind(|| {
        if inheritance::remember() {
            NEXT.iter().for_each(|next| {
                next.find();
            });
        }
    });
}

/// A function of the C library, or of a library in between that has it too.
struct Next {
    name: &'static std::ffi::CStr,
    found: AtomicPtr<c_void>,
}

impl Next {
    const fn new(name: &'static std::ffi::CStr) -> Self {
        Self { name, found: AtomicPtr::new(std::ptr::null_mut()) }
    }

    /// Looked up when the library is loaded, or else now.
    fn find(&self) -> *mut c_void {
        let known = self.found.load(Ordering::Relaxed);
        if !known.is_null() {
            return known;
        }
        // SAFETY: the name is a C string.
        let found = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
        self.found.store(found, Ordering::Relaxed);
        found
    }
}

/// Every exported name.
pub const NAMES: [&str; 8] =
    ["execve", "execv", "execvpe", "execvp", "fexecve", "execveat", "posix_spawn", "posix_spawnp"];

static NEXT: [Next; 6] = [
    Next::new(c"execve"),
    Next::new(c"execvpe"),
    Next::new(c"fexecve"),
    Next::new(c"execveat"),
    Next::new(c"posix_spawn"),
    Next::new(c"posix_spawnp"),
];

/// Calls one of [`NEXT`] as what it is; the error is the one of a C library that does not have it.
macro_rules! next {
    ($index:literal as fn($($type:ty),*) , $($argument:expr),*) => {{
        let found = NEXT[$index].find();
        if found.is_null() {
            *libc::__errno_location() = libc::ENOSYS;
            return -1;
        }
        let function = std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($type),*) -> c_int>(found);
        function($($argument),*)
    }};
}

/// `execve`(2)
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn execve(path: *const c_char, arguments: List, environment: List) -> c_int {
    let call = |environment| {
        // SAFETY: the caller's promises, for a list that is as good; the type is that of unistd.h.
        unsafe { next!(0 as fn(*const c_char, List, List), path, arguments, environment) }
    };
    // SAFETY: the caller's list.
    unsafe { with_ours(environment, call) }
}

/// `execv`(3)
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn execv(path: *const c_char, arguments: List) -> c_int {
    // SAFETY: the caller's promises, and the process's own list.
    unsafe { execve(path, arguments, libc::environ.cast()) }
}

/// `execvpe`(3)
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn execvpe(file: *const c_char, arguments: List, environment: List) -> c_int {
    let call = |environment| {
        // SAFETY: as in `execve`.
        unsafe { next!(1 as fn(*const c_char, List, List), file, arguments, environment) }
    };
    // SAFETY: the caller's list.
    unsafe { with_ours(environment, call) }
}

/// `execvp`(3)
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn execvp(file: *const c_char, arguments: List) -> c_int {
    // SAFETY: the caller's promises, and the process's own list.
    unsafe { execvpe(file, arguments, libc::environ.cast()) }
}

/// `fexecve`(3)
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fexecve(file: c_int, arguments: List, environment: List) -> c_int {
    let call = |environment| {
        // SAFETY: as in `execve`.
        unsafe { next!(2 as fn(c_int, List, List), file, arguments, environment) }
    };
    // SAFETY: the caller's list.
    unsafe { with_ours(environment, call) }
}

/// `execveat`(2)
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn execveat(
    folder: c_int,
    path: *const c_char,
    arguments: List,
    environment: List,
    flags: c_int,
) -> c_int {
    let call = |environment| {
        // SAFETY: as in `execve`.
        unsafe {
            next!(
                3 as fn(c_int, *const c_char, List, List, c_int),
                folder,
                path,
                arguments,
                environment,
                flags
            )
        }
    };
    // SAFETY: the caller's list.
    unsafe { with_ours(environment, call) }
}

/// `posix_spawn`(3)
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn posix_spawn(
    process: *mut pid_t,
    path: *const c_char,
    actions: *const c_void,
    attributes: *const c_void,
    arguments: List,
    environment: List,
) -> c_int {
    let call = |environment| {
        // SAFETY: as in `execve`; spawn.h.
        unsafe {
            next!(
                4 as fn(*mut pid_t, *const c_char, *const c_void, *const c_void, List, List),
                process,
                path,
                actions,
                attributes,
                arguments,
                environment
            )
        }
    };
    // SAFETY: the caller's list.
    unsafe { with_ours(environment, call) }
}

/// `posix_spawnp`(3)
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn posix_spawnp(
    process: *mut pid_t,
    file: *const c_char,
    actions: *const c_void,
    attributes: *const c_void,
    arguments: List,
    environment: List,
) -> c_int {
    let call = |environment| {
        // SAFETY: as in `execve`; spawn.h.
        unsafe {
            next!(
                5 as fn(*mut pid_t, *const c_char, *const c_void, *const c_void, List, List),
                process,
                file,
                actions,
                attributes,
                arguments,
                environment
            )
        }
    };
    // SAFETY: the caller's list.
    unsafe { with_ours(environment, call) }
}
