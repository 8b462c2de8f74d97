//! Streams and the context as a whole.

use crate::worker::gpu::fence::Fence;
use crate::worker::objects::pending::Pending;
use crate::worker::session::Session;
use crate::worker::streams::Declared;
use crate::worker::streams::legacy_order::Role;
use crate::worker::streams::parts::Levels;
use torpor_proto::command::{
    ALL_DEVICES, ContextSynchronize, LEGACY_STREAM, Outcome, StreamCommands, StreamCreate, StreamDestroy,
    StreamQuery, StreamSynchronize, StreamWaitEvent, Ticket,
};
use torpor_proto::error::CudaError;

/// `CU_STREAM_NON_BLOCKING`, the only flag there is.
const NON_BLOCKING: u32 = 1;

impl StreamCommands for Session {
    fn stream_create(&mut self, command: StreamCreate, part: &[u8]) -> Result<(), CudaError> {
        let StreamCreate { stream, flags, priority, context } = command;
        let role = match flags {
            0 => Role::Blocking,
            NON_BLOCKING => Role::NonBlocking,
            LEGACY_STREAM => Role::Legacy,
            _ => return Err(CudaError::INVALID_VALUE),
        };
        let part = Levels::read(part)?;
        self.streams.declare(stream, Declared { role, context, priority, part })
    }

    fn stream_destroy(&mut self, command: StreamDestroy, _: &[u8]) -> Result<(), CudaError> {
        self.printing.forget_stream(command.stream);
        self.streams.destroy(command.stream)
    }

    fn stream_synchronize(
        &mut self,
        command: StreamSynchronize,
        _: &[u8],
        ticket: Ticket,
    ) -> Result<Outcome<()>, CudaError> {
        let fence = self.streams.fence(command.stream)?;
        Ok(answer_after(self, ticket, Vec::from_iter(fence)))
    }

    fn stream_query(&mut self, command: StreamQuery, _: &[u8], _: Ticket) -> Result<Outcome<()>, CudaError> {
        if let Some(stream) = self.streams.peek(command.stream)? {
            stream.query()?;
        }
        Ok(Outcome::done(()))
    }

    fn stream_wait_event(&mut self, command: StreamWaitEvent, _: &[u8]) -> Result<(), CudaError> {
        let StreamWaitEvent { stream, event, flags, .. } = command;
        let event = self.events.get(event)?;
        if let Some(capture) = &mut self.streams.capture {
            return capture.wait(event, flags);
        }
        let event = event.real();
        self.streams.enter(stream)?.wait(&event, flags)
    }

    fn context_synchronize(
        &mut self,
        command: ContextSynchronize,
        _: &[u8],
        ticket: Ticket,
    ) -> Result<Outcome<()>, CudaError> {
        let fences = match command.context {
            ALL_DEVICES => self.streams.fence_all()?,
            context => self.streams.fence_context(context)?,
        };
        Ok(answer_after(self, ticket, fences))
    }
}

/// Answers when the fences are reached: now, if there are none.
fn answer_after(session: &mut Session, ticket: Ticket, fences: Vec<Fence>) -> Outcome<()> {
    if fences.is_empty() {
        return Outcome::done(());
    }
    session.pending.push(Pending::Answer(ticket, fences));
    Outcome::Pending
}
