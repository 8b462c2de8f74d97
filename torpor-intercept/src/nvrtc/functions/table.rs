//! Which of NVRTC's functions are stood in for, and in which library.

use crate::compile_cache::{CallerIdentity, is_disabled};
use libc::c_void;
use std::ffi::CStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

/// A function of NVRTC and what stands in for it.
pub(super) struct Function {
    name: &'static CStr,
    /// NVRTC's, once somebody has looked it up.
    real: AtomicPtr<c_void>,
    ours: *const (),
}

// SAFETY: `ours` is the address of a function.
unsafe impl Sync for Function {}

impl Function {
    pub(super) const fn new(name: &'static CStr, ours: *const ()) -> Self {
        Self { name, real: AtomicPtr::new(std::ptr::null_mut()), ours }
    }

    /// NVRTC's own; it was looked up, or `ours` would not be called.
    pub(super) fn real(&self) -> Option<*mut c_void> {
        Some(self.real.load(Ordering::Acquire)).filter(|real| !real.is_null())
    }
}

/// Functions that have nothing to do with a program.
const OTHERS: [&CStr; 6] = [
    c"nvrtcVersion",
    c"nvrtcGetErrorString",
    c"nvrtcGetNumSupportedArchs",
    c"nvrtcGetSupportedArchs",
    c"nvrtcGetPCHHeapSize",
    c"nvrtcSetPCHHeapSize",
];

/// The library whose functions these stand in for: the first that was looked up. Others are left alone.
struct Library {
    base: usize,
    identity: CallerIdentity,
}

/// Who the library is, if programs may be found that it would compile.
pub(super) fn identity() -> Option<&'static CallerIdentity> {
    LIBRARY.get()?.as_ref().map(|library| &library.identity).filter(|_| !IS_UNKNOWN.load(Ordering::Relaxed))
}

static LIBRARY: OnceLock<Option<Library>> = OnceLock::new();

/// It has a function that is not known here and might want a program compiled: nothing is found any more.
static IS_UNKNOWN: AtomicBool = AtomicBool::new(false);

/// What a caller gets that has looked `real` up under this name; null if that shall be `real` itself.
pub(super) fn instead_of(functions: &[&'static Function], name: &CStr, real: *mut c_void) -> *mut c_void {
    if real.is_null() || is_disabled() || OTHERS.contains(&name) {
        return std::ptr::null_mut();
    }
    let base = base_of(real);
    let library = LIBRARY.get_or_init(|| {
        let identity = CallerIdentity::at(real as usize)?;
        Some(Library { base: base?, identity })
    });
    if library.as_ref().map(|library| library.base) != base {
        return std::ptr::null_mut();
    }
    match functions.iter().find(|function| function.name == name) {
        Some(function) => {
            function.real.store(real, Ordering::Release);
            function.ours.cast_mut().cast()
        }
        None => {
            IS_UNKNOWN.store(true, Ordering::Relaxed);
            std::ptr::null_mut()
        }
    }
}

/// Where the library is mapped that has a function.
fn base_of(function: *mut c_void) -> Option<usize> {
    // SAFETY: plain integers and pointers, for which zeros are values.
    let mut found: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: `found` is writable.
    (unsafe { libc::dladdr(function, &mut found) } != 0).then_some(found.dli_fbase as usize)
}
