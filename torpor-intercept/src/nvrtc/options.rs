//! What a program is compiled with, as far as it decides whether the result may be kept.

use std::ffi::{CStr, c_char, c_int};

/// More options than any compilation has.
const MOST: usize = 4096;

/// Options that make files a part of what is compiled, ask this machine something, or want more than code. Source: NVRTC's
/// documentation, "Supported Compile Options".
const UNKEPT: [&str; 14] = [
    "-I",
    "--include-path",
    "-include",
    "--pre-include",
    "-pch",
    "--pch",
    "-create-pch",
    "--create-pch",
    "-use-pch",
    "--use-pch",
    "-time",
    "--time",
    "-fdevice-time-trace",
    "--fdevice-time-trace",
];

/// The options, if what is compiled with them depends on nothing else than them and the source.
///
/// # Safety
/// `options` is null or so many C strings.
pub(super) unsafe fn self_contained<'a>(
    count: c_int,
    options: *const *const c_char,
) -> Option<Vec<&'a CStr>> {
    let count = usize::try_from(count).ok().filter(|&count| count <= MOST)?;
    if count > 0 && options.is_null() {
        return None;
    }
    let option = |at| {
        // SAFETY: the caller promises so many.
        let option = unsafe { *options.add(at) };
        // SAFETY: not null, so the caller promises a C string.
        (!option.is_null()).then(|| unsafe { CStr::from_ptr(option) })
    };
    let options = (0..count).map(option).collect::<Option<Vec<_>>>()?;
    options.iter().all(|option| is_self_contained(option.to_bytes())).then_some(options)
}

fn is_self_contained(option: &[u8]) -> bool {
    let names_files = UNKEPT.iter().any(|unkept| option.starts_with(unkept.as_bytes()));
    !names_files && !option.ends_with(b"native")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_bring_files_in_are_told_apart() {
        for kept in ["-arch=sm_90a", "--std=c++17", "-DN=8", "--define-macro=X", "-default-device", "-i"] {
            assert!(is_self_contained(kept.as_bytes()), "{kept}");
        }
        for unkept in
            ["-I/usr/include", "-I", "--include-path=x", "-include=x.h", "-arch=native", "--pch-dir=d"]
        {
            assert!(!is_self_contained(unkept.as_bytes()), "{unkept}");
        }
    }

    #[test]
    fn lists_that_are_none_are_refused() {
        let list = [c"-ftz=true".as_ptr(), std::ptr::null()];
        // SAFETY: as many as there are.
        unsafe {
            assert_eq!(self_contained(1, list.as_ptr()), Some(vec![c"-ftz=true"]));
            assert_eq!(self_contained(0, std::ptr::null()), Some(Vec::new()));
            assert_eq!(self_contained(2, list.as_ptr()), None);
            assert_eq!(self_contained(1, std::ptr::null()), None);
            assert_eq!(self_contained(-1, list.as_ptr()), None);
        }
    }
}
