//! Limits of the context (`cuCtxSetLimit`), which all clients of a GPU share: a client reads back what it set, and the context has
//! at least what its clients want, so nobody is harmed by what another one sets.
//!
//! Heaps add up, since one client's kernels cannot allocate what another's have. Nothing is ever lowered: the driver resizes
//! a heap only before kernels use it. What limits take is no function's memory, so it is a part of what those leave.

use crate::driver::Device;
use crate::worker::sync::lock;
use std::collections::HashMap;
use std::sync::Mutex;
use torpor_proto::error::CudaError;

/// `CU_LIMIT_STACK_SIZE`, of each thread that the GPU can run at once.
const STACK: u32 = 0;
/// `CU_LIMIT_PRINTF_FIFO_SIZE`
const PRINTED: u32 = 1;
/// `CU_LIMIT_MALLOC_HEAP_SIZE`
const HEAP: u32 = 2;

/// What the clients of a GPU want.
#[derive(Debug)]
pub(crate) struct ContextLimits {
    most_bytes: u64,
    /// By client and limit.
    wanted: Mutex<HashMap<(u64, u32), u64>>,
}

impl ContextLimits {
    /// Limits that take so much of the GPU's memory at most.
    pub(crate) fn new(most_bytes: u64) -> Self {
        Self { most_bytes, wanted: Mutex::default() }
    }

    /// Sees to it that the context has what a client wants.
    ///
    /// # Errors
    /// `CUDA_ERROR_OUT_OF_MEMORY` beyond the bound, `CUDA_ERROR_UNSUPPORTED_LIMIT`, or the driver's.
    pub(crate) fn raise(
        &self,
        device: &Device,
        client: u64,
        limit: u32,
        value: u64,
    ) -> Result<(), CudaError> {
        let mut wanted = lock(&self.wanted);
        let others = || {
            let others = wanted.iter().filter(|((other, known), _)| *known == limit && *other != client);
            others.map(|(_, &value)| value)
        };
        let needed = match limit {
            HEAP => others().fold(value, u64::saturating_add),
            _ => others().fold(value, u64::max),
        };
        let taken = match limit {
            STACK => needed.saturating_mul(device.resident_threads()?),
            PRINTED | HEAP => needed,
            _ => return Err(CudaError::UNSUPPORTED_LIMIT),
        };
        if needed > device.context_limit(limit)? {
            if taken > self.most_bytes {
                return Err(CudaError::OUT_OF_MEMORY);
            }
            device.set_context_limit(limit, needed)?;
        }
        wanted.insert((client, limit), value);
        Ok(())
    }

    /// What a client wants: limits and their values.
    pub(crate) fn wanted_by(&self, client: u64) -> Vec<(u32, u64)> {
        let wanted = lock(&self.wanted);
        let own = wanted.iter().filter(|((known, _), _)| *known == client);
        own.map(|(&(_, limit), &value)| (limit, value)).collect()
    }

    /// A client is gone. What the context has stays.
    pub(crate) fn forget(&self, client: u64) {
        lock(&self.wanted).retain(|(known, _), _| *known != client);
    }
}
