//! Kernels: what the client must know to launch one.

use super::handle::Table;
use super::image::Image;
use super::occupancy::OccupancyCache;
use super::twins::KernelTwins;
use super::{Client, CudaResult, client};
use std::ffi::{CString, c_void};
use std::sync::atomic::{AtomicI32, Ordering};
use torpor_proto::command::{KERNEL_ATTRIBUTES, KernelResolve, KernelSetAttribute, Parameter};
use torpor_proto::error::CudaError;

/// Threads of a block on any GPU so far.
pub const MOST_THREADS: u32 = 1024;

/// `CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK`
const MAX_THREADS_PER_BLOCK: u32 = 0;
/// `CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES`
const STATIC_SHARED_BYTES: u32 = 1;
/// `CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES`, the first that can be set
pub(super) const MAX_DYNAMIC_SHARED_BYTES: u32 = 8;
/// `CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN`
const DEVICE_SHARED_OPTIN: i32 = 97;

/// A kernel. Serves as `CUfunction` and as `CUkernel`.
pub struct Kernel {
    pub(super) number: u32,
    /// Its name in the image.
    pub name: CString,
    image: &'static Image,
    /// The ordinal of the device that its image was loaded for.
    pub(super) device: u32,
    pub(super) twins: KernelTwins,
    /// Where its parameters lie.
    pub parameters: Vec<Parameter>,
    /// Length of its parameter block.
    pub parameter_bytes: u32,
    attributes: [AtomicI32; KERNEL_ATTRIBUTES],
    pub(super) occupancy: OccupancyCache,
}

/// Kernels are never renumbered: what a program holds stays what it was.
static KERNELS: Table<Kernel> = Table::new(1 << 20);

impl Kernel {
    pub(super) fn resolve(
        client: &'static Client,
        (image, device): (&'static Image, u32),
        name: CString,
    ) -> CudaResult<&'static Self> {
        let mut outcome = Err(CudaError::OUT_OF_MEMORY);
        let kernel = KERNELS.insert(
            |number| {
                let command = KernelResolve { image: image.number, kernel: number };
                let answer = client.call(&command, name.as_bytes());
                let (attributes, tail) = match answer {
                    Ok(answer) => {
                        outcome = Ok(());
                        (answer.reply.attributes, answer.tail)
                    }
                    Err(error) => {
                        outcome = Err(error);
                        ([0; KERNEL_ATTRIBUTES], Vec::new())
                    }
                };
                let parameters: Vec<Parameter> =
                    bytemuck::allocation::pod_collect_to_vec(&tail[..tail.len() / 8 * 8]);
                let end = |parameter: &Parameter| parameter.offset.saturating_add(parameter.bytes);
                Self {
                    number,
                    name,
                    image,
                    device,
                    twins: KernelTwins::default(),
                    parameter_bytes: parameters.iter().map(end).max().unwrap_or(0),
                    parameters,
                    attributes: attributes.map(AtomicI32::new),
                    occupancy: OccupancyCache::default(),
                }
            },
            |_| (),
        );
        let kernel = kernel.ok_or(CudaError::OUT_OF_MEMORY)?;
        if let Err(error) = outcome {
            kernel.retire();
            return Err(error);
        }
        Ok(kernel)
    }

    /// The kernel behind a handle.
    ///
    /// # Errors
    /// `INVALID_HANDLE`.
    #[inline]
    pub fn find(handle: *mut c_void) -> CudaResult<&'static Self> {
        KERNELS.get(handle).ok_or(CudaError::INVALID_HANDLE)
    }

    pub(super) fn numbered(number: u32) -> CudaResult<&'static Self> {
        KERNELS.numbered(number).ok_or(CudaError::INVALID_VALUE)
    }

    /// What the program is given for it.
    #[must_use]
    pub fn handle(&'static self) -> *mut c_void {
        Table::handle(self)
    }

    /// The image it is in.
    #[must_use]
    pub fn image(&self) -> &'static Image {
        self.image
    }

    pub(super) fn retire(&'static self) {
        KERNELS.retire_for_ever(self.number);
    }

    /// A `CUfunction_attribute`.
    ///
    /// # Errors
    /// `INVALID_VALUE` for one that does not exist.
    #[inline]
    pub fn attribute(&self, attribute: u32) -> CudaResult<i32> {
        let value = self.attributes.get(attribute as usize).ok_or(CudaError::INVALID_VALUE)?;
        Ok(value.load(Ordering::Relaxed))
    }

    /// Sets a `CUfunction_attribute`.
    ///
    /// # Errors
    /// `INVALID_VALUE` for one that cannot be set, or more shared memory than a block can have.
    pub fn set_attribute(&self, attribute: u32, value: i32) -> CudaResult<()> {
        let client = client()?;
        let known = self.attributes.get(attribute as usize).filter(|_| attribute >= MAX_DYNAMIC_SHARED_BYTES);
        let known = known.ok_or(CudaError::INVALID_VALUE)?;
        if attribute == MAX_DYNAMIC_SHARED_BYTES {
            let most =
                client.device().attribute(DEVICE_SHARED_OPTIN)? - self.attribute(STATIC_SHARED_BYTES)?;
            if value < 0 || value > most {
                return Err(CudaError::INVALID_VALUE);
            }
        }
        if known.swap(value, Ordering::Relaxed) == value {
            return Ok(());
        }
        self.occupancy.forget();
        for (_, twin) in self.twins() {
            twin.set_attribute(attribute, value)?;
        }
        client.post(&KernelSetAttribute { kernel: self.number, attribute, value, reserved: 0 }, &[])
    }

    /// What the driver would refuse at once.
    ///
    /// # Errors
    /// `INVALID_VALUE` for empty blocks or grids, more than a GPU can have, or more shared memory than was asked for;
    /// `LAUNCH_OUT_OF_RESOURCES` for more threads than this kernel can have.
    #[inline]
    pub(super) fn check_launch(&self, grid: [u32; 3], block: [u32; 3], shared_bytes: u32) -> CudaResult<()> {
        check_extents(grid, block, self.attribute(MAX_THREADS_PER_BLOCK)?)?;
        let allowed = self.attribute(MAX_DYNAMIC_SHARED_BYTES)?.unsigned_abs();
        if shared_bytes <= allowed { Ok(()) } else { Err(CudaError::INVALID_VALUE) }
    }
}

/// What can be said of a launch's extents: the device's limits, then the kernel's threads (0 if that is not known).
#[inline]
fn check_extents(grid: [u32; 3], block: [u32; 3], most_threads: i32) -> CudaResult<()> {
    let threads = block.iter().try_fold(1u32, |product, &size| product.checked_mul(size));
    let threads = threads.filter(|&threads| threads > 0 && threads <= MOST_THREADS);
    let threads = threads.ok_or(CudaError::INVALID_VALUE)?;
    // A block's z is 64 at most; the y and z sizes of a grid have 16 bits (CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y), x has 31.
    let grid_fits = !grid.contains(&0) && grid[0] <= i32::MAX as u32 && grid[1] <= 65535 && grid[2] <= 65535;
    if !grid_fits || block[2] > 64 {
        return Err(CudaError::INVALID_VALUE);
    }
    let most = most_threads.unsigned_abs();
    if most == 0 || threads <= most { Ok(()) } else { Err(CudaError::LAUNCH_OUT_OF_RESOURCES) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_launch_that_no_gpu_can_do_is_refused_at_the_call_as_cuda_refuses_it() {
        let most_x = i32::MAX as u32;
        for (grid, block) in [([1; 3], [1024, 1, 1]), ([most_x, 65535, 65535], [8, 2, 64])] {
            assert_eq!(check_extents(grid, block, 1024), Ok(()));
        }
        for (grid, block) in [
            ([0, 1, 1], [1; 3]),
            ([1; 3], [1, 0, 1]),
            ([most_x + 1, 1, 1], [1; 3]),
            ([1, 65536, 1], [1; 3]),
            ([1, 1, 65536], [1; 3]),
            ([1; 3], [1, 1, 65]),
            ([1; 3], [1025, 1, 1]),
            ([1; 3], [1 << 31, 2, 1]),
        ] {
            assert_eq!(check_extents(grid, block, 1024), Err(CudaError::INVALID_VALUE), "{grid:?} {block:?}");
        }
        // More registers than there are, or .maxntid.
        assert_eq!(check_extents([1; 3], [257, 1, 1], 256), Err(CudaError::LAUNCH_OUT_OF_RESOURCES));
        assert_eq!(check_extents([1; 3], [257, 1, 1], 0), Ok(()), "not known");
    }
}
