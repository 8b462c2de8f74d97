//! NVRTC's functions, as those that look them up get them. Each has the C signature of `nvrtc.h`.

use super::options::self_contained;
use super::program::{Code, Source, State, programs};
use crate::compile_cache::{CallerIdentity, is_disabled};
use libc::{c_char, c_int, c_void};
use std::ffi::{CStr, CString};
use std::mem::transmute;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

/// `nvrtcResult`
type Status = c_int;
const SUCCESS: Status = 0;
const INTERNAL_ERROR: Status = 11;

/// `nvrtcProgram`
type Handle = *mut c_void;

/// A function of NVRTC and what stands in for it.
struct Function {
    name: &'static CStr,
    /// NVRTC's, once somebody has looked it up.
    real: AtomicPtr<c_void>,
    ours: *const (),
}

// SAFETY: `ours` is the address of a function.
unsafe impl Sync for Function {}

impl Function {
    const fn new(name: &'static CStr, ours: *const ()) -> Self {
        Self { name, real: AtomicPtr::new(std::ptr::null_mut()), ours }
    }

    /// NVRTC's own; it was looked up, or `ours` would not be called.
    fn real(&self) -> Option<*mut c_void> {
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

static LIBRARY: OnceLock<Option<Library>> = OnceLock::new();

/// It has a function that is not known here and might want a program compiled: nothing is found any more.
static IS_UNKNOWN: AtomicBool = AtomicBool::new(false);

/// What a caller gets that has looked `real` up under this name; null if that shall be `real` itself.
pub(super) fn instead_of(name: &CStr, real: *mut c_void) -> *mut c_void {
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
    match FUNCTIONS.iter().find(|function| function.name == name) {
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

fn guard(body: impl FnOnce() -> Status) -> Status {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(INTERNAL_ERROR)
}

/// NVRTC's own function of an index, as what it is.
macro_rules! real {
    ($function:ident as fn($($type:ty),* $(,)?), $($argument:expr),* $(,)?) => {
        match $function.real() {
            // SAFETY: the type is that of nvrtc.h, and the arguments are the caller's.
            Some(real) => unsafe { transmute::<*mut c_void, unsafe extern "C" fn($($type),*) -> Status>(real)($($argument),*) },
            None => INTERNAL_ERROR,
        }
    };
}

/// Functions of a program that ask for something else than code, or change what it is: NVRTC has to have compiled it before.
macro_rules! settled_first {
    ($($static:ident $ours:ident $name:literal),* $(,)?) => {
        $(
            static $static: Function = Function::new($name, $ours as *const ());

            unsafe extern "C" fn $ours(program: Handle, second: *mut c_void, third: *mut c_void) -> Status {
                guard(|| match settle(program) {
                    SUCCESS => real!($static as fn(Handle, *mut c_void, *mut c_void), program, second, third),
                    failed => failed,
                })
            }
        )*
    };
}

settled_first! {
    ADD_NAME add_name c"nvrtcAddNameExpression",
    FLOW flow c"nvrtcSetFlowCallback",
    LOG_SIZE log_size c"nvrtcGetProgramLogSize",
    LOG log c"nvrtcGetProgramLog",
    LOWERED_NAME lowered_name c"nvrtcGetLoweredName",
    LTO_SIZE lto_size c"nvrtcGetLTOIRSize",
    LTO lto c"nvrtcGetLTOIR",
    OPTIX_SIZE optix_size c"nvrtcGetOptiXIRSize",
    OPTIX optix c"nvrtcGetOptiXIR",
    PCH_STATUS pch_status c"nvrtcGetPCHCreateStatus",
    PCH_SIZE pch_size c"nvrtcGetPCHHeapSizeRequired",
}

static CREATE: Function = Function::new(c"nvrtcCreateProgram", create as *const ());
static CREATE_ENCODED: Function = Function::new(c"__nvrtcCPEx", create_encoded as *const ());
static COMPILE: Function = Function::new(c"nvrtcCompileProgram", compile as *const ());
static DESTROY: Function = Function::new(c"nvrtcDestroyProgram", destroy as *const ());
static CUBIN_SIZE: Function = Function::new(c"nvrtcGetCUBINSize", cubin_size as *const ());
static CUBIN: Function = Function::new(c"nvrtcGetCUBIN", cubin as *const ());
static PTX_SIZE: Function = Function::new(c"nvrtcGetPTXSize", ptx_size as *const ());
static PTX: Function = Function::new(c"nvrtcGetPTX", ptx as *const ());

static FUNCTIONS: [&Function; 19] = [
    &CREATE,
    &CREATE_ENCODED,
    &COMPILE,
    &DESTROY,
    &CUBIN_SIZE,
    &CUBIN,
    &PTX_SIZE,
    &PTX,
    &ADD_NAME,
    &FLOW,
    &LOG_SIZE,
    &LOG,
    &LOWERED_NAME,
    &LTO_SIZE,
    &LTO,
    &OPTIX_SIZE,
    &OPTIX,
    &PCH_STATUS,
    &PCH_SIZE,
];

/// Has NVRTC compile a program whose code was found only.
fn settle(program: Handle) -> Status {
    let found = programs().remove(&(program as usize));
    let Some(State::Found(_, options)) = found else { return SUCCESS };
    let options: Vec<_> = options.iter().map(|option| option.as_ptr()).collect();
    let Ok(count) = c_int::try_from(options.len()) else { return INTERNAL_ERROR };
    real!(COMPILE as fn(Handle, c_int, *const *const c_char), program, count, options.as_ptr())
}

unsafe extern "C" fn create(
    program: *mut Handle,
    source: *const c_char,
    name: *const c_char,
    headers: c_int,
    texts: *const *const c_char,
    names: *const *const c_char,
) -> Status {
    guard(|| {
        let created = real!(
            CREATE
                as fn(
                    *mut Handle,
                    *const c_char,
                    *const c_char,
                    c_int,
                    *const *const c_char,
                    *const *const c_char,
                ),
            program,
            source,
            name,
            headers,
            texts,
            names
        );
        if created == SUCCESS && !program.is_null() {
            // SAFETY: NVRTC has written it. Another one may have had this handle, and ended unseen.
            programs().remove(&(unsafe { *program } as usize));
        }
        created
    })
}

/// Seen: (out) program, source up to a NUL, name, headers (none), their texts and names, and how the source is encoded: a number of parts
/// (2; with 0 it is plain), and two lists of so many. The lists are NVRTC's matter.
unsafe extern "C" fn create_encoded(
    program: *mut Handle,
    source: *const c_char,
    name: *const c_char,
    headers: c_int,
    texts: *const *const c_char,
    names: *const *const c_char,
    parts: u32,
    first: *const c_void,
    second: *const c_void,
) -> Status {
    guard(|| {
        // Before the call, after which the source is the caller's again.
        let known = (headers == 0 && parts > 0 && !source.is_null()).then(|| {
            // SAFETY: not null, so the caller promises C strings.
            let (text, name) =
                unsafe { (CStr::from_ptr(source), (!name.is_null()).then(|| CStr::from_ptr(name))) };
            Source::encoded(text, name, parts)
        });
        let created = real!(
            CREATE_ENCODED
                as fn(
                    *mut Handle,
                    *const c_char,
                    *const c_char,
                    c_int,
                    *const *const c_char,
                    *const *const c_char,
                    u32,
                    *const c_void,
                    *const c_void,
                ),
            program,
            source,
            name,
            headers,
            texts,
            names,
            parts,
            first,
            second
        );
        if created == SUCCESS && !program.is_null() {
            // SAFETY: NVRTC has written it.
            let handle = unsafe { *program } as usize;
            match known {
                Some(source) => programs().insert(handle, State::Real(source)),
                None => programs().remove(&handle),
            };
        }
        created
    })
}

unsafe extern "C" fn compile(program: Handle, count: c_int, options: *const *const c_char) -> Status {
    guard(|| {
        let real = || real!(COMPILE as fn(Handle, c_int, *const *const c_char), program, count, options);
        // Until it is known what comes of this.
        let known = programs().remove(&(program as usize));
        let Some(State::Real(source)) = known.filter(|_| !IS_UNKNOWN.load(Ordering::Relaxed)) else {
            return real();
        };
        // SAFETY: the caller promises so many C strings.
        let options = unsafe { self_contained(count, options) };
        let (Some(options), Some(Some(library))) = (options, LIBRARY.get()) else { return real() };
        let key = source.key(&options, &library.identity);
        if let Some(code) = Code::find(&key) {
            let options = options.into_iter().map(CString::from).collect();
            programs().insert(program as usize, State::Found(code, options));
            return SUCCESS;
        }
        let compiled = real();
        if compiled == SUCCESS {
            made_of(program).put(&key);
        }
        compiled
    })
}

/// What NVRTC made of a program that it has compiled.
fn made_of(program: Handle) -> Code {
    let part = |size: &Function, bytes: &Function| {
        let mut length = 0_usize;
        let sized = real!(size as fn(Handle, *mut usize), program, &mut length);
        let mut code = vec![0; if sized == SUCCESS { length } else { 0 }];
        let is_there =
            !code.is_empty() && real!(bytes as fn(Handle, *mut u8), program, code.as_mut_ptr()) == SUCCESS;
        if is_there { code } else { Vec::new() }
    };
    Code { cubin: part(&CUBIN_SIZE, &CUBIN), ptx: part(&PTX_SIZE, &PTX) }
}

unsafe extern "C" fn destroy(program: *mut Handle) -> Status {
    guard(|| {
        if !program.is_null() {
            // SAFETY: not null, so the caller promises a program's handle.
            programs().remove(&(unsafe { *program } as usize));
        }
        real!(DESTROY as fn(*mut Handle), program)
    })
}

/// Copies what is asked for from code that was found. False if NVRTC must be asked.
fn is_given(program: Handle, give: impl FnOnce(&Code) -> bool) -> bool {
    matches!(programs().get(&(program as usize)), Some(State::Found(code, _)) if give(code))
}

/// Says how long a part is, unless it is empty.
///
/// # Safety
/// `size` is null or writable.
unsafe fn give_size(part: &[u8], size: *mut usize) -> bool {
    let is_given = !part.is_empty() && !size.is_null();
    if is_given {
        // SAFETY: not null.
        unsafe { size.write(part.len()) };
    }
    is_given
}

/// Copies a part, unless it is empty.
///
/// # Safety
/// `bytes` is null or has room for it.
unsafe fn give_bytes(part: &[u8], bytes: *mut u8) -> bool {
    let is_given = !part.is_empty() && !bytes.is_null();
    if is_given {
        // SAFETY: not null, so there is room for what the caller was told.
        unsafe { bytes.copy_from_nonoverlapping(part.as_ptr(), part.len()) };
    }
    is_given
}

macro_rules! parts {
    ($($ours:ident $static:ident $type:ty, $give:ident, $part:ident);* $(;)?) => {
        $(
            unsafe extern "C" fn $ours(program: Handle, out: $type) -> Status {
                // SAFETY: the caller promises room for what nvrtc.h says.
                guard(|| match is_given(program, |code| unsafe { $give(&code.$part, out) }) {
                    true => SUCCESS,
                    false => match settle(program) {
                        SUCCESS => real!($static as fn(Handle, $type), program, out),
                        failed => failed,
                    },
                })
            }
        )*
    };
}

parts! {
    cubin_size CUBIN_SIZE *mut usize, give_size, cubin;
    cubin CUBIN *mut u8, give_bytes, cubin;
    ptx_size PTX_SIZE *mut usize, give_size, ptx;
    ptx PTX *mut u8, give_bytes, ptx;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

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
        assert!(
            instead_of(c"nvrtcCompileProgram", libc::getpid as *mut c_void).is_null(),
            "another library's"
        );
        assert!(instead_of(c"nvrtcVersion", fake::no_ptx as *mut c_void).is_null());
        assert!(instead_of(c"nvrtcNewerThanThis", fake::no_ptx as *mut c_void).is_null());
        assert_eq!(of(c"encoded", 2, false), expected(1), "it might want a program compiled");
    }
}
