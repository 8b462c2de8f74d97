//! Limits of the context (`CUlimit`): what the program set is what it reads back; the worker's context, which others use too, has at
//! least that where kernels would notice.

use super::{Client, CudaResult};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use torpor_proto::command::LimitRaise;
use torpor_proto::error::CudaError;

/// `CU_LIMIT_MALLOC_HEAP_SIZE`: it, and those before it, are of memory.
const LAST_OF_MEMORY: i32 = 2;
/// `CU_LIMIT_DEV_RUNTIME_PENDING_LAUNCH_COUNT`
const PENDING_LAUNCHES: i32 = 4;
/// `CU_LIMIT_MAX_L2_FETCH_GRANULARITY`, in bytes up to 128.
const FETCH_GRANULARITY: i32 = 5;
/// `CU_LIMIT_PERSISTING_L2_CACHE_SIZE`
const PERSISTING_CACHE: i32 = 6;
/// `CU_DEVICE_ATTRIBUTE_MAX_PERSISTING_L2_CACHE_SIZE`
const MAX_PERSISTING_CACHE: i32 = 108;

/// What the program set.
#[derive(Default)]
pub(super) struct Limits(Mutex<HashMap<i32, u64>>);

impl Limits {
    fn lock(&self) -> MutexGuard<'_, HashMap<i32, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    /// `cuCtxGetLimit`: what was set, else what the context began with.
    ///
    /// # Errors
    /// `UNSUPPORTED_LIMIT` for one that the driver does not know.
    pub fn limit(&self, limit: i32) -> CudaResult<u64> {
        let first = self.device().limit(limit)?;
        Ok(self.limits.lock().get(&limit).copied().unwrap_or(first))
    }

    /// `cuCtxSetLimit`.
    ///
    /// # Errors
    /// `UNSUPPORTED_LIMIT` for one that the driver does not know, or that this program cannot have more of; `INVALID_VALUE`;
    /// `OUT_OF_MEMORY` for more memory than the node gives to limits.
    pub fn set_limit(&'static self, limit: i32, value: u64) -> CudaResult<()> {
        let first = self.device().limit(limit)?;
        let value = match limit {
            0..=LAST_OF_MEMORY | PENDING_LAUNCHES => {
                // Without a question while it is what the context began with.
                if value > first {
                    self.call(&LimitRaise { value, limit: limit as u32, reserved: 0 }, &[])?;
                }
                value
            }
            FETCH_GRANULARITY if value > 128 => return Err(CudaError::INVALID_VALUE),
            // Hints.
            FETCH_GRANULARITY => value,
            PERSISTING_CACHE => {
                value.min(self.device().attribute(MAX_PERSISTING_CACHE).unwrap_or(0).max(0) as u64)
            }
            _ if value <= first => value,
            _ => return Err(CudaError::UNSUPPORTED_LIMIT),
        };
        self.limits.lock().insert(limit, value);
        Ok(())
    }
}
