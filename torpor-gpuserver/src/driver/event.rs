//! Events.

use super::{Device, Handle, Stream};
use std::sync::Arc;
use torpor_proto::error::CudaError;

/// `CU_EVENT_DISABLE_TIMING`.
pub(crate) const DISABLE_TIMING: u32 = 2;

/// An event.
#[derive(Debug)]
pub struct Event {
    device: Arc<Device>,
    pub(super) handle: Handle,
}

impl Event {
    /// Makes an event; `flags` are `CUevent_flags`.
    ///
    /// # Errors
    /// The driver's.
    pub fn new(device: &Arc<Device>, flags: u32) -> Result<Self, CudaError> {
        let mut handle = 0;
        // SAFETY: writes one handle.
        CudaError::check(unsafe { (device.table().cuEventCreate)(&mut handle, flags) })?;
        Ok(Self { device: device.clone(), handle })
    }

    /// An event that only orders streams.
    ///
    /// # Errors
    /// The driver's.
    pub fn untimed(device: &Arc<Device>) -> Result<Self, CudaError> {
        Self::new(device, DISABLE_TIMING)
    }

    /// The device it is of.
    #[must_use]
    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// Records it in a stream.
    ///
    /// # Errors
    /// The driver's.
    pub fn record(&self, stream: &Stream, flags: u32) -> Result<(), CudaError> {
        // SAFETY: both handles are alive as long as their owners.
        CudaError::check(unsafe {
            (self.device.table().cuEventRecordWithFlags)(self.handle, stream.handle, flags)
        })
    }

    /// `CUDA_ERROR_NOT_READY` until its last record is reached.
    ///
    /// # Errors
    /// That, or the driver's.
    pub fn query(&self) -> Result<(), CudaError> {
        // SAFETY: the handle is alive as long as self.
        CudaError::check(unsafe { (self.device.table().cuEventQuery)(self.handle) })
    }

    /// Waits until its last record is reached, and has the driver write what kernels have printed so far.
    ///
    /// # Errors
    /// The driver's.
    pub fn synchronize(&self) -> Result<(), CudaError> {
        // SAFETY: the handle is alive as long as self.
        CudaError::check(unsafe { (self.device.table().cuEventSynchronize)(self.handle) })
    }

    /// Milliseconds from this event to a later one.
    ///
    /// # Errors
    /// The driver's.
    pub fn milliseconds_to(&self, end: &Self) -> Result<f32, CudaError> {
        let mut milliseconds = 0.0;
        // SAFETY: both handles are alive as long as their owners; writes one number.
        CudaError::check(unsafe {
            (self.device.table().cuEventElapsedTime_v2)(&mut milliseconds, self.handle, end.handle)
        })?;
        Ok(milliseconds)
    }

    /// The handle as it stands in a launch attribute.
    #[must_use]
    pub(crate) fn as_attribute(&self) -> u64 {
        self.handle as u64
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: destroyed once, here; the driver keeps what is still recorded.
        let _ = unsafe { (self.device.table().cuEventDestroy_v2)(self.handle) };
    }
}
