//! Events: recording them, and asking for them.

use crate::driver::DISABLE_TIMING;
use crate::worker::objects::event::{ClientEvent, INTERPROCESS, milliseconds};
use crate::worker::objects::pending::Pending;
use crate::worker::session::Session;
use std::rc::Rc;
use torpor_proto::command::{
    EventCommands, EventCreate, EventDestroy, EventElapsed, EventElapsedReply, EventQuery, EventRecord,
    EventSynchronize, Outcome, Ticket,
};
use torpor_proto::error::CudaError;

/// `CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING | CU_EVENT_INTERPROCESS`
const KNOWN_FLAGS: u32 = 1 | DISABLE_TIMING | INTERPROCESS;

impl EventCommands for Session {
    fn event_create(&mut self, command: EventCreate, _: &[u8]) -> Result<(), CudaError> {
        let EventCreate { event, flags } = command;
        self.events.check_free(event)?;
        // Other processes cannot ask for times (cuda.h).
        if flags & !KNOWN_FLAGS != 0 || flags & (INTERPROCESS | DISABLE_TIMING) == INTERPROCESS {
            return Err(CudaError::INVALID_VALUE);
        }
        self.events.insert(event, Rc::new(ClientEvent::new(&self.shared.device, flags)?))
    }

    fn event_destroy(&mut self, command: EventDestroy, _: &[u8]) -> Result<(), CudaError> {
        self.events.remove(command.event).map(drop)
    }

    fn event_record(&mut self, command: EventRecord, _: &[u8]) -> Result<(), CudaError> {
        let EventRecord { event, stream, flags, .. } = command;
        let event = self.events.get(event)?;
        if let Some(capture) = &mut self.streams.capture {
            return capture.record(event, flags);
        }
        let stream = self.streams.enter(stream)?;
        event.to_record()?.record(stream, flags)
    }

    fn event_query(&mut self, command: EventQuery, _: &[u8], _: Ticket) -> Result<Outcome<()>, CudaError> {
        self.events.get(command.event)?.real().query()?;
        Ok(Outcome::done(()))
    }

    fn event_synchronize(
        &mut self,
        command: EventSynchronize,
        _: &[u8],
        ticket: Ticket,
    ) -> Result<Outcome<()>, CudaError> {
        let event = self.events.get(command.event)?.real();
        match event.query() {
            Ok(()) => Ok(Outcome::done(())),
            Err(CudaError::NOT_READY) => {
                self.pending.push(Pending::Event(ticket, event));
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
        let milliseconds_bits = milliseconds(start, end, self.epoch.as_ref())?.to_bits();
        Ok(Outcome::done(EventElapsedReply { milliseconds_bits, reserved: 0 }))
    }
}
