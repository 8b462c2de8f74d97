//! Events.

use crate::driver::Event;
use crate::worker::pending::Pending;
use crate::worker::session::Session;
use std::rc::Rc;
use torpor_proto::command::{
    EventCommands, EventCreate, EventDestroy, EventElapsed, EventElapsedReply, EventQuery, EventRecord,
    EventSynchronize, Outcome, Ticket,
};
use torpor_proto::error::CudaError;

/// `CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING`. Sharing events between processes is not offered.
const KNOWN_FLAGS: u32 = 1 | 2;
/// `CU_EVENT_INTERPROCESS`.
const INTERPROCESS: u32 = 4;

impl EventCommands for Session {
    fn event_create(&mut self, command: EventCreate, _: &[u8]) -> Result<(), CudaError> {
        self.events.check_free(command.event)?;
        match command.flags & !KNOWN_FLAGS {
            0 => self.events.insert(command.event, Rc::new(Event::new(&self.shared.device, command.flags)?)),
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
        event.record(self.streams.enter(stream)?, flags)
    }

    fn event_query(&mut self, command: EventQuery, _: &[u8], _: Ticket) -> Result<Outcome<()>, CudaError> {
        self.events.get(command.event)?.query()?;
        Ok(Outcome::done(()))
    }

    fn event_synchronize(
        &mut self,
        command: EventSynchronize,
        _: &[u8],
        ticket: Ticket,
    ) -> Result<Outcome<()>, CudaError> {
        let event = self.events.get(command.event)?;
        match event.query() {
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
        let milliseconds_bits = start.milliseconds_to(end)?.to_bits();
        Ok(Outcome::done(EventElapsedReply { milliseconds_bits, reserved: 0 }))
    }
}
