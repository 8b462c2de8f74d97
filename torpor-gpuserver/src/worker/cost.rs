//! What requests cost their client: the difference of what has been counted of it between their beginnings and now.

use crate::worker::sync::lock;
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What is counted of a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Times that it was given the GPU.
    pub(crate) turns: u64,
    /// Of those, how often memory had to be brought there.
    pub(crate) swaps: u64,
    /// How long it waited for its turns.
    pub(crate) waited_us: u64,
    /// How long others took to make room for it, and its memory to come.
    pub(crate) swapping_us: u64,
    /// How long it used the GPU.
    pub(crate) gpu_us: u64,
}

/// Requests under way that somebody has told of, with what had been counted when they began.
#[derive(Debug, Default)]
pub(crate) struct ToldRequests {
    begun: Mutex<HashMap<u64, Counts>>,
    /// What had been counted when the client came from another worker.
    came: Mutex<Counts>,
    count: AtomicUsize,
}

impl Counts {
    fn since(self, began: Self) -> Self {
        Self {
            turns: self.turns.saturating_sub(began.turns),
            swaps: self.swaps.saturating_sub(began.swaps),
            waited_us: self.waited_us.saturating_sub(began.waited_us),
            swapping_us: self.swapping_us.saturating_sub(began.swapping_us),
            gpu_us: self.gpu_us.saturating_sub(began.gpu_us),
        }
    }
}

impl ToldRequests {
    /// A request begins.
    pub(crate) fn begin(&self, request: u64, now: Counts) {
        lock(&self.begun).insert(request, now);
        self.note();
    }

    /// One has ended. The beginning of one that was moved here was told elsewhere: then there is nothing to take away.
    pub(crate) fn end(&self, request: u64) {
        lock(&self.begun).remove(&request);
        self.note();
    }

    /// All have ended.
    pub(crate) fn end_all(&self) {
        lock(&self.begun).clear();
        self.note();
    }

    /// The client has come from another worker, with what was counted there.
    pub(crate) fn came(&self, now: Counts) {
        *lock(&self.came) = now;
    }

    /// Whether there is any.
    #[inline]
    pub(crate) fn is_any(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    /// What a request has cost by now. Of one that began elsewhere, since its client came.
    pub(crate) fn cost(&self, request: u64, now: Counts) -> Counts {
        let began = lock(&self.begun).get(&request).copied();
        now.since(began.unwrap_or_else(|| *lock(&self.came)))
    }

    fn note(&self) {
        self.count.store(lock(&self.begun).len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_costs_what_is_counted_while_it_lasts() {
        let told = ToldRequests::default();
        told.came(Counts { swaps: 4, ..Counts::default() });
        told.begin(9, Counts { swaps: 5, gpu_us: 70, ..Counts::default() });
        let now = Counts { swaps: 5, gpu_us: 95, ..Counts::default() };
        assert_eq!(told.cost(9, now), Counts { gpu_us: 25, ..Counts::default() });
        let elsewhere = told.cost(8, now);
        assert_eq!((elsewhere.swaps, elsewhere.gpu_us), (1, 95), "it came with its client");
        assert!(told.is_any());
        told.end(8);
        told.end(9);
        assert!(!told.is_any());
    }
}
