//! Code: libraries loaded from images, and the kernels in them.

use super::{Device, Handle};
use std::ffi::{CStr, CString};
use std::sync::Arc;
use torpor_proto::command::{KERNEL_ATTRIBUTES, Parameter};
use torpor_proto::error::CudaError;

/// More parameters than any kernel can have: the largest parameter block has 32,764 bytes.
const MAX_PARAMETERS: usize = 32 * 1024;

/// A loaded image.
#[derive(Debug)]
pub struct CodeLibrary {
    device: Arc<Device>,
    handle: Handle,
}

/// A kernel of a [`CodeLibrary`], which must outlive its use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// What launches in streams of green contexts take: the driver finds its function in the stream's context.
    pub(super) handle: Handle,
    /// The function it is in the device's context: what launches and occupancy questions take.
    pub(super) function: Handle,
}

impl CodeLibrary {
    /// Loads an image. The driver keeps what it needs of the bytes.
    ///
    /// # Errors
    /// The driver's.
    ///
    /// # Safety
    /// `image` is a complete fatbin container or cubin, or PTX text with its NUL: the driver is not told the length.
    pub unsafe fn load(device: &Arc<Device>, image: &[u8]) -> Result<Self, CudaError> {
        let (none, no_values, mut handle) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
        // SAFETY: the caller promises a complete image; no options are passed.
        CudaError::check(unsafe {
            (device.table().cuLibraryLoadData)(
                &mut handle,
                image.as_ptr().cast(),
                none,
                no_values,
                0,
                none,
                no_values,
                0,
            )
        })?;
        Ok(Self { device: device.clone(), handle })
    }

    /// Finds a kernel by its (mangled) name, and loads its code, and makes room for its stack, for which its first launch would wait until no
    /// kernel runs.
    ///
    /// # Errors
    /// The driver's.
    pub fn kernel(&self, name: &str) -> Result<Kernel, CudaError> {
        let name = CString::new(name).map_err(|_| CudaError::INVALID_VALUE)?;
        let (mut handle, mut function) = (0, 0);
        // SAFETY: the handle is alive as long as self; writes one handle.
        CudaError::check(unsafe {
            (self.device.table().cuLibraryGetKernel)(&mut handle, self.handle, name.as_ptr())
        })?;
        // SAFETY: the kernel was just found; writes one handle.
        CudaError::check(unsafe { (self.device.table().cuKernelGetFunction)(&mut function, handle) })?;
        // What it cannot make, the launch will say.
        // SAFETY: the function was just found.
        let _ = unsafe { (self.device.table().cuFuncLoad)(function) };
        Ok(Kernel { handle, function })
    }

    /// Address and length of a global variable.
    ///
    /// # Errors
    /// The driver's.
    pub fn global(&self, name: &str) -> Result<(u64, u64), CudaError> {
        let name = CString::new(name).map_err(|_| CudaError::INVALID_VALUE)?;
        let (mut address, mut bytes) = (0, 0);
        // SAFETY: the handle is alive as long as self; writes an address and a size.
        CudaError::check(unsafe {
            (self.device.table().cuLibraryGetGlobal)(&mut address, &mut bytes, self.handle, name.as_ptr())
        })?;
        Ok((address, bytes as u64))
    }

    /// The names of all kernels.
    ///
    /// # Errors
    /// The driver's.
    pub fn kernel_names(&self) -> Result<Vec<CString>, CudaError> {
        let table = self.device.table();
        let mut count = 0;
        // SAFETY: the handle is alive as long as self; writes one number.
        CudaError::check(unsafe { (table.cuLibraryGetKernelCount)(&mut count, self.handle) })?;
        let mut kernels = vec![0; count as usize];
        // SAFETY: writes at most `count` handles.
        CudaError::check(unsafe {
            (table.cuLibraryEnumerateKernels)(kernels.as_mut_ptr(), count, self.handle)
        })?;
        let name = |&kernel: &Handle| {
            let mut name = std::ptr::null();
            // SAFETY: the kernel was just enumerated; writes one pointer.
            CudaError::check(unsafe { (table.cuKernelGetName)(&mut name, kernel) })?;
            if name.is_null() {
                return Err(CudaError::NOT_FOUND);
            }
            // SAFETY: the driver gave a NUL-terminated name that lives as long as the library.
            Ok(unsafe { CStr::from_ptr(name) }.to_owned())
        };
        kernels.iter().map(name).collect()
    }

    /// A kernel's attributes by number; 0 for those the driver refuses.
    #[must_use]
    pub fn attributes(&self, kernel: Kernel) -> [i32; KERNEL_ATTRIBUTES] {
        std::array::from_fn(|number| {
            let mut value = 0;
            // SAFETY: the kernel is alive as long as self; writes one integer.
            let status = unsafe {
                (self.device.table().cuKernelGetAttribute)(
                    &mut value,
                    number as u32,
                    kernel.handle,
                    self.device.ordinal,
                )
            };
            if status == 0 { value } else { 0 }
        })
    }

    /// Sets a kernel's attribute.
    ///
    /// # Errors
    /// The driver's.
    pub fn set_attribute(&self, kernel: Kernel, attribute: u32, value: i32) -> Result<(), CudaError> {
        // SAFETY: the kernel is alive as long as self; the driver refuses attributes it does not know.
        CudaError::check(unsafe {
            (self.device.table().cuKernelSetAttribute)(attribute, value, kernel.handle, self.device.ordinal)
        })
    }

    /// Where a kernel's parameters lie in its parameter block.
    ///
    /// # Errors
    /// The driver's, other than the one that says that there are no more.
    pub fn parameters(&self, kernel: Kernel) -> Result<Vec<Parameter>, CudaError> {
        let mut parameters = Vec::new();
        for index in 0..MAX_PARAMETERS {
            let (mut offset, mut bytes) = (0, 0);
            // SAFETY: the kernel is alive as long as self; writes two sizes.
            let status = unsafe {
                (self.device.table().cuKernelGetParamInfo)(kernel.handle, index, &mut offset, &mut bytes)
            };
            match CudaError::check(status) {
                Ok(()) => parameters.push(Parameter { offset: offset as u32, bytes: bytes as u32 }),
                Err(CudaError::INVALID_VALUE) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(parameters)
    }
}

impl Drop for CodeLibrary {
    fn drop(&mut self) {
        // SAFETY: loaded once and unloaded once, here.
        let _ = unsafe { (self.device.table().cuLibraryUnload)(self.handle) };
    }
}
