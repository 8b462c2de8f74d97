//! Limits of the context (`cuCtxSetLimit`), which all clients of a GPU share: a client reads back what it set, and the context has
//! at least what its clients want, so nobody is harmed by what another one sets.
//!
//! Heaps add up, since one client's kernels cannot allocate what another's have. Nothing is ever lowered. The driver resizes a heap
//! only before any kernel that uses it is loaded, and takes no memory for it until then, so the context begins with a large one. A part of the memory that functions leave is for limits; what they take beyond that is taken
//! of the functions' memory, for which others may have to leave.

use crate::driver::Device;
use crate::worker::gpu::memory::GpuMemory;
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

/// `CU_LIMIT_DEV_RUNTIME_PENDING_LAUNCH_COUNT`: launches by kernels that wait. Beyond it they fail, and only the kernel hears of it.
const PENDING_LAUNCHES: u32 = 4;

/// The most of these: so many took no memory on an H100.
const MOST_PENDING_LAUNCHES: u64 = 1 << 19;

/// Of the memory that functions may have, the part that limits may take at most.
const LARGEST_PART: u64 = 4;

/// What the clients of a GPU want.
#[derive(Debug)]
pub(crate) struct ContextLimits {
    free_bytes: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By client and limit.
    wanted: HashMap<(u64, u32), u64>,
    /// What the context began with.
    first: Option<[u64; 3]>,
    /// What limits have taken of the functions' memory.
    taken_bytes: u64,
}

impl State {
    /// What the context must have when a client wants so much of a limit.
    fn needed(&self, (client, limit, value): (u64, u32, u64)) -> Result<u64, CudaError> {
        let others = self.wanted.iter().filter(|((other, known), _)| *known == limit && *other != client);
        let others = others.map(|(_, &value)| value);
        match limit {
            HEAP => Ok(others.fold(value, u64::saturating_add)),
            STACK | PRINTED | PENDING_LAUNCHES => Ok(others.fold(value, u64::max)),
            _ => Err(CudaError::UNSUPPORTED_LIMIT),
        }
    }
}

impl ContextLimits {
    /// Limits that take so much of the GPU's memory beyond what the context began with before functions have less for it.
    pub(crate) fn new(free_bytes: u64) -> Self {
        Self { free_bytes, state: Mutex::default() }
    }

    /// Before anybody's kernels: the heap is half of what limits may take before functions have less.
    ///
    /// # Errors
    /// The driver's.
    pub(crate) fn begin(&self, device: &Device) -> Result<(), CudaError> {
        let first = values(device)?;
        lock(&self.state).first = Some(first);
        let heap_bytes = self.free_bytes / 2;
        if heap_bytes > first[HEAP as usize] { device.set_context_limit(HEAP, heap_bytes) } else { Ok(()) }
    }

    /// Whether the context has less than that: then the driver waits for every kernel that runs.
    ///
    /// # Errors
    /// `CUDA_ERROR_UNSUPPORTED_LIMIT`, or the driver's.
    pub(crate) fn is_short(&self, device: &Device, wanted: (u64, u32, u64)) -> Result<bool, CudaError> {
        let needed = lock(&self.state).needed(wanted)?;
        Ok(needed > device.context_limit(wanted.1)?)
    }

    /// Sees to it that the context has what a client wants. What that takes of the functions' memory, if anything, `reserve` reserves
    /// for the client.
    ///
    /// # Errors
    /// `CUDA_ERROR_OUT_OF_MEMORY` beyond the bound, `CUDA_ERROR_UNSUPPORTED_LIMIT`, the driver's, or those of `reserve`, which is
    /// called before anything has changed.
    pub(crate) fn raise<E: From<CudaError>>(
        &self,
        (device, memory): (&Device, &GpuMemory),
        (client, limit, value): (u64, u32, u64),
        reserve: impl FnOnce(u64) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut state = lock(&self.state);
        let needed = state.needed((client, limit, value))?;
        let now = values(device)?;
        let place = limit as usize;
        if limit == PENDING_LAUNCHES {
            if needed > MOST_PENDING_LAUNCHES {
                return Err(CudaError::OUT_OF_MEMORY.into());
            }
            if needed > device.context_limit(limit)? {
                device.set_context_limit(limit, needed)?;
            }
        } else if needed > now[place] {
            let first = *state.first.get_or_insert(now);
            let mut then = now;
            then[place] = needed;
            let beyond_bytes = taken(then, first, device.resident_threads()?).saturating_sub(self.free_bytes);
            if beyond_bytes > memory.limit_bytes() / LARGEST_PART {
                return Err(CudaError::OUT_OF_MEMORY.into());
            }
            let bytes = beyond_bytes.saturating_sub(state.taken_bytes);
            if bytes > 0 {
                reserve(bytes)?;
            }
            let raised = memory.make(|| device.set_context_limit(limit, needed));
            raised.inspect_err(|_| memory.unreserve(client, bytes))?;
            memory.give_to_context(client, bytes);
            state.taken_bytes += bytes;
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
