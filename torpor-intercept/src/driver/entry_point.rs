//! `cuGetProcAddress`: which function a name means for a program built against a given CUDA version.
//!
//! cudart asks this for everything, so a wrong variant is called with the wrong arguments, and a missing one must be
//! reported as missing. What a driver answers stands in cuda.h: a miss is a success with a null pointer, and the
//! status says why. The ABI of CUDA 11.3 has no status and reports a miss as CUDA_ERROR_NOT_FOUND.

use std::ffi::{CStr, c_char, c_int, c_void};

use super::export_table::host;
use super::surface::{self, Missing};

const SUCCESS: i32 = 0;
const INVALID_VALUE: i32 = 1;
const NOT_FOUND: i32 = 500;

/// CU_GET_PROC_ADDRESS_SUCCESS.
const STATUS_FOUND: c_int = 0;
/// CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND.
const STATUS_NOT_FOUND: c_int = 1;
/// CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT.
const STATUS_VERSION: c_int = 2;

/// CU_GET_PROC_ADDRESS_LEGACY_STREAM.
const FLAG_LEGACY: u64 = 1;
/// CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM.
const FLAG_PER_THREAD: u64 = 2;

/// What the search for a name gave.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    function: *mut c_void,
    status: c_int,
}

/// Looks `name` up for `version`; `driver_version` is what this driver claims to be, 0 if it does not know.
fn search(name: &[u8], version: c_int, flags: u64, driver_version: c_int) -> Result<Answer, i32> {
    if flags & !(FLAG_LEGACY | FLAG_PER_THREAD) != 0 || (driver_version > 0 && version > driver_version) {
        return Err(INVALID_VALUE);
    }
    // A name that is not ASCII, or a negative version, is known to nobody.
    let found = match (std::str::from_utf8(name), u32::try_from(version)) {
        (Ok(name), Ok(version)) => surface::find(name, version, flags & FLAG_PER_THREAD != 0),
        (Ok(name), Err(_)) => surface::find(name, 0, false),
        (Err(_), _) => Err(Missing::Name),
    };
    Ok(match found {
        Ok(entry) => Answer { function: entry.address as *mut c_void, status: STATUS_FOUND },
        Err(Missing::Name) => Answer { function: std::ptr::null_mut(), status: STATUS_NOT_FOUND },
        Err(Missing::Version) => Answer { function: std::ptr::null_mut(), status: STATUS_VERSION },
    })
}

/// What both ABIs have in common.
///
/// # Safety
/// `symbol` is null or a C string; `function` is null or writable.
unsafe fn answer(
    symbol: *const c_char,
    function: *mut *mut c_void,
    version: c_int,
    flags: u64,
) -> Result<Answer, i32> {
    if symbol.is_null() {
        return Err(INVALID_VALUE);
    }
    // SAFETY: the caller promises a C string.
    let name = unsafe { CStr::from_ptr(symbol) };
    if name.is_empty() {
        // cudart's first question, with a null pointer for the function: is there such a function at all?
        if !function.is_null() {
            // SAFETY: the caller promises that it is writable if it is not null.
            unsafe { function.write_unaligned(std::ptr::null_mut()) };
        }
        return Err(NOT_FOUND);
    }
    if function.is_null() {
        return Err(INVALID_VALUE);
    }
    let answer = search(name.to_bytes(), version, flags, host::driver_version())?;
    // SAFETY: as above.
    unsafe { function.write_unaligned(answer.function) };
    Ok(answer)
}

/// The function that `symbol` means for CUDA `version` (1000 × major + 10 × minor), in `function`.
///
/// `flags` 2 prefers variants with the calling thread's default stream. `status` (may be null) becomes 0 if there is one, 1 if
/// no function has this name, 2 if it is newer than `version`; without one the pointer is null and the call succeeds.
///
/// # Safety
/// `symbol` is null or a C string; `function` and `status` are null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetProcAddress_v2(
    symbol: *const c_char,
    function: *mut *mut c_void,
    version: c_int,
    flags: u64,
    status: *mut c_int,
) -> i32 {
    super::guard(|| {
        // SAFETY: as the caller of this function promises.
        let answer = unsafe { answer(symbol, function, version, flags) };
        let (result, found) = match answer {
            Ok(answer) => (SUCCESS, Some(answer.status)),
            Err(NOT_FOUND) => (NOT_FOUND, Some(STATUS_NOT_FOUND)),
            Err(error) => (error, None),
        };
        if let (Some(found), false) = (found, status.is_null()) {
            // SAFETY: the caller promises that it is writable if it is not null.
            unsafe { status.write_unaligned(found) };
        }
        result
    })
}

/// The same with the ABI of CUDA 11.3: no status; a miss is CUDA_ERROR_NOT_FOUND.
///
/// # Safety
/// `symbol` is null or a C string; `function` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetProcAddress(
    symbol: *const c_char,
    function: *mut *mut c_void,
    version: c_int,
    flags: u64,
) -> i32 {
    super::guard(|| {
        // SAFETY: as the caller of this function promises.
        match unsafe { answer(symbol, function, version, flags) } {
            Ok(answer) if answer.status == STATUS_FOUND => SUCCESS,
            Ok(_) => NOT_FOUND,
            Err(error) => error,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNTOUCHED: *mut c_void = std::ptr::dangling_mut::<u64>().cast();

    /// Result, function and status of one question.
    fn ask(symbol: &CStr, version: c_int, flags: u64) -> (i32, *mut c_void, c_int) {
        let (mut function, mut status) = (UNTOUCHED, -7);
        // SAFETY: a C string and two writable places.
        let result =
            unsafe { cuGetProcAddress_v2(symbol.as_ptr(), &mut function, version, flags, &mut status) };
        (result, function, status)
    }

    fn address(symbol: &str) -> *mut c_void {
        let entry = surface::ENTRIES.iter().find(|entry| entry.symbol == symbol);
        entry.expect("it is in the table").address as *mut c_void
    }

    #[test]
    fn answers_are_those_of_a_driver() {
        let null = std::ptr::null_mut();
        for (name, version, flags, expected) in [
            (c"cuMemAlloc", 13000, 0, (SUCCESS, address("cuMemAlloc_v2"), STATUS_FOUND)),
            (c"cuMemcpyHtoD", 13000, 1, (SUCCESS, address("cuMemcpyHtoD_v2"), STATUS_FOUND)),
            (c"cuMemcpyHtoD", 13000, 2, (SUCCESS, address("cuMemcpyHtoD_v2_ptds"), STATUS_FOUND)),
            (c"cuCtxGetDevice", 12080, 0, (SUCCESS, address("cuCtxGetDevice"), STATUS_FOUND)),
            (c"cuNothing", 13000, 0, (SUCCESS, null, STATUS_NOT_FOUND)),
            (c"cu\xff", 13000, 0, (SUCCESS, null, STATUS_NOT_FOUND)),
            (c"cuKernelGetFunction", 11000, 0, (SUCCESS, null, STATUS_VERSION)),
            (c"cuInit", -1, 0, (SUCCESS, null, STATUS_VERSION)),
            (c"cuInit", 13000, 4, (INVALID_VALUE, UNTOUCHED, -7)),
            (c"", 13000, 0, (NOT_FOUND, null, STATUS_NOT_FOUND)),
        ] {
            assert_eq!(ask(name, version, flags), expected, "{name:?} {version} {flags}");
        }
    }

    #[test]
    fn the_found_functions_are_this_librarys() {
        let function: *const c_void = cuGetProcAddress_v2 as *const c_void;
        assert_eq!(ask(c"cuGetProcAddress", 12000, 0), (SUCCESS, function.cast_mut(), STATUS_FOUND));
        let function: *const c_void = cuGetProcAddress as *const c_void;
        assert_eq!(ask(c"cuGetProcAddress", 11030, 0), (SUCCESS, function.cast_mut(), STATUS_FOUND));
    }

    #[test]
    fn null_pointers_are_allowed_where_the_driver_allows_them() {
        let (mut function, no_function, no_status) = (UNTOUCHED, std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: each pointer is null or what it should be.
        unsafe {
            assert_eq!(cuGetProcAddress_v2(c"cuInit".as_ptr(), &mut function, 13000, 0, no_status), SUCCESS);
            assert_eq!(function, address("cuInit"));
            assert_eq!(cuGetProcAddress_v2(c"".as_ptr(), no_function, 0, 0, no_status), NOT_FOUND);
            assert_eq!(
                cuGetProcAddress_v2(c"cuInit".as_ptr(), no_function, 13000, 0, no_status),
                INVALID_VALUE
            );
            assert_eq!(
                cuGetProcAddress_v2(std::ptr::null(), &mut function, 13000, 0, no_status),
                INVALID_VALUE
            );
        }
    }

    #[test]
    fn the_older_abi_reports_a_miss_as_an_error() {
        let mut function = UNTOUCHED;
        // SAFETY: a C string and a writable place.
        let mut ask = |name: &CStr| unsafe { cuGetProcAddress(name.as_ptr(), &mut function, 11030, 0) };
        assert_eq!(
            (ask(c"cuInit"), ask(c"cuNothing"), ask(c"cuKernelGetFunction")),
            (SUCCESS, NOT_FOUND, NOT_FOUND)
        );
        assert!(function.is_null());
    }

    #[test]
    fn a_version_beyond_the_drivers_is_an_error() {
        assert_eq!(search(b"cuInit", 13010, 0, 13000), Err(INVALID_VALUE));
        assert!(search(b"cuInit", 13000, 0, 13000).is_ok());
        assert!(search(b"cuInit", 13010, 0, 0).is_ok());
    }
}
