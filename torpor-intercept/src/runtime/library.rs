//! Libraries: images that the program loads itself.

use super::{ready, runtime_functions};
use crate::core::{CudaResult, Image, Kernel};
use crate::driver::argument::{In, Out, Text};
use crate::driver::jit::JitOptions;
use crate::driver::library::is_preserved;
use crate::driver::module::load_file;
use std::ffi::c_void;

runtime_functions! {
    fn cudaLibraryLoadData(
        library: Out<*mut c_void>, code: *const u8, jit_options: In<u32>, jit_values: Out<usize>,
        jit_count: u32, options: In<u32>, values: In<usize>, count: u32,
    ) {
        ready()?;
        let jit = JitOptions::read(jit_count, jit_options, jit_values)?;
        let is_preserved = is_preserved(options, values, count)?;
        // SAFETY: the program promises that this is the beginning of an image, and with the option that it stays.
        let image = unsafe { Image::load_chosen(code, is_preserved, jit.choices())? };
        library.put(image.handle())
    }

    fn cudaLibraryLoadFromFile(
        library: Out<*mut c_void>, path: Text, jit_options: In<u32>, jit_values: Out<usize>,
        jit_count: u32, _options: *const u32, _values: *const *mut c_void, _count: u32,
    ) {
        ready()?;
        let jit = JitOptions::read(jit_count, jit_options, jit_values)?;
        library.put(load_file(path, &jit)?.handle())
    }

    fn cudaLibraryUnload(library: *mut c_void) {
        ready()?;
        Image::find(library)?.unload()
    }

    fn cudaLibraryGetKernel(kernel: Out<*mut c_void>, library: *mut c_void, name: Text) {
        ready()?;
        kernel.put(Image::find(library)?.kernel(name.get()?)?.handle())
    }

    fn cudaLibraryGetKernelCount(count: Out<u32>, library: *mut c_void) {
        ready()?;
        count.put(Image::find(library)?.kernel_names()?.len() as u32)
    }

    fn cudaLibraryEnumerateKernels(kernels: Out<*mut c_void>, room: u32, library: *mut c_void) {
        ready()?;
        let image = Image::find(library)?;
        let found = image.kernel_names()?.into_iter().take(room as usize).map(|name| image.kernel(name));
        kernels.put_all(found.collect::<CudaResult<Vec<&Kernel>>>()?.into_iter().map(Kernel::handle))
    }

    fn cudaLibraryGetManaged(address: Out<u64>, bytes: Out<usize>, library: *mut c_void, name: Text) {
        ready()?;
        let variable = Image::find(library)?.managed_variable(name.get()?)?;
        address.put_if_wanted(variable.address);
        bytes.put_if_wanted(variable.bytes as usize);
        Ok(())
    }

    fn cudaLibraryGetGlobal(address: Out<u64>, bytes: Out<usize>, library: *mut c_void, name: Text) {
        ready()?;
        let global = Image::find(library)?.here()?.global(name.get()?)?;
        address.put_if_wanted(global.address);
        bytes.put_if_wanted(global.bytes as usize);
        Ok(())
    }
}
