//! Launches as they were before CUDA 4: block, shared memory and parameters are set one by one, and stay set.

use super::CudaResult;
use super::kernel::Kernel;
use super::launch::LaunchConfig;
use super::stream::Stream;
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};
use torpor_proto::error::CudaError;

/// `CU_LAUNCH_PARAM_*` (cuda.h)
const PARAM_END: usize = 0;
const PARAM_BUFFER_POINTER: usize = 1;
const PARAM_BUFFER_SIZE: usize = 2;

/// No kernel of any GPU so far has more parameters.
const MOST_PARAMETER_BYTES: usize = 32764;

/// What has been set of a kernel.
#[derive(Clone, Default)]
struct Prepared {
    block: [u32; 3],
    shared_bytes: u32,
    parameters: Vec<u8>,
}

/// By the kernel's number.
static PREPARED: Mutex<Option<HashMap<u32, Prepared>>> = Mutex::new(None);

impl Kernel {
    fn prepare<R>(&self, change: impl FnOnce(&mut Prepared) -> R) -> R {
        let mut all = PREPARED.lock().unwrap_or_else(PoisonError::into_inner);
        change(all.get_or_insert_default().entry(self.number).or_default())
    }

    /// `cuFuncSetBlockShape`.
    ///
    /// # Errors
    /// `INVALID_VALUE` for less than a thread.
    pub fn set_block(&self, block: [i32; 3]) -> CudaResult<()> {
        let block = block.map(|size| u32::try_from(size).unwrap_or(0));
        if block.contains(&0) {
            return Err(CudaError::INVALID_VALUE);
        }
        self.prepare(|prepared| prepared.block = block);
        Ok(())
    }

    /// `cuFuncSetSharedSize`.
    pub fn set_shared_bytes(&self, bytes: u32) {
        self.prepare(|prepared| prepared.shared_bytes = bytes);
    }

    /// `cuParamSetSize`.
    ///
    /// # Errors
    /// `INVALID_VALUE` for more than kernels can have.
    pub fn set_parameter_bytes(&self, bytes: usize) -> CudaResult<()> {
        if bytes > MOST_PARAMETER_BYTES {
            return Err(CudaError::INVALID_VALUE);
        }
        self.prepare(|prepared| prepared.parameters.resize(bytes, 0));
        Ok(())
    }

    /// `cuParamSetv` and its relatives, which may come before `cuParamSetSize`.
    ///
    /// # Errors
    /// `INVALID_VALUE` for a place beyond what kernels can have.
    pub fn set_parameters(&self, offset: i32, value: &[u8]) -> CudaResult<()> {
        let start = usize::try_from(offset).map_err(|_| CudaError::INVALID_VALUE)?;
        let end = start.saturating_add(value.len());
        if end > MOST_PARAMETER_BYTES {
            return Err(CudaError::INVALID_VALUE);
        }
        self.prepare(|prepared| {
            let length = prepared.parameters.len().max(end);
            prepared.parameters.resize(length, 0);
            prepared.parameters[start..end].copy_from_slice(value);
        });
        Ok(())
    }

    /// `cuLaunchGrid`.
    ///
    /// # Errors
    /// `INVALID_VALUE` without a block, and as [`Self::launch`].
    pub fn launch_prepared(
        &'static self,
        [width, height]: [i32; 2],
        stream: &'static Stream,
    ) -> CudaResult<()> {
        let Prepared { block, shared_bytes, parameters } = self.prepare(|prepared| prepared.clone());
        let [width, height] = [width, height].map(|blocks| u32::try_from(blocks).unwrap_or(0));
        let config = LaunchConfig { grid: [width, height, 1], block, shared_bytes, attributes: &[] };
        let bytes = parameters.len();
        let word = std::ptr::without_provenance::<c_void>;
        let extra = [
            word(PARAM_BUFFER_POINTER),
            parameters.as_ptr().cast(),
            word(PARAM_BUFFER_SIZE),
            (&raw const bytes).cast(),
            word(PARAM_END),
            // Read with the word before it.
            word(PARAM_END),
        ];
        // SAFETY: `extra` is such a list, of a buffer and its length, which live until the call is over.
        unsafe { self.launch(&config, stream, std::ptr::null(), extra.as_ptr()) }
    }
}
