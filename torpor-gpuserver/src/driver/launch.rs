//! Launching kernels.

use super::table::RawLaunchConfig;
use super::{Kernel, Stream};
use std::ffi::c_void;
use torpor_proto::command::{LaunchAttribute, Parameter};
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

/// `CU_LAUNCH_ATTRIBUTE_COOPERATIVE`
const COOPERATIVE: u32 = 2;

impl LaunchConfig<'_> {
    /// Whether all blocks are active at once.
    #[must_use]
    pub fn is_cooperative(&self) -> bool {
        self.attributes.iter().any(|one| one.id == COOPERATIVE && one.value[0] as u32 != 0)
    }

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

    /// The same with each parameter by itself, as `places` says where they are: into a graph that is recorded the driver takes no
    /// cooperative launch whose parameters are one block (`CUDA_ERROR_INVALID_VALUE`, driver 580 on an H200, 2026-11-30).
    ///
    /// # Errors
    /// The driver's; `CUDA_ERROR_INVALID_VALUE` for a place that is not in the block.
    ///
    /// # Safety
    /// The kernel's library is loaded as long as the graph, and the places are those of the kernel's parameters. Handles in attributes
    /// are alive.
    pub unsafe fn launch_with_each(
        &self,
        kernel: Kernel,
        config: &LaunchConfig<'_>,
        parameters: &[u64],
        places: &[Parameter],
    ) -> Result<(), CudaError> {
        let block: &[u8] = bytemuck::cast_slice(parameters);
        let address = |place: &Parameter| {
            let (from, bytes) = (place.offset as usize, place.bytes as usize);
            let value =
                block.get(from..).and_then(|rest| rest.get(..bytes)).ok_or(CudaError::INVALID_VALUE)?;
            Ok(value.as_ptr().cast_mut().cast::<c_void>())
        };
        let mut each = places.iter().map(address).collect::<Result<Vec<_>, CudaError>>()?;
        let raw = config.raw(self);
        // SAFETY: as in `launch`; there are as many addresses as the kernel has parameters, each of as many bytes as it takes.
        CudaError::check(unsafe {
            (self.device().table().cuLaunchKernelEx)(
                &raw,
                kernel.function,
                each.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        })
    }
}
