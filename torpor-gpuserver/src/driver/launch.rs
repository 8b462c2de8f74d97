//! Launching kernels.

use super::table::RawLaunchConfig;
use super::{Kernel, Stream};
use std::ffi::c_void;
use torpor_proto::command::LaunchAttribute;
use torpor_proto::error::CudaError;

/// `CU_LAUNCH_PARAM_END`, `_BUFFER_POINTER`, `_BUFFER_SIZE`: markers in the `extra` list of a launch.
const EXTRA: [usize; 3] = [0, 1, 2];

/// What a launch looks like, apart from the kernel and its parameters.
#[derive(Clone, Copy, Debug)]
pub struct LaunchConfig<'a> {
    /// Blocks in x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block in x, y, z.
    pub block: [u32; 3],
    /// Dynamic shared memory of a block.
    pub shared_bytes: u32,
    /// Attributes; event handles in them are real ones.
    pub attributes: &'a [LaunchAttribute],
}

impl LaunchConfig<'_> {
    pub(super) fn raw(&self, stream: &Stream) -> RawLaunchConfig {
        RawLaunchConfig {
            grid: self.grid,
            block: self.block,
            shared_bytes: self.shared_bytes,
            stream: stream.handle,
            attributes: self.attributes.as_ptr(),
            attribute_count: self.attributes.len() as u32,
        }
    }
}

impl Stream {
    /// Launches a kernel in the order of this stream.
    ///
    /// # Errors
    /// The driver's.
    ///
    /// # Safety
    /// The kernel's library is loaded until the kernel has run. `parameters` is as long as the kernel's parameter
    /// block. Handles in attributes are alive.
    #[inline]
    pub unsafe fn launch(
        &self,
        kernel: Kernel,
        config: &LaunchConfig<'_>,
        parameters: &[u64],
        parameter_bytes: usize,
    ) -> Result<(), CudaError> {
        let [end, buffer_pointer, buffer_size] = EXTRA.map(std::ptr::without_provenance_mut::<c_void>);
        let mut size = parameter_bytes.min(size_of_val(parameters));
        let mut extra = [
            buffer_pointer,
            parameters.as_ptr().cast_mut().cast(),
            buffer_size,
            std::ptr::from_mut(&mut size).cast(),
            end,
        ];
        let raw = config.raw(self);
        let function = if self.green.is_some() { kernel.handle } else { kernel.function };
        // SAFETY: the driver reads configuration, attributes and parameters before it returns; the caller promises the
        // rest.
        CudaError::check(unsafe {
            (self.device().table().cuLaunchKernelEx)(&raw, function, std::ptr::null_mut(), extra.as_mut_ptr())
        })
    }
}
