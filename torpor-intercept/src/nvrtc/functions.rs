//! NVRTC's functions, as those that look them up get them. Each has the C signature of `nvrtc.h`.

mod table;

use super::options::self_contained;
use super::program::{Code, Source, State, programs};
use libc::{c_char, c_int, c_void};
use std::ffi::{CStr, CString};
use std::mem::transmute;
use std::panic::{AssertUnwindSafe, catch_unwind};
use table::Function;

/// `nvrtcResult`
type Status = c_int;
const SUCCESS: Status = 0;
const INTERNAL_ERROR: Status = 11;

/// `nvrtcProgram`
type Handle = *mut c_void;

/// What a caller gets that has looked `real` up under this name; null if that shall be `real` itself.
pub(super) fn instead_of(name: &CStr, real: *mut c_void) -> *mut c_void {
    table::instead_of(&FUNCTIONS, name, real)
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
        let (Some(State::Real(source)), Some(identity)) = (known, table::identity()) else { return real() };
        // SAFETY: the caller promises so many C strings.
        let options = unsafe { self_contained(count, options) };
        let Some(options) = options else { return real() };
        let key = source.key(&options, identity);
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
mod tests;
