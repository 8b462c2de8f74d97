//! Graphs: captured commands, launched as one.

use super::handle::Table;
use super::stream::Stream;
use super::{CudaResult, client};
use std::ffi::c_void;
use std::sync::{Arc, Mutex, PoisonError};
use torpor_proto::command::{GraphAppend, GraphDestroy, GraphInstantiate, GraphLaunch};
use torpor_proto::error::CudaError;

/// Bytes of records in one [`GraphAppend`].
const APPEND_BYTES: usize = 16 * 1024;

/// A graph: what a capture recorded.
pub struct Graph {
    number: u32,
    contents: Mutex<Arc<Contents>>,
}

struct Contents {
    records: Vec<u64>,
    /// One entry per node; its address is the node's handle.
    nodes: Vec<u8>,
    origin: u32,
}

/// A graph that can be launched.
pub struct GraphExec {
    number: u32,
}

static GRAPHS: Table<Graph> = Table::new(4096);
static EXECS: Table<GraphExec> = Table::new(4096);

impl Graph {
    pub(super) fn new(records: Vec<u64>, nodes: usize, origin: u32) -> CudaResult<&'static Self> {
        let contents = Arc::new(Contents { records, nodes: vec![0; nodes], origin });
        let make = |number| Self { number, contents: Mutex::new(contents.clone()) };
        GRAPHS.insert(make, |graph| graph.set(contents.clone())).ok_or(CudaError::OUT_OF_MEMORY)
    }

    /// The graph behind a handle.
    ///
    /// # Errors
    /// `INVALID_HANDLE`.
    pub fn find(handle: *mut c_void) -> CudaResult<&'static Self> {
        GRAPHS.get(handle).ok_or(CudaError::INVALID_HANDLE)
    }

    /// What the program is given for it.
    #[must_use]
    pub fn handle(&'static self) -> *mut c_void {
        Table::handle(self)
    }

    /// `cuGraphGetNodes`: opaque handles, valid as long as the graph.
    #[must_use]
    pub fn nodes(&self) -> Vec<*mut c_void> {
        self.get().nodes.iter().map(|node| std::ptr::from_ref(node).cast_mut().cast()).collect()
    }

    /// `cuGraphInstantiate`.
    ///
    /// # Errors
    /// Whatever building the real graph gives.
    pub fn instantiate(&self, flags: u64) -> CudaResult<&'static GraphExec> {
        let client = client()?;
        let contents = self.get();
        let exec = EXECS.insert(|number| GraphExec { number }, |_| ()).ok_or(CudaError::OUT_OF_MEMORY)?;
        let build = || {
            let append = GraphAppend { graph: exec.number, reserved: 0 };
            for piece in bytemuck::cast_slice(&contents.records).chunks(APPEND_BYTES) {
                client.post(&append, piece)?;
            }
            client.call(&GraphInstantiate { graph: exec.number, origin: contents.origin, flags }, &[])
        };
        match build() {
            Ok(_) => Ok(exec),
            Err(error) => {
                let _ = exec.destroy();
                Err(error)
            }
        }
    }

    /// `cuGraphDestroy`.
    pub fn destroy(&'static self) {
        self.set(Arc::new(Contents { records: Vec::new(), nodes: Vec::new(), origin: 0 }));
        GRAPHS.retire(self.number);
    }

    fn get(&self) -> Arc<Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, contents: Arc<Contents>) {
        *self.contents.lock().unwrap_or_else(PoisonError::into_inner) = contents;
    }
}

impl GraphExec {
    /// The launchable graph behind a handle.
    ///
    /// # Errors
    /// `INVALID_HANDLE`.
    pub fn find(handle: *mut c_void) -> CudaResult<&'static Self> {
        EXECS.get(handle).ok_or(CudaError::INVALID_HANDLE)
    }

    /// What the program is given for it.
    #[must_use]
    pub fn handle(&'static self) -> *mut c_void {
        Table::handle(self)
    }

    /// `cuGraphLaunch`.
    ///
    /// # Errors
    /// What posting gives; `STREAM_CAPTURE_UNSUPPORTED` into a capture, which would make a child graph.
    pub fn launch(&self, stream: &'static Stream) -> CudaResult<()> {
        stream.refuse_capture()?;
        stream.post(client()?, &GraphLaunch { graph: self.number, stream: stream.number }, &[])
    }

    /// `cuGraphExecDestroy`.
    ///
    /// # Errors
    /// What posting gives.
    pub fn destroy(&'static self) -> CudaResult<()> {
        let posted = client()?.post(&GraphDestroy { graph: self.number, reserved: 0 }, &[]);
        EXECS.retire(self.number);
        posted
    }
}
