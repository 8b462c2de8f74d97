//! Modules and the functions in them.

use super::argument::{In, Out, Text};
use super::cuda_functions;
use super::jit::JitOptions;
use crate::core::{CudaResult, Image, client, contexts, read_image_file};
use std::ffi::{OsStr, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use torpor_proto::error::CudaError;

/// `CU_MODULE_LAZY_LOADING`
const LAZY_LOADING: u32 = 2;

/// Takes an image whose bytes are the program's only during the call.
pub(super) fn load(pointer: *const u8, options: &JitOptions) -> CudaResult<&'static Image> {
    client()?;
    contexts::require()?;
    // SAFETY: the program promises that this is the beginning of an image (cuModuleLoadData).
    let image = unsafe { Image::load_chosen(pointer, false, options.choices()) }?;
    image.compile().map_err(|refusal| {
        options.tell_errors(&refusal.said);
        refusal.error
    })?;
    Ok(image)
}

pub(crate) fn load_file(path: Text, options: &JitOptions) -> CudaResult<&'static Image> {
    let path = path.get()?;
    let bytes = read_image_file(Path::new(OsStr::from_bytes(path.as_bytes())))?;
    load(bytes.as_ptr(), options)
}

cuda_functions! {
    fn cuModuleLoad(module: Out<*mut c_void>, path: Text) {
        module.put(load_file(path, &JitOptions::default())?.handle())
    }

    fn cuModuleLoadData(module: Out<*mut c_void>, image: *const u8) {
        module.put(load(image, &JitOptions::default())?.handle())
    }

    fn cuModuleLoadDataEx(
        module: Out<*mut c_void>, image: *const u8, count: u32, options: In<u32>, values: Out<usize>,
    ) {
        client()?;
        module.put(load(image, &JitOptions::read(count, options, values)?)?.handle())
    }

    fn cuModuleLoadFatBinary(module: Out<*mut c_void>, image: *const u8) {
        module.put(load(image, &JitOptions::default())?.handle())
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
