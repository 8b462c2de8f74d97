//! Graphs.

use super::table::RawUpdateInfo;
use super::{Device, Handle, Stream};
use std::sync::Arc;
use torpor_proto::error::CudaError;

/// A recorded graph.
#[derive(Debug)]
pub struct Graph {
    device: Arc<Device>,
    handle: Handle,
}

impl Graph {
    /// Owns what a recording gave.
    pub(super) fn owning(device: &Arc<Device>, handle: Handle) -> Self {
        Self { device: device.clone(), handle }
    }

    /// Makes a launchable graph of it; `flags` are `CUgraphInstantiate_flags`.
    ///
    /// # Errors
    /// The driver's.
    pub fn instantiate(&self, flags: u64) -> Result<ExecutableGraph, CudaError> {
        let mut handle = 0;
        // SAFETY: the handle is alive as long as self; writes one handle.
        CudaError::check(unsafe {
            (self.device.table().cuGraphInstantiateWithFlags)(&mut handle, self.handle, flags)
        })?;
        Ok(ExecutableGraph { device: self.device.clone(), handle })
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: owned by this value alone, destroyed once.
        let _ = unsafe { (self.device.table().cuGraphDestroy)(self.handle) };
    }
}

/// A graph that can be launched.
#[derive(Debug)]
pub struct ExecutableGraph {
    device: Arc<Device>,
    handle: Handle,
}

impl ExecutableGraph {
    /// Makes it do what a graph with the same nodes and dependencies does. What was launched before goes on as it was.
    ///
    /// # Errors
    /// The driver's; it is as before then.
    pub fn update(&self, graph: &Graph) -> Result<(), CudaError> {
        let mut told: RawUpdateInfo = [0; 3];
        // SAFETY: both handles are alive as long as their owners; writes one result.
        CudaError::check(unsafe {
            (self.device.table().cuGraphExecUpdate_v2)(self.handle, graph.handle, &mut told)
        })
    }

    /// Launches it in the order of a stream.
    ///
    /// # Errors
    /// The driver's.
    pub fn launch(&self, stream: &Stream) -> Result<(), CudaError> {
        // SAFETY: both handles are alive as long as their owners.
        CudaError::check(unsafe { (self.device.table().cuGraphLaunch)(self.handle, stream.handle) })
    }
}

impl Drop for ExecutableGraph {
    fn drop(&mut self) {
        // SAFETY: owned by this value alone, destroyed once.
        let _ = unsafe { (self.device.table().cuGraphExecDestroy)(self.handle) };
    }
}
