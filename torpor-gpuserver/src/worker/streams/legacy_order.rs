//! What CUDA promises between the legacy stream and blocking streams: work on either waits for all earlier work on the other. An
//! event is recorded and waited for only when there was work since the last time.

use crate::worker::streams::live::Live;
use crate::worker::streams::{LEGACY, Streams};
use torpor_proto::error::CudaError;

impl Streams {
    /// Work on the legacy stream waits for all earlier work on blocking streams.
    pub(super) fn join_into_legacy(&mut self) -> Result<(), CudaError> {
        if self.table.get(LEGACY)?.live.is_none() {
            let live = Live::new(&self.device, &mut self.fences, 0)?;
            self.table.get_mut(LEGACY)?.live = Some(live);
        }
        while let Some(id) = self.unjoined.pop() {
            let (legacy, blocking) = self.table.get_two_mut(LEGACY, id)?;
            if let (Some(legacy), Some(blocking)) = (&legacy.live, &mut blocking.live) {
                blocking.unjoined = false;
                legacy.stream.wait(blocking.record_join()?, 0)?;
            }
        }
        Ok(())
    }

    /// Work on a blocking stream waits for all earlier work on the legacy stream.
    pub(super) fn join_legacy_into(&mut self, id: u32) -> Result<(), CudaError> {
        let legacy_work = self.legacy_work;
        let live = self.live(id)?;
        let first = !std::mem::replace(&mut live.unjoined, true);
        let behind = live.joined < legacy_work;
        live.joined = legacy_work;
        if first {
            self.unjoined.push(id);
        }
        if behind {
            let (legacy, blocking) = self.table.get_two_mut(LEGACY, id)?;
            if let (Some(legacy), Some(blocking)) = (&mut legacy.live, &blocking.live) {
                if legacy.joined < legacy_work {
                    legacy.record_join()?;
                    legacy.joined = legacy_work;
                }
                legacy.join.as_ref().map_or(Ok(()), |event| blocking.stream.wait(event, 0))?;
            }
        }
        Ok(())
    }
}
