//! Graphs: nodes and dependencies, captured from streams or put together by the program.
//!
//! A graph is data of this process. What a worker gets, when it is made launchable, is a list of records (`program.rs`) that
//! it can build a graph of its driver from, on any GPU and as often as needed. What the driver does with a graph without
//! looking at the GPU (editing, cloning, comparing) happens here.

mod conditional;
mod copy;
mod dag;
mod dot;
mod exec;
mod launch;
pub mod memory;
mod nested;
mod node;
mod numbers;
mod pageable;
mod piece;
mod program;
mod snapshot;
mod update;
mod user_object;
mod work;

pub use conditional::Conditional;
pub use copy::CopyNode;
pub use dag::EdgeData;
pub(super) use dag::{Edge, NodeId};
pub use exec::GraphExec;
pub use launch::kernel_work;
pub use memory::Held;
pub use node::{KernelNode, Node};
pub(super) use pageable::HostCopy;
pub use update::{Mismatch, UpdateResult};
pub use user_object::UserObject;
pub use work::{HostCall, NodeType, Work};

use super::CudaResult;
use super::handle::Table;
use conditional::Condition;
use dag::Dag;
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use torpor_proto::error::CudaError;
use user_object::References;

/// A graph.
pub struct Graph {
    number: u32,
    /// Unlike the number, never given to another one.
    id: AtomicU64,
    state: Mutex<State>,
}

impl std::fmt::Debug for Graph {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Graph({})", self.number)
    }
}

#[derive(Default)]
pub(super) struct State {
    pub(super) dag: Dag,
    /// The handles of nodes that the program asked for.
    handles: HashMap<NodeId, &'static Node>,
    conditions: Vec<Condition>,
    references: References,
    /// The graph that it was cloned from, whose nodes have the same numbers.
    original: Option<u64>,
    /// It belongs to a node of another one.
    is_inner: bool,
    /// In how many graphs it is.
    depth: usize,
    /// A capture adds to it.
    pub(super) is_captured: bool,
}

static GRAPHS: Table<Graph> = Table::new(1 << 16);

impl Graph {
    /// `cuGraphCreate`.
    ///
    /// # Errors
    /// `OUT_OF_MEMORY`.
    pub fn create() -> CudaResult<&'static Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let make = |number| Self { number, id: AtomicU64::new(id), state: Mutex::default() };
        GRAPHS.insert(make, |graph| graph.id.store(id, Ordering::Relaxed)).ok_or(CudaError::OUT_OF_MEMORY)
    }

    /// The graph behind a handle.
    ///
    /// # Errors
    /// `INVALID_VALUE`.
    pub fn find(handle: *mut c_void) -> CudaResult<&'static Self> {
        GRAPHS.get(handle).ok_or(CudaError::INVALID_VALUE)
    }

    /// What the program is given for it.
    #[must_use]
    pub fn handle(&'static self) -> *mut c_void {
        Table::handle(self)
    }

    /// No other graph of this process has or had it.
    pub(super) fn id(&self) -> u64 {
        self.id.load(Ordering::Relaxed)
    }

    /// Looks at it or changes it. Graphs inside are locked behind those that they are in.
    pub(super) fn with<T>(&self, what: impl FnOnce(&mut State) -> T) -> T {
        what(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// `cuGraphDestroy`. Launchable graphs that were made of it stay.
    ///
    /// # Errors
    /// `INVALID_VALUE` for one that belongs to a node or is being captured.
    pub fn destroy(&'static self) -> CudaResult<()> {
        if self.with(|state| state.is_inner || state.is_captured) {
            return Err(CudaError::INVALID_VALUE);
        }
        self.discard();
        Ok(())
    }

    pub(super) fn discard(&'static self) {
        // What it had is dropped without its lock: giving memory back waits for the worker.
        let state = self.with(std::mem::take);
        state.handles.values().for_each(|node| node.retire());
        for (_, entry) in state.dag.iter() {
            discard_inner(&entry.work);
        }
        GRAPHS.retire(self.number);
    }

    /// Edges from nodes as the program names them.
    ///
    /// # Errors
    /// `INVALID_VALUE` for what is no node of this graph.
    pub(super) fn edges_from(&'static self, nodes: &[(*mut c_void, EdgeData)]) -> CudaResult<Vec<Edge>> {
        nodes.iter().map(|&(node, data)| Ok(Edge { from: self.id_of(node)?, data })).collect()
    }

    /// Which of its nodes a handle is.
    fn id_of(&'static self, node: *mut c_void) -> CudaResult<NodeId> {
        let (graph, id) = Node::find(node)?.place();
        if std::ptr::eq(graph, self) { Ok(id) } else { Err(CudaError::INVALID_VALUE) }
    }

    /// Adds a node behind others.
    ///
    /// # Errors
    /// `INVALID_VALUE` for a dependency that is no node of this graph or is there twice; `OUT_OF_MEMORY`.
    pub fn add(
        &'static self,
        work: Work,
        dependencies: &[(*mut c_void, EdgeData)],
    ) -> CudaResult<&'static Node> {
        let edges = self.edges_from(dependencies)?;
        let id = self.with(|state| state.dag.add(work, edges))?;
        self.node(id)
    }

    /// The handle of a node.
    pub(super) fn node(&'static self, id: NodeId) -> CudaResult<&'static Node> {
        self.with(|state| match state.handles.get(&id) {
            Some(node) => Ok(*node),
            None => {
                let node = Node::new(self, id)?;
                state.handles.insert(id, node);
                Ok(node)
            }
        })
    }

    /// `cuGraphGetNodes`.
    ///
    /// # Errors
    /// `OUT_OF_MEMORY` with a million nodes.
    pub fn nodes(&'static self) -> CudaResult<Vec<*mut c_void>> {
        let all: Vec<NodeId> = self.with(|state| state.dag.iter().map(|(id, _)| id).collect());
        self.handles(all)
    }

    /// `cuGraphGetRootNodes`.
    ///
    /// # Errors
    /// As [`Self::nodes`].
    pub fn roots(&'static self) -> CudaResult<Vec<*mut c_void>> {
        let is_root = |(id, entry): (NodeId, &dag::Entry)| entry.dependencies.is_empty().then_some(id);
        let roots: Vec<NodeId> = self.with(|state| state.dag.iter().filter_map(is_root).collect());
        self.handles(roots)
    }

    /// `cuGraphGetEdges`.
    ///
    /// # Errors
    /// As [`Self::nodes`].
    pub fn edges(&'static self) -> CudaResult<Vec<(*mut c_void, *mut c_void, EdgeData)>> {
        let edges: Vec<(Edge, NodeId)> = self.with(|state| state.dag.edges().collect());
        let named = edges
            .into_iter()
            .map(|(edge, to)| Ok((self.node(edge.from)?.handle(), self.node(to)?.handle(), edge.data)));
        named.collect()
    }

    fn handles(&'static self, nodes: Vec<NodeId>) -> CudaResult<Vec<*mut c_void>> {
        nodes.into_iter().map(|id| Ok(self.node(id)?.handle())).collect()
    }

    /// `cuGraphAddDependencies`. None is added if one cannot be.
    ///
    /// # Errors
    /// `INVALID_VALUE` for an end that is no node, or an edge that is there.
    pub fn connect(&'static self, edges: &[(*mut c_void, *mut c_void, EdgeData)]) -> CudaResult<()> {
        self.change_edges(edges, Dag::connect)
    }

    /// `cuGraphRemoveDependencies`. None is removed if one cannot be.
    ///
    /// # Errors
    /// `INVALID_VALUE` for an edge that is not there.
    pub fn disconnect(&'static self, edges: &[(*mut c_void, *mut c_void, EdgeData)]) -> CudaResult<()> {
        self.change_edges(edges, Dag::disconnect)
    }

    fn change_edges(
        &'static self,
        edges: &[(*mut c_void, *mut c_void, EdgeData)],
        how: fn(&mut Dag, Edge, NodeId) -> CudaResult<()>,
    ) -> CudaResult<()> {
        let edges = edges
            .iter()
            .map(|&(from, to, data)| Ok((Edge { from: self.id_of(from)?, data }, self.id_of(to)?)));
        let edges = edges.collect::<CudaResult<Vec<_>>>()?;
        self.with(|state| {
            let mut changed = state.dag.clone();
            edges.into_iter().try_for_each(|(edge, to)| how(&mut changed, edge, to))?;
            state.dag = changed;
            Ok(())
        })
    }

    /// `cuGraphConditionalHandleCreate`: the number of a condition.
    ///
    /// # Errors
    /// `INVALID_VALUE` for other flags than there are.
    pub fn add_condition(&self, value: u32, flags: u32) -> CudaResult<u64> {
        if flags > 1 {
            return Err(CudaError::INVALID_VALUE);
        }
        let condition = Condition::new(value, flags);
        self.with(|state| state.conditions.push(condition));
        Ok(condition.number)
    }

    /// Adds a node that runs graphs as its condition says; they are empty at first.
    ///
    /// # Errors
    /// `INVALID_VALUE` for a number of graphs that the kind cannot have; as [`Self::add`].
    pub fn add_conditional(
        &'static self,
        (number, kind, bodies): (u64, u32, u32),
        dependencies: &[(*mut c_void, EdgeData)],
    ) -> CudaResult<(&'static Node, Conditional)> {
        if !Conditional::fits(kind, bodies) {
            return Err(CudaError::INVALID_VALUE);
        }
        let depth = self.inner_depth()?;
        let graphs = (0..bodies).map(|_| Self::create()).collect::<CudaResult<Vec<_>>>()?;
        graphs.iter().for_each(|graph| graph.with(|state| (state.is_inner, state.depth) = (true, depth)));
        let conditional = Conditional::new(number, kind, graphs);
        let work = Work::Conditional(conditional.clone());
        let node = self.add(work, dependencies).inspect_err(|_| {
            conditional.bodies.iter().for_each(|graph| graph.discard());
        })?;
        Ok((node, conditional))
    }

    /// `cuGraphRetainUserObject`.
    ///
    /// # Errors
    /// `INVALID_VALUE` for no references or unknown flags.
    pub fn retain(&self, object: &'static UserObject, count: u32, flags: u32) -> CudaResult<()> {
        self.with(|state| state.references.retain(object, count, flags))
    }

    /// `cuGraphReleaseUserObject`.
    ///
    /// # Errors
    /// `INVALID_VALUE` for more references than it has.
    pub fn release(&self, object: &'static UserObject, count: u32) -> CudaResult<()> {
        self.with(|state| state.references.release(object, count))
    }
}

/// Takes out of use the graphs that belong to a node that is gone.
fn discard_inner(work: &Work) {
    match work {
        Work::Child(graph) => graph.discard(),
        Work::Conditional(conditional) => conditional.bodies.iter().for_each(|graph| graph.discard()),
        _ => {}
    }
}
