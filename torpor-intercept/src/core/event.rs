//! Events.

use super::capture::Capture;
use super::handle::Table;
use super::position::Position;
use super::stream::Stream;
use super::{CudaResult, client, pool};
use std::ffi::c_void;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use torpor_proto::command::{
    EventCreate, EventDestroy, EventElapsed, EventQuery, EventRecord, EventSynchronize,
};
use torpor_proto::error::CudaError;

/// `CU_EVENT_DISABLE_TIMING`
pub(super) const DISABLE_TIMING: u32 = 2;
/// `CU_EVENT_INTERPROCESS`
const INTERPROCESS: u32 = 4;

/// An event.
pub struct Event {
    pub(super) number: u32,
    flags: AtomicU32,
    last: Mutex<LastRecord>,
}

/// Where an event was recorded last.
#[derive(Clone, Default)]
enum LastRecord {
    #[default]
    Never,
    /// After so many commands of the stream, of which so many are done when it is reached.
    At {
        stream: &'static Stream,
        position: Position,
        done: Position,
    },
    In(Arc<Capture>),
}

static EVENTS: Table<Event> = Table::new(1 << 20);

impl Event {
    /// `cuEventCreate`.
    ///
    /// # Errors
    /// `NOT_SUPPORTED` for an event to be shared between processes.
    pub fn create(flags: u32) -> CudaResult<&'static Self> {
        let client = client()?;
        if flags & INTERPROCESS != 0 {
            return Err(CudaError::NOT_SUPPORTED);
        }
        let make = |number| Self { number, flags: AtomicU32::new(flags), last: Mutex::default() };
        let event = EVENTS.insert(make, |event| {
            event.flags.store(flags, Ordering::Relaxed);
            event.set_last(LastRecord::Never);
        });
        let event = event.ok_or(CudaError::OUT_OF_MEMORY)?;
        client.post(&EventCreate { event: event.number, flags }, &[])?;
        Ok(event)
    }

    /// The event behind a handle.
    ///
    /// # Errors
    /// `INVALID_HANDLE`.
    #[inline]
    pub fn find(handle: *mut c_void) -> CudaResult<&'static Self> {
        EVENTS.get(handle).ok_or(CudaError::INVALID_HANDLE)
    }

    /// What the program is given for it.
    #[must_use]
    pub fn handle(&'static self) -> *mut c_void {
        Table::handle(self)
    }

    /// `cuEventDestroy`.
    ///
    /// # Errors
    /// What posting gives.
    pub fn destroy(&'static self) -> CudaResult<()> {
        // Posted before the number is free again, so that an event created under it comes later in the ring.
        let posted = client()?.post(&EventDestroy { event: self.number, reserved: 0 }, &[]);
        EVENTS.retire(self.number);
        posted
    }

    /// `cuEventRecordWithFlags`.
    ///
    /// # Errors
    /// What posting gives.
    pub fn record(&self, stream: &'static Stream, flags: u32) -> CudaResult<()> {
        let command = EventRecord { event: self.number, stream: stream.number, flags, reserved: 0 };
        let before = stream.position();
        stream.post(client()?, &command, &[])?;
        let position = stream.position();
        self.set_last(match stream.capture() {
            Some(capture) => LastRecord::In(capture),
            None => LastRecord::At { stream, position, done: before.done_with_one(position) },
        });
        Ok(())
    }

    /// `cuEventQuery`. Answered here if the stream was synchronised since.
    ///
    /// # Errors
    /// `NOT_READY`; `CAPTURED_EVENT` for one that belongs to a capture.
    pub fn query(&self) -> CudaResult<()> {
        let client = client()?;
        self.refuse_captured()?;
        if self.is_done() {
            return client.check();
        }
        client.call(&EventQuery { event: self.number, reserved: 0 }, &[])?;
        self.mark_done();
        Ok(())
    }

    /// `cuEventSynchronize`.
    ///
    /// # Errors
    /// Those of earlier posted commands; `CAPTURED_EVENT`.
    pub fn synchronize(&self) -> CudaResult<()> {
        let client = client()?;
        self.refuse_captured()?;
        if !self.is_done() {
            client.call(&EventSynchronize { event: self.number, reserved: 0 }, &[])?;
            self.mark_done();
        }
        pool::release_surplus(false)?;
        client.check()
    }

    /// `cuEventElapsedTime`, in milliseconds.
    ///
    /// # Errors
    /// `INVALID_HANDLE` if one was never recorded or keeps no time, `NOT_READY`.
    pub fn elapsed_since(&self, start: &Self) -> CudaResult<f32> {
        let client = client()?;
        for event in [start, self] {
            event.refuse_captured()?;
            let keeps_time = event.flags.load(Ordering::Relaxed) & DISABLE_TIMING == 0;
            if !keeps_time || matches!(event.last(), LastRecord::Never) {
                return Err(CudaError::INVALID_HANDLE);
            }
        }
        let answer = client.call(&EventElapsed { start: start.number, end: self.number }, &[])?;
        Ok(f32::from_bits(answer.reply.milliseconds_bits))
    }

    /// The capture it was recorded in last.
    pub(super) fn captured(&self) -> Option<Arc<Capture>> {
        if let LastRecord::In(capture) = self.last() { Some(capture) } else { None }
    }

    /// Whether its last record is known to be reached.
    pub(super) fn is_done(&self) -> bool {
        match self.last() {
            LastRecord::Never => true,
            LastRecord::At { stream, position, .. } => stream.is_done_up_to(position),
            LastRecord::In(_) => false,
        }
    }

    /// What the stream had before the record is done as well.
    fn mark_done(&self) {
        if let LastRecord::At { stream, done, .. } = self.last() {
            stream.mark_done_up_to(done);
        }
    }

    fn refuse_captured(&self) -> CudaResult<()> {
        match self.captured() {
            None => Ok(()),
            Some(capture) => {
                capture.invalidate();
                Err(CudaError::CAPTURED_EVENT)
            }
        }
    }

    fn last(&self) -> LastRecord {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_last(&self, last: LastRecord) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = last;
    }
}
