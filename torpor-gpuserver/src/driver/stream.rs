//! Streams.

use super::{Device, Event, GreenContext, Handle};
use std::sync::Arc;
use torpor_proto::error::CudaError;

/// `CU_STREAM_NON_BLOCKING`.
const NON_BLOCKING: u32 = 1;

/// A value that a stream stores at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// Of 32 bits.
    Narrow(u32),
    /// Of 64 bits.
    Wide(u64),
}

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

    /// Once earlier work is done and visible, stores a word at a device address.
    ///
    /// # Errors
    /// The driver's.
    ///
    /// # Safety
    /// The address is a multiple of the word's length; the memory there stays until the work is done, and whoever else uses it meanwhile
    /// takes what it holds for numbers that may change.
    pub unsafe fn write_word(&self, address: u64, word: Word) -> Result<(), CudaError> {
        let table = self.device.table();
        // SAFETY: the handle is alive as long as self, and the caller promises the rest; flags 0 asks for the memory barrier.
        CudaError::check(unsafe {
            match word {
                Word::Narrow(value) => (table.cuStreamWriteValue32_v2)(self.handle, address, value, 0),
                Word::Wide(value) => (table.cuStreamWriteValue64_v2)(self.handle, address, value, 0),
            }
        })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: destroyed once, here; the driver finishes its work first, without waiting.
        let _ = unsafe { (self.device.table().cuStreamDestroy_v2)(self.handle) };
    }
}
