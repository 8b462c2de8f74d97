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
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By client and limit.
    wanted: HashMap<(u64, u32), u64>,
    /// What the context began with, once any client wants more.
    first: Option<[u64; 3]>,
}

impl ContextLimits {
    /// Limits that take so much of the GPU's memory at most, all together, beyond what the context began with.
    pub(crate) fn new(most_bytes: u64) -> Self {
        Self { most_bytes, state: Mutex::default() }
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
        let mut state = lock(&self.state);
        let others = || {
            let others =
                state.wanted.iter().filter(|((other, known), _)| *known == limit && *other != client);
            others.map(|(_, &value)| value)
        };
        let needed = match limit {
            HEAP => others().fold(value, u64::saturating_add),
            STACK | PRINTED => others().fold(value, u64::max),
            _ => return Err(CudaError::UNSUPPORTED_LIMIT),
        };
        let now = values(device)?;
        let place = limit as usize;
        if needed > now[place] {
            let first = *state.first.get_or_insert(now);
            let mut then = now;
            then[place] = needed;
            if taken(then, first, device.resident_threads()?) > self.most_bytes {
                return Err(CudaError::OUT_OF_MEMORY);
            }
            device.set_context_limit(limit, needed)?;
        }
        state.wanted.insert((client, limit), value);
        Ok(())
    }

    /// What a client wants: limits and their values.
    pub(crate) fn wanted_by(&self, client: u64) -> Vec<(u32, u64)> {
        let state = lock(&self.state);
        let own = state.wanted.iter().filter(|((known, _), _)| *known == client);
        own.map(|(&(_, limit), &value)| (limit, value)).collect()
    }

    /// A client is gone. What the context has stays.
    pub(crate) fn forget(&self, client: u64) {
        lock(&self.state).wanted.retain(|(known, _), _| *known != client);
    }
}

/// The context's, by their numbers.
fn values(device: &Device) -> Result<[u64; 3], CudaError> {
    let mut values = [0; 3];
    for (limit, value) in (STACK..=HEAP).zip(&mut values) {
        *value = device.context_limit(limit)?;
    }
    Ok(values)
}

/// What limits take of the GPU's memory beyond what the context began with.
fn taken(then: [u64; 3], first: [u64; 3], resident_threads: u64) -> u64 {
    let [stack, printed, heap] = std::array::from_fn(|limit| then[limit].saturating_sub(first[limit]));
    stack.saturating_mul(resident_threads).saturating_add(printed).saturating_add(heap)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_limits_take_is_counted_together_and_a_stack_for_each_thread() {
        let first = [1024, 1 << 20, 8 << 20];
        assert_eq!(taken(first, first, 1 << 18), 0);
        assert_eq!(taken([1536, 3 << 20, 9 << 20], first, 1 << 18), (128 << 20) + (2 << 20) + (1 << 20));
        assert_eq!(taken([u64::MAX; 3], first, 1 << 18), u64::MAX);
    }
}
