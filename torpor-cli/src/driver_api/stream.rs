//! Streams and events.

use super::{Driver, DriverError};
use std::ffi::c_uint;

impl Driver {
    /// A stream that does not wait for the default stream.
    pub fn create_stream(&self) -> Result<usize, DriverError> {
        const CU_STREAM_NON_BLOCKING: c_uint = 1;
        // SAFETY: the function writes one handle.
        self.handle("cuStreamCreate", |out| unsafe { (self.stream_create)(out, CU_STREAM_NON_BLOCKING) })
    }

    /// Waits until a stream has done everything.
    pub fn synchronize(&self, stream: usize) -> Result<(), DriverError> {
        // SAFETY: no pointer is passed; the driver checks handles that it gave.
        self.check("cuStreamSynchronize", unsafe { (self.stream_synchronize)(stream) })
    }

    /// Ends a stream.
    pub fn destroy_stream(&self, stream: usize) -> Result<(), DriverError> {
        // SAFETY: as above.
        self.check("cuStreamDestroy", unsafe { (self.stream_destroy)(stream) })
    }

    /// An event that takes the time.
    pub fn create_event(&self) -> Result<usize, DriverError> {
        // SAFETY: the function writes one handle.
        self.handle("cuEventCreate", |out| unsafe { (self.event_create)(out, 0) })
    }

    /// Lets an event happen when a stream gets there.
    pub fn record(&self, event: usize, stream: usize) -> Result<(), DriverError> {
        // SAFETY: no pointer is passed; the driver checks handles that it gave.
        self.check("cuEventRecord", unsafe { (self.event_record)(event, stream) })
    }

    /// Milliseconds between two events that have happened.
    pub fn elapsed_ms(&self, from: usize, to: usize) -> Result<f32, DriverError> {
        let mut milliseconds = 0.0;
        // SAFETY: the output is ours.
        let code = unsafe { (self.event_elapsed)(&raw mut milliseconds, from, to) };
        self.check("cuEventElapsedTime", code).map(|()| milliseconds)
    }

    /// Ends an event.
    pub fn destroy_event(&self, event: usize) -> Result<(), DriverError> {
        // SAFETY: no pointer is passed.
        self.check("cuEventDestroy", unsafe { (self.event_destroy)(event) })
    }
}
