//! Events: marks in streams, with the time at which they were passed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use crate::abi::Out;
use crate::capture::{self, CapturedMark};
use crate::check::{Stamp, join};
use crate::context;
use crate::error::{CudaError, Result};
use crate::lock;
use crate::machine::Machine;
use crate::operation::Work;
use crate::stream::{self, Queue};

/// `CU_EVENT_DISABLE_TIMING`.
const DISABLE_TIMING: u32 = 2;
/// All flags of `CUevent_flags`.
const ALL_FLAGS: u32 = 7;

/// An event.
#[derive(Debug)]
pub struct Event {
    has_timing: bool,
    last: Mutex<Last>,
}

/// What the event was recorded in last.
#[derive(Debug, Default)]
enum Last {
    #[default]
    Nothing,
    Stream(Arc<Recording>),
    Capture(CapturedMark),
}

/// One passing of a mark.
#[derive(Debug, Default)]
pub struct Recording {
    time_ns: AtomicU64,
    position: OnceLock<(Arc<Queue>, u64, Option<Stamp>)>,
}

impl Recording {
    /// Notes the time; called when the stream passes the mark.
    pub fn set(&self, time_ns: u64) {
        self.time_ns.store(time_ns, Ordering::Release);
    }

    /// Notes where the mark is; called once, when it is issued.
    pub fn set_position(&self, queue: &Arc<Queue>, sequence: u64, stamp: Option<Stamp>) {
        // A graph issues the same recording again; the first position stands for it.
        let _ = self.position.set((Arc::clone(queue), sequence, stamp));
    }

    /// Its place in the order of things, if that is checked.
    pub fn stamp(&self) -> Option<&Stamp> {
        self.position.get().and_then(|position| position.2.as_ref())
    }

    /// Whether the mark was passed, and no later than at `time_ns`.
    pub fn is_complete_by(&self, time_ns: u64) -> bool {
        self.is_complete() && self.time_ns.load(Ordering::Acquire) <= time_ns
    }

    fn is_complete(&self) -> bool {
        self.position.get().is_none_or(|(queue, sequence, _)| queue.is_complete(*sequence))
    }

    /// Waits until the mark is passed. The time of that.
    pub fn wait(&self, machine: &Machine) -> Result<u64> {
        if let Some((queue, sequence, _)) = self.position.get() {
            queue.wait(machine, *sequence)?;
        }
        Ok(self.time_ns.load(Ordering::Acquire))
    }

    /// The host knows that the mark is passed.
    fn seen_by_host(&self, machine: &Machine) {
        machine.clock.host_waited(self.time_ns.load(Ordering::Acquire));
        if let Some(stamp) = self.stamp() {
            join(&mut lock(&machine.host_clocks), &stamp.clocks);
        }
    }
}

impl Event {
    /// What it recorded last in a stream.
    pub fn recording(&self) -> Option<Arc<Recording>> {
        match &*lock(&self.last) {
            Last::Stream(recording) => Some(Arc::clone(recording)),
            Last::Nothing | Last::Capture(_) => None,
        }
    }

    /// The mark it has in a capture.
    pub fn captured(&self) -> Option<CapturedMark> {
        match &*lock(&self.last) {
            Last::Capture(mark) => Some(mark.clone()),
            Last::Nothing | Last::Stream(_) => None,
        }
    }

    fn completed(&self) -> Result<Option<Arc<Recording>>> {
        match &*lock(&self.last) {
            Last::Nothing => Ok(None),
            Last::Stream(recording) => Ok(Some(Arc::clone(recording))),
            Last::Capture(mark) => {
                mark.invalidate();
                Err(CudaError::CAPTURED_EVENT)
            }
        }
    }
}

/// The event with this handle.
pub fn find(machine: &Machine, handle: u64) -> Result<Arc<Event>> {
    machine.events.find(handle).inspect_err(|_| {
        if machine.config.checks.streams && machine.events.was_issued(handle) {
            machine.log.line(&format!("check streams: event {handle:#x} is used after it was destroyed"));
        }
    })
}

pub fn create(machine: &Machine, event: Out<u64>, flags: u32) -> Result {
    context::current(machine)?;
    if flags & !ALL_FLAGS != 0 || event.is_null() {
        return Err(CudaError::INVALID_VALUE);
    }
    let has_timing = flags & DISABLE_TIMING == 0;
    event.set(machine.events.add(Arc::new(Event { has_timing, last: Mutex::default() })))
}

pub fn destroy(machine: &Machine, event: u64) -> Result {
    find(machine, event)?;
    machine.events.remove(event).map(drop)
}

pub fn record(machine: &'static Machine, event: u64, stream: u64, flags: u32) -> Result {
    let (context, queue) = stream::find(machine, stream)?;
    let handle = event;
    let event = find(machine, handle)?;
    if flags > 1 {
        return Err(CudaError::INVALID_VALUE);
    }
    if flags == 1 && capture::record_external(&context, &queue, handle, true)? {
        return Ok(());
    }
    if let Some(mark) = capture::mark(&context, &queue)? {
        *lock(&event.last) = Last::Capture(mark);
        return Ok(());
    }
    let recording = Arc::new(Recording::default());
    stream::enqueue(machine, &context, &queue, Work::Record(Arc::clone(&recording)), Vec::new())?;
    *lock(&event.last) = Last::Stream(recording);
    Ok(())
}

pub fn query(machine: &Machine, event: u64) -> Result {
    match find(machine, event)?.completed()? {
        Some(recording) if !recording.is_complete() => Err(CudaError::NOT_READY),
        Some(recording) => {
            recording.seen_by_host(machine);
            Ok(())
        }
        None => Ok(()),
    }
}

pub fn synchronize(machine: &Machine, event: u64) -> Result {
    if let Some(recording) = find(machine, event)?.completed()? {
        recording.wait(machine)?;
        recording.seen_by_host(machine);
    }
    machine.printed.flush();
    Ok(())
}

pub fn elapsed(machine: &Machine, milliseconds: Out<f32>, start: u64, end: u64) -> Result {
    let (start, end) = (find(machine, start)?, find(machine, end)?);
    let recorded = |event: &Event| {
        let recording = event.completed()?.filter(|_| event.has_timing).ok_or(CudaError::INVALID_HANDLE)?;
        if recording.is_complete() {
            Ok(recording.time_ns.load(Ordering::Acquire))
        } else {
            Err(CudaError::NOT_READY)
        }
    };
    let (start_ns, end_ns) = (recorded(&start)?, recorded(&end)?);
    milliseconds.set(((end_ns as f64 - start_ns as f64) / 1e6) as f32)
}
