//! Launchable graphs.

use super::pageable::OwnStaging;
use super::piece::{self, Piece, USE_NODE_PRIORITY};
use super::program::{Part, parts};
use super::snapshot::{Handover, Snapshot};
use super::update::{Mismatch, apply, compare};
use super::work::{NodeType, Work};
use super::{Graph, Node, NodeId};
use crate::core::event::DISABLE_TIMING;
use crate::core::handle::Table;
use crate::core::profile::{self, WorkKind, bracketed};
use crate::core::stream::Stream;
use crate::core::{Client, CudaResult, Event, client};
use std::ffi::c_void;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use torpor_proto::error::CudaError;

/// `CUgraphInstantiate_flags` that there are: memory of an earlier launch is given back (here it is the same anyway), upload at
/// once (here at the first launch), nodes have priorities.
const KNOWN_FLAGS: u64 = 1 | 2 | USE_NODE_PRIORITY;
/// `CUDA_GRAPH_INSTANTIATE_FLAG_DEVICE_LAUNCH`: kernels would have handles of the driver's.
const DEVICE_LAUNCH: u64 = 4;

/// A graph that can be launched.
pub struct GraphExec {
    number: u32,
    state: Mutex<Option<State>>,
}

struct State {
    snapshot: Snapshot,
    flags: u64,
    pieces: Arc<[Piece]>,
    /// The pieces are not what the snapshot says.
    is_stale: bool,
    /// Events that each launch records.
    recorded: Arc<[u32]>,
    /// Memory that each launch gives to the program, and takes.
    memory: Arc<Handover>,
    staging: Option<OwnStaging>,
    order: Option<LaunchOrder>,
}

/// A launch comes behind the one before, whatever its stream. A driver sees to that, but not between the parts of which a graph
/// consists if this process has a part in it.
struct LaunchOrder {
    /// What each launch records at its end.
    event: &'static Event,
    /// The last launch's, as [`Stream::id`] has it.
    stream: u64,
}

impl LaunchOrder {
    fn come_behind_last(&self, stream: &'static Stream) -> CudaResult<()> {
        if self.stream == stream.id() { Ok(()) } else { stream.wait_event(self.event, 0) }
    }
}

impl Drop for LaunchOrder {
    fn drop(&mut self) {
        // The process may be ending and the server gone: there is nobody to tell.
        let _ = self.event.destroy();
    }
}

static EXECS: Table<GraphExec> = Table::new(1 << 16);

impl Graph {
    /// `cuGraphInstantiate`.
    ///
    /// # Errors
    /// `NOT_SUPPORTED` to launch it from kernels, `INVALID_VALUE` for a cycle, an unfinished capture or unknown flags, or
    /// whatever building the real graph gives.
    pub fn instantiate(&'static self, flags: u64) -> CudaResult<&'static GraphExec> {
        if flags & DEVICE_LAUNCH != 0 {
            return Err(CudaError::NOT_SUPPORTED);
        }
        if flags & !KNOWN_FLAGS != 0 {
            return Err(CudaError::INVALID_VALUE);
        }
        GraphExec::new(State::new(Snapshot::take(self)?, flags)?)
    }
}

impl State {
    fn new(snapshot: Snapshot, flags: u64) -> CudaResult<Self> {
        let client = client()?;
        let staging = staging_for(&snapshot, None)?;
        let mut pieces = Vec::new();
        for part in parts(&snapshot, staging.as_ref())? {
            match Piece::new(client, part, flags) {
                Ok(piece) => pieces.push(piece),
                Err(error) => {
                    pieces.iter().for_each(|piece: &Piece| piece.destroy());
                    return Err(error);
                }
            }
        }
        let (recorded, memory) = (snapshot.recorded_events().into(), snapshot.memory().into());
        let pieces = pieces.into();
        Ok(Self { snapshot, flags, pieces, is_stale: false, recorded, memory, staging, order: None })
    }

    /// Makes the pieces what the snapshot says, in the order of a stream.
    fn refresh(&mut self, client: &'static Client, stream: &'static Stream) -> CudaResult<()> {
        let staging = staging_for(&self.snapshot, self.staging.take())?;
        let parts = parts(&self.snapshot, staging.as_ref())?;
        self.staging = staging;
        let is_alike = |(part, piece): (&Part, &Piece)| piece.is_alike(part);
        if parts.len() == self.pieces.len() && parts.iter().zip(&*self.pieces).all(is_alike) {
            let pieces = parts.into_iter().zip(&*self.pieces);
            let pieces = pieces.map(|(part, piece)| piece.updated(part, client, stream, self.flags));
            self.pieces = pieces.collect::<CudaResult<Vec<_>>>()?.into();
        } else {
            let pieces = parts.into_iter().map(|part| Piece::new(client, part, self.flags));
            let pieces = pieces.collect::<CudaResult<Vec<_>>>()?;
            self.discard_pieces();
            self.pieces = pieces.into();
        }
        self.recorded = self.snapshot.recorded_events().into();
        self.is_stale = false;
        Ok(())
    }

    /// The event that a launch records, if this process has a part in it; a first launch makes it.
    fn order(&mut self, stream: &Stream) -> CudaResult<Option<&'static Event>> {
        if !self.pieces.iter().any(Piece::is_on_host) {
            return Ok(None);
        }
        match &mut self.order {
            Some(order) => order.stream = stream.id(),
            none => *none = Some(LaunchOrder { event: Event::create(DISABLE_TIMING)?, stream: stream.id() }),
        }
        Ok(self.order.as_ref().map(|order| order.event))
    }

    fn discard_pieces(&mut self) {
        for piece in &*std::mem::take(&mut self.pieces) {
            piece.destroy();
        }
    }
}

impl GraphExec {
    fn new(state: State) -> CudaResult<&'static Self> {
        let mut state = Some(state);
        let made = EXECS.insert(|number| Self { number, state: Mutex::default() }, |_| ());
        let exec = made.ok_or(CudaError::OUT_OF_MEMORY).inspect_err(|_| {
            if let Some(state) = &mut state {
                state.discard_pieces();
            }
        })?;
        *exec.lock() = state;
        Ok(exec)
    }

    /// The launchable graph behind a handle.
    ///
    /// # Errors
    /// `INVALID_VALUE`.
    pub fn find(handle: *mut c_void) -> CudaResult<&'static Self> {
        EXECS.get(handle).ok_or(CudaError::INVALID_VALUE)
    }

    /// What the program is given for it.
    #[must_use]
    pub fn handle(&'static self) -> *mut c_void {
        Table::handle(self)
    }

    fn lock(&self) -> MutexGuard<'_, Option<State>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, what: impl FnOnce(&mut State) -> CudaResult<T>) -> CudaResult<T> {
        what(self.lock().as_mut().ok_or(CudaError::INVALID_VALUE)?)
    }

    /// `cuGraphLaunch`. In a capture it becomes a node with a graph in it.
    ///
    /// # Errors
    /// What posting gives.
    pub fn launch(&self, stream: &'static Stream) -> CudaResult<()> {
        let client = client()?;
        if stream.is_capturing() {
            let inner = self.with(|state| Graph::of_snapshot(&state.snapshot))?;
            let appended = stream.current_capture()?.append_work(stream, Work::Child(inner));
            return appended.map(drop).inspect_err(|_| inner.discard());
        }
        let (pieces, recorded, memory, order) = self.with(|state| {
            // Before anything changes what the last launch, which may be held, launches.
            state.order.as_ref().map_or(Ok(()), |order| order.come_behind_last(stream))?;
            if state.is_stale {
                state.refresh(client, stream)?;
            }
            let order = state.order(stream)?;
            Ok((state.pieces.clone(), state.recorded.clone(), state.memory.clone(), order))
        })?;
        let events = recorded.iter().filter_map(|&number| Event::numbered(number).ok());
        let records: Vec<_> = events.map(|event| (event, event.begin_record())).collect();
        let work = || profile::Work::Graph { graph: self.number };
        let posted = bracketed(WorkKind::Kernels, stream, work, || piece::post(&pieces, client, stream));
        let held = posted.ok().flatten();
        records.iter().for_each(|(event, begun)| event.end_record(begun, held));
        posted?;
        memory.note_launch();
        order.map_or(Ok(()), |event| event.record(stream, 0))
    }

    /// Changes what a node does in this launchable graph; the graph that it was made of stays.
    ///
    /// # Errors
    /// `INVALID_VALUE` if it has no such node, or the node is of another kind.
    pub fn set_work(&self, node: &Node, work: Work) -> CudaResult<()> {
        let (graph, id) = node.place();
        self.with(|state| {
            let entry = state.snapshot.find_mut(graph, id).ok_or(CudaError::INVALID_VALUE)?;
            if entry.work.node_type() != work.node_type() {
                return Err(CudaError::INVALID_VALUE);
            }
            entry.work = work;
            state.is_stale = true;
            Ok(())
        })
    }

    /// `cuGraphExecChildGraphNodeSetParams`.
    ///
    /// # Errors
    /// `INVALID_VALUE` if the graph in the node is of another shape.
    pub fn set_child(&self, node: &Node, child: &'static Graph) -> CudaResult<()> {
        let (graph, id) = node.place();
        let new = Snapshot::take(child)?;
        self.with(|state| {
            let inner = state.snapshot.inner_mut(graph, id).and_then(|inner| inner.first_mut());
            let inner = inner.ok_or(CudaError::INVALID_VALUE)?;
            compare(inner, &new).map_err(|_| CudaError::INVALID_VALUE)?;
            apply(inner, new);
            state.is_stale = true;
            Ok(())
        })
    }

    /// `cuGraphNodeSetEnabled`.
    ///
    /// # Errors
    /// `INVALID_VALUE` if it has no such node, or it is neither kernel, copy nor fill.
    pub fn set_enabled(&self, node: &Node, is_enabled: bool) -> CudaResult<()> {
        let (graph, id) = node.place();
        self.with(|state| {
            let entry = state.snapshot.find_mut(graph, id).ok_or(CudaError::INVALID_VALUE)?;
            if !can_be_disabled(&entry.work) {
                return Err(CudaError::INVALID_VALUE);
            }
            state.is_stale |= entry.is_disabled == is_enabled;
            entry.is_disabled = !is_enabled;
            Ok(())
        })
    }

    /// `cuGraphNodeGetEnabled`.
    ///
    /// # Errors
    /// As [`Self::set_enabled`].
    pub fn is_enabled(&self, node: &Node) -> CudaResult<bool> {
        let (graph, id) = node.place();
        self.with(|state| {
            let entry = state.snapshot.find_mut(graph, id).ok_or(CudaError::INVALID_VALUE)?;
            if can_be_disabled(&entry.work) { Ok(!entry.is_disabled) } else { Err(CudaError::INVALID_VALUE) }
        })
    }

    /// `cuGraphExecUpdate`. The inner error: why it cannot be, and at which node of the new graph.
    ///
    /// # Errors
    /// `INVALID_VALUE` for a graph with a cycle or that is being captured.
    pub fn update(&self, graph: &'static Graph) -> CudaResult<Result<(), (Mismatch, Option<&'static Node>)>> {
        let new = Snapshot::take(graph)?;
        let compared = self.with(|state| {
            let compared = compare(&state.snapshot, &new);
            if compared.is_ok() {
                apply(&mut state.snapshot, new);
                state.is_stale = true;
            }
            Ok(compared)
        })?;
        let node = |id: NodeId| graph.node(id).ok();
        Ok(compared.map_err(|(mismatch, id)| (mismatch, id.and_then(node))))
    }

    /// `cuGraphExecGetFlags`.
    ///
    /// # Errors
    /// `INVALID_VALUE` if it is gone.
    pub fn flags(&self) -> CudaResult<u64> {
        self.with(|state| Ok(state.flags))
    }

    /// `cuGraphExecDestroy`. What was launched goes on.
    ///
    /// # Errors
    /// `INVALID_VALUE` if it is gone.
    pub fn destroy(&'static self) -> CudaResult<()> {
        let mut state = self.lock().take().ok_or(CudaError::INVALID_VALUE)?;
        EXECS.retire(self.number);
        state.discard_pieces();
        Ok(())
    }
}

/// Staging for a graph, if it needs any: what it has, if that is enough.
fn staging_for(snapshot: &Snapshot, own: Option<OwnStaging>) -> CudaResult<Option<OwnStaging>> {
    let bytes = snapshot.staged_bytes()?;
    match own {
        Some(own) if own.bytes() >= bytes => Ok(Some(own)),
        _ if bytes == 0 => Ok(None),
        _ => OwnStaging::new(bytes).map(Some),
    }
}

fn can_be_disabled(work: &Work) -> bool {
    matches!(work.node_type(), NodeType::Kernel | NodeType::Copy | NodeType::Fill)
}
