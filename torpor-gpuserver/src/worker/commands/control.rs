//! Questions about the worker itself, and staging marks.

use crate::worker::session::Session;
use torpor_proto::command::{
    ControlCommands, Home, LimitRaise, MOST_DEVICES, MemoryInfo, MemoryInfoReply, Outcome, Ping, StagingMark,
    TextTake, Ticket,
};
use torpor_proto::error::CudaError;

impl ControlCommands for Session {
    fn ping(&mut self, _: Ping, _: &[u8], _: Ticket) -> Result<Outcome<()>, CudaError> {
        Ok(Outcome::done(()))
    }

    fn memory_info(
        &mut self,
        _: MemoryInfo,
        _: &[u8],
        _: Ticket,
    ) -> Result<Outcome<MemoryInfoReply>, CudaError> {
        // What the function may have, whoever else is on the GPU: their memory leaves when this one's is needed.
        let total_bytes = self.space.limit_bytes();
        let free_bytes = total_bytes.saturating_sub(self.space.allocated_bytes());
        Ok(Outcome::done(MemoryInfoReply { free_bytes, total_bytes }))
    }

    fn staging_mark(&mut self, command: StagingMark, _: &[u8]) -> Result<(), CudaError> {
        self.make_room()?;
        let fences = self.streams.fence_staging()?;
        self.pending.push_mark(command.sequence, fences);
        Ok(self.poll()?)
    }

    fn text_take(&mut self, _: TextTake, _: &[u8], _: Ticket) -> Result<Outcome<()>, CudaError> {
        Ok(Outcome::Done((), self.take_text()))
    }

    fn limit_raise(&mut self, command: LimitRaise, _: &[u8], _: Ticket) -> Result<Outcome<()>, CudaError> {
        let LimitRaise { limit, value, .. } = command;
        let (shared, client) = (self.shared.clone(), self.link.client);
        let _silence = match shared.limits.is_short(&shared.device, (client, limit, value))? {
            true => Some(self.silence()?),
            false => None,
        };
        let reserve = |bytes| {
            self.space.check_limit(bytes)?;
            self.activate_with(bytes)
        };
        let raised = shared.limits.raise((&shared.device, &shared.memory), (client, limit, value), reserve);
        Ok(raised.map(Outcome::done)?)
    }

    fn home(&mut self, command: Home, _: &[u8]) -> Result<(), CudaError> {
        let Home { device, .. } = command;
        if device >= MOST_DEVICES {
            return Err(CudaError::INVALID_VALUE);
        }
        self.tell_home(device);
        Ok(())
    }
}
