//! The versions of CUDA whose runtime this library is, and which of them the program has.
//!
//! Between 12 and 13 few names changed their meaning; `runtime-names.tsv` has a line of its own (`@12`) for each of them, and
//! for those that only 12 has.

use std::ffi::{CStr, CString, c_int};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};

/// A major version of CUDA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    Cuda12,
    Cuda13,
}

impl Version {
    /// `None` for those that this library is not.
    pub(super) fn of(major: u32) -> Option<Self> {
        match major {
            12 => Some(Self::Cuda12),
            13 => Some(Self::Cuda13),
            _ => None,
        }
    }

    /// The first of its releases, as `cudaRuntimeGetVersion` says it.
    fn first_release(self) -> c_int {
        match self {
            Self::Cuda12 => 12000,
            Self::Cuda13 => 13000,
        }
    }
}

/// What this library answers for, and the program's libcudart if it has one.
static ANSWERED: OnceLock<(Version, Option<CString>)> = OnceLock::new();

/// This library answers from now on. Only the first call counts.
pub(super) fn answer_for(version: Version, library: Option<CString>) {
    // Several threads may decide at once, all of them the same.
    let _ = ANSWERED.set((version, library));
}

/// The release that the program was made for, as `cudaRuntimeGetVersion` says it (12080 for 12.8). Only the program's own
/// libcudart knows which one it is.
pub(super) fn release() -> c_int {
    /// Two threads may ask; neither waits for the other, which may hold the lock of the dynamic loader.
    static KNOWN: AtomicI32 = AtomicI32::new(0);
    let known = KNOWN.load(Ordering::Relaxed);
    if known != 0 {
        return known;
    }
    let (version, library) = match ANSWERED.get() {
        Some((version, library)) => (*version, library.as_deref()),
        None => (Version::Cuda13, None),
    };
    let release = library.and_then(release_of).unwrap_or(version.first_release());
    KNOWN.store(release, Ordering::Relaxed);
    release
}

fn release_of(library: &CStr) -> Option<c_int> {
    // SAFETY: the library is loaded already, so no code of it runs now; its handle is kept for ever.
    let handle = unsafe { libc::dlopen(library.as_ptr(), libc::RTLD_NOLOAD | libc::RTLD_LAZY) };
    if handle.is_null() {
        return None;
    }
    // SAFETY: a handle of the loader and a C string.
    let function = unsafe { libc::dlsym(handle, c"cudaRuntimeGetVersion".as_ptr()) };
    if function.is_null() {
        return None;
    }
    // SAFETY: a libcudart's function of this name has this signature (cuda_runtime_api.h). It needs no driver.
    let ask = unsafe {
        std::mem::transmute::<*mut libc::c_void, unsafe extern "C" fn(*mut c_int) -> c_int>(function)
    };
    let mut release = 0;
    // SAFETY: a place for the result.
    let code = unsafe { ask(&raw mut release) };
    (code == 0 && release > 0).then_some(release)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_not_there_or_no_libcudart_has_no_release() {
        assert_eq!(release_of(c"/nowhere/libcudart.so.12"), None);
        assert_eq!(release_of(c"libc.so.6"), None);
        assert_eq!(release(), 13000, "nothing has been decided in this process");
    }
}
