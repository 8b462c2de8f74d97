//! Stream capture: commands that become nodes of a graph instead of going into the ring.
//!
//! Each stream of a capture has the nodes that its next one comes behind. An event that is recorded in the capture stands for
//! those of its stream then, and a stream that waits for it comes behind them too.

use super::Stream;
use crate::core::graph::{Edge, EdgeData, Graph, Held, HostCall, NodeId, Work, memory};
use crate::core::pool::block_bytes;
use crate::core::{CudaResult, client};
use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use torpor_proto::command::Command;
use torpor_proto::error::CudaError;

/// `CUstreamCaptureMode` that lets other threads do as they like.
const MODE_RELAXED: u32 = 2;

/// `CUstreamCaptureStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaptureStatus {
    /// 0
    None = 0,
    /// 1
    Active = 1,
    /// 2
    Invalidated = 2,
}

/// A capture that is going on.
pub struct Capture {
    id: u64,
    origin: u32,
    mode: u32,
    thread: ThreadId,
    graph: &'static Graph,
    /// Whether the program had the graph before.
    is_into_graph: bool,
    recording: Mutex<Recording>,
}

#[derive(Default)]
struct Recording {
    streams: Vec<&'static Stream>,
    /// What the next node of each stream comes behind.
    tails: HashMap<u32, Vec<Edge>>,
    /// Memory that was allocated and not freed, by its address.
    allocated: HashMap<u64, Arc<Held>>,
    /// Memory that was allocated and freed, with the node that freed it.
    freed: Vec<(Arc<Held>, NodeId)>,
    is_invalid: bool,
    is_over: bool,
    /// What the program was told last of a stream's dependencies, and may look at until it asks again.
    told: (Vec<usize>, Vec<EdgeData>),
}

/// What a program is told of a capture.
pub struct CaptureInfo {
    /// Handles of the nodes that the stream's next one comes behind; valid until asked again.
    pub dependencies: *const c_void,
    /// The data of those edges.
    pub edges: *const c_void,
    /// How many they are.
    pub count: usize,
    /// Whether any edge has data.
    pub has_edge_data: bool,
}

thread_local! {
    static THREAD_MODE: Cell<u32> = const { Cell::new(0) };
}

impl Capture {
    /// `cuStreamBeginCapture`.
    ///
    /// # Errors
    /// `STREAM_CAPTURE_UNSUPPORTED` for the legacy stream, `ILLEGAL_STATE` if the stream is capturing, `INVALID_VALUE`
    /// for an unknown mode.
    pub fn begin(stream: &'static Stream, mode: u32) -> CudaResult<()> {
        check_can_begin(stream, mode)?;
        Self::start(stream, mode, Graph::create()?, None)
    }

    /// `cuStreamBeginCaptureToGraph`: nodes are added to a graph of the program's, the first behind these.
    ///
    /// # Errors
    /// As [`Self::begin`]; `INVALID_VALUE` for a graph that is being captured already, and dependencies that are no nodes of
    /// it.
    pub fn begin_to_graph(
        stream: &'static Stream,
        graph: &'static Graph,
        dependencies: &[(*mut c_void, EdgeData)],
        mode: u32,
    ) -> CudaResult<()> {
        check_can_begin(stream, mode)?;
        let edges = graph.edges_from(dependencies)?;
        graph.with(|state| state.dag.check(&edges))?;
        if graph.with(|state| std::mem::replace(&mut state.is_captured, true)) {
            return Err(CudaError::INVALID_VALUE);
        }
        Self::start(stream, mode, graph, Some(edges))
    }

    /// With a graph that the program had before, the first node comes behind these.
    fn start(
        stream: &'static Stream,
        mode: u32,
        graph: &'static Graph,
        behind: Option<Vec<Edge>>,
    ) -> CudaResult<()> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        graph.with(|state| state.is_captured = true);
        let capture = Arc::new(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            origin: stream.number,
            mode,
            thread: thread::current().id(),
            graph,
            is_into_graph: behind.is_some(),
            recording: Mutex::default(),
        });
        capture.lock().tails.insert(stream.number, behind.unwrap_or_default());
        stream.join_capture(&capture)
    }

    /// `cuStreamEndCapture`: the graph, and no stream captures any more.
    ///
    /// # Errors
    /// `ILLEGAL_STATE` if the stream is not capturing, `STREAM_CAPTURE_UNMATCHED` if the capture began on another one,
    /// `STREAM_CAPTURE_WRONG_THREAD`, `STREAM_CAPTURE_INVALIDATED`, `STREAM_CAPTURE_UNJOINED` if the stream does not come
    /// behind another one's nodes.
    pub fn end(stream: &'static Stream) -> CudaResult<&'static Graph> {
        let capture = stream.current_capture()?;
        if capture.origin != stream.number {
            capture.invalidate();
            return Err(CudaError::STREAM_CAPTURE_UNMATCHED);
        }
        if capture.mode != MODE_RELAXED && capture.thread != thread::current().id() {
            return Err(CudaError::STREAM_CAPTURE_WRONG_THREAD);
        }
        let recording = std::mem::take(&mut *capture.lock());
        capture.lock().is_over = true;
        recording.streams.iter().for_each(|stream| stream.leave_capture(&capture));
        capture.graph.with(|state| state.is_captured = false);
        capture.check_end(&recording).inspect_err(|_| {
            if !capture.is_into_graph {
                capture.graph.discard();
            }
        })?;
        Ok(capture.graph)
    }

    fn check_end(&self, recording: &Recording) -> CudaResult<()> {
        if recording.is_invalid {
            return Err(CudaError::STREAM_CAPTURE_INVALIDATED);
        }
        let end = recording.tails.get(&self.origin).map_or(&[][..], Vec::as_slice);
        let joined = self.graph.with(|state| state.dag.reached_back_from(end));
        let is_joined = |edge: &Edge| joined.get(edge.from as usize).copied().unwrap_or(true);
        let all = recording.tails.values().flatten().all(is_joined);
        if all { Ok(()) } else { Err(CudaError::STREAM_CAPTURE_UNJOINED) }
    }

    /// `cuThreadExchangeStreamCaptureMode`. Torpor lets every thread allocate while another captures, so the mode only
    /// has to be remembered.
    ///
    /// # Errors
    /// `INVALID_VALUE` for an unknown mode.
    pub fn exchange_thread_mode(mode: u32) -> CudaResult<u32> {
        if mode > MODE_RELAXED {
            return Err(CudaError::INVALID_VALUE);
        }
        Ok(THREAD_MODE.try_with(|own| own.replace(mode)).unwrap_or(mode))
    }

    /// Unique in this process.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The handle of the graph that it adds to.
    #[must_use]
    pub fn graph(&self) -> *mut c_void {
        self.graph.handle()
    }

    /// Whether it can still become a graph.
    #[must_use]
    pub fn status(&self) -> CaptureStatus {
        if self.lock().is_invalid { CaptureStatus::Invalidated } else { CaptureStatus::Active }
    }

    /// What is known of it and a stream in it.
    ///
    /// # Errors
    /// `OUT_OF_MEMORY` with a million nodes.
    pub fn info(&self, stream: &Stream) -> CudaResult<CaptureInfo> {
        let tails = self.tails(stream);
        let handles = tails.iter().map(|edge| Ok(self.graph.node(edge.from)?.handle().expose_provenance()));
        let handles = handles.collect::<CudaResult<Vec<usize>>>()?;
        let mut recording = self.lock();
        recording.told = (handles, tails.iter().map(|edge| edge.data).collect());
        Ok(CaptureInfo {
            dependencies: recording.told.0.as_ptr().cast(),
            edges: recording.told.1.as_ptr().cast(),
            count: tails.len(),
            has_edge_data: tails.iter().any(|edge| edge.data != EdgeData::default()),
        })
    }

    /// `cuStreamUpdateCaptureDependencies`: the stream's next node comes behind these, and, unless they replace it, behind
    /// what it came behind before.
    ///
    /// # Errors
    /// `INVALID_VALUE` for what is no node of the capture's graph.
    pub fn update_dependencies(
        &self,
        stream: &Stream,
        nodes: &[(*mut c_void, EdgeData)],
        replaces: bool,
    ) -> CudaResult<()> {
        let edges = self.graph.edges_from(nodes)?;
        self.graph.with(|state| state.dag.check(&edges))?;
        let mut recording = self.lock();
        let tails = recording.tails.entry(stream.number).or_default();
        if replaces {
            tails.clear();
        }
        merge(tails, &edges);
        Ok(())
    }

    pub(in crate::core) fn invalidate(&self) {
        self.lock().is_invalid = true;
    }

    /// Whether it has ended: events that were recorded in it are in no order with anything any more.
    pub(in crate::core) fn is_over(&self) -> bool {
        self.lock().is_over
    }

    pub(in crate::core) fn add_stream(&self, stream: &'static Stream) {
        self.lock().streams.push(stream);
    }

    /// What a stream's next node comes behind.
    pub(in crate::core) fn tails(&self, stream: &Stream) -> Vec<Edge> {
        self.lock().tails.get(&stream.number).cloned().unwrap_or_default()
    }

    /// A stream comes behind these nodes too.
    pub(in crate::core) fn come_behind(&self, stream: &Stream, edges: &[Edge]) {
        merge(self.lock().tails.entry(stream.number).or_default(), edges);
    }

    /// A command of a stream becomes a node.
    pub(in crate::core) fn append<C: Command>(
        &self,
        stream: &Stream,
        command: &C,
        tail: &[u8],
    ) -> CudaResult<()> {
        self.append_work(stream, Work::command(command, tail)).map(drop)
    }

    /// A host function of a stream becomes a node.
    pub(in crate::core) fn append_function(&self, stream: &Stream, call: HostCall) -> CudaResult<()> {
        self.append_work(stream, Work::Host(call)).map(drop)
    }

    pub(in crate::core) fn append_work(&self, stream: &Stream, work: Work) -> CudaResult<NodeId> {
        let mut recording = self.lock();
        if recording.is_invalid {
            return Err(CudaError::STREAM_CAPTURE_INVALIDATED);
        }
        let tails = recording.tails.entry(stream.number).or_default();
        let id = self.graph.with(|state| state.dag.add(work, tails.clone()))?;
        *tails = vec![Edge::after(id)];
        Ok(id)
    }

    /// `cuMemAllocAsync` in a capture: memory that this graph freed before, or new one.
    ///
    /// # Errors
    /// As [`Held::new`].
    pub(in crate::core) fn allocate(&self, stream: &Stream, bytes: u64) -> CudaResult<u64> {
        let tails = self.tails(stream);
        let wanted = if bytes == 0 { None } else { block_bytes(bytes) };
        let before = self.graph.with(|state| state.dag.reached_back_from(&tails));
        let fits = |(held, freed): &(Arc<Held>, NodeId)| {
            Some(held.bytes) == wanted && before.get(*freed as usize) == Some(&true)
        };
        let kept = {
            let mut recording = self.lock();
            let at = recording.freed.iter().rposition(fits);
            at.map(|at| recording.freed.swap_remove(at).0)
        };
        let held = kept.map_or_else(|| Held::new(bytes), Ok)?;
        let address = held.address;
        self.append_work(stream, Work::Allocate(held.clone()))?;
        self.lock().allocated.insert(address, held);
        Ok(address)
    }

    /// `cuMemFreeAsync` in a capture, of memory that this graph or another one allocated.
    ///
    /// # Errors
    /// `INVALID_VALUE` for memory that no graph allocated.
    pub(in crate::core) fn free(&self, stream: &Stream, address: u64) -> CudaResult<()> {
        let held = self.lock().allocated.remove(&address);
        if held.is_none() && !memory::is_held(address) {
            return Err(CudaError::INVALID_VALUE);
        }
        let id = self.append_work(stream, Work::Free(address))?;
        if let Some(held) = held {
            self.lock().freed.push((held, id));
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Recording> {
        self.recording.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn check_can_begin(stream: &Stream, mode: u32) -> CudaResult<()> {
    client()?.check_usable()?;
    if mode > MODE_RELAXED {
        return Err(CudaError::INVALID_VALUE);
    }
    if stream.is_legacy() {
        return Err(CudaError::STREAM_CAPTURE_UNSUPPORTED);
    }
    if stream.is_capturing() { Err(CudaError::ILLEGAL_STATE) } else { Ok(()) }
}

/// Adds edges that are not there yet.
fn merge(edges: &mut Vec<Edge>, more: &[Edge]) {
    for edge in more {
        if !edges.contains(edge) {
            edges.push(*edge);
        }
    }
}
