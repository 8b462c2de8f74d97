//! The queue behind a stream: operations in order, carried out by a thread that exists while there are any.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::capture::Membership;
use crate::check::{Clocks, Stamp, join};
use crate::engine::Engine;
use crate::error::{CudaError, Result};
use crate::event::Recording;
use crate::lock;
use crate::machine::Machine;
use crate::operation::{Place, Work};

/// How long the thread of an empty queue waits for more work.
const IDLE: Duration = Duration::from_millis(200);
/// How often a waiter looks whether the machine has failed meanwhile.
pub const HEALTH_INTERVAL: Duration = Duration::from_millis(20);

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// What kind of stream it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StreamFlags {
    /// Stream 0 of its context.
    pub legacy: bool,
    /// It neither waits for stream 0 nor the other way round.
    pub non_blocking: bool,
    /// Its priority, 0 or less.
    pub priority: i32,
    /// The handle of its green context; 0 if it is of the device's.
    pub green: u64,
}

/// A stream.
#[derive(Debug)]
pub struct Queue {
    /// A number that no other stream of the process has.
    pub id: u64,
    /// The device whose work it is.
    pub device: usize,
    /// What kind of stream it is.
    pub flags: StreamFlags,
    /// The capture it takes part in.
    pub capture: Mutex<Option<Membership>>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    pending: VecDeque<Operation>,
    issued: u64,
    completed: u64,
    has_worker: bool,
    /// When the last completed operation ended.
    time_ns: u64,
    clocks: Clocks,
}

#[derive(Debug)]
struct Operation {
    work: Work,
    waits_for: Vec<Dependency>,
    sequence: u64,
    issued_ns: u64,
    stamp: Option<Stamp>,
}

/// Something that must be complete before an operation starts.
#[derive(Debug, Clone)]
pub enum Dependency {
    /// The operations of another stream up to one.
    Position(Arc<Queue>, u64),
    /// What an event recorded.
    Recording(Arc<Recording>),
}

impl Queue {
    /// An empty stream.
    pub fn new(device: usize, flags: StreamFlags) -> Arc<Self> {
        Arc::new(Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            device,
            flags,
            capture: Mutex::default(),
            state: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    /// Adds work. Its sequence number, from 1.
    pub fn submit(
        self: &Arc<Self>,
        machine: &'static Machine,
        work: Work,
        waits_for: Vec<Dependency>,
    ) -> u64 {
        let others = machine.config.checks.unordered.then(|| clocks_of(machine, &waits_for));
        let mut state = lock(&self.state);
        state.issued += 1;
        let sequence = state.issued;
        let stamp = others.map(|others| {
            join(&mut state.clocks, &others);
            state.clocks.insert(self.id, sequence);
            Stamp { stream: self.id, sequence, clocks: Arc::new(state.clocks.clone()) }
        });
        if let Some(stamp) = &stamp {
            note_writes(machine, &work, stamp);
        }
        if let Work::Record(recording) = &work {
            recording.set_position(self, sequence, stamp.clone());
        }
        let issued_ns = machine.clock.host_ns();
        state.pending.push_back(Operation { work, waits_for, sequence, issued_ns, stamp });
        if !state.has_worker {
            state.has_worker = true;
            let queue = Arc::clone(self);
            let name = format!("simgpu stream {}", self.id);
            let spawned = std::thread::Builder::new().name(name).spawn(move || queue.run(machine));
            if spawned.is_err() {
                state.has_worker = false;
                machine.stick(CudaError::OPERATING_SYSTEM, "no thread for a stream");
            }
        }
        drop(state);
        self.changed.notify_all();
        sequence
    }

    /// The position of the last operation, if there was one. It may be complete: the order, and the time it took, still count.
    pub fn last_issued(self: &Arc<Self>) -> Option<Dependency> {
        let issued = lock(&self.state).issued;
        (issued > 0).then(|| Dependency::Position(Arc::clone(self), issued))
    }

    /// Wakes whoever waits, because the machine failed.
    pub fn wake(&self) {
        self.changed.notify_all();
    }

    /// Whether the operation with this number is complete.
    pub fn is_complete(&self, sequence: u64) -> bool {
        lock(&self.state).completed >= sequence
    }

    /// Waits for an operation. The time at which the stream stood then.
    pub fn wait(&self, machine: &Machine, sequence: u64) -> Result<u64> {
        let mut state = lock(&self.state);
        while state.completed < sequence {
            machine.health(Some(self.device))?;
            state = self.sleep(state, HEALTH_INTERVAL).0;
        }
        let time_ns = state.time_ns;
        drop(state);
        machine.health(Some(self.device)).map(|()| time_ns)
    }

    /// Waits for everything issued so far, as the host.
    pub fn synchronize(&self, machine: &Machine) -> Result {
        let issued = lock(&self.state).issued;
        self.wait_as_host(machine, issued)
    }

    /// Waits for an operation, as the host: its time moves on, and it knows what is complete then.
    pub fn wait_as_host(&self, machine: &Machine, sequence: u64) -> Result {
        let mut clocks = lock(&self.state).clocks.clone();
        let time_ns = self.wait(machine, sequence)?;
        machine.clock.host_waited(time_ns);
        // Of this stream no more than was waited for.
        if let Some(known) = clocks.get_mut(&self.id) {
            *known = sequence.min(*known);
        }
        join(&mut lock(&machine.host_clocks), &clocks);
        Ok(())
    }

    /// Whether the operation with this number is complete, and the stream has come no further than to `time_ns`.
    fn is_complete_by(&self, sequence: u64, time_ns: u64) -> bool {
        let state = lock(&self.state);
        state.completed >= sequence && state.time_ns <= time_ns
    }

    /// Whether everything is complete.
    pub fn query(&self, machine: &Machine) -> Result {
        let state = lock(&self.state);
        if state.completed < state.issued {
            return Err(CudaError::NOT_READY);
        }
        join(&mut lock(&machine.host_clocks), &state.clocks);
        Ok(())
    }

    fn sleep<'a>(&self, state: MutexGuard<'a, State>, time: Duration) -> (MutexGuard<'a, State>, bool) {
        let (state, result) = self.changed.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner);
        (state, result.timed_out())
    }

    /// The thread of the stream.
    fn run(self: Arc<Self>, machine: &'static Machine) {
        loop {
            let mut state = lock(&self.state);
            let operation = loop {
                if let Some(operation) = state.pending.pop_front() {
                    break operation;
                }
                let (next, timed_out) = self.sleep(state, IDLE);
                state = next;
                if timed_out && state.pending.is_empty() {
                    state.has_worker = false;
                    return;
                }
            };
            let time_ns = state.time_ns;
            drop(state);
            let sequence = operation.sequence;
            let done = catch_unwind(AssertUnwindSafe(|| self.carry_out(machine, operation, time_ns)));
            let end_ns = match done.unwrap_or(Err(CudaError::UNKNOWN)) {
                Ok(end_ns) => end_ns,
                Err(error) => {
                    // A lost device fails its own operations only.
                    if machine.health(Some(self.device)).is_ok() {
                        machine.stick(error, "an operation failed");
                    }
                    time_ns
                }
            };
            let mut state = lock(&self.state);
            state.completed = sequence;
            state.time_ns = state.time_ns.max(end_ns);
            let now_ns = machine.clock.actual_end(state.time_ns);
            drop(state);
            self.changed.notify_all();
            if let Some(engine) = machine.engines.at(self.id)
                && !self.goes_on_with(engine, now_ns)
            {
                machine.engines.leave(self.id);
            }
        }
    }

    /// Whether its next operation, but for marks, is a copy for this engine that could start at `now_ns`.
    fn goes_on_with(&self, engine: Engine, now_ns: u64) -> bool {
        let mut waits_for = Vec::new();
        let state = lock(&self.state);
        let mut upcoming = state.pending.iter().inspect(|operation| waits_for.extend(&operation.waits_for));
        let next = upcoming.find(|operation| !operation.work.is_mark());
        let issued = next.filter(|next| next.work.engine() == Some(engine) && next.issued_ns <= now_ns);
        let (is_issued, waits_for) = (issued.is_some(), waits_for.into_iter().cloned().collect::<Vec<_>>());
        // The other streams are looked at without this one's lock, for they may do the same.
        drop(state);
        is_issued && waits_for.iter().all(|dependency| dependency.is_complete_by(now_ns))
    }

    /// Carries out one operation and lets go of what it holds. Once the machine failed, nothing happens any more.
    fn carry_out(&self, machine: &'static Machine, operation: Operation, time_ns: u64) -> Result<u64> {
        let Operation { work, waits_for, issued_ns, stamp, .. } = operation;
        let mut earliest_ns = time_ns.max(issued_ns);
        for dependency in &waits_for {
            earliest_ns = earliest_ns.max(dependency.wait(machine)?);
        }
        machine.health(Some(self.device))?;
        work.execute(
            machine,
            &Place { device: self.device, green: self.flags.green, stream: self.id, earliest_ns, stamp },
        )
    }
}

impl Dependency {
    /// Waits for it. When it ended.
    fn wait(&self, machine: &Machine) -> Result<u64> {
        match self {
            Self::Position(queue, sequence) => queue.wait(machine, *sequence),
            Self::Recording(recording) => recording.wait(machine),
        }
    }

    /// Whether it is complete, and was no later than at `time_ns`.
    fn is_complete_by(&self, time_ns: u64) -> bool {
        match self {
            Self::Position(queue, sequence) => queue.is_complete_by(*sequence, time_ns),
            Self::Recording(recording) => recording.is_complete_by(time_ns),
        }
    }
}

/// What is certain to be complete when these and what the host waited for are.
fn clocks_of(machine: &Machine, waits_for: &[Dependency]) -> Clocks {
    let mut clocks = lock(&machine.host_clocks).clone();
    for dependency in waits_for {
        match dependency {
            Dependency::Position(queue, _) => join(&mut clocks, &lock(&queue.state).clocks),
            Dependency::Recording(recording) => {
                if let Some(stamp) = recording.stamp() {
                    join(&mut clocks, &stamp.clocks);
                }
            }
        }
    }
    clocks
}

fn note_writes(machine: &Machine, work: &Work, stamp: &Stamp) {
    match work {
        Work::Copy(copy) => {
            copy.shape.each_target_row(|start, bytes| machine.writers.note(start, start + bytes, stamp))
        }
        Work::Fill(fill) => fill.each_row(|start, bytes| machine.writers.note(start, start + bytes, stamp)),
        Work::Graph(program) => program.work.iter().for_each(|work| note_writes(machine, work, stamp)),
        _ => {}
    }
}
