//! Nodes as the program has them: handles that say in which graph they are.

use super::dag::{Edge, EdgeData, NodeId};
use super::work::Work;
use super::{Graph, discard_inner};
use crate::core::CudaResult;
use crate::core::handle::Table;
use crate::core::kernel::Kernel;
use std::ffi::c_void;
use std::sync::{Mutex, MutexGuard, PoisonError};
use torpor_proto::command::{Launch, LaunchAttribute};
use torpor_proto::error::CudaError;

/// A node. Serves as `CUgraphNode` and `cudaGraphNode_t`.
pub struct Node {
    number: u32,
    place: Mutex<Place>,
}

struct Place {
    graph: &'static Graph,
    id: NodeId,
    /// What the program was told of a kernel's parameters. It stays where it is when they change: programs change what they were
    /// told and give it back again and again (llama.cpp).
    told: Option<Box<Told>>,
}

/// A kernel's parameters where a program can read them.
#[derive(Default)]
struct Told {
    /// What the addresses lead into.
    block: Vec<u64>,
    addresses: Vec<usize>,
}

/// What a kernel's node launches.
pub struct KernelNode {
    /// Which kernel.
    pub kernel: &'static Kernel,
    /// The launch.
    pub launch: Launch,
    /// A pointer for each parameter, valid until the node is gone or launches a kernel with other parameters.
    pub parameters: *mut *mut c_void,
}

static NODES: Table<Node> = Table::new(1 << 20);

impl Node {
    pub(super) fn new(graph: &'static Graph, id: NodeId) -> CudaResult<&'static Self> {
        let make = |number| Self { number, place: Mutex::new(Place { graph, id, told: None }) };
        let renew = |node: &Self| *node.lock() = Place { graph, id, told: None };
        NODES.insert(make, renew).ok_or(CudaError::OUT_OF_MEMORY)
    }

    /// The node behind a handle.
    ///
    /// # Errors
    /// `INVALID_VALUE`.
    pub fn find(handle: *mut c_void) -> CudaResult<&'static Self> {
        NODES.get(handle).ok_or(CudaError::INVALID_VALUE)
    }

    /// What the program is given for it.
    #[must_use]
    pub fn handle(&'static self) -> *mut c_void {
        Table::handle(self)
    }

    /// The graph that it is in, and which of its nodes it is.
    pub(in crate::core) fn place(&self) -> (&'static Graph, NodeId) {
        let place = self.lock();
        (place.graph, place.id)
    }

    /// What it does.
    ///
    /// # Errors
    /// `INVALID_VALUE` if it was removed meanwhile.
    pub fn work(&self) -> CudaResult<Work> {
        let (graph, id) = self.place();
        graph.with(|state| Ok(state.dag.get(id).ok_or(CudaError::INVALID_VALUE)?.work.clone()))
    }

    /// Makes it do something else of the same kind.
    ///
    /// # Errors
    /// `INVALID_VALUE` for something of another kind.
    pub fn set_work(&self, work: Work) -> CudaResult<()> {
        let (graph, id) = self.place();
        graph.with(|state| {
            let entry = state.dag.get_mut(id)?;
            if entry.work.node_type() != work.node_type() {
                return Err(CudaError::INVALID_VALUE);
            }
            entry.work = work;
            Ok(())
        })
    }

    /// What it launches, as the program is told of it. What it was told before says the same from now on.
    ///
    /// # Errors
    /// `INVALID_VALUE` if it is no kernel's node.
    pub fn kernel(&self) -> CudaResult<KernelNode> {
        let (launch, _, block) = self.launch()?;
        let kernel = Kernel::numbered(launch.shape.kernel)?;
        let mut place = self.lock();
        let mut told = place.told.take().filter(|told| told.fits(kernel, &block)).unwrap_or_default();
        told.tell(kernel, &block);
        let told = place.told.insert(told);
        Ok(KernelNode { kernel, launch, parameters: told.addresses.as_mut_ptr().cast() })
    }

    /// How it launches its kernel.
    ///
    /// # Errors
    /// `INVALID_VALUE` if it is no kernel's node.
    pub fn attributes(&self) -> CudaResult<Vec<LaunchAttribute>> {
        Ok(self.launch()?.1)
    }

    /// The launch, its attributes, and the kernel's parameters.
    fn launch(&self) -> CudaResult<(Launch, Vec<LaunchAttribute>, Vec<u8>)> {
        let (launch, mut tail) = self.work()?.as_command::<Launch>().ok_or(CudaError::INVALID_VALUE)?;
        let attribute_bytes = launch.shape.attributes as usize * size_of::<LaunchAttribute>();
        let attributes = tail.get(..attribute_bytes).ok_or(CudaError::INVALID_VALUE)?;
        let attributes = bytemuck::allocation::pod_collect_to_vec(attributes);
        Ok((launch, attributes, tail.split_off(attribute_bytes)))
    }

    /// Makes it launch its kernel in another way.
    ///
    /// # Errors
    /// `INVALID_VALUE` if it is no kernel's node.
    pub fn set_attributes(&self, attributes: &[LaunchAttribute]) -> CudaResult<()> {
        let (mut launch, _, block) = self.launch()?;
        launch.shape.attributes = attributes.len() as u32;
        self.set_work(Work::command(&launch, &[bytemuck::cast_slice(attributes), &block].concat()))
    }

    pub(super) fn retire(&self) {
        self.lock().told = None;
        NODES.retire(self.number);
    }

    fn lock(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Told {
    /// Whether a kernel's parameters have the same places.
    fn fits(&self, kernel: &Kernel, block: &[u8]) -> bool {
        self.block.len() == block.len().div_ceil(8) && self.addresses.len() == kernel.parameters.len()
    }

    fn tell(&mut self, kernel: &Kernel, block: &[u8]) {
        self.block.resize(block.len().div_ceil(8), 0);
        bytemuck::cast_slice_mut(&mut self.block)[..block.len()].copy_from_slice(block);
        let base = self.block.as_ptr().expose_provenance();
        self.addresses.resize(kernel.parameters.len(), 0);
        for (address, parameter) in self.addresses.iter_mut().zip(&kernel.parameters) {
            *address = base + parameter.offset as usize;
        }
    }
}

impl Node {
    /// `cuGraphDestroyNode`.
    ///
    /// # Errors
    /// `INVALID_VALUE` if it is gone already.
    pub fn destroy(&self) -> CudaResult<()> {
        let (graph, id) = self.place();
        let entry = graph.with(|state| {
            state.handles.remove(&id);
            state.dag.remove(id)
        });
        self.retire();
        discard_inner(&entry.ok_or(CudaError::INVALID_VALUE)?.work);
        Ok(())
    }

    /// What it depends on (`cuGraphNodeGetDependencies`).
    ///
    /// # Errors
    /// `INVALID_VALUE` if it is gone.
    pub fn dependencies(&self) -> CudaResult<Vec<(*mut c_void, EdgeData)>> {
        let (graph, id) = self.place();
        let edges = graph.with(|state| Ok(state.dag.get_mut(id)?.dependencies.clone()))?;
        edges.into_iter().map(|edge| Ok((graph.node(edge.from)?.handle(), edge.data))).collect()
    }

    /// What depends on it (`cuGraphNodeGetDependentNodes`).
    ///
    /// # Errors
    /// As [`Graph::nodes`].
    pub fn dependents(&self) -> CudaResult<Vec<(*mut c_void, EdgeData)>> {
        let (graph, id) = self.place();
        let edges: Vec<(Edge, NodeId)> =
            graph.with(|state| state.dag.edges().filter(|(edge, _)| edge.from == id).collect());
        edges.into_iter().map(|(edge, to)| Ok((graph.node(to)?.handle(), edge.data))).collect()
    }
}
