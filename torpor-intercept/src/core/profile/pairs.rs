//! The events around a piece of work: made as needed up to a limit, and used again.

use crate::core::{CudaResult, Event};
use torpor_proto::error::CudaError;

/// Pairs at most: a quarter of the events that a process can have.
const MOST: usize = 8192;

/// An event before and one behind.
#[derive(Clone, Copy)]
pub(super) struct Pair {
    pub(super) start: &'static Event,
    pub(super) end: &'static Event,
}

/// Those that there are.
pub(super) struct Pairs {
    free: Vec<Pair>,
    made: usize,
}

impl Pairs {
    pub(super) const fn new() -> Self {
        Self { free: Vec::new(), made: 0 }
    }

    /// Whether the next one must be given back first.
    pub(super) fn are_used_up(&self) -> bool {
        self.free.is_empty() && self.made >= MOST
    }

    /// # Errors
    /// `OUT_OF_MEMORY` if all are in use, or what creating an event gives.
    pub(super) fn take(&mut self) -> CudaResult<Pair> {
        if let Some(pair) = self.free.pop() {
            return Ok(pair);
        }
        if self.made >= MOST {
            return Err(CudaError::OUT_OF_MEMORY);
        }
        let pair = Pair { start: Event::create(0)?, end: Event::create(0)? };
        self.made += 1;
        Ok(pair)
    }

    pub(super) fn give_back(&mut self, pair: Pair) {
        self.free.push(pair);
    }
}
