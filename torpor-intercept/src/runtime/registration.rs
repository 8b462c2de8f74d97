//! Registration: what compiled CUDA code tells the runtime when it is loaded, before anything runs.
//!
//! Only notes are taken here. PyTorch registers 444 images of 298 MB with 22,000 kernels while it is imported; an image
//! is looked at when the first of its kernels or variables is wanted. The functions have no header that is shipped;
//! their signatures are those that nvcc's generated code calls.

use super::function_cache;
use super::launch::Dim3;
use super::ready;
use crate::core::{CudaResult, Image, Kernel};
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use torpor_proto::error::CudaError;

/// An image that compiled code registered. Never freed: its address is the handle that the code holds.
pub(super) struct FatBinary {
    /// `__fatBinC_Wrapper_t`, in the data of the library that registered it.
    wrapper: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    image: Option<&'static Image>,
    /// Its managed variables, to be looked up when one is used for the first time.
    managed: Vec<Managed>,
    is_unregistered: bool,
    /// What was registered with it, to be forgotten with it.
    functions: Vec<usize>,
    variables: Vec<usize>,
}

/// A kernel, by the address of its host function.
#[derive(Clone, Copy)]
struct Function {
    binary: &'static FatBinary,
    name: Name,
    kernel: Option<&'static Kernel>,
}

/// A device variable, by the address of its host shadow.
#[derive(Clone, Copy)]
pub(super) struct Variable {
    binary: &'static FatBinary,
    name: Name,
    /// Length in bytes.
    pub(super) bytes: usize,
}

/// A managed variable: where the program has its address, and what it is.
#[derive(Clone, Copy)]
struct Managed {
    pointer: usize,
    name: Name,
    bytes: usize,
}

/// A C string in the data of the library that registered it: valid until it unregisters.
#[derive(Clone, Copy)]
struct Name(*const c_char);

// SAFETY: the string is constant data, readable from every thread.
unsafe impl Send for Name {}
// SAFETY: as above.
unsafe impl Sync for Name {}

/// By address of what stands for them on the host.
#[derive(Default)]
struct Registered {
    functions: HashMap<usize, Function>,
    variables: HashMap<usize, Variable>,
}

static REGISTERED: RwLock<Option<Registered>> = RwLock::new(None);

fn read() -> RwLockReadGuard<'static, Option<Registered>> {
    REGISTERED.read().unwrap_or_else(PoisonError::into_inner)
}

fn write() -> RwLockWriteGuard<'static, Option<Registered>> {
    REGISTERED.write().unwrap_or_else(PoisonError::into_inner)
}

impl FatBinary {
    /// The image, looked at for the first time if need be.
    fn image(&self) -> CudaResult<&'static Image> {
        let mut state = self.lock();
        if state.is_unregistered {
            return Err(CudaError::INVALID_HANDLE);
        }
        if let Some(image) = state.image {
            return Ok(image);
        }
        let wrapper = std::ptr::with_exposed_provenance(self.wrapper);
        // SAFETY: the code that registered the image keeps it in place until it unregisters it.
        let image = unsafe { Image::load(wrapper, true)? };
        if !state.managed.is_empty() {
            image.keep_one();
        }
        state.image = Some(image);
        Ok(image)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A variable of it is known by this address from now on.
    fn register(&self, address: usize, variable: Variable) {
        write().get_or_insert_default().variables.insert(address, variable);
        self.lock().variables.push(address);
    }

    /// Puts the addresses of managed variables where the program looks for them. By these it names them, too.
    fn find_managed(&'static self) -> Result<(), (CString, CudaError)> {
        let all = self.lock().managed.clone();
        for Managed { pointer, name, bytes } in all {
            let found = ready().and_then(|_| self.image()?.managed_variable(owned(name)));
            let address = found.map_err(|error| (owned(name), error))?.address as usize;
            self.register(address, Variable { binary: self, name, bytes });
            let pointer = std::ptr::with_exposed_provenance_mut::<usize>(pointer);
            // SAFETY: the program registered it as the place for this address, and reads it when this has returned; several
            // threads write the same.
            unsafe { pointer.write_volatile(address) };
        }
        Ok(())
    }
}

/// The kernel whose host function has this address; `None` if none has.
pub(super) fn kernel(host_function: usize) -> CudaResult<Option<&'static Kernel>> {
    let (binary, name) = {
        let registered = read();
        let function = registered.as_ref().and_then(|all| all.functions.get(&host_function));
        let Some(function) = function else { return Ok(None) };
        if let Some(kernel) = function.kernel {
            return Ok(Some(kernel));
        }
        (function.binary, owned(function.name))
    };
    // Without the lock: this may send an image to the server, and other threads launch meanwhile.
    let kernel = binary.image()?.kernel(name)?;
    let mut registered = write();
    let function = registered.as_mut().and_then(|all| all.functions.get_mut(&host_function));
    // Meanwhile the address may have become that of another library's function.
    if let Some(function) = function.filter(|function| std::ptr::eq(function.binary, binary)) {
        function.kernel = Some(kernel);
    }
    Ok(Some(kernel))
}

/// The address of the host function of a kernel that was launched or asked for by it; `None` if it has none.
pub(super) fn host_function(kernel: &Kernel) -> Option<usize> {
    let registered = read();
    let mut functions = registered.as_ref()?.functions.iter();
    let is_it = |function: &Function| function.kernel.is_some_and(|known| std::ptr::eq(known, kernel));
    functions.find(|(_, function)| is_it(function)).map(|(&address, _)| address)
}

/// The variable whose host shadow has this address.
pub(super) fn variable(host_variable: usize) -> Option<Variable> {
    read().as_ref().and_then(|all| all.variables.get(&host_variable).copied())
}

impl Variable {
    /// Its address on the device.
    pub(super) fn address(&self) -> CudaResult<u64> {
        Ok(self.binary.image()?.here()?.global(owned(self.name))?.address)
    }
}

fn owned(name: Name) -> CString {
    // SAFETY: a C string that stays until its library unregisters, which nobody does who uses the library now.
    unsafe { CStr::from_ptr(name.0) }.to_owned()
}

/// The image behind a handle that [`__cudaRegisterFatBinary`] gave.
fn binary(handle: *mut c_void) -> Option<&'static FatBinary> {
    // SAFETY: compiled code passes the handle it was given, which is the address of a leaked value, or null.
    unsafe { handle.cast::<FatBinary>().as_ref() }
}

/// For functions without a result: a panic, which would be a bug, must not reach the program.
fn contain(body: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(body));
}

pub(super) extern "C" fn __cudaRegisterFatBinary(wrapper: *const c_void) -> *mut c_void {
    let binary = FatBinary { wrapper: wrapper.expose_provenance(), state: Mutex::default() };
    std::ptr::from_mut(Box::leak(Box::new(binary))).cast()
}

pub(super) extern "C" fn __cudaRegisterFatBinaryEnd(_binary: *mut c_void) {}

/// A managed variable of the image is going to be used, for which the program has a pointer; 1 says that all of them are ready.
pub(super) extern "C" fn __cudaInitModule(handle: *mut c_void) -> c_char {
    let initialized = catch_unwind(AssertUnwindSafe(|| match binary(handle) {
        Some(binary) => binary.find_managed(),
        None => Ok(()),
    }));
    match initialized {
        Ok(Ok(())) => 1,
        Ok(Err((name, error))) => {
            crate::log::write(&format!("no address for the managed variable {name:?}: CUDA error {error}"));
            0
        }
        Err(_) => 0,
    }
}

pub(super) extern "C" fn __cudaRegisterFunction(
    handle: *mut c_void,
    host_function: *const c_void,
    _device_function: *const c_char,
    name: *const c_char,
    _thread_limit: c_int,
    _thread_id: *const c_void,
    _block_id: *const c_void,
    _block: *const Dim3,
    _grid: *const Dim3,
    _warp_size: *const c_int,
) {
    contain(|| {
        let Some(binary) = binary(handle).filter(|_| !name.is_null()) else { return };
        let function = Function { binary, name: Name(name), kernel: None };
        write().get_or_insert_default().functions.insert(host_function.addr(), function);
        let mut state = binary.lock();
        state.functions.push(host_function.addr());
    });
}

pub(super) extern "C" fn __cudaRegisterVar(
    handle: *mut c_void,
    host_variable: *const c_void,
    _device_address: *const c_char,
    name: *const c_char,
    _is_external: c_int,
    bytes: usize,
    _is_constant: c_int,
    _is_global: c_int,
) {
    contain(|| {
        let Some(binary) = binary(handle).filter(|_| !name.is_null()) else { return };
        binary.register(host_variable.addr(), Variable { binary, name: Name(name), bytes });
    });
}

/// `pointer` is where the program looks for the variable's address.
pub(super) extern "C" fn __cudaRegisterManagedVar(
    handle: *mut c_void,
    pointer: *mut *mut c_void,
    _device_address: *const c_char,
    name: *const c_char,
    _is_external: c_int,
    bytes: usize,
    _is_constant: c_int,
    _is_global: c_int,
) {
    contain(|| {
        let Some(binary) = binary(handle).filter(|_| !name.is_null() && !pointer.is_null()) else { return };
        binary.register(pointer.addr(), Variable { binary, name: Name(name), bytes });
        let pointer = pointer.expose_provenance();
        binary.lock().managed.push(Managed { pointer, name: Name(name), bytes });
    });
}

/// The library that registered the image is going away.
pub(super) extern "C" fn __cudaUnregisterFatBinary(handle: *mut c_void) {
    contain(|| {
        let Some(binary) = binary(handle) else { return };
        let state = {
            let mut state = binary.lock();
            std::mem::replace(&mut *state, State { is_unregistered: true, ..State::default() })
        };
        if let Some(all) = write().as_mut() {
            // Another library at the same addresses may have registered its own by now.
            let is_own = |known: &'static FatBinary| std::ptr::eq(known, binary);
            for address in &state.functions {
                if all.functions.get(address).is_some_and(|function| is_own(function.binary)) {
                    all.functions.remove(address);
                }
            }
            for address in &state.variables {
                if all.variables.get(address).is_some_and(|variable| is_own(variable.binary)) {
                    all.variables.remove(address);
                }
            }
        }
        function_cache::forget();
        if let Some(image) = state.image {
            // The process may be ending and the server gone: there is nobody to tell.
            let _ = image.unload();
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ptr;

    static FUNCTION: u8 = 0;
    static VARIABLE: u8 = 0;

    #[test]
    fn what_is_registered_is_found_until_it_is_unregistered() {
        let host = |thing: &'static u8| ptr::from_ref(thing).cast::<c_void>();
        let no_image = [0u8; 32];
        let handle = __cudaRegisterFatBinary(no_image.as_ptr().cast());
        let (name, none) = (c"kernel".as_ptr(), ptr::null());
        __cudaRegisterFunction(
            handle,
            host(&FUNCTION),
            none,
            name,
            -1,
            none.cast(),
            none.cast(),
            ptr::null(),
            ptr::null(),
            ptr::null(),
        );
        __cudaRegisterVar(handle, host(&VARIABLE), none, c"variable".as_ptr(), 0, 12, 0, 0);
        __cudaRegisterFatBinaryEnd(handle);
        assert_eq!(variable(host(&VARIABLE).addr()).unwrap().bytes, 12);
        let mut managed = ptr::null_mut();
        let pointer = &raw mut managed;
        __cudaRegisterManagedVar(handle, pointer, none, c"managed".as_ptr(), 0, 8, 0, 0);
        assert_eq!(variable(pointer.addr()).unwrap().bytes, 8);
        assert_eq!((__cudaInitModule(handle), managed), (0, ptr::null_mut()), "no server has it");
        // Without a server there is no image to be had, but the function is known.
        assert!(kernel(host(&FUNCTION).addr()).is_err());
        assert!(matches!(kernel(1), Ok(None)));
        __cudaUnregisterFatBinary(handle);
        assert!(variable(host(&VARIABLE).addr()).is_none());
        assert!(matches!(kernel(host(&FUNCTION).addr()), Ok(None)));
        assert!(variable(pointer.addr()).is_none());
        __cudaUnregisterFatBinary(ptr::null_mut());
        assert_eq!(__cudaInitModule(ptr::null_mut()), 1);
    }
}
