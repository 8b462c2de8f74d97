//! Which of the requests that have a process is next on the GPUs, where no more than a few may be there at once.
//!
//! An order is pure: it hears how requests ended, and is asked which of those that wait is next. The gate ([`crate::gate`]) does
//! the waiting.

mod deadline;
mod fifo;
mod slo_aware;
mod standing;

use crate::queue::Priority;
use deadline::Deadline;
use fifo::Fifo;
use slo_aware::SloAware;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use torpor_gpuserver::server::settings::Policy;

/// A request that waits.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Its function.
    pub function: Arc<str>,
    /// How much its client says that it matters.
    pub priority: Priority,
    /// When its answer should be there: its function's objective, or its own deadline if that is earlier.
    pub due: Instant,
    /// Counted in the order of coming.
    pub arrival: u64,
    /// The part of its function's requests that should be answered in time.
    pub percentile: f64,
}

/// How a request ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Its function.
    pub function: Arc<str>,
    /// How long it was on the GPUs' side of the gate; `None` if it never came there.
    pub took: Option<Duration>,
    /// Whether it was answered well and in time.
    pub met: bool,
    /// The part of its function's requests that should be.
    pub percentile: f64,
}

/// A policy, with what it knows.
pub trait Order: fmt::Debug + Send {
    /// Which of the candidates is next; `None` if there is none. Those of a higher class come first whatever the policy says.
    fn next(&mut self, now: Instant, candidates: &[Candidate]) -> Option<usize>;

    /// Hears how a request ended.
    fn ended(&mut self, now: Instant, ended: &Ended);
}

/// The order that a settings file asks for.
#[must_use]
pub fn order(policy: Policy, now: Instant) -> Box<dyn Order> {
    match policy {
        Policy::Fifo => Box::new(Fifo),
        Policy::Deadline => Box::<Deadline>::default(),
        Policy::SloAware => Box::new(SloAware::new(now)),
    }
}

/// The first candidate by class, then by what a policy says of it, then by arrival.
fn first_by<K: PartialOrd>(candidates: &[Candidate], key: impl Fn(&Candidate) -> K) -> Option<usize> {
    let keyed = candidates.iter().map(|one| (one.priority, key(one), one.arrival)).enumerate();
    let least = keyed.reduce(|least, next| {
        let before = next.1.partial_cmp(&least.1).is_some_and(std::cmp::Ordering::is_lt);
        if before { next } else { least }
    });
    least.map(|(place, _)| place)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A candidate that is due `due_ms` after `now`.
    pub(super) fn candidate(function: &str, now: Instant, due_ms: u64, arrival: u64) -> Candidate {
        let due = now + Duration::from_millis(due_ms);
        Candidate { function: function.into(), priority: Priority::Normal, due, arrival, percentile: 0.98 }
    }

    /// A request that ended after `ms`.
    pub(super) fn ended(function: &str, ms: u64, met: bool) -> Ended {
        Ended { function: function.into(), took: Some(Duration::from_millis(ms)), met, percentile: 0.98 }
    }

    #[test]
    fn a_client_s_word_stands_above_every_policy() {
        let now = Instant::now();
        for policy in [Policy::Fifo, Policy::Deadline, Policy::SloAware] {
            let mut urgent = candidate("f", now, 900, 2);
            urgent.priority = Priority::High;
            let mut order = order(policy, now);
            assert_eq!(order.next(now, &[candidate("f", now, 1, 1), urgent]), Some(1), "{policy:?}");
            assert_eq!(order.next(now, &[]), None);
        }
    }
}
