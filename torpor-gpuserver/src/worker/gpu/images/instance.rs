//! An image, loaded, and its kernels.

use crate::driver::{CodeLibrary, Kernel};
use crate::worker::gpu::images::loader::Loader;
use crate::worker::gpu::images::speech::Speech;
use crate::worker::sync::lock;
use std::collections::HashMap;
use std::ffi::CString;
use std::mem::ManuallyDrop;
use std::sync::{Arc, Mutex, OnceLock};
use torpor_proto::command::{KERNEL_ATTRIBUTES, Parameter};
use torpor_proto::error::CudaError;

/// `CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES`.
pub(crate) const MAX_DYNAMIC_SHARED: u32 = 8;
/// `CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED`.
pub(crate) const NON_PORTABLE_CLUSTERS: u32 = 14;

/// A kernel of a loaded image.
#[derive(Debug)]
pub(crate) struct LoadedKernel {
    /// What the driver launches.
    pub(crate) kernel: Kernel,
    /// As they were before anybody set any.
    pub(crate) attributes: [i32; KERNEL_ATTRIBUTES],
    /// Where parameters lie.
    pub(crate) parameters: Vec<Parameter>,
    /// Length of the parameter block.
    pub(crate) block_bytes: usize,
    /// The dynamic shared memory that launches may use by now: the most that any client asked for.
    dynamic_shared: Mutex<i32>,
}

/// An image, loaded. Whoever drops the last of it does not wait until it is unloaded.
#[derive(Debug)]
pub(crate) struct Instance {
    library: ManuallyDrop<CodeLibrary>,
    /// Of the image.
    bytes: u64,
    loader: Arc<Loader>,
    /// What its kernels may say.
    pub(crate) speech: Speech,
    kernels: Mutex<HashMap<String, Arc<LoadedKernel>>>,
    names: OnceLock<Vec<CString>>,
}

impl Instance {
    /// # Safety
    /// As [`CodeLibrary::load`].
    pub(crate) unsafe fn load(
        loader: &Arc<Loader>,
        image: &[u8],
        speech: Speech,
    ) -> Result<Arc<Self>, CudaError> {
        // SAFETY: the caller's promise.
        let library = ManuallyDrop::new(unsafe { loader.load(image)? });
        let (bytes, loader) = (image.len() as u64, loader.clone());
        let (kernels, names) = (Mutex::default(), OnceLock::new());
        Ok(Arc::new(Self { library, bytes, loader, speech, kernels, names }))
    }

    /// Whether the driver has been asked for a kernel.
    pub(crate) fn knows(&self, name: &str) -> bool {
        lock(&self.kernels).contains_key(name)
    }

    /// A kernel by its name, which the driver is asked for once, when it is [quiet](crate::worker::gpu::quiet).
    pub(crate) fn kernel(&self, name: &str) -> Result<Arc<LoadedKernel>, CudaError> {
        let mut kernels = lock(&self.kernels);
        if let Some(known) = kernels.get(name) {
            return Ok(known.clone());
        }
        let kernel = self.library.kernel(name)?;
        let parameters = self.library.parameters(kernel)?;
        let attributes = self.library.attributes(kernel);
        let end = |parameter: &Parameter| parameter.offset as usize + parameter.bytes as usize;
        let loaded = Arc::new(LoadedKernel {
            kernel,
            attributes,
            block_bytes: parameters.iter().map(end).max().unwrap_or(0),
            parameters,
            dynamic_shared: Mutex::new(attributes[MAX_DYNAMIC_SHARED as usize]),
        });
        kernels.insert(name.to_owned(), loaded.clone());
        Ok(loaded)
    }

    /// Has the driver permit what a client sets of a kernel that others launch too: nothing is ever taken back, and what
    /// would change their launches is not told to the driver at all.
    pub(crate) fn permit(&self, kernel: &LoadedKernel, attribute: u32, value: i32) -> Result<(), CudaError> {
        match attribute {
            MAX_DYNAMIC_SHARED => {
                let mut current = lock(&kernel.dynamic_shared);
                if value > *current {
                    self.library.set_attribute(kernel.kernel, attribute, value)?;
                    *current = value;
                }
                Ok(())
            }
            NON_PORTABLE_CLUSTERS if value != 0 => {
                self.library.set_attribute(kernel.kernel, attribute, value)
            }
            _ => Ok(()),
        }
    }

    /// Address and length of a global.
    pub(crate) fn global(&self, name: &str) -> Result<(u64, u64), CudaError> {
        self.library.global(name)
    }

    /// The names of all kernels.
    pub(crate) fn kernel_names(&self) -> Result<&[CString], CudaError> {
        if let Some(names) = self.names.get() {
            return Ok(names);
        }
        let names = self.library.kernel_names()?;
        Ok(self.names.get_or_init(|| names))
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // SAFETY: taken once, here, and not used afterwards.
        let library = unsafe { ManuallyDrop::take(&mut self.library) };
        self.loader.unload(library, self.bytes);
    }
}
