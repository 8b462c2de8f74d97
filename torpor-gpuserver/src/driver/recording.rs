//! Recordings: a stream whose work becomes nodes of a graph.

use super::table::RawNodeParams;
use super::{Device, Graph, Handle, Stream};
use std::ptr::{null, null_mut};
use std::sync::Arc;
use torpor_proto::error::CudaError;

/// `CU_STREAM_CAPTURE_MODE_RELAXED`: this thread stays free to call anything.
const MODE_RELAXED: u32 = 2;
/// `CU_STREAM_ADD_CAPTURE_DEPENDENCIES`, `CU_STREAM_SET_CAPTURE_DEPENDENCIES`
const ADD: u32 = 0;
const SET: u32 = 1;
/// `CU_GRAPH_NODE_TYPE_CONDITIONAL`
const CONDITIONAL: u32 = 13;

/// A node of a graph that is being recorded.
#[derive(Clone, Copy, Debug)]
pub struct GraphNode(Handle);

/// A graph that belongs to a conditional node of one that is being recorded.
#[derive(Clone, Copy, Debug)]
pub struct BodyGraph(Handle);

/// A recording under way. It must be ended, whatever went wrong; inner ones before those that they are in.
#[derive(Debug)]
pub struct Recording {
    stream: Stream,
    graph: Handle,
}

impl Recording {
    /// Begins one.
    ///
    /// # Errors
    /// The driver's.
    pub fn begin(device: &Arc<Device>) -> Result<Self, CudaError> {
        let stream = Stream::new(device, 0)?;
        // SAFETY: the handle is alive as long as the stream.
        CudaError::check(unsafe { (device.table().cuStreamBeginCapture_v2)(stream.handle, MODE_RELAXED) })?;
        let mut recording = Self { stream, graph: 0 };
        recording.graph = recording.ask()?.0;
        Ok(recording)
    }

    /// Begins one that adds to the graph of a conditional node.
    ///
    /// # Errors
    /// The driver's.
    pub fn begin_body(device: &Arc<Device>, BodyGraph(graph): BodyGraph) -> Result<Self, CudaError> {
        let stream = Stream::new(device, 0)?;
        // SAFETY: both handles are alive: the graph's node belongs to a recording that this one is in.
        CudaError::check(unsafe {
            (device.table().cuStreamBeginCaptureToGraph)(
                stream.handle,
                graph,
                null(),
                null(),
                0,
                MODE_RELAXED,
            )
        })?;
        Ok(Self { stream, graph })
    }

    /// What is posted here is recorded.
    #[must_use]
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// The node that was recorded last.
    ///
    /// # Errors
    /// The driver's, or `CUDA_ERROR_UNKNOWN` if the next node would come behind another number of nodes than one.
    pub fn last_node(&self) -> Result<GraphNode, CudaError> {
        match self.ask()? {
            (_, [node]) => Ok(GraphNode(*node)),
            _ => Err(CudaError::UNKNOWN),
        }
    }

    /// The graph, and what its next node comes behind.
    fn ask(&self) -> Result<(Handle, &[Handle]), CudaError> {
        let (mut status, mut id, mut graph, mut count) = (0, 0, 0, 0);
        let (mut nodes, mut edges) = (null(), null());
        // SAFETY: the handle is alive as long as the stream; writes one result to each place.
        CudaError::check(unsafe {
            (self.stream.device().table().cuStreamGetCaptureInfo_v3)(
                self.stream.handle,
                &mut status,
                &mut id,
                &mut graph,
                &mut nodes,
                &mut edges,
                &mut count,
            )
        })?;
        if graph == 0 {
            return Err(CudaError::STREAM_CAPTURE_INVALIDATED);
        }
        if count == 0 || nodes.is_null() {
            return Ok((graph, &[]));
        }
        // SAFETY: the driver's array of that length, valid until the stream is next used (cuStreamGetCaptureInfo); the
        // borrow of self keeps others from ending the recording, and callers copy at once.
        Ok((graph, unsafe { std::slice::from_raw_parts(nodes, count) }))
    }

    /// The next node comes behind these (each with a `CUgraphEdgeData`), and, if they are added, behind what it came behind
    /// before.
    ///
    /// # Errors
    /// The driver's.
    pub fn come_behind(&self, nodes: &[GraphNode], edges: &[u64], adds: bool) -> Result<(), CudaError> {
        let handles: Vec<Handle> = nodes.iter().map(|node| node.0).collect();
        let count = handles.len().min(edges.len());
        // The driver wants no data with no nodes.
        let data = if count == 0 { null() } else { edges.as_ptr() };
        // SAFETY: both arrays are at least that long; the nodes are this recording's, which has removed none.
        CudaError::check(unsafe {
            (self.stream.device().table().cuStreamUpdateCaptureDependencies_v2)(
                self.stream.handle,
                handles.as_ptr(),
                data,
                count,
                if adds { ADD } else { SET },
            )
        })
    }

    /// A node that does nothing, behind what the next one would come behind.
    ///
    /// # Errors
    /// The driver's.
    pub fn add_empty(&self) -> Result<(), CudaError> {
        let behind = self.ask()?.1.to_vec();
        let mut node = 0;
        // SAFETY: the graph is the recording's, and so are the nodes; writes one handle.
        CudaError::check(unsafe {
            (self.stream.device().table().cuGraphAddEmptyNode)(
                &mut node,
                self.graph,
                behind.as_ptr(),
                behind.len(),
            )
        })?;
        self.come_behind(&[GraphNode(node)], &[0], false)
    }

    /// A condition for nodes of this graph and those in it; flags 1 gives it the value at every launch.
    ///
    /// # Errors
    /// The driver's.
    pub fn add_condition(&self, value: u32, flags: u32) -> Result<u64, CudaError> {
        let device = self.stream.device();
        let mut condition = 0;
        // SAFETY: the graph is the recording's; writes one result.
        CudaError::check(unsafe {
            (device.table().cuGraphConditionalHandleCreate)(
                &mut condition,
                self.graph,
                device.context(),
                value,
                flags,
            )
        })?;
        Ok(condition)
    }

    /// A node that runs graphs, empty so far, as a condition says; `kind` is a `CUgraphConditionalNodeType`.
    ///
    /// # Errors
    /// The driver's.
    pub fn add_conditional(
        &self,
        condition: u64,
        kind: u32,
        bodies: u32,
    ) -> Result<Vec<BodyGraph>, CudaError> {
        let device = self.stream.device();
        let behind = self.ask()?.1.to_vec();
        let mut params = RawNodeParams {
            node_type: CONDITIONAL,
            reserved: [0; 3],
            condition,
            kind,
            bodies,
            graphs: null_mut(),
            context: device.context(),
            rest: [0; 26],
        };
        let mut node = 0;
        // SAFETY: the graph is the recording's, and so are the nodes; writes one handle, and into the parameters where the
        // graphs' handles are.
        CudaError::check(unsafe {
            (device.table().cuGraphAddNode_v2)(
                &mut node,
                self.graph,
                behind.as_ptr(),
                null(),
                behind.len(),
                &mut params,
            )
        })?;
        self.come_behind(&[GraphNode(node)], &[0], false)?;
        if params.graphs.is_null() {
            return Err(CudaError::UNKNOWN);
        }
        // SAFETY: the driver's array of as many handles as were asked for, valid as long as the node (cuda.h).
        let graphs = unsafe { std::slice::from_raw_parts(params.graphs, bodies as usize) };
        Ok(graphs.iter().map(|&graph| BodyGraph(graph)).collect())
    }

    /// Ends it.
    ///
    /// # Errors
    /// The driver's; the recording is gone then.
    pub fn end(self) -> Result<Graph, CudaError> {
        let mut graph = 0;
        let status = self.end_at(&mut graph);
        let graph = (graph != 0).then(|| Graph::owning(self.stream.device(), graph));
        status?;
        graph.ok_or(CudaError::STREAM_CAPTURE_INVALIDATED)
    }

    /// Ends one that added to the graph of a conditional node, which has that graph.
    ///
    /// # Errors
    /// The driver's.
    pub fn end_body(self) -> Result<(), CudaError> {
        self.end_at(&mut 0)
    }

    fn end_at(&self, graph: &mut Handle) -> Result<(), CudaError> {
        // SAFETY: the handle is alive as long as the stream; writes one handle.
        CudaError::check(unsafe {
            (self.stream.device().table().cuStreamEndCapture)(self.stream.handle, graph)
        })
    }
}
