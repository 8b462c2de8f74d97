//! Events.
//!
//! What was recorded at another worker is past here: the GPU had done with everything when the client was moved, so there is
//! nothing to wait for. What is left of such a record is its time, on the clock that all processes of the node share; time
//! between a past record and one made here goes through a point in time that is known on both clocks. It is as exact as
//! single precision allows over the time since then: 2⁻²⁴ of it, a quarter of a millisecond in an hour.

use crate::driver::{DISABLE_TIMING, Device, Event};
use crate::worker::pending::Pending;
use crate::worker::session::Session;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use torpor_proto::command::{
    EventCommands, EventCreate, EventDestroy, EventElapsed, EventElapsedReply, EventQuery, EventRecord,
    EventSynchronize, Outcome, Ticket,
};
use torpor_proto::control::migration;
use torpor_proto::error::CudaError;

/// `CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING`. Sharing events between processes is not offered.
const KNOWN_FLAGS: u32 = 1 | 2;
/// `CU_EVENT_INTERPROCESS`.
const INTERPROCESS: u32 = 4;

/// An event of the client.
#[derive(Debug)]
pub(super) struct ClientEvent {
    /// The driver's. Not recorded yet if the last record was made at another worker.
    pub(super) real: Event,
    flags: u32,
    record: Cell<LastRecord>,
}

/// The last record of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LastRecord {
    /// There is none, or one whose time nobody can ask for.
    None,
    /// Made by this session.
    Here,
    /// Reached at another worker, at this time in nanoseconds of CLOCK_MONOTONIC.
    Past(i64),
}

impl ClientEvent {
    fn new(device: &Arc<Device>, flags: u32) -> Result<Self, CudaError> {
        Ok(Self { real: Event::new(device, flags)?, flags, record: Cell::new(LastRecord::None) })
    }

    /// It was recorded here.
    pub(super) fn note_record(&self) {
        self.record.set(LastRecord::Here);
    }

    fn is_timed(&self) -> bool {
        self.flags & DISABLE_TIMING == 0
    }
}

/// A point in time as the GPU and the node know it.
#[derive(Debug)]
pub(super) struct Epoch {
    event: Event,
    /// Of CLOCK_MONOTONIC.
    nanoseconds: i64,
}

impl EventCommands for Session {
    fn event_create(&mut self, command: EventCreate, _: &[u8]) -> Result<(), CudaError> {
        self.events.check_free(command.event)?;
        match command.flags & !KNOWN_FLAGS {
            0 => self
                .events
                .insert(command.event, Rc::new(ClientEvent::new(&self.shared.device, command.flags)?)),
            INTERPROCESS => Err(CudaError::NOT_SUPPORTED),
            _ => Err(CudaError::INVALID_VALUE),
        }
    }

    fn event_destroy(&mut self, command: EventDestroy, _: &[u8]) -> Result<(), CudaError> {
        self.events.remove(command.event).map(drop)
    }

    fn event_record(&mut self, command: EventRecord, _: &[u8]) -> Result<(), CudaError> {
        let EventRecord { event, stream, flags, .. } = command;
        if self.streams.capture.is_some() {
            return self.record_in_capture(stream, event, flags);
        }
        let event = self.events.get(event)?;
        event.real.record(self.streams.enter(stream)?, flags)?;
        event.note_record();
        Ok(())
    }

    fn event_query(&mut self, command: EventQuery, _: &[u8], _: Ticket) -> Result<Outcome<()>, CudaError> {
        self.events.get(command.event)?.real.query()?;
        Ok(Outcome::done(()))
    }

    fn event_synchronize(
        &mut self,
        command: EventSynchronize,
        _: &[u8],
        ticket: Ticket,
    ) -> Result<Outcome<()>, CudaError> {
        let event = self.events.get(command.event)?;
        match event.real.query() {
            Ok(()) => Ok(Outcome::done(())),
            Err(CudaError::NOT_READY) => {
                self.pending.push(Pending::Event(ticket, event.clone()));
                Ok(Outcome::Pending)
            }
            Err(error) => Err(error),
        }
    }

    fn event_elapsed(
        &mut self,
        command: EventElapsed,
        _: &[u8],
        _: Ticket,
    ) -> Result<Outcome<EventElapsedReply>, CudaError> {
        let (start, end) = (self.events.get(command.start)?, self.events.get(command.end)?);
        let milliseconds_bits = self.milliseconds(start, end)?.to_bits();
        Ok(Outcome::done(EventElapsedReply { milliseconds_bits, reserved: 0 }))
    }
}

impl Session {
    fn milliseconds(&self, start: &ClientEvent, end: &ClientEvent) -> Result<f32, CudaError> {
        let (first, last) = match (start.record.get(), end.record.get()) {
            (LastRecord::Past(first), LastRecord::Past(last)) => (first, last),
            (LastRecord::Past(first), LastRecord::Here) => (first, self.time_of(end)?),
            (LastRecord::Here, LastRecord::Past(last)) => (self.time_of(start)?, last),
            // As the driver has it, errors included.
            _ => return start.real.milliseconds_to(&end.real),
        };
        Ok((last.saturating_sub(first) as f64 / 1e6) as f32)
    }

    /// When a record made here was reached, in nanoseconds of CLOCK_MONOTONIC.
    fn time_of(&self, event: &ClientEvent) -> Result<i64, CudaError> {
        event.real.query()?;
        // There is one as soon as there are past events.
        let epoch = self.epoch.as_ref().ok_or(CudaError::INVALID_HANDLE)?;
        Ok(epoch.nanoseconds.saturating_add(nanoseconds(epoch.event.milliseconds_to(&event.real)?)))
    }

    /// Takes the time. Waits until the setup stream is idle.
    fn take_time(&mut self) -> Result<Epoch, CudaError> {
        let event = Event::new(&self.shared.device, 0)?;
        event.record(self.streams.enter_setup(), 0)?;
        let fence = self.streams.fence_setup()?;
        self.wait_for(Vec::from_iter(fence))?;
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let nanoseconds = now.tv_sec.saturating_mul(1_000_000_000).saturating_add(now.tv_nsec);
        Ok(Epoch { event, nanoseconds })
    }

    /// The client's events, for another worker. The client's streams are idle.
    pub(super) fn save_events(&mut self) -> Result<Vec<migration::Event>, CudaError> {
        let has_time = |event: &ClientEvent| event.is_timed() && event.record.get() == LastRecord::Here;
        let timed = self.events.iter().any(|(_, event)| has_time(event));
        let epoch = if timed { Some(self.take_time()?) } else { None };
        let reached_ns = |event: &ClientEvent| match (event.record.get(), &epoch) {
            (LastRecord::Past(reached_ns), _) => Some(reached_ns),
            (LastRecord::Here, Some(epoch)) if event.is_timed() => {
                // An event that only a graph recorded may have no time.
                let ago = event.real.milliseconds_to(&epoch.event).ok()?;
                Some(epoch.nanoseconds.saturating_sub(nanoseconds(ago)))
            }
            _ => None,
        };
        let saved = self.events.iter().map(|(id, event)| {
            let reached_ns = reached_ns(event);
            migration::Event { id, flags: event.flags, reached_ns }
        });
        Ok(saved.collect())
    }

    /// Makes the events that the client had at another worker.
    pub(super) fn restore_events(&mut self, events: Vec<migration::Event>) -> Result<(), CudaError> {
        if events.iter().any(|event| event.reached_ns.is_some()) {
            self.epoch = Some(self.take_time()?);
        }
        for migration::Event { id, flags, reached_ns } in events {
            let event = ClientEvent::new(&self.shared.device, flags)?;
            event.record.set(reached_ns.map_or(LastRecord::None, LastRecord::Past));
            self.events.insert(id, Rc::new(event))?;
        }
        Ok(())
    }
}

fn nanoseconds(milliseconds: f32) -> i64 {
    (f64::from(milliseconds) * 1e6) as i64
}
