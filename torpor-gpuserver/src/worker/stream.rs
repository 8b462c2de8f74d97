//! Streams and the context as a whole.

use crate::worker::fence::Fence;
use crate::worker::pending::Pending;
use crate::worker::session::Session;
use torpor_proto::command::{
    ContextSynchronize, Outcome, StreamCommands, StreamCreate, StreamDestroy, StreamQuery, StreamSynchronize,
    StreamWaitEvent, Ticket,
};
use torpor_proto::error::CudaError;

/// `CU_STREAM_NON_BLOCKING`, the only flag there is.
const NON_BLOCKING: u32 = 1;

impl StreamCommands for Session {
    fn stream_create(&mut self, command: StreamCreate, _: &[u8]) -> Result<(), CudaError> {
        if command.flags & !NON_BLOCKING != 0 {
            return Err(CudaError::INVALID_VALUE);
        }
        self.streams.declare(command.stream, command.flags & NON_BLOCKING == 0, command.priority)
    }

    fn stream_destroy(&mut self, command: StreamDestroy, _: &[u8]) -> Result<(), CudaError> {
        self.streams.destroy(command.stream)
    }

    fn stream_synchronize(
        &mut self,
        command: StreamSynchronize,
        _: &[u8],
        ticket: Ticket,
    ) -> Result<Outcome<()>, CudaError> {
        let fence = self.streams.fence(command.stream)?;
        Ok(self.answer_after(ticket, Vec::from_iter(fence)))
    }

    fn stream_query(&mut self, command: StreamQuery, _: &[u8], _: Ticket) -> Result<Outcome<()>, CudaError> {
        if let Some(stream) = self.streams.peek(command.stream)? {
            stream.query()?;
        }
        Ok(Outcome::done(()))
    }

    fn stream_wait_event(&mut self, command: StreamWaitEvent, _: &[u8]) -> Result<(), CudaError> {
        let StreamWaitEvent { stream, event, flags, .. } = command;
        if self.streams.capture.is_some() {
            return self.wait_in_capture(stream, event, flags);
        }
        let event = self.events.get(event)?;
        self.streams.enter(stream)?.wait(&event.real, flags)
    }

    fn context_synchronize(
        &mut self,
        _: ContextSynchronize,
        _: &[u8],
        ticket: Ticket,
    ) -> Result<Outcome<()>, CudaError> {
        let fences = self.streams.fence_all()?;
        Ok(self.answer_after(ticket, fences))
    }
}

impl Session {
    /// Answers when the fences are reached: now, if there are none.
    pub(super) fn answer_after(&mut self, ticket: Ticket, fences: Vec<Fence>) -> Outcome<()> {
        if fences.is_empty() {
            return Outcome::done(());
        }
        self.pending.push(Pending::Answer(ticket, fences));
        Outcome::Pending
    }
}
