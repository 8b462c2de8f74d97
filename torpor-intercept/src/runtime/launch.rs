//! Launches.

use super::{INVALID_CONFIGURATION, MISSING_CONFIGURATION, answer, kernel, ready, stream_functions};
use crate::core::{CudaResult, Kernel, LaunchConfig, MOST_THREADS, StreamHandle};
use crate::driver::Code;
use crate::driver::argument::{In, Out};
use crate::driver::launch::{COOPERATIVE, MAX_ATTRIBUTES};
use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use torpor_proto::command::LaunchAttribute;
use torpor_proto::error::CudaError;

/// `dim3`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Dim3 {
    x: u32,
    y: u32,
    z: u32,
}

impl From<Dim3> for [u32; 3] {
    fn from(size: Dim3) -> Self {
        [size.x, size.y, size.z]
    }
}

/// `cudaLaunchConfig_t`: as the driver's, but the shared memory is a `size_t`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct RawLaunchConfig {
    grid: Dim3,
    block: Dim3,
    shared_bytes: usize,
    stream: *mut c_void,
    attributes: In<LaunchAttribute>,
    attribute_count: u32,
}

const _: () = assert!(size_of::<RawLaunchConfig>() == 56);

impl RawLaunchConfig {
    pub(super) fn attributes(&self) -> CudaResult<Vec<LaunchAttribute>> {
        if self.attribute_count > MAX_ATTRIBUTES {
            return Err(CudaError::INVALID_VALUE);
        }
        self.attributes.slice(self.attribute_count as usize)
    }

    pub(super) fn with<'a>(&self, attributes: &'a [LaunchAttribute]) -> CudaResult<LaunchConfig<'a>> {
        config(self.grid, self.block, self.shared_bytes, attributes)
    }
}

#[inline]
fn config(
    grid: Dim3,
    block: Dim3,
    shared_bytes: usize,
    attributes: &[LaunchAttribute],
) -> CudaResult<LaunchConfig<'_>> {
    let shared_bytes = u32::try_from(shared_bytes).map_err(|_| CudaError::INVALID_VALUE)?;
    Ok(LaunchConfig { grid: grid.into(), block: block.into(), shared_bytes, attributes })
}

/// Launches, and says it as the runtime does if the sizes are wrong.
///
/// # Safety
/// The parameters are as the kernel has them.
#[inline]
unsafe fn launch(
    kernel: &'static Kernel,
    config: &LaunchConfig<'_>,
    stream: StreamHandle,
    parameters: *const *const c_void,
) -> CudaResult<()> {
    // SAFETY: the caller's promise.
    let outcome = unsafe { kernel.launch(config, stream.find()?, parameters, std::ptr::null()) };
    outcome.map_err(|error| if error == CudaError::INVALID_VALUE { refined(config) } else { error })
}

/// What the runtime calls a launch that the driver calls invalid.
#[cold]
fn refined(config: &LaunchConfig<'_>) -> CudaError {
    let threads = config.block.iter().fold(1u64, |product, &size| product.saturating_mul(size.into()));
    let [x, y, z] = config.grid;
    let is_empty = threads == 0 || config.grid.contains(&0);
    let is_too_large = threads > MOST_THREADS.into() || config.block[2] > 64;
    let has_too_many = x > i32::MAX as u32 || y > 65535 || z > 65535;
    if is_empty || is_too_large || has_too_many { INVALID_CONFIGURATION } else { CudaError::INVALID_VALUE }
}

stream_functions! {
    fn cudaLaunchKernel / cudaLaunchKernel_ptsz(
        function: *const c_void, grid: Dim3, block: Dim3, parameters: *const *const c_void, shared_bytes: usize, @ stream,
    ) {
        ready()?;
        let config = config(grid, block, shared_bytes, &[])?;
        // SAFETY: the program promises parameters as the kernel has them (cudaLaunchKernel).
        unsafe { launch(kernel::find(function)?, &config, stream, parameters) }
    }

    /// What nvcc's code calls since CUDA 13, with the handle that `__cudaGetKernel` gave.
    fn __cudaLaunchKernel / __cudaLaunchKernel_ptsz(
        kernel: *mut c_void, grid: Dim3, block: Dim3, parameters: *const *const c_void, shared_bytes: usize, @ stream,
    ) {
        ready()?;
        let config = config(grid, block, shared_bytes, &[])?;
        // SAFETY: the program promises parameters as the kernel has them (cudaLaunchKernel).
        unsafe { launch(kernel::find_handle(kernel)?, &config, stream, parameters) }
    }

    fn cudaLaunchCooperativeKernel / cudaLaunchCooperativeKernel_ptsz(
        function: *const c_void, grid: Dim3, block: Dim3, parameters: *const *const c_void, shared_bytes: usize, @ stream,
    ) {
        ready()?;
        let config = config(grid, block, shared_bytes, &[COOPERATIVE])?;
        // SAFETY: the program promises parameters as the kernel has them (cudaLaunchCooperativeKernel).
        unsafe { launch(kernel::find(function)?, &config, stream, parameters) }
    }
}

fn launch_ex(
    config: In<RawLaunchConfig>,
    function: *const c_void,
    parameters: *const *const c_void,
    per_thread: bool,
) -> CudaResult<()> {
    ready()?;
    let config = config.get()?;
    let stream = StreamHandle { handle: config.stream, per_thread };
    let attributes = config.attributes()?;
    // SAFETY: the program promises parameters as the kernel has them (cudaLaunchKernelExC).
    unsafe { launch(kernel::find(function)?, &config.with(&attributes)?, stream, parameters) }
}

super::runtime_functions! {
    fn cudaLaunchKernelExC(config: In<RawLaunchConfig>, function: *const c_void, parameters: *const *const c_void) {
        launch_ex(config, function, parameters, false)
    }

    fn cudaLaunchKernelExC_ptsz(
        config: In<RawLaunchConfig>, function: *const c_void, parameters: *const *const c_void,
    ) {
        launch_ex(config, function, parameters, true)
    }
}

/// The configuration between `<<<` and `>>>`, from where it is pushed to where the launch pops it.
#[derive(Clone, Copy)]
struct Pushed {
    grid: Dim3,
    block: Dim3,
    shared_bytes: usize,
    stream: *mut c_void,
}

/// Launches whose arguments launch something themselves, and so on: deeper than any program goes.
const MOST_PUSHED: usize = 32;

thread_local! {
    static PUSHED: RefCell<[Pushed; MOST_PUSHED]> = const {
        let empty = Dim3 { x: 0, y: 0, z: 0 };
        RefCell::new([Pushed { grid: empty, block: empty, shared_bytes: 0, stream: std::ptr::null_mut() }; MOST_PUSHED])
    };
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

/// Gives anything but 0 if the launch must not be made.
pub(super) extern "C" fn __cudaPushCallConfiguration(
    grid: Dim3,
    block: Dim3,
    shared_bytes: usize,
    stream: *mut c_void,
) -> u32 {
    let push = || {
        let count = COUNT.get();
        let pushed = Pushed { grid, block, shared_bytes, stream };
        PUSHED.with_borrow_mut(|all| {
            *all.get_mut(count).ok_or(CudaError::UNKNOWN)? = pushed;
            COUNT.set(count + 1);
            Ok(())
        })
    };
    answer("__cudaPushCallConfiguration", push).cast_unsigned()
}

pub(super) unsafe extern "C" fn __cudaPopCallConfiguration(
    grid: Out<Dim3>,
    block: Out<Dim3>,
    shared_bytes: Out<usize>,
    stream: Out<*mut c_void>,
) -> Code {
    answer("__cudaPopCallConfiguration", || {
        let top = COUNT.get().checked_sub(1).ok_or(MISSING_CONFIGURATION)?;
        COUNT.set(top);
        let pushed = PUSHED.with_borrow(|all| all[top]);
        grid.put(pushed.grid)?;
        block.put(pushed.block)?;
        shared_bytes.put(pushed.shared_bytes)?;
        stream.put(pushed.stream)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_are_popped_in_reverse_and_only_as_often_as_pushed() {
        let size = |x| Dim3 { x, y: 2, z: 3 };
        let pop = || {
            let (mut grid, mut block) = (Dim3::default(), Dim3::default());
            let (mut shared_bytes, mut stream) = (0usize, std::ptr::null_mut::<c_void>());
            // SAFETY: `Out` is a pointer, and each points to a place for its result.
            let code = unsafe {
                __cudaPopCallConfiguration(
                    std::mem::transmute::<*mut Dim3, Out<Dim3>>(&raw mut grid),
                    std::mem::transmute::<*mut Dim3, Out<Dim3>>(&raw mut block),
                    std::mem::transmute::<*mut usize, Out<usize>>(&raw mut shared_bytes),
                    std::mem::transmute::<*mut *mut c_void, Out<*mut c_void>>(&raw mut stream),
                )
            };
            (code, grid.x, block.x, shared_bytes, stream.addr())
        };
        for number in 1..=MOST_PUSHED as u32 {
            let stream = std::ptr::without_provenance_mut(number as usize);
            assert_eq!(__cudaPushCallConfiguration(size(number), size(7), 100, stream), 0);
        }
        assert_ne!(__cudaPushCallConfiguration(size(1), size(1), 0, std::ptr::null_mut()), 0, "no room");
        for number in (1..=MOST_PUSHED as u32).rev() {
            assert_eq!(pop(), (0, number, 7, 100, number as usize));
        }
        assert_eq!(pop().0, 52);
    }
}
