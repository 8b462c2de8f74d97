//! A host function on its way to be called.

use super::HostFunction;
use crate::core::event::{DISABLE_TIMING, Event};
use crate::core::graph::HostCopy;
use crate::core::stream::{Position, Stream};
use crate::core::word::Wait;
use crate::core::{Client, CudaResult, client};
use std::ffi::c_void;
use std::sync::{Arc, OnceLock};
use torpor_proto::command::{EventRecord, StreamSynchronize};

/// A function on its way to be called.
pub(super) struct Call {
    pub(super) stream: &'static Stream,
    /// What the stream had before.
    pub(super) position: Position,
    pub(super) task: Task,
}

/// What is to be done.
pub(super) enum Task {
    /// A function of the program is called with what was given with it.
    Function(HostFunction, *mut c_void),
    /// Memory of the program is copied, if there was no error.
    Copy(Arc<HostCopy>),
    /// Words are waited for, one after the other.
    Wait(Arc<[Wait]>),
}

// SAFETY: the pointers are the program's, which gives them to be passed to its function in another thread.
unsafe impl Send for Call {}

impl Call {
    /// Waits for the stream's earlier work and calls the function.
    pub(super) fn make(self) {
        let status = match client().and_then(|client| self.wait_for_work(client)) {
            Ok(()) => 0,
            Err(error) => error.0,
        };
        match self.task {
            // SAFETY: the program gave it to be called with this, see `Stream::call_in_order`; no lock is held.
            Task::Function(HostFunction::Launched(function), data) if status == 0 => unsafe {
                function(data)
            },
            // SAFETY: as above.
            Task::Function(HostFunction::Callback(function, stream), data) => unsafe {
                function(stream, status, data);
            },
            Task::Copy(copy) if status == 0 => copy.make(),
            Task::Wait(waits) if status == 0 => waits.iter().for_each(Wait::pass),
            Task::Function(HostFunction::Launched(_), _) | Task::Copy(_) | Task::Wait(_) => {}
        }
    }

    fn wait_for_work(&self, client: &'static Client) -> CudaResult<()> {
        let stream = self.stream;
        if stream.lane().is_blocking() {
            // Synchronising a blocking stream does not wait for earlier work of the legacy stream, a command in it does.
            let command =
                EventRecord { event: marker()?.number, stream: stream.number, flags: 0, reserved: 0 };
            client.post(&command, &[])?;
        }
        client.call(&StreamSynchronize { stream: stream.number, reserved: 0 }, &[])?;
        stream.mark_done_up_to(self.position);
        client.check_usable()
    }
}

/// An event that is recorded for the sake of the command alone.
pub(super) fn marker() -> CudaResult<&'static Event> {
    static MARKER: OnceLock<&'static Event> = OnceLock::new();
    if let Some(marker) = MARKER.get() {
        return Ok(marker);
    }
    let made = Event::create(DISABLE_TIMING)?;
    // Of two that are made at once one is not used.
    Ok(MARKER.get_or_init(|| made))
}
