//! Graphs.

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
    /// Owns what a recording gave, if it gave anything.
    pub(super) fn owning(device: &Arc<Device>, handle: Handle) -> Option<Self> {
        (handle != 0).then(|| Self { device: device.clone(), handle })
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
