//! Graphs: recording what captured streams do, and doing it again.
//!
//! A capture keeps the operations in the order in which they were issued. That order respects every dependency, so a
//! launch replays them one after the other in the stream it is launched into; parallel branches do not overlap. Events
//! recorded during a capture only connect streams, as in CUDA.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::abi::Out;
use crate::context::Context;
use crate::error::{CudaError, Result};
use crate::event::Event;
use crate::lock;
use crate::machine::Machine;
use crate::operation::Work;
use crate::stream::{self, Queue};

/// A capture under way.
#[derive(Debug)]
pub struct Capture {
    origin: u64,
    origin_blocks: bool,
    nodes: Mutex<Vec<Work>>,
    /// For each stream that takes part: how many operations it issued.
    issued: Mutex<HashMap<u64, u64>>,
    invalid: AtomicBool,
}

/// A stream's part in a capture: how much of each stream comes before its next operation.
#[derive(Debug, Clone)]
pub struct Membership {
    capture: Arc<Capture>,
    knows: HashMap<u64, u64>,
}

/// What an event recorded in a captured stream stands for.
#[derive(Debug, Clone)]
pub struct CapturedMark(Membership);

impl CapturedMark {
    /// A use of the event that cannot be captured ends the capture.
    pub fn invalidate(&self) {
        self.0.capture.invalid.store(true, Ordering::Relaxed);
    }
}

/// What `cuStreamIsCapturing` tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CaptureStatus {
    /// Not captured.
    None,
    /// Captured.
    Active,
    /// Captured, but nothing will come of it.
    Invalidated,
}

/// The operations of a capture.
#[derive(Debug)]
pub struct Graph {
    nodes: Arc<[Work]>,
}

/// A graph ready to launch.
#[derive(Debug)]
pub struct Executable {
    nodes: Arc<[Work]>,
}

/// Whether a stream is being captured.
pub fn status(queue: &Queue) -> CaptureStatus {
    match &*lock(&queue.capture) {
        None => CaptureStatus::None,
        Some(member) if member.capture.invalid.load(Ordering::Relaxed) => CaptureStatus::Invalidated,
        Some(_) => CaptureStatus::Active,
    }
}

/// Records work if the stream is being captured. Whether it is.
pub fn record(context: &Context, queue: &Queue, work: &Work) -> Result<bool> {
    let mut member = lock(&queue.capture);
    let Some(member) = member.as_mut() else { return Ok(false) };
    let capture = &member.capture;
    if capture.invalid.load(Ordering::Relaxed) {
        return Err(CudaError::STREAM_CAPTURE_INVALIDATED);
    }
    debug_assert!(lock(&context.captures).iter().any(|other| Arc::ptr_eq(other, capture)));
    lock(&capture.nodes).push(work.clone());
    let mut issued = lock(&capture.issued);
    let count = issued.entry(queue.id).or_insert(0);
    *count += 1;
    member.knows.insert(queue.id, *count);
    Ok(true)
}

/// The mark that an event gets in a captured stream; none if the stream is not captured.
pub fn mark(context: &Context, queue: &Queue) -> Result<Option<CapturedMark>> {
    if queue.flags.legacy {
        refuse_implicit(context)?;
    }
    let member = lock(&queue.capture);
    match &*member {
        None => Ok(None),
        Some(member) if member.capture.invalid.load(Ordering::Relaxed) => {
            Err(CudaError::STREAM_CAPTURE_INVALIDATED)
        }
        Some(member) => Ok(Some(CapturedMark(member.clone()))),
    }
}

/// Lets a stream wait for an event where a capture is concerned. Whether it was.
pub fn join(context: &Context, queue: &Queue, event: &Event) -> Result<bool> {
    let mut member = lock(&queue.capture);
    match (event.captured(), member.as_mut()) {
        (None, None) => Ok(false),
        // Waiting for something outside the capture would make the graph depend on it.
        (None, Some(member)) if event.recording().is_some() => {
            member.capture.invalid.store(true, Ordering::Relaxed);
            Err(CudaError::STREAM_CAPTURE_ISOLATION)
        }
        (None, Some(_)) => Ok(true),
        (Some(mark), _)
            if !lock(&context.captures).iter().any(|other| Arc::ptr_eq(other, &mark.0.capture)) =>
        {
            // The capture is over; the event means nothing any more.
            Ok(member.is_some())
        }
        (Some(_), None) if queue.flags.legacy => Err(CudaError::STREAM_CAPTURE_IMPLICIT),
        (Some(mark), None) => {
            lock(&mark.0.capture.issued).entry(queue.id).or_insert(0);
            *member = Some(mark.0);
            Ok(true)
        }
        (Some(mark), Some(member)) if Arc::ptr_eq(&mark.0.capture, &member.capture) => {
            crate::check::join(&mut member.knows, &mark.0.knows);
            Ok(true)
        }
        (Some(mark), Some(member)) => {
            mark.invalidate();
            member.capture.invalid.store(true, Ordering::Relaxed);
            Err(CudaError::STREAM_CAPTURE_MERGE)
        }
    }
}

/// Fails, and ends the capture, if the stream is being captured.
pub fn refuse_captured(queue: &Queue) -> Result {
    match &*lock(&queue.capture) {
        None => Ok(()),
        Some(member) => {
            member.capture.invalid.store(true, Ordering::Relaxed);
            Err(CudaError::STREAM_CAPTURE_UNSUPPORTED)
        }
    }
}

/// Stream 0 may not be used while a stream that it would wait for is captured.
pub fn refuse_implicit(context: &Context) -> Result {
    let captures = lock(&context.captures);
    let mut blocking = captures.iter().filter(|capture| capture.origin_blocks).peekable();
    if blocking.peek().is_none() {
        return Ok(());
    }
    blocking.for_each(|capture| capture.invalid.store(true, Ordering::Relaxed));
    Err(CudaError::STREAM_CAPTURE_IMPLICIT)
}

/// Ends all captures of a context without result.
pub fn invalidate_all(context: &Context) {
    lock(&context.captures).iter().for_each(|capture| capture.invalid.store(true, Ordering::Relaxed));
}

pub fn begin_capture(machine: &Machine, stream: u64, mode: u32) -> Result {
    let (context, queue) = stream::find(machine, stream)?;
    if mode > 2 {
        return Err(CudaError::INVALID_VALUE);
    }
    if queue.flags.legacy {
        return Err(CudaError::STREAM_CAPTURE_UNSUPPORTED);
    }
    let mut member = lock(&queue.capture);
    if member.is_some() {
        return Err(CudaError::ILLEGAL_STATE);
    }
    let capture = Arc::new(Capture {
        origin: queue.id,
        origin_blocks: !queue.flags.non_blocking,
        nodes: Mutex::default(),
        issued: Mutex::new(HashMap::from([(queue.id, 0)])),
        invalid: AtomicBool::new(false),
    });
    lock(&context.captures).push(Arc::clone(&capture));
    *member = Some(Membership { capture, knows: HashMap::new() });
    Ok(())
}

pub fn end_capture(machine: &Machine, stream: u64, graph: Out<u64>) -> Result {
    let (context, queue) = stream::find(machine, stream)?;
    let member = lock(&queue.capture).clone().ok_or(CudaError::ILLEGAL_STATE)?;
    let capture = &member.capture;
    if capture.origin != queue.id {
        capture.invalid.store(true, Ordering::Relaxed);
        return Err(CudaError::STREAM_CAPTURE_UNMATCHED);
    }
    lock(&context.captures).retain(|other| !Arc::ptr_eq(other, capture));
    let mut everyone = machine.streams.all();
    everyone.push(context.thread_stream());
    for queue in everyone {
        let mut other = lock(&queue.capture);
        if other.as_ref().is_some_and(|other| Arc::ptr_eq(&other.capture, capture)) {
            *other = None;
        }
    }
    graph.set_if_wanted(0);
    if capture.invalid.load(Ordering::Relaxed) {
        return Err(CudaError::STREAM_CAPTURE_INVALIDATED);
    }
    let known = |stream: u64| member.knows.get(&stream).copied().unwrap_or(0);
    if lock(&capture.issued).iter().any(|(&stream, &count)| known(stream) < count) {
        return Err(CudaError::STREAM_CAPTURE_UNJOINED);
    }
    let nodes = std::mem::take(&mut *lock(&capture.nodes)).into();
    graph.set(machine.graphs.add(Arc::new(Graph { nodes })))
}

pub fn nodes(machine: &Machine, graph: u64, nodes: Out<u64>, count: Out<usize>) -> Result {
    let object = machine.graphs.find(graph)?;
    let total = object.nodes.len();
    if nodes.is_null() {
        return count.set(total);
    }
    // Handles of nodes lie behind that of their graph; they are names, nothing takes them.
    let wanted = count.get()?.min(total);
    nodes.set_all(wanted, (1..=wanted as u64).map(|index| graph << 16 | index))?;
    count.set(wanted)
}

pub fn instantiate(machine: &Machine, executable: Out<u64>, graph: u64, _flags: u64) -> Result {
    let nodes = Arc::clone(&machine.graphs.find(graph)?.nodes);
    executable.set(machine.executables.add(Arc::new(Executable { nodes })))
}

pub fn launch(machine: &'static Machine, executable: u64, stream: u64) -> Result {
    let executable = machine.executables.find(executable)?;
    let (context, queue) = stream::find(machine, stream)?;
    machine.clock.host_works(machine.config.profile.launch_us);
    let work = Work::Graph(Arc::clone(&executable.nodes));
    stream::enqueue(machine, &context, &queue, work, Vec::new()).map(drop)
}

pub fn destroy_executable(machine: &Machine, executable: u64) -> Result {
    machine.executables.remove(executable).map(drop)
}

pub fn destroy(machine: &Machine, graph: u64) -> Result {
    machine.graphs.remove(graph).map(drop)
}
