//! Enclosures: the executors of strict functions, one for each on each GPU where it is, in whose worker process nobody else's memory,
//! page-locked pages, slabs or code are mapped.
//!
//! One is started for a function's first client there and ends some time after its last one is gone. Whoever may give it orders
//! [holds](Executor) it; nobody else can begin to once it is closed.

use crate::server::realms::Realms;
use crate::server::size::ByteSize;
use crate::server::workers::executor::Executor;
use crate::server::workers::gpu_time::GpuTimes;
use crate::server::workers::kind::Site;
use crate::server::workers::supervisor::Supervisor;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// A GPU has as many as it may.
#[derive(Debug, thiserror::Error)]
#[error(
    "GPU {gpu} has {most} enclosures of strict functions ({functions}), as many as strict_per_gpu in [scheduler] of the settings file \
     says; end the processes of one, or raise that: each takes {context} of the GPU's memory for its context"
)]
pub struct TooManyEnclosures {
    gpu: u32,
    most: u32,
    functions: String,
    context: ByteSize,
}

/// Those of one GPU.
#[derive(Debug)]
pub(crate) struct Enclosures {
    site: Site,
    realms: Arc<Realms>,
    most: u32,
    /// Where their supervisors run: workers die with the thread that started them.
    runtime: Handle,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    open: BTreeMap<String, Arc<Executor>>,
    /// How long functions used those that have ended.
    past: GpuTimes,
    tasks: Vec<JoinHandle<()>>,
}

impl Enclosures {
    /// None yet, and at most so many. Call it in the runtime that starts workers.
    pub(super) fn new(site: Site, realms: Arc<Realms>, most: u32) -> Arc<Self> {
        Arc::new(Self { site, realms, most, runtime: Handle::current(), state: Mutex::default() })
    }

    /// A function's, which is started unless it is there. It stays as long as somebody has what this returns.
    pub(super) fn enter(self: &Arc<Self>, function: &str) -> Result<Arc<Executor>, TooManyEnclosures> {
        let mut state = self.state();
        if let Some(open) = state.open.get(function) {
            return Ok(open.clone());
        }
        if state.open.len() >= self.most as usize {
            let functions: Vec<&str> = state.open.keys().map(String::as_str).collect();
            let context = ByteSize(self.context_bytes());
            let (gpu, most) = (self.site.index, self.most);
            return Err(TooManyEnclosures { gpu, most, functions: functions.join(", "), context });
        }
        let _in_runtime = self.runtime.enter();
        let realm = self.realms.of(function);
        let (executor, supervisor) =
            Supervisor::of_enclosure(self.site.clone(), realm, self.clone(), function);
        state.open.insert(function.to_owned(), executor.clone());
        state.tasks.retain(|task| !task.is_finished());
        state.tasks.push(tokio::spawn(supervisor.run()));
        Ok(executor)
    }

    /// Whether a function has one here, or there is room for another one.
    pub(super) fn may_enter(&self, function: &str) -> bool {
        let state = self.state();
        state.open.contains_key(function) || state.open.len() < self.most as usize
    }

    /// Those that are open, with their functions.
    pub(super) fn list(&self) -> Vec<(String, Arc<Executor>)> {
        self.state().open.iter().map(|(function, executor)| (function.clone(), executor.clone())).collect()
    }

    /// How long functions used those that have ended.
    pub(super) fn past(&self) -> GpuTimes {
        self.state().past.clone()
    }

    /// What the context of each takes.
    pub(super) fn context_bytes(&self) -> u64 {
        self.site.context_bytes()
    }

    /// Whether somebody may give orders to a function's.
    pub(super) fn is_held(&self, function: &str) -> bool {
        self.state().open.get(function).is_some_and(|executor| Arc::strong_count(executor) > 1)
    }

    /// Closes a function's unless somebody holds it: from then on nobody gives it orders.
    pub(super) fn close(&self, function: &str) -> bool {
        let mut state = self.state();
        let Some(executor) = state.open.get(function) else { return true };
        if Arc::strong_count(executor) > 1 {
            return false;
        }
        let times = executor.times();
        state.past.add(&times);
        state.open.remove(function);
        true
    }

    /// The tasks that look after their workers.
    pub(crate) fn take_tasks(&self) -> Vec<JoinHandle<()>> {
        std::mem::take(&mut self.state().tasks)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
