//! Captures: streams whose operations become nodes of a graph.
//!
//! A capture keeps the operations in the order in which they were issued. That order respects every dependency, so a
//! launch replays them one after the other in the stream it is launched into; parallel branches do not overlap. Events
//! recorded during a capture only connect streams, as in CUDA.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::abi::{In, Out};
use crate::context::Context;
use crate::error::{CudaError, Result};
use crate::event::Event;
use crate::graph::{Graph, Node};
use crate::lock;
use crate::machine::Machine;
use crate::operation::Work;
use crate::stream::{self, Queue};

/// A capture under way.
#[derive(Debug)]
pub struct Capture {
    origin: u64,
    origin_blocks: bool,
    graph: u64,
    nodes: Arc<Graph>,
    /// For each stream that takes part: how many operations it issued.
    issued: Mutex<HashMap<u64, u64>>,
    invalid: AtomicBool,
}

/// A stream's part in a capture: how much of each stream comes before its next operation.
#[derive(Debug, Clone)]
pub struct Membership {
    capture: Arc<Capture>,
    knows: HashMap<u64, u64>,
    /// The nodes that the stream's next one comes behind, where a caller may look at them.
    tails: Vec<u64>,
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
    let node = capture.nodes.add(Node::Work(work.clone()));
    let mut issued = lock(&capture.issued);
    let count = issued.entry(queue.id).or_insert(0);
    *count += 1;
    member.knows.insert(queue.id, *count);
    member.tails = vec![node];
    Ok(true)
}

/// Notes that a graph records an event, or waits for it, at every launch, if the stream is being captured. Whether it is.
pub fn record_external(context: &Context, queue: &Queue, event: u64, is_record: bool) -> Result<bool> {
    if !record(context, queue, &Work::Nothing)? {
        return Ok(false);
    }
    if let Some(member) = &*lock(&queue.capture) {
        member.capture.nodes.add_event(event, is_record);
    }
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
            let news: Vec<u64> =
                mark.0.tails.iter().filter(|node| !member.tails.contains(node)).copied().collect();
            member.tails.extend(news);
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

/// Into a capture no cooperative launch comes whose parameters are one block, and it ends the capture (driver 580 on an H200, 2026-11-30).
pub fn refuse_block(queue: &Queue) -> Result {
    refuse_captured(queue).map_err(|_| CudaError::INVALID_VALUE)
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

pub fn begin(machine: &Machine, stream: u64, mode: u32) -> Result {
    start(machine, stream, mode, None)
}

/// Adds to a graph that there is. Its nodes so far come first, as they do anyway.
pub fn begin_to_graph(machine: &Machine, stream: u64, graph: u64, mode: u32) -> Result {
    let nodes = machine.graphs.find(graph)?;
    start(machine, stream, mode, Some((graph, nodes)))
}

fn start(machine: &Machine, stream: u64, mode: u32, graph: Option<(u64, Arc<Graph>)>) -> Result {
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
    let (graph, nodes) = graph.unwrap_or_else(|| machine.graphs.add_with(|_| Arc::default()));
    let capture = Arc::new(Capture {
        origin: queue.id,
        origin_blocks: !queue.flags.non_blocking,
        graph,
        nodes,
        issued: Mutex::new(HashMap::from([(queue.id, 0)])),
        invalid: AtomicBool::new(false),
    });
    lock(&context.captures).push(Arc::clone(&capture));
    *member = Some(Membership { capture, knows: HashMap::new(), tails: Vec::new() });
    Ok(())
}

pub fn end(machine: &Machine, stream: u64, graph: Out<u64>) -> Result {
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
    graph.set(capture.graph)
}

/// Where `cuStreamGetCaptureInfo` writes.
pub struct Info {
    pub status: Out<u32>,
    pub id: Out<u64>,
    pub graph: Out<u64>,
    pub nodes: Out<u64>,
    pub edges: Out<u64>,
    pub count: Out<usize>,
}

/// Edges have no data here, so there are zeros for as many as a stream ever comes behind.
static NO_EDGE_DATA: [u64; 1 << 16] = [0; 1 << 16];

pub fn info(machine: &Machine, stream: u64, info: &Info) -> Result {
    let (_, queue) = stream::find(machine, stream)?;
    let status = status(&queue);
    let member = lock(&queue.capture);
    match &*member {
        Some(member) if status == CaptureStatus::Active => {
            info.id.set_if_wanted(Arc::as_ptr(&member.capture).addr() as u64);
            info.graph.set_if_wanted(member.capture.graph);
            info.nodes.set_if_wanted(member.tails.as_ptr().expose_provenance() as u64);
            info.edges.set_if_wanted(NO_EDGE_DATA.as_ptr().expose_provenance() as u64);
            info.count.set_if_wanted(member.tails.len());
        }
        _ => {
            info.id.set_if_wanted(0);
            info.graph.set_if_wanted(0);
            info.count.set_if_wanted(0);
        }
    }
    info.status.set(status as u32)
}

/// `CU_STREAM_SET_CAPTURE_DEPENDENCIES`, if not `…_ADD_…`.
const SET: u32 = 1;

pub fn update(machine: &Machine, stream: u64, nodes: In<u64>, count: usize, flags: u32) -> Result {
    let (_, queue) = stream::find(machine, stream)?;
    let nodes = nodes.array(count)?;
    let mut member = lock(&queue.capture);
    let member = member.as_mut().ok_or(CudaError::ILLEGAL_STATE)?;
    let is_foreign = nodes.iter().any(|&node| !member.capture.nodes.has(node));
    if flags > SET || is_foreign {
        return Err(CudaError::INVALID_VALUE);
    }
    if flags == SET {
        member.tails.clear();
    }
    member.tails.extend(nodes);
    Ok(())
}
