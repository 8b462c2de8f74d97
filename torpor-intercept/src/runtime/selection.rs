//! Who answers the runtime's functions: this library, or the libcudart that the program brought.
//!
//! Decided when the first of them is called, for all of them and for good. This library answers programs made for
//! CUDA 12 or 13; which of both says the libcudart that the program has loaded. It steps aside if
//! `TORPOR_RUNTIME_SURFACE` is `off`, or if that libcudart is of yet another version, whose structures and signatures
//! differ; it then works over the driver surface.
//!
//! A program that has loaded both is answered as CUDA 13 has it. Its code for CUDA 12 is answered right all the same, but
//! for the release that it is told: the names whose meaning has changed are called by another one in code for CUDA 12
//! (`cudaGetDeviceProperties_v2`, `cudaStreamGetCaptureInfo_v2`; `#define`s of its headers). A program that loads 13 after
//! the first call keeps the decision for 12, which is wrong for just these names.

use super::refused::absent;
use super::surface;
use super::version::{self, Version};
use std::ffi::{CStr, CString, c_int, c_void};
use std::sync::atomic::{AtomicBool, Ordering};

/// What was found and what follows from it.
#[derive(Debug, PartialEq, Eq)]
enum Choice {
    /// By this library, as that version has it; the program's libcudart of that version, if it has any.
    Own(Version, Option<CString>),
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
        Ok(Choice::Own(version, library)) => return answer_for(version, library),
        Err(_) => return answer_for(Version::Cuda13, None),
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

fn answer_for(version: Version, library: Option<CString>) {
    version::answer_for(version, library);
    surface::direct(|entry| entry.answer(version).own.0);
}

fn choose(is_off: bool, loaded: Vec<(CString, u32)>) -> Choice {
    // Of several the newest, but rather one that this library is.
    match loaded.into_iter().max_by_key(|&(_, major)| (Version::of(major), major)) {
        // Somebody looked a name up without any libcudart: there is nothing to leave it to.
        None => Choice::Own(Version::Cuda13, None),
        Some((library, _)) if is_off => Choice::Loaded(library, "TORPOR_RUNTIME_SURFACE=off".to_owned()),
        Some((library, major)) => match Version::of(major) {
            Some(version) => Choice::Own(version, Some(library)),
            None => {
                let reason = format!("it is CUDA {major}, and Torpor's runtime surface is CUDA 12 and 13");
                Choice::Loaded(library, reason)
            }
        },
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
    fn programs_for_cuda_12_and_13_are_answered_here_and_others_are_not() {
        let library = |major| (CString::new(format!("libcudart.so.{major}")).unwrap(), major);
        let chosen = |is_off, majors: &[u32]| choose(is_off, majors.iter().copied().map(library).collect());
        let own = |version, major| Choice::Own(version, Some(library(major).0));
        assert_eq!(chosen(false, &[13]), own(Version::Cuda13, 13));
        assert_eq!(chosen(false, &[12]), own(Version::Cuda12, 12));
        for both in [[12, 13], [13, 12], [13, 14], [11, 13]] {
            assert_eq!(chosen(false, &both), own(Version::Cuda13, 13), "{both:?}");
        }
        assert_eq!(chosen(false, &[12, 11, 14]), own(Version::Cuda12, 12));
        assert_eq!(chosen(false, &[]), Choice::Own(Version::Cuda13, None));
        assert_eq!(chosen(true, &[]), Choice::Own(Version::Cuda13, None));
        for (is_off, majors, left_to) in [
            (true, &[13][..], 13),
            (true, &[12], 12),
            (true, &[13, 12], 13),
            (false, &[11], 11),
            (false, &[11, 14], 14),
        ] {
            let choice = chosen(is_off, majors);
            assert!(
                matches!(choice, Choice::Loaded(ref name, _) if *name == library(left_to).0),
                "{choice:?}"
            );
        }
    }
}
