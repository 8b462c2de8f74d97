//! How far the GPU may be behind: a driver whose queue is full (about 1024 launches) blocks its caller until the GPU has come on,
//! so a session stops posting before.

use crate::worker::gpu::fence::Fence;
use crate::worker::streams::Streams;
use torpor_proto::error::CudaError;

/// After so many commands to a stream, it is looked at how far the GPU has come.
pub(super) const CHECKPOINT: u32 = 256;

/// Checkpoints of a stream that the GPU may be behind.
const CHECKPOINTS: usize = 3;

impl Streams {
    /// A fence to wait for before anything else is posted, because the GPU is too far behind.
    #[inline]
    pub(crate) fn congestion(&mut self) -> Result<Option<Fence>, CudaError> {
        match self.crowded.take() {
            None => Ok(None),
            Some(id) => self.checkpoint(id),
        }
    }

    fn checkpoint(&mut self, id: u32) -> Result<Option<Fence>, CudaError> {
        // The client may have destroyed the stream meanwhile.
        let Some(live) = self.table.get_mut(id).ok().and_then(|entry| entry.live.as_mut()) else {
            return Ok(None);
        };
        live.posted = 0;
        live.fence(&self.fences)?;
        live.checkpoints.push_back(live.counter.last());
        if live.checkpoints.len() < CHECKPOINTS {
            return Ok(None);
        }
        Ok(live.checkpoints.pop_front().filter(|&fence| !self.fences.is_reached(fence)))
    }
}
