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
        // What the function may have, whoever else is on the GPU: their memory leaves when this one's is needed.
        let total_bytes = self.space.limit_bytes();
        let free_bytes = total_bytes.saturating_sub(self.space.allocated_bytes());
        Ok(Outcome::done(MemoryInfoReply { free_bytes, total_bytes }))
    }

    fn staging_mark(&mut self, command: StagingMark, _: &[u8]) -> Result<(), CudaError> {
        let fences = self.streams.fence_staging()?;
        self.pending.push_mark(command.sequence, fences);
        self.poll()
    }
}
