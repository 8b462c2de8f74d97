//! Modules and the functions in them.

use super::argument::{In, Out, Text};
use super::cuda_functions;
use crate::core::{CudaResult, Image, client, contexts, read_image_file};
use std::ffi::{OsStr, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use torpor_proto::error::CudaError;

/// `CU_MODULE_LAZY_LOADING`
const LAZY_LOADING: u32 = 2;

/// `CU_JIT_INFO_LOG_BUFFER` and `CU_JIT_ERROR_LOG_BUFFER`, each with the option that says how many bytes it has, and gives how many were
/// written. Source: `cuda.h`; `cudaJitOption` has the same numbers.
const LOG_OPTIONS: [(u32, u32); 2] = [(3, 4), (5, 6)];

/// Takes an image whose bytes are the program's only during the call.
pub(super) fn load(pointer: *const u8) -> CudaResult<&'static Image> {
    client()?;
    contexts::require()?;
    // SAFETY: the program promises that this is the beginning of an image (cuModuleLoadData).
    let image = unsafe { Image::load(pointer, false) }?;
    image.compile()?;
    Ok(image)
}

pub(crate) fn load_file(path: Text) -> CudaResult<&'static Image> {
    let path = path.get()?;
    let bytes = read_image_file(Path::new(OsStr::from_bytes(path.as_bytes())))?;
    load(bytes.as_ptr())
}

/// Says that the compiler's logs are empty: programs print them without asking how long they are. An option's value is an address or a
/// number in the place of one.
pub(crate) fn empty_logs(count: u32, options: In<u32>, values: Out<usize>) -> CudaResult<()> {
    let options = options.slice(count as usize)?;
    let is_asked = |option: &u32| LOG_OPTIONS.iter().any(|log| log.0 == *option || log.1 == *option);
    if !options.iter().any(is_asked) {
        return Ok(());
    }
    let mut values_after = values.slice(options.len())?;
    let place_of = |wanted| options.iter().position(|&option| option == wanted);
    for (buffer, size) in LOG_OPTIONS {
        let Some(size) = place_of(size) else { continue };
        // The size is a 32-bit number, whatever its neighbours in the place of a pointer are.
        let room = std::mem::take(&mut values_after[size]) as u32;
        if let Some(buffer) = place_of(buffer)
            && room > 0
        {
            values.cast::<Out<u8>>().slice(options.len())?[buffer].put_if_wanted(0);
        }
    }
    values.put_all(values_after)
}

cuda_functions! {
    fn cuModuleLoad(module: Out<*mut c_void>, path: Text) {
        module.put(load_file(path)?.handle())
    }

    fn cuModuleLoadData(module: Out<*mut c_void>, image: *const u8) {
        module.put(load(image)?.handle())
    }

    fn cuModuleLoadDataEx(
        module: Out<*mut c_void>, image: *const u8, count: u32, options: In<u32>, values: Out<usize>,
    ) {
        client()?;
        empty_logs(count, options, values)?;
        module.put(load(image)?.handle())
    }

    fn cuModuleLoadFatBinary(module: Out<*mut c_void>, image: *const u8) {
        module.put(load(image)?.handle())
    }

    fn cuModuleUnload(module: *mut c_void) {
        client()?;
        Image::find(module)?.unload()
    }

    fn cuModuleGetFunction(function: Out<*mut c_void>, module: *mut c_void, name: Text) {
        client()?;
        function.put(Image::find(module)?.kernel(name.get()?)?.handle())
    }

    fn cuModuleGetFunctionCount(count: Out<u32>, module: *mut c_void) {
        client()?;
        count.put(Image::find(module)?.kernel_names()?.len() as u32)
    }

    fn cuModuleEnumerateFunctions(functions: Out<*mut c_void>, room: u32, module: *mut c_void) {
        client()?;
        let image = Image::find(module)?;
        let kernels = image.kernel_names()?.into_iter().take(room as usize).map(|name| image.kernel(name));
        functions.put_all(kernels.collect::<CudaResult<Vec<_>>>()?.into_iter().map(|kernel| kernel.handle()))
    }

    fn cuModuleGetGlobal_v2(address: Out<u64>, bytes: Out<usize>, module: *mut c_void, name: Text) {
        client()?;
        if address.is_null() && bytes.is_null() {
            return Err(CudaError::INVALID_VALUE);
        }
        let global = Image::find(module)?.global(name.get()?)?;
        address.put_if_wanted(global.address);
        bytes.put_if_wanted(global.bytes as usize);
        Ok(())
    }

    fn cuModuleGetLoadingMode(mode: Out<u32>) {
        mode.put(LAZY_LOADING)
    }
}
