//! A function: the requests that wait for it, and its processes.
//!
//! Everything that changes is behind one lock, which is held for a few instructions. A request gets a [`Lease`] on one place of
//! one process; giving it back hands the place to the next that waits.

mod lease;
mod progress;

pub use lease::Lease;

use crate::batch::Batches;
use crate::config::{Deployment, Processes};
use crate::error::Refusal;
use crate::instance::{self, Launcher, Stop};
use crate::loading::{DeviceMemory, LoadingState};
use crate::logs::Logs;
use crate::member::{InstanceRow, Member};
use crate::metrics::FunctionMetrics;
use crate::queue::{Queue, Ticket};
use crate::recent::Recent;
use crate::terms::Terms;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};
use torpor_gpuserver::server::size::ByteSize;

/// Until a process is started after one that did not start; doubled with each.
const FIRST_RETRY: Duration = Duration::from_millis(500);
/// At most.
const LAST_RETRY: Duration = Duration::from_secs(30);

/// What a waiting request hears.
type Answer = Result<Lease, Refusal>;

/// A function that is served.
#[derive(Debug)]
pub struct Function {
    /// Its name.
    pub name: Arc<str>,
    /// How it is served.
    pub deployment: Deployment,
    /// What its processes print.
    pub logs: Logs,
    /// What is counted of it.
    pub metrics: FunctionMetrics,
    /// How its last requests fared.
    pub recent: Recent,
    /// Requests that wait for each other.
    pub batches: Batches,
    /// Device memory of its processes, as the node server says.
    pub memory: DeviceMemory,
    launcher: Launcher,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: Queue<oneshot::Sender<Answer>>,
    instances: Vec<Member>,
    started: u64,
    /// Processes in a row that were never healthy, and when the next may be started.
    failures: u32,
    retry_at: Option<Instant>,
    removed: bool,
    /// Memory that it may use, and that the largest GPU has for functions, where that is less.
    too_large: Option<(ByteSize, ByteSize)>,
    /// What an operator said ([`Function::scale`]), instead of the settings file.
    least: Option<usize>,
}

/// Takes a request out of the queue if its client leaves.
struct Waiting<'a> {
    function: &'a Function,
    ticket: Ticket,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.function.lock();
        state.waiting.remove(self.ticket);
        self.function.metrics.waiting.set(state.waiting.len() as i64);
    }
}

impl State {
    /// A process that is on its way: its number, and how it hears that it shall end.
    fn add_member(&mut self, endpoint: Option<usize>) -> (u64, watch::Receiver<bool>) {
        self.started += 1;
        let (stop, stopped) = watch::channel(false);
        let (id, idle_since) = (self.started, Instant::now());
        self.instances.push(Member {
            id,
            address: None,
            process_group: 0,
            endpoint,
            leases: 0,
            idle_since,
            stop,
        });
        (id, stopped)
    }
}

impl Function {
    /// A function without processes.
    #[must_use]
    pub fn new(
        name: Arc<str>,
        deployment: Deployment,
        launcher: Launcher,
        metrics: FunctionMetrics,
    ) -> Arc<Self> {
        let (logs, recent, state) = (Logs::default(), Recent::default(), Mutex::default());
        let (batches, memory) = (Batches::default(), DeviceMemory::default());
        Arc::new(Self { name, deployment, logs, metrics, recent, batches, memory, launcher, state })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a place, in the order of the queue, and starts processes where more are needed.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn lease(self: &Arc<Self>, terms: Terms) -> Result<Lease, Refusal> {
        let (answer, ticket) = {
            let mut state = self.lock();
            if state.removed {
                return Err(Refusal::Removed);
            }
            if let Some((wants, has)) = state.too_large {
                return Err(Refusal::NeverFits { wants, has });
            }
            if state.waiting.is_empty()
                && let Some(lease) = self.free_place(&mut state, false)
            {
                return Ok(lease);
            }
            if state.waiting.len() >= self.deployment.max_queue {
                return Err(Refusal::QueueFull(self.deployment.max_queue));
            }
            if let (Some(at), []) = (state.retry_at, state.instances.as_slice())
                && let Some(retry) = at.checked_duration_since(Instant::now())
            {
                let reason = "the last one did not".to_owned();
                return Err(Refusal::DoesNotStart { reason, retry });
            }
            let (sender, answer) = oneshot::channel();
            let ticket = state.waiting.push(terms.priority, terms.deadline, sender);
            self.metrics.waiting.set(state.waiting.len() as i64);
            self.start_needed(&mut state);
            (answer, ticket)
        };
        let waiting = Waiting { function: self, ticket };
        let answer = tokio::time::timeout_at(terms.deadline.into(), answer).await;
        drop(waiting);
        match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(Refusal::Removed),
            Err(_) => {
                let loading = self.loading();
                let starting = (loading.state == LoadingState::Starting).then_some(loading);
                Err(Refusal::WaitedTooLong { starting })
            }
        }
    }

    /// A place of the healthy process that has the fewest requests.
    fn free_place(self: &Arc<Self>, state: &mut State, cold: bool) -> Option<Lease> {
        let concurrency = self.deployment.concurrency;
        let ready = state.instances.iter_mut().filter(|member| {
            member.address.is_some() && member.leases < concurrency && !*member.stop.borrow()
        });
        let member = ready.min_by_key(|member| member.leases)?;
        member.leases += 1;
        self.metrics.running.inc();
        Some(Lease {
            function: Some(self.clone()),
            instance: member.id,
            address: member.address.clone()?,
            cold,
            process_group: member.process_group,
            told: None,
            pass: None,
        })
    }

    /// Gives places to those who wait.
    fn dispatch(self: &Arc<Self>, state: &mut State, cold: bool) {
        while !state.waiting.is_empty() {
            let Some(lease) = self.free_place(state, cold) else { break };
            let instance = lease.instance;
            let Some(request) = state.waiting.pop(Instant::now()) else { break };
            if let Err(Ok(mut lease)) = request.send(Ok(lease)) {
                // Its client has left. Dropping the lease would take the lock again.
                lease.function = None;
                self.free(state, instance);
            }
        }
        self.metrics.waiting.set(state.waiting.len() as i64);
    }

    fn free(&self, state: &mut State, instance: u64) {
        self.metrics.running.dec();
        if let Some(member) = state.instances.iter_mut().find(|member| member.id == instance) {
            member.leases -= 1;
            member.idle_since = Instant::now();
        }
    }

    fn give_back(self: &Arc<Self>, instance: u64) {
        let mut state = self.lock();
        self.free(&mut state, instance);
        self.dispatch(&mut state, false);
    }

    fn least(&self, state: &State) -> usize {
        if state.removed { 0 } else { state.least.unwrap_or(self.deployment.min_instances) }
    }

    /// Starts as many processes as the requests need that are here, within the function's bounds.
    fn start_needed(self: &Arc<Self>, state: &mut State) {
        if state.removed || state.too_large.is_some() || state.retry_at.is_some_and(|at| Instant::now() < at)
        {
            return;
        }
        let alive = state.instances.iter().filter(|member| !*member.stop.borrow());
        let (count, leases) =
            alive.fold((0, 0), |(count, leases), member| (count + 1, leases + member.leases));
        let least = self.least(state);
        let needed = (leases + state.waiting.len()).div_ceil(self.deployment.concurrency);
        let most = self.deployment.max_instances.max(least);
        match &self.deployment.processes {
            Processes::Command(_) | Processes::Container(_) => {
                for _ in count..needed.clamp(least, most) {
                    self.metrics.starts.inc();
                    self.start(state, None);
                }
            }
            Processes::Endpoints(endpoints) => {
                for place in 0..endpoints.len() {
                    if state.instances.iter().all(|member| member.endpoint != Some(place)) {
                        self.start(state, Some(place));
                    }
                }
            }
        }
        self.metrics.instances.set(state.instances.len() as i64);
    }

    fn start(self: &Arc<Self>, state: &mut State, endpoint: Option<usize>) {
        let (id, stopped) = state.add_member(endpoint);
        tokio::spawn(instance::run(self.clone(), self.launcher.clone(), id, endpoint, Stop(stopped)));
    }

    /// A process is healthy.
    pub(crate) fn instance_ready(self: &Arc<Self>, id: u64, address: Arc<str>, process_group: u32) {
        let mut state = self.lock();
        (state.failures, state.retry_at) = (0, None);
        if let Some(member) = state.instances.iter_mut().find(|member| member.id == id) {
            (member.address, member.idle_since) = (Some(address), Instant::now());
            member.process_group = process_group;
        }
        self.dispatch(&mut state, true);
    }

    /// A process has ended. If it was never healthy and there is no other, those who wait are told.
    pub(crate) fn instance_ended(self: &Arc<Self>, id: u64, reason: &str) {
        let mut state = self.lock();
        let Some(place) = state.instances.iter().position(|member| member.id == id) else { return };
        let member = state.instances.swap_remove(place);
        self.logs.push(format!("[{id}] torpor: {reason}"));
        if member.address.is_none() && !*member.stop.borrow() {
            let retry = FIRST_RETRY.saturating_mul(1 << state.failures.min(10)).min(LAST_RETRY);
            state.failures += 1;
            state.retry_at = Some(Instant::now() + retry);
            if state.instances.is_empty() {
                while let Some(request) = state.waiting.pop(Instant::now()) {
                    // A client that has left needs no answer.
                    let _ = request.send(Err(Refusal::DoesNotStart { reason: reason.to_owned(), retry }));
                }
            }
        }
        self.start_needed(&mut state);
    }

    /// Stops processes that are idle for longer than they are kept, and starts what the least asks for. Called now and then.
    pub fn tend(self: &Arc<Self>) {
        let mut state = self.lock();
        let least = self.least(&state);
        let alive = state.instances.iter().filter(|member| !*member.stop.borrow()).count();
        let keep_alive = if state.removed { Duration::ZERO } else { self.deployment.keep_alive };
        let idle = state.instances.iter().filter(|member| {
            let old = member.idle_since.elapsed() >= keep_alive;
            let unneeded = member.endpoint.is_none() && member.address.is_some() && old;
            member.leases == 0 && (state.removed || unneeded) && !*member.stop.borrow()
        });
        for member in idle.take(alive.saturating_sub(least)) {
            member.stop.send_replace(true);
        }
        self.start_needed(&mut state);
    }

    /// Keeps at least so many processes from now on, whatever the settings file says; `None` goes back to that.
    pub fn scale(self: &Arc<Self>, least: Option<usize>) {
        self.lock().least = least;
        self.tend();
    }

    /// Takes no more requests. Those under way are answered; then the processes end.
    pub fn remove(self: &Arc<Self>) {
        let mut state = self.lock();
        state.removed = true;
        while let Some(request) = state.waiting.pop(Instant::now()) {
            // A client that has left needs no answer.
            let _ = request.send(Err(Refusal::Removed));
        }
        drop(state);
        self.tend();
    }

    /// Whether all of its processes have ended.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.lock().instances.is_empty()
    }

    /// Its processes, and how many requests wait.
    #[must_use]
    pub fn rows(&self) -> (Vec<InstanceRow>, usize) {
        let state = self.lock();
        (state.instances.iter().map(Member::row).collect(), state.waiting.len())
    }
}
