//! Graphs: operations that are launched together.
//!
//! A graph keeps its nodes in the order in which they were added, which respects every dependency.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::abi::{In, NodeParams, Out};
use crate::error::{CudaError, Result};
use crate::lock;
use crate::machine::Machine;
use crate::operation::Work;
use crate::{event, stream};

/// What a node does.
#[derive(Debug, Clone)]
pub enum Node {
    /// One operation.
    Work(Work),
    /// Graphs, as a condition says.
    Conditional(Arc<Condition>, Kind, Arc<[Arc<Graph>]>),
}

/// How a condition decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The first graph if it is not 0, else the second.
    If,
    /// The graph as long as it is not 0.
    While,
    /// The graph with that number.
    Switch,
}

/// A value that kernels set.
#[derive(Debug)]
pub struct Condition {
    value: AtomicU32,
    /// What it is at every launch.
    default: Option<u32>,
}

impl Condition {
    /// Sets it.
    pub fn set(&self, value: u32) {
        self.value.store(value, Ordering::SeqCst);
    }

    /// What it is now.
    pub fn value(&self) -> u32 {
        self.value.load(Ordering::SeqCst)
    }
}

/// A graph that can be added to.
#[derive(Debug, Default)]
pub struct Graph {
    /// Each with a handle that no other node of the process has.
    nodes: Mutex<Vec<(u64, Node)>>,
    conditions: Mutex<Vec<Arc<Condition>>>,
    /// Events that every launch records, or waits for. Here it does so when all is done, or before anything is.
    events: Mutex<Vec<(u64, bool)>>,
    /// Where the handles of a conditional node's graphs are, which callers may look at.
    bodies: Mutex<Vec<Vec<u64>>>,
}

impl Graph {
    /// Adds a node. Its handle.
    pub fn add(&self, node: Node) -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(0x7000_0000_0000);
        let handle = NEXT.fetch_add(16, Ordering::Relaxed);
        lock(&self.nodes).push((handle, node));
        handle
    }

    /// Every launch records an event, or waits for it.
    pub fn add_event(&self, event: u64, is_record: bool) {
        lock(&self.events).push((event, is_record));
    }

    /// Whether a handle is that of one of its nodes.
    pub fn has(&self, handle: u64) -> bool {
        lock(&self.nodes).iter().any(|(own, _)| *own == handle)
    }

    /// What it does now.
    fn frozen(&self) -> Program {
        let frozen = |(_, node): &(u64, Node)| match node {
            Node::Work(work) => work.clone(),
            Node::Conditional(condition, kind, bodies) => {
                let bodies = bodies.iter().map(|body| body.frozen()).collect();
                Work::Conditional(Conditional { condition: Arc::clone(condition), kind: *kind, bodies })
            }
        };
        let work = lock(&self.nodes).iter().map(frozen).collect();
        let (conditions, events) = (lock(&self.conditions).clone(), lock(&self.events).clone());
        Program { work, conditions: conditions.into(), events: events.into() }
    }
}

/// What a launch does.
#[derive(Debug, Clone)]
pub struct Program {
    /// One after the other.
    pub work: Arc<[Work]>,
    conditions: Arc<[Arc<Condition>]>,
    events: Arc<[(u64, bool)]>,
}

impl Program {
    /// Gives conditions the values that they have at every launch.
    pub fn begin(&self) {
        for condition in self.conditions.iter() {
            if let Some(value) = condition.default {
                condition.set(value);
            }
        }
    }
}

/// Programs, as a condition says.
#[derive(Debug, Clone)]
pub struct Conditional {
    condition: Arc<Condition>,
    kind: Kind,
    bodies: Arc<[Program]>,
}

impl Conditional {
    /// The program to run now; none if it is over. `round` counts from 0.
    pub fn next(&self, round: usize) -> Option<&Program> {
        let value = self.condition.value() as usize;
        match self.kind {
            Kind::If if round == 0 => self.bodies.get(usize::from(value == 0)),
            Kind::While if value != 0 => self.bodies.first(),
            Kind::Switch if round == 0 => self.bodies.get(value),
            _ => None,
        }
    }
}

/// A graph ready to launch.
#[derive(Debug)]
pub struct Executable {
    program: Mutex<Program>,
}

pub fn nodes(machine: &Machine, graph: u64, nodes: Out<u64>, count: Out<usize>) -> Result {
    let object = machine.graphs.find(graph)?;
    let handles: Vec<u64> = lock(&object.nodes).iter().map(|(handle, _)| *handle).collect();
    if nodes.is_null() {
        return count.set(handles.len());
    }
    let wanted = count.get()?.min(handles.len());
    nodes.set_all(wanted, handles)?;
    count.set(wanted)
}

fn check_behind(graph: &Graph, behind: In<u64>, count: usize) -> Result {
    let are_nodes = behind.array(count)?.iter().all(|&node| graph.has(node));
    if are_nodes { Ok(()) } else { Err(CudaError::INVALID_VALUE) }
}

pub fn add_empty(machine: &Machine, node: Out<u64>, graph: u64, behind: In<u64>, count: usize) -> Result {
    let graph = machine.graphs.find(graph)?;
    check_behind(&graph, behind, count)?;
    node.set(graph.add(Node::Work(Work::Nothing)))
}

/// `CU_GRAPH_NODE_TYPE_CONDITIONAL`
const CONDITIONAL: u32 = 13;

/// Adds a conditional node; nodes of other types come from captures here.
pub fn add_node(
    machine: &Machine,
    node: Out<u64>,
    graph: u64,
    (behind, count): (In<u64>, usize),
    params: Out<NodeParams>,
) -> Result {
    let graph = machine.graphs.find(graph)?;
    check_behind(&graph, behind, count)?;
    let wanted = params.get()?;
    if wanted.node_type != CONDITIONAL {
        return Err(CudaError::NOT_SUPPORTED);
    }
    let condition = machine.conditions.find(wanted.condition).map_err(|_| CudaError::INVALID_VALUE)?;
    let kind = match (wanted.kind, wanted.bodies) {
        (0, 1 | 2) => Kind::If,
        (1, 1) => Kind::While,
        (2, 1..) => Kind::Switch,
        _ => return Err(CudaError::INVALID_VALUE),
    };
    let (handles, bodies): (Vec<u64>, Vec<Arc<Graph>>) =
        (0..wanted.bodies).map(|_| machine.graphs.add_with(|_| Arc::default())).unzip();
    let place = handles.as_ptr().expose_provenance() as u64;
    lock(&graph.bodies).push(handles);
    params.set(NodeParams { graphs: place, ..wanted })?;
    node.set(graph.add(Node::Conditional(condition, kind, bodies.into())))
}

pub fn add_condition(machine: &Machine, condition: Out<u64>, graph: u64, default: u32, flags: u32) -> Result {
    let graph = machine.graphs.find(graph)?;
    if flags > 1 {
        return Err(CudaError::INVALID_VALUE);
    }
    let default = (flags == 1).then_some(default);
    let made = Arc::new(Condition { value: AtomicU32::new(0), default });
    lock(&graph.conditions).push(Arc::clone(&made));
    condition.set(machine.conditions.add(made))
}

pub fn instantiate(machine: &Machine, executable: Out<u64>, graph: u64, _flags: u64) -> Result {
    let program = Mutex::new(machine.graphs.find(graph)?.frozen());
    executable.set(machine.executables.add(Arc::new(Executable { program })))
}

/// `CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED`
const TOPOLOGY_CHANGED: u64 = 2;

/// Makes a launchable graph do what another graph with the same kinds of nodes does.
pub fn update(machine: &Machine, executable: u64, graph: u64, told: Out<[u64; 3]>) -> Result {
    let executable = machine.executables.find(executable)?;
    let new = machine.graphs.find(graph)?.frozen();
    let mut program = lock(&executable.program);
    let kinds = |program: &Program| program.work.iter().map(std::mem::discriminant).collect::<Vec<_>>();
    if kinds(&program) != kinds(&new) {
        told.set_if_wanted([TOPOLOGY_CHANGED, 0, 0]);
        return Err(CudaError::GRAPH_EXEC_UPDATE_FAILURE);
    }
    *program = new;
    told.set_if_wanted([0; 3]);
    Ok(())
}

pub fn launch(machine: &'static Machine, executable: u64, stream: u64) -> Result {
    let executable = machine.executables.find(executable)?;
    let (context, queue) = stream::find(machine, stream)?;
    machine.clock.host_works(machine.config.profile.launch_us);
    let program = lock(&executable.program).clone();
    let events = Arc::clone(&program.events);
    for (event, _) in events.iter().filter(|(_, is_record)| !is_record) {
        stream::wait_event(machine, stream, *event, 0)?;
    }
    stream::enqueue(machine, &context, &queue, Work::Graph(program), Vec::new())?;
    for (event, _) in events.iter().filter(|(_, is_record)| *is_record) {
        event::record(machine, *event, stream, 0)?;
    }
    Ok(())
}

pub fn destroy_executable(machine: &Machine, executable: u64) -> Result {
    machine.executables.remove(executable).map(drop)
}

pub fn destroy(machine: &Machine, graph: u64) -> Result {
    let graph = machine.graphs.remove(graph)?;
    let bodies = std::mem::take(&mut *lock(&graph.bodies));
    bodies.into_iter().flatten().try_for_each(|body| destroy(machine, body))
}
