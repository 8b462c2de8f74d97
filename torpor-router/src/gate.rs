//! How many requests of all functions are under way on the node at once, and which comes next.
//!
//! A request comes here with its place at a process, so who waits here waits for the GPUs alone. Without `max_running` everybody
//! passes, and the GPUs take turns among those who came.

use crate::error::Refusal;
use crate::order::{Candidate, Ended, Order, order};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::oneshot;
use torpor_gpuserver::server::settings::{Policy, SchedulerSection};

/// The gate before the GPUs.
#[derive(Debug)]
pub struct Gate(Mutex<State>);

#[derive(Debug)]
struct State {
    policy: Policy,
    order: Box<dyn Order>,
    /// Requests that may have passed at once.
    most: usize,
    passed: usize,
    arrivals: u64,
    candidates: Vec<Candidate>,
    /// As many, in the same order.
    waiting: Vec<oneshot::Sender<Pass>>,
}

/// A request that has passed. Dropped, the next one may.
#[derive(Debug)]
pub struct Pass {
    gate: Option<Arc<Gate>>,
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(gate) = self.gate.take() {
            let mut state = gate.lock();
            state.passed -= 1;
            gate.let_pass(&mut state);
        }
    }
}

/// Takes a request out of the line if its client leaves.
struct Waiting<'a> {
    gate: &'a Gate,
    arrival: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.gate.lock();
        if let Some(place) = state.candidates.iter().position(|one| one.arrival == self.arrival) {
            state.candidates.swap_remove(place);
            state.waiting.swap_remove(place);
        }
    }
}

impl Default for Gate {
    fn default() -> Self {
        let policy = SchedulerSection::default().policy();
        Self(Mutex::new(State {
            policy,
            order: order(policy, Instant::now()),
            most: usize::MAX,
            passed: 0,
            arrivals: 0,
            candidates: Vec::new(),
            waiting: Vec::new(),
        }))
    }
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what the settings say from now on.
    pub fn apply(self: &Arc<Self>, scheduler: &SchedulerSection) {
        let policy = scheduler.policy();
        if scheduler.policy.is_some() && scheduler.max_running.is_none() {
            tracing::warn!(
                "[scheduler] policy orders nothing without max_running: all requests go to the GPUs as they come"
            );
        }
        let mut state = self.lock();
        state.most = scheduler.max_running.map_or(usize::MAX, usize::from);
        if policy != state.policy {
            (state.policy, state.order) = (policy, order(policy, Instant::now()));
        }
        self.let_pass(&mut state);
    }

    /// Waits until a request may pass, but not beyond `deadline`. Its `arrival` is counted here.
    ///
    /// # Errors
    /// [`Refusal::WaitedTooLong`].
    pub async fn pass(self: &Arc<Self>, mut request: Candidate, deadline: Instant) -> Result<Pass, Refusal> {
        let (arrival, passed) = {
            let mut state = self.lock();
            if state.candidates.is_empty() && state.passed < state.most {
                state.passed += 1;
                return Ok(Pass { gate: Some(self.clone()) });
            }
            state.arrivals += 1;
            request.arrival = state.arrivals;
            let (sender, passed) = oneshot::channel();
            state.candidates.push(request);
            state.waiting.push(sender);
            (state.arrivals, passed)
        };
        let waiting = Waiting { gate: self, arrival };
        let passed = tokio::time::timeout_at(deadline.into(), passed).await;
        drop(waiting);
        passed.ok().and_then(Result::ok).ok_or(Refusal::WaitedTooLong { starting: None })
    }

    fn let_pass(self: &Arc<Self>, state: &mut State) {
        while state.passed < state.most
            && let Some(next) = state.order.next(Instant::now(), &state.candidates)
        {
            state.candidates.swap_remove(next);
            let sender = state.waiting.swap_remove(next);
            if let Err(mut pass) = sender.send(Pass { gate: Some(self.clone()) }) {
                // Its client has left. Dropping the pass would take the lock again.
                pass.gate = None;
            } else {
                state.passed += 1;
            }
        }
    }

    /// Hears how a request ended, so that the order knows it.
    pub fn ended(&self, ended: &Ended) {
        self.lock().order.ended(Instant::now(), ended);
    }

    /// Requests of a function that wait here.
    #[must_use]
    pub fn waiting(&self, function: &str) -> usize {
        self.lock().candidates.iter().filter(|one| &*one.function == function).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Priority;
    use std::time::Duration;

    fn request(function: &str, due_ms: u64) -> Candidate {
        let due = Instant::now() + Duration::from_millis(due_ms);
        Candidate { function: function.into(), priority: Priority::Normal, due, arrival: 0, percentile: 0.98 }
    }

    fn gate(policy: Policy, most: usize) -> Arc<Gate> {
        let gate = Arc::<Gate>::default();
        let scheduler = SchedulerSection {
            policy: Some(policy),
            max_running: std::num::NonZeroUsize::new(most),
            ..SchedulerSection::default()
        };
        gate.apply(&scheduler);
        gate
    }

    fn late() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[tokio::test]
    async fn as_many_pass_as_may_and_the_next_is_the_policy_s() {
        let gate = gate(Policy::Deadline, 1);
        let first = gate.pass(request("a", 1), late()).await.unwrap();
        let (order, mut passed) = tokio::sync::mpsc::unbounded_channel();
        for (name, due_ms) in [("b", 9000), ("c", 5000), ("d", 7000)] {
            let (gate, order) = (gate.clone(), order.clone());
            tokio::spawn(async move {
                let pass = gate.pass(request(name, due_ms), late()).await.unwrap();
                order.send(name).unwrap();
                drop(pass);
            });
        }
        while ["b", "c", "d"].iter().map(|name| gate.waiting(name)).sum::<usize>() < 3 {
            tokio::task::yield_now().await;
        }
        assert!(passed.try_recv().is_err());
        drop(first);
        let mut names = Vec::new();
        for _ in 0..3 {
            names.push(passed.recv().await.unwrap());
        }
        assert_eq!(names, ["c", "d", "b"]);
        assert_eq!(gate.lock().passed, 0);
    }

    #[tokio::test]
    async fn who_gives_up_leaves_no_trace() {
        let gate = gate(Policy::Fifo, 1);
        let first = gate.pass(request("a", 1), late()).await.unwrap();
        let refused = gate.pass(request("b", 1), Instant::now()).await;
        assert!(matches!(refused, Err(Refusal::WaitedTooLong { .. })));
        let waiting = gate.pass(request("c", 1), late());
        assert!(tokio::time::timeout(Duration::ZERO, waiting).await.is_err(), "dropped while it waits");
        assert_eq!((gate.waiting("b"), gate.waiting("c")), (0, 0));
        drop(first);
        drop(gate.pass(request("d", 1), late()).await.unwrap());
        assert_eq!(gate.lock().passed, 0);
    }

    #[tokio::test]
    async fn without_a_number_all_pass() {
        let gate = Arc::<Gate>::default();
        let mut passes = Vec::new();
        for _ in 0..100 {
            passes.push(gate.pass(request("a", 1), late()).await.unwrap());
        }
        gate.apply(&SchedulerSection {
            max_running: std::num::NonZeroUsize::new(1),
            ..SchedulerSection::default()
        });
        let too_many = gate.pass(request("a", 1), Instant::now() + Duration::from_millis(1)).await;
        assert!(too_many.is_err(), "a hundred are there already");
    }
}
