//! Numbers by which a worker knows what this process has it launch.

use super::super::CudaResult;
use std::sync::{Mutex, PoisonError};
use torpor_proto::error::CudaError;

/// As many as a worker has room for.
const LIMIT: u32 = 1 << 16;

/// A number that is given back when it is dropped.
#[derive(Debug)]
pub(super) struct Number(pub(super) u32);

struct Numbers {
    next: u32,
    free: Vec<u32>,
}

static NUMBERS: Mutex<Numbers> = Mutex::new(Numbers { next: 1, free: Vec::new() });

impl Number {
    /// One that nobody has.
    ///
    /// # Errors
    /// `OUT_OF_MEMORY`.
    pub(super) fn take() -> CudaResult<Self> {
        let mut numbers = NUMBERS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = numbers.free.pop() {
            return Ok(Self(number));
        }
        if numbers.next == LIMIT {
            return Err(CudaError::OUT_OF_MEMORY);
        }
        numbers.next += 1;
        Ok(Self(numbers.next - 1))
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        NUMBERS.lock().unwrap_or_else(PoisonError::into_inner).free.push(self.0);
    }
}
