//! How long functions have used a GPU, over all workers that it has had.

use std::collections::BTreeMap;
use torpor_proto::control::worker::FunctionTime;

/// The time of one GPU by function, in microseconds. It never falls, whatever a worker says.
#[derive(Clone, Debug, Default)]
pub struct GpuTimes {
    /// What workers that have ended told last.
    ended: BTreeMap<String, u64>,
    now: BTreeMap<String, u64>,
}

impl GpuTimes {
    /// The worker tells of functions.
    pub fn hear(&mut self, times: Vec<FunctionTime>) {
        for FunctionTime { function, gpu_us } in times {
            let known = self.now.entry(function).or_default();
            *known = (*known).max(gpu_us);
        }
    }

    /// Others that have ended were used, too.
    pub(super) fn add(&mut self, others: &Self) {
        for (function, time) in others.by_function() {
            let sum = self.ended.entry(function).or_default();
            *sum = sum.saturating_add(time);
        }
    }

    /// The worker is gone; the next one counts from the beginning.
    pub fn bury(&mut self) {
        self.ended = self.by_function();
        self.now.clear();
    }

    /// Each function's.
    #[must_use]
    pub fn by_function(&self) -> BTreeMap<String, u64> {
        let mut all = self.ended.clone();
        for (function, &time) in &self.now {
            let sum = all.entry(function.clone()).or_default();
            // A worker may say anything.
            *sum = sum.saturating_add(time);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_where_a_worker_ended_and_never_falls() {
        let time = |function: &str, gpu_us| FunctionTime { function: function.to_owned(), gpu_us };
        let mut times = GpuTimes::default();
        times.hear(vec![time("a", 5), time("b", 7)]);
        times.hear(vec![time("a", 4)]);
        times.bury();
        times.hear(vec![time("a", 3)]);
        let all: Vec<_> = times.by_function().into_iter().collect();
        assert_eq!(all, [("a".to_owned(), 8), ("b".to_owned(), 7)]);
    }
}
