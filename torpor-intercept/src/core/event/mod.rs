//! Events.

mod records;

use super::graph::Edge;
use super::handle::Table;
use super::stream::{Capture, Stream, Turn, host_function};
use super::{Client, CudaResult, client, pool};
use records::{Asked, Begun, LastRecord, Records};
use std::ffi::c_void;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use torpor_proto::command::{
    EventCreate, EventDestroy, EventElapsed, EventQuery, EventRecord, EventSynchronize, Ping,
};
use torpor_proto::error::CudaError;

/// `CU_EVENT_DISABLE_TIMING`
pub(super) const DISABLE_TIMING: u32 = 2;
/// `CU_EVENT_INTERPROCESS`
const INTERPROCESS: u32 = 4;
/// `CU_EVENT_RECORD_EXTERNAL`, `CU_EVENT_WAIT_EXTERNAL`
pub(super) const EXTERNAL: u32 = 1;

/// An event.
pub struct Event {
    pub(super) number: u32,
    flags: AtomicU32,
    records: Mutex<Records>,
    /// The place of its last record in the order of streams, plus 1, if that was held behind a host function.
    held: AtomicU64,
}

static EVENTS: Table<Event> = Table::new(1 << 16);

impl Event {
    /// `cuEventCreate`.
    ///
    /// # Errors
    /// `INVALID_VALUE` for an event that other processes may have and that keeps times.
    pub fn create(flags: u32) -> CudaResult<&'static Self> {
        let client = client()?;
        if flags & (INTERPROCESS | DISABLE_TIMING) == INTERPROCESS {
            return Err(CudaError::INVALID_VALUE);
        }
        let event = Self::insert(flags)?;
        client.post(&EventCreate { event: event.number, flags }, &[])?;
        Ok(event)
    }

    /// One of another process, that `make` gives a number to.
    pub(super) fn import(make: impl FnOnce(u32) -> CudaResult<()>) -> CudaResult<&'static Self> {
        let event = Self::insert(INTERPROCESS | DISABLE_TIMING)?;
        let made = make(event.number);
        if made.is_err() {
            EVENTS.retire(event.number);
        }
        made.map(|()| event)
    }

    fn insert(flags: u32) -> CudaResult<&'static Self> {
        let make = |number| Self {
            number,
            flags: AtomicU32::new(flags),
            records: Mutex::default(),
            held: AtomicU64::new(0),
        };
        let event = EVENTS.insert(make, |event| {
            event.flags.store(flags, Ordering::Relaxed);
            *event.records() = Records::default();
            event.held.store(0, Ordering::Relaxed);
        });
        event.ok_or(CudaError::OUT_OF_MEMORY)
    }

    /// Whether other processes may have it, who record it without a word here.
    fn is_interprocess(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & INTERPROCESS != 0
    }

    /// The event behind a handle.
    ///
    /// # Errors
    /// `INVALID_HANDLE`.
    #[inline]
    pub fn find(handle: *mut c_void) -> CudaResult<&'static Self> {
        EVENTS.get(handle).ok_or(CudaError::INVALID_HANDLE)
    }

    pub(super) fn numbered(number: u32) -> CudaResult<&'static Self> {
        EVENTS.numbered(number).ok_or(CudaError::INVALID_VALUE)
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
        client()?;
        host_function::when_posted(move |client| {
            // Posted before the number is free again, so that an event created under it comes later in the ring.
            let posted = client.post(&EventDestroy { event: self.number, reserved: 0 }, &[]);
            EVENTS.retire(self.number);
            posted
        })
    }

    /// `cuEventRecordWithFlags`. In a capture, an external record is made by each launch of the graph.
    ///
    /// # Errors
    /// What posting gives.
    pub fn record(&'static self, stream: &'static Stream, flags: u32) -> CudaResult<()> {
        self.record_in(stream, flags, None)
    }

    /// As [`Self::record`]; who has a turn records in it.
    pub(super) fn record_in(
        &'static self,
        stream: &'static Stream,
        flags: u32,
        turn: Option<&Turn>,
    ) -> CudaResult<()> {
        let command = EventRecord { event: self.number, stream: stream.number, flags, reserved: 0 };
        let client = client()?;
        match stream.capture() {
            Some(capture) if flags & EXTERNAL == 0 => {
                self.note_captured(&capture, capture.tails(stream));
                return client.check();
            }
            Some(capture) => return capture.append(stream, &command, &[]),
            None => {}
        }
        let (begun, before) = (self.begin_record(), stream.position());
        let posted = match turn {
            None => stream.post_behind(client, &command, &[], self.held_record()),
            Some(turn) => stream.post_in_turn(client, &command, &[], turn).map(|()| None),
        };
        self.note_held(posted.ok().flatten());
        let position = stream.position();
        let at = || LastRecord::At { stream, position, done: before.done_with_one(position) };
        self.records().end(&begun, posted.is_ok().then(at));
        posted?;
        if self.is_interprocess() { self.wait_until_recorded(client) } else { Ok(()) }
    }

    /// What another process does after it has heard of a record must find it recorded.
    #[cold]
    fn wait_until_recorded(&self, client: &'static Client) -> CudaResult<()> {
        if let Some(place) = self.held_record() {
            host_function::wait_until_posted(place)?;
        }
        client.call(&Ping {}, &[]).map(drop)
    }

    /// The place of its last record, while that is held behind a host function.
    pub(super) fn held_record(&self) -> Option<u64> {
        let place = self.held.load(Ordering::Relaxed).checked_sub(1)?;
        host_function::is_held(place).then_some(place)
    }

    /// Notes where a record is held.
    fn note_held(&self, place: Option<u64>) {
        self.held.store(place.map_or(0, |place| place + 1), Ordering::Relaxed);
    }

    /// In a capture, it was recorded after these nodes.
    pub(super) fn note_captured(&self, capture: &Arc<Capture>, nodes: Vec<Edge>) {
        let begun = self.begin_record();
        self.records().end(&begun, Some(LastRecord::In(capture.clone(), nodes.into())));
    }

    /// Before a command is posted that records it, beside what else it does.
    pub(super) fn begin_record(&self) -> Begun {
        self.records().begin()
    }

    /// After it was posted, or held at a place in the order of streams.
    pub(super) fn end_record(&self, begun: &Begun, held: Option<u64>) {
        self.note_held(held);
        self.records().end(begun, Some(LastRecord::Somewhere));
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
        if self.held_record().is_some() {
            client.check()?;
            return Err(CudaError::NOT_READY);
        }
        let asked = self.records().ask();
        client.call(&EventQuery { event: self.number, reserved: 0 }, &[])?;
        self.note_answered(&asked);
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
            if let Some(place) = self.held_record() {
                host_function::wait_until_posted(place)?;
            }
            let asked = self.records().ask();
            client.call(&EventSynchronize { event: self.number, reserved: 0 }, &[])?;
            self.note_answered(&asked);
        }
        client.write_text();
        pool::release_surplus(false)?;
        client.check()
    }

    /// The worker has said that the last record is reached, which may be another process's.
    fn note_answered(&self, asked: &Asked) {
        if !self.is_interprocess() {
            self.records().answered(asked);
        }
    }

    /// Waits for the last record, which is not held, and leaves errors of posted commands to the program's own calls.
    ///
    /// # Errors
    /// Those of the connection.
    pub(super) fn wait_until_reached(&self) -> CudaResult<()> {
        client()?.call(&EventSynchronize { event: self.number, reserved: 0 }, &[]).map(|_| ())
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
            if !keeps_time || matches!(event.records().last(), LastRecord::Never) {
                return Err(CudaError::INVALID_HANDLE);
            }
        }
        if start.held_record().or_else(|| self.held_record()).is_some() {
            return Err(CudaError::NOT_READY);
        }
        let answer = client.call(&EventElapsed { start: start.number, end: self.number }, &[])?;
        Ok(f32::from_bits(answer.reply.milliseconds_bits))
    }

    /// The capture that it was recorded in last, and after which nodes.
    pub(super) fn captured(&self) -> Option<(Arc<Capture>, Arc<[Edge]>)> {
        match self.records().last() {
            LastRecord::In(capture, nodes) => Some((capture, nodes)),
            _ => None,
        }
    }

    /// Whether its last record is known to be reached.
    pub(super) fn is_done(&self) -> bool {
        match self.records().last() {
            _ if self.is_interprocess() => false,
            LastRecord::Never | LastRecord::Reached => true,
            LastRecord::At { stream, position, .. } => stream.is_done_up_to(position),
            LastRecord::In(..) | LastRecord::Somewhere => false,
        }
    }

    fn refuse_captured(&self) -> CudaResult<()> {
        match self.captured() {
            None => Ok(()),
            Some((capture, _)) => {
                capture.invalidate();
                Err(CudaError::CAPTURED_EVENT)
            }
        }
    }

    fn records(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
