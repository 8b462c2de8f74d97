//! What clients of one function let each other have.

use crate::worker::gpu::ipc::Secret;
use crate::worker::session::Session;
use std::rc::Rc;
use torpor_proto::command::{
    EventExport, EventImport, IpcCommands, MemoryExport, MemoryImport, Outcome, SecretReply, Ticket,
};
use torpor_proto::error::CudaError;

impl IpcCommands for Session {
    fn memory_export(
        &mut self,
        command: MemoryExport,
        _: &[u8],
        _: Ticket,
    ) -> Result<Outcome<SecretReply>, CudaError> {
        let Secret(secret) = self.export_segment(command.home)?;
        Ok(Outcome::done(SecretReply { secret }))
    }

    fn memory_import(
        &mut self,
        command: MemoryImport,
        _: &[u8],
        _: Ticket,
    ) -> Result<Outcome<()>, CudaError> {
        let MemoryImport { home, bytes, secret, exporter } = command;
        self.import_segment(home, bytes, (Secret(secret), exporter))?;
        self.tell_memory();
        Ok(Outcome::done(()))
    }

    fn event_export(
        &mut self,
        command: EventExport,
        _: &[u8],
        _: Ticket,
    ) -> Result<Outcome<SecretReply>, CudaError> {
        let event = Rc::clone(self.events.get(command.event)?);
        let Secret(secret) = self.export_event(&event, Secret::new()?)?;
        Ok(Outcome::done(SecretReply { secret }))
    }

    fn event_import(&mut self, command: EventImport, _: &[u8], _: Ticket) -> Result<Outcome<()>, CudaError> {
        let EventImport { event, secret, exporter, .. } = command;
        self.import_event(event, (Secret(secret), exporter))?;
        Ok(Outcome::done(()))
    }
}
