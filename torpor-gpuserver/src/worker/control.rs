//! Questions about the worker itself, and staging marks.

use crate::worker::session::Session;
use torpor_proto::command::{
    ControlCommands, MemoryInfo, MemoryInfoReply, Outcome, Ping, StagingMark, Ticket,
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
        let (free, total) = self.shared.device.memory_info()?;
        let limit = self.space.limit_bytes();
        Ok(Outcome::done(MemoryInfoReply {
            free_bytes: free.min(limit - self.space.used_bytes()),
            total_bytes: total.min(limit),
        }))
    }

    fn staging_mark(&mut self, command: StagingMark, _: &[u8]) -> Result<(), CudaError> {
        let fences = self.streams.fence_staging()?;
        self.pending.push_mark(command.sequence, fences);
        self.poll()
    }
}
