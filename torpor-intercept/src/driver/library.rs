//! Libraries: modules that belong to no context.

use super::argument::{In, Out, Text};
use super::cuda_functions;
use super::jit::JitOptions;
use super::module::load_file;
use crate::core::{CudaResult, Image, Kernel, client};
use std::ffi::c_void;

/// `CU_LIBRARY_BINARY_IS_PRESERVED`: the code stays readable until the library is unloaded.
const BINARY_IS_PRESERVED: u32 = 1;

/// Whether the library's options say that the code stays.
pub(crate) fn is_preserved(options: In<u32>, values: In<usize>, count: u32) -> CudaResult<bool> {
    let options = options.slice(count as usize)?;
    // Values may be left out: the option says all there is to say. A value is a number in the place of a pointer.
    let is_wanted = |index| match values.slice(count as usize) {
        Ok(values) => values[index] != 0,
        Err(_) => true,
    };
    Ok(options.iter().position(|&option| option == BINARY_IS_PRESERVED).is_some_and(is_wanted))
}

cuda_functions! {
    fn cuLibraryLoadData(
        library: Out<*mut c_void>, code: *const u8, jit_options: In<u32>, jit_values: Out<usize>,
        jit_count: u32, options: In<u32>, values: In<usize>, count: u32,
    ) {
        client()?;
        let jit = JitOptions::read(jit_count, jit_options, jit_values)?;
        let is_preserved = is_preserved(options, values, count)?;
        // SAFETY: the program promises that this is the beginning of an image, and with the option that it stays.
        let image = unsafe { Image::load_chosen(code, is_preserved, jit.choices())? };
        library.put(image.handle())
    }

    fn cuLibraryLoadFromFile(
        library: Out<*mut c_void>, path: Text, jit_options: In<u32>, jit_values: Out<usize>,
        jit_count: u32, _options: *const u32, _values: *const *mut c_void, _count: u32,
    ) {
        client()?;
        let jit = JitOptions::read(jit_count, jit_options, jit_values)?;
        library.put(load_file(path, &jit)?.handle())
    }

    fn cuLibraryUnload(library: *mut c_void) {
        client()?;
        Image::find(library)?.unload()
    }

    fn cuLibraryGetKernel(kernel: Out<*mut c_void>, library: *mut c_void, name: Text) {
        client()?;
        kernel.put(Image::find(library)?.kernel(name.get()?)?.handle())
    }

    fn cuLibraryGetKernelCount(count: Out<u32>, library: *mut c_void) {
        client()?;
        count.put(Image::find(library)?.kernel_names()?.len() as u32)
    }

    fn cuLibraryEnumerateKernels(kernels: Out<*mut c_void>, room: u32, library: *mut c_void) {
        client()?;
        let image = Image::find(library)?;
        let found = image.kernel_names()?.into_iter().take(room as usize).map(|name| image.kernel(name));
        kernels.put_all(found.collect::<CudaResult<Vec<&Kernel>>>()?.into_iter().map(Kernel::handle))
    }

    /// The same object serves as both.
    fn cuLibraryGetModule(module: Out<*mut c_void>, library: *mut c_void) {
        client()?;
        module.put(Image::find(library)?.handle())
    }

    fn cuLibraryGetManaged(address: Out<u64>, bytes: Out<usize>, library: *mut c_void, name: Text) {
        client()?;
        let variable = Image::find(library)?.managed_variable(name.get()?)?;
        address.put_if_wanted(variable.address);
        bytes.put_if_wanted(variable.bytes as usize);
        Ok(())
    }

    fn cuLibraryGetGlobal(address: Out<u64>, bytes: Out<usize>, library: *mut c_void, name: Text) {
        client()?;
        let global = Image::find(library)?.here()?.global(name.get()?)?;
        address.put_if_wanted(global.address);
        bytes.put_if_wanted(global.bytes as usize);
        Ok(())
    }
}
