//! Who answers the runtime's functions: this library, or the libcudart that the program brought.
//!
//! Decided when the first of them is called, for all of them and for good. This library answers programs made for
//! CUDA 13. It steps aside if `TORPOR_RUNTIME_SURFACE` is `off`, or if the program has loaded a libcudart of another
//! version, whose structures and signatures differ; that libcudart then works over the driver surface. A program that loads
//! one version after the other keeps the first decision.

use super::refused::absent;
use super::surface;
use std::ffi::{CStr, CString, c_int, c_void};
use std::sync::atomic::{AtomicBool, Ordering};

/// The major version of CUDA that this surface is.
const VERSION: u32 = 13;

/// What was found and what follows from it.
#[derive(Debug, PartialEq, Eq)]
enum Choice {
    Own,
    /// By the program's own library; why.
    Loaded(CString, String),
}

/// Fills the table of [`surface`]. May run in several threads at once: all of them come to the same result, and none
/// waits for another, since one of them may hold the lock of the dynamic loader.
pub(super) extern "C" fn select() {
    static SAID: AtomicBool = AtomicBool::new(false);
    // A panic must not unwind into the jump that called this.
    let choice = std::panic::catch_unwind(|| {
        let switch = std::env::var_os("TORPOR_RUNTIME_SURFACE");
        choose(switch.is_some_and(|value| value == "off"), loaded_runtimes())
    });
    let (library, reason) = match choice {
        Ok(Choice::Loaded(library, reason)) => (library, reason),
        Ok(Choice::Own) | Err(_) => return surface::direct(|entry| entry.own.0),
    };
    if !SAID.swap(true, Ordering::Relaxed) {
        crate::log::write(&format!("CUDA runtime calls are left to {}: {reason}", library.to_string_lossy()));
    }
    // SAFETY: the library is loaded already, so no code of it runs now; its handle is kept for ever.
    let handle = unsafe { libc::dlopen(library.as_ptr(), libc::RTLD_NOLOAD | libc::RTLD_LAZY) };
    surface::direct(|entry| {
        if handle.is_null() {
            return absent as *const ();
        }
        // SAFETY: a handle of the loader and a C string.
        let found = unsafe { libc::dlsym(handle, entry.symbol.as_ptr()) };
        if found.is_null() { absent as *const () } else { found.cast_const().cast() }
    });
}

fn choose(is_off: bool, loaded: Vec<(CString, u32)>) -> Choice {
    let has_own_version = loaded.iter().any(|&(_, version)| version == VERSION);
    match loaded.into_iter().max_by_key(|&(_, version)| (version == VERSION, version)) {
        // Somebody looked a name up without any libcudart: there is nothing to leave it to.
        None => Choice::Own,
        Some((library, _)) if is_off => Choice::Loaded(library, "TORPOR_RUNTIME_SURFACE=off".to_owned()),
        Some(_) if has_own_version => Choice::Own,
        Some((library, version)) => {
            let reason = format!("it is CUDA {version}, and Torpor's runtime surface is CUDA {VERSION}");
            Choice::Loaded(library, reason)
        }
    }
}

/// Every libcudart in this process, with its major version.
fn loaded_runtimes() -> Vec<(CString, u32)> {
    unsafe extern "C" fn visit(
        information: *mut libc::dl_phdr_info,
        _size: usize,
        found: *mut c_void,
    ) -> c_int {
        // SAFETY: the loader passes its description of an object, and the vector it was given below.
        let (name, found) = unsafe { ((*information).dlpi_name, &mut *found.cast::<Vec<(CString, u32)>>()) };
        if !name.is_null() {
            // SAFETY: the loader's name of an object is a C string.
            let name = unsafe { CStr::from_ptr(name) };
            if let Some(version) = runtime_version(&name.to_string_lossy()) {
                found.push((name.to_owned(), version));
            }
        }
        0
    }
    let mut found: Vec<(CString, u32)> = Vec::new();
    // SAFETY: the visitor gets the vector it expects and does not outlive the call.
    unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut found).cast()) };
    found
}

/// The major version of a libcudart by its file name: `libcudart.so.13`, `libcudart-d0da41ae.so.11.0` (as wheels rename it).
fn runtime_version(path: &str) -> Option<u32> {
    let file = path.rsplit('/').next()?;
    let rest = file.strip_prefix("libcudart")?;
    let (middle, version) = rest.split_once(".so.")?;
    if !(middle.is_empty() || middle.starts_with('-')) {
        return None;
    }
    version.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_file_names() {
        for (path, version) in [
            ("/opt/x/nvidia/cu13/lib/libcudart.so.13", Some(13)),
            ("libcudart.so.12.4.127", Some(12)),
            ("/x/libcudart-d0da41ae.so.11.0", Some(11)),
            ("/x/libcudart.so", None),
            ("/x/libcuda.so.1", None),
            ("/x/libcudart_static.so.13", None),
            ("", None),
        ] {
            assert_eq!(runtime_version(path), version, "{path}");
        }
    }

    #[test]
    fn only_programs_for_cuda_13_are_answered_here() {
        let library = |version| (CString::new(format!("libcudart.so.{version}")).unwrap(), version);
        assert_eq!(choose(false, vec![library(13)]), Choice::Own);
        assert_eq!(choose(false, vec![library(12), library(13)]), Choice::Own);
        assert_eq!(choose(false, vec![]), Choice::Own);
        assert_eq!(choose(true, vec![]), Choice::Own);
        for (is_off, version) in [(true, 13), (true, 12), (false, 12), (false, 14)] {
            let choice = choose(is_off, vec![library(version)]);
            assert!(
                matches!(choice, Choice::Loaded(ref name, _) if *name == library(version).0),
                "{choice:?}"
            );
        }
    }
}
