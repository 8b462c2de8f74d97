//! Streams.

use super::{Device, Event, GreenContext, Handle};
use std::sync::Arc;
use torpor_proto::error::CudaError;

/// `CU_STREAM_NON_BLOCKING`.
const NON_BLOCKING: u32 = 1;

/// A stream that does not synchronise with the context's own legacy stream.
#[derive(Debug)]
pub struct Stream {
    pub(super) device: Arc<Device>,
    pub(super) handle: Handle,
    /// The green context that it is of.
    pub(super) green: Option<Arc<GreenContext>>,
}

impl Stream {
    /// Makes a stream.
    ///
    /// # Errors
    /// The driver's.
    pub fn new(device: &Arc<Device>, priority: i32) -> Result<Self, CudaError> {
        let mut handle = 0;
        // SAFETY: writes one handle.
        CudaError::check(unsafe {
            (device.table().cuStreamCreateWithPriority)(&mut handle, NON_BLOCKING, priority)
        })?;
        Ok(Self { device: device.clone(), handle, green: None })
    }

    /// The device it is on.
    #[must_use]
    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// `CUDA_ERROR_NOT_READY` while it has work to do.
    ///
    /// # Errors
    /// That, or the driver's.
    pub fn query(&self) -> Result<(), CudaError> {
        // SAFETY: the handle is alive as long as self.
        CudaError::check(unsafe { (self.device.table().cuStreamQuery)(self.handle) })
    }

    /// Later work waits for the event's last record.
    ///
    /// # Errors
    /// The driver's.
    pub fn wait(&self, event: &Event, flags: u32) -> Result<(), CudaError> {
        // SAFETY: both handles are alive as long as their owners.
        CudaError::check(unsafe { (self.device.table().cuStreamWaitEvent)(self.handle, event.handle, flags) })
    }

    /// Once earlier work is done and visible, writes `value` at a device address.
    ///
    /// # Errors
    /// The driver's.
    pub(super) fn write_value(&self, address: u64, value: u32) -> Result<(), CudaError> {
        // SAFETY: flags 0 asks for the memory barrier; PinnedWords and StreamWord, the only callers, pass addresses inside themselves.
        CudaError::check(unsafe {
            (self.device.table().cuStreamWriteValue32_v2)(self.handle, address, value, 0)
        })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: destroyed once, here; the driver finishes its work first, without waiting.
        let _ = unsafe { (self.device.table().cuStreamDestroy_v2)(self.handle) };
    }
}
