//! A graph that is being recorded: whatever stream a command names, one private stream is recorded, and every node comes behind
//! the one before it unless the client says otherwise. A conditional node's graphs are recorded by streams of their own, in
//! between.

use crate::driver::{BodyGraph, Device, Graph, GraphNode, Recording, Stream};
use crate::worker::objects::event::ClientEvent;
use crate::worker::objects::graph::External;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use torpor_proto::command::{GraphCondition, GraphConditional};
use torpor_proto::error::CudaError;
use torpor_proto::image::DriverCalls;

/// `CU_EVENT_RECORD_EXTERNAL` and `CU_EVENT_WAIT_EXTERNAL`: the event itself, at every launch of the graph.
const EXTERNAL: u32 = 1;

/// Graphs in graphs of conditional nodes.
const MOST_LEVELS: usize = 64;

/// Graphs of one conditional node.
const MOST_BODIES: u32 = 1024;

/// Conditions of one graph.
const MOST_CONDITIONS: usize = 1 << 16;

/// What came of a replay.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) graph: Graph,
    pub(crate) external: Vec<External>,
    pub(crate) has_conditions: bool,
    /// What its kernels may call.
    pub(crate) calls: DriverCalls,
}

/// A graph, or one of a conditional node, that is being recorded.
#[derive(Debug)]
struct Level {
    recording: Recording,
    nodes: Vec<GraphNode>,
    /// The graphs of the conditional node that was recorded last.
    bodies: Vec<BodyGraph>,
}

impl Level {
    fn new(recording: Recording) -> Self {
        Self { recording, nodes: Vec::new(), bodies: Vec::new() }
    }
}

/// A replay.
#[derive(Debug)]
pub(crate) struct Capture {
    first: Level,
    inner: Vec<Level>,
    /// The driver's conditions by the client's numbers.
    conditions: HashMap<u64, u64>,
    external: Vec<External>,
    calls: DriverCalls,
}

impl Capture {
    /// Begins to record.
    pub(crate) fn begin(device: &Arc<Device>) -> Result<Self, CudaError> {
        let first = Level::new(Recording::begin(device)?);
        let calls = DriverCalls::default();
        Ok(Self { first, inner: Vec::new(), conditions: HashMap::new(), external: Vec::new(), calls })
    }

    /// The stream that is recorded.
    pub(crate) fn stream(&self) -> &Stream {
        self.inner.last().unwrap_or(&self.first).recording.stream()
    }

    /// Puts the driver's conditions in the place of the client's.
    pub(crate) fn put_conditions(&self, parameters: &mut [u64]) {
        if self.conditions.is_empty() {
            return;
        }
        for word in parameters {
            if let Some(&condition) = self.conditions.get(word) {
                *word = condition;
            }
        }
    }

    /// A kernel is recorded that may call these.
    pub(crate) fn note_calls(&mut self, calls: DriverCalls) {
        self.calls = self.calls.and(calls);
    }

    fn level(&mut self) -> &mut Level {
        self.inner.last_mut().unwrap_or(&mut self.first)
    }

    /// A record was executed that is a node.
    pub(crate) fn note_node(&mut self) -> Result<(), CudaError> {
        let level = self.level();
        level.nodes.push(level.recording.last_node()?);
        Ok(())
    }

    /// The next node comes behind what the words say: pairs of a node's number and the data of the edge.
    pub(crate) fn come_behind(&mut self, adds: bool, words: &[u8]) -> Result<(), CudaError> {
        let (pairs, rest) = words.as_chunks::<16>();
        if !rest.is_empty() {
            return Err(CudaError::INVALID_VALUE);
        }
        let level = self.level();
        let (mut nodes, mut edges) = (Vec::new(), Vec::new());
        for pair in pairs {
            let [number, edge]: [u64; 2] = bytemuck::pod_read_unaligned(pair);
            let at = usize::try_from(number).map_err(|_| CudaError::INVALID_VALUE)?;
            nodes.push(*level.nodes.get(at).ok_or(CudaError::INVALID_VALUE)?);
            edges.push(edge);
        }
        level.recording.come_behind(&nodes, &edges, adds)
    }

    pub(crate) fn add_empty(&mut self) -> Result<(), CudaError> {
        self.level().recording.add_empty()
    }

    pub(crate) fn add_condition(&mut self, command: GraphCondition) -> Result<(), CudaError> {
        let GraphCondition { condition, value, flags } = command;
        if self.conditions.len() >= MOST_CONDITIONS || self.conditions.contains_key(&condition) {
            return Err(CudaError::INVALID_VALUE);
        }
        let real = self.level().recording.add_condition(value, flags)?;
        self.conditions.insert(condition, real);
        Ok(())
    }

    pub(crate) fn add_conditional(&mut self, command: GraphConditional) -> Result<(), CudaError> {
        let GraphConditional { condition, kind, bodies } = command;
        let real = *self.conditions.get(&condition).ok_or(CudaError::INVALID_VALUE)?;
        if bodies == 0 || bodies > MOST_BODIES {
            return Err(CudaError::INVALID_VALUE);
        }
        let level = self.level();
        level.bodies = level.recording.add_conditional(real, kind, bodies)?;
        Ok(())
    }

    pub(crate) fn begin_body(&mut self, device: &Arc<Device>, index: u32) -> Result<(), CudaError> {
        let body = *self.level().bodies.get(index as usize).ok_or(CudaError::INVALID_VALUE)?;
        if self.inner.len() >= MOST_LEVELS {
            return Err(CudaError::INVALID_VALUE);
        }
        self.inner.push(Level::new(Recording::begin_body(device, body)?));
        Ok(())
    }

    pub(crate) fn end_body(&mut self) -> Result<(), CudaError> {
        self.inner.pop().ok_or(CudaError::INVALID_VALUE)?.recording.end_body()
    }

    /// The event is recorded at every launch.
    pub(crate) fn record(&mut self, event: &Rc<ClientEvent>, flags: u32) -> Result<(), CudaError> {
        self.add_external(event, flags, true)?;
        event.for_graph()?.record(self.stream(), flags)
    }

    /// The event is waited for at every launch.
    pub(crate) fn wait(&mut self, event: &Rc<ClientEvent>, flags: u32) -> Result<(), CudaError> {
        self.add_external(event, flags, false)?;
        self.stream().wait(&*event.for_graph()?, flags)
    }

    fn add_external(&mut self, event: &Rc<ClientEvent>, flags: u32, recorded: bool) -> Result<(), CudaError> {
        if flags != EXTERNAL {
            return Err(CudaError::INVALID_VALUE);
        }
        self.external.push(External { event: event.clone(), recorded });
        Ok(())
    }

    /// Ends what is being recorded, also after an error.
    pub(crate) fn end(mut self) -> Result<Built, CudaError> {
        let is_whole = self.inner.is_empty();
        while let Some(level) = self.inner.pop() {
            // That the graph is not whole is the error to tell.
            let _ = level.recording.end_body();
        }
        let graph = self.first.recording.end()?;
        if !is_whole {
            return Err(CudaError::INVALID_VALUE);
        }
        let (external, has_conditions) = (self.external, !self.conditions.is_empty());
        Ok(Built { graph, external, has_conditions, calls: self.calls })
    }
}
