//! What CUDA promises between the legacy stream of a device and its blocking streams: work on either waits for all earlier work on
//! the other. An event is recorded and waited for only when there was work since the last time.

use crate::worker::streams::Streams;
use crate::worker::streams::live::Live;
use torpor_proto::error::CudaError;

/// What a stream is to its device's legacy stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Legacy,
    Blocking,
    NonBlocking,
}

/// The legacy stream of a device.
#[derive(Debug, Default)]
pub(super) struct Legacy {
    /// The client has declared it.
    pub(super) number: Option<u32>,
    /// Blocking streams whose work it does not wait for yet.
    pub(super) unjoined: Vec<u32>,
    /// How often it was used.
    pub(super) work: u64,
}

impl Streams {
    /// Whether a stream is a legacy one that does not wait for all earlier work on blocking streams yet.
    pub(super) fn is_behind_others(&self, id: u32) -> Result<bool, CudaError> {
        let entry = self.table.get(id)?;
        Ok(entry.role == Role::Legacy && !self.legacies[entry.device as usize].unjoined.is_empty())
    }

    /// Work on the legacy stream waits for all earlier work on blocking streams.
    pub(super) fn join_into_legacy(&mut self, device: usize) -> Result<(), CudaError> {
        let Some(number) = self.legacies[device].number else { return Ok(()) };
        let entry = self.table.get(number)?;
        if entry.live.is_none() {
            let live = Live::new(&self.device, &mut self.fences, (entry.priority, entry.device))?;
            self.table.get_mut(number)?.live = Some(live);
        }
        while let Some(id) = self.legacies[device].unjoined.pop() {
            let (legacy, blocking) = self.table.get_two_mut(number, id)?;
            if let (Some(legacy), Some(blocking)) = (&legacy.live, &mut blocking.live) {
                blocking.unjoined = false;
                legacy.stream.wait(blocking.record_join()?, 0)?;
            }
        }
        Ok(())
    }

    /// Work on a blocking stream waits for all earlier work on the legacy stream.
    pub(super) fn join_legacy_into(&mut self, device: usize, id: u32) -> Result<(), CudaError> {
        let &Legacy { number, work, .. } = &self.legacies[device];
        let live = self.live(id)?;
        let first = !std::mem::replace(&mut live.unjoined, true);
        let behind = live.joined < work;
        live.joined = work;
        if first {
            self.legacies[device].unjoined.push(id);
        }
        if behind && let Some(number) = number {
            let (legacy, blocking) = self.table.get_two_mut(number, id)?;
            if let (Some(legacy), Some(blocking)) = (&mut legacy.live, &blocking.live) {
                if legacy.joined < work {
                    legacy.record_join()?;
                    legacy.joined = work;
                }
                legacy.join.as_ref().map_or(Ok(()), |event| blocking.stream.wait(event, 0))?;
            }
        }
        Ok(())
    }

    /// A blocking stream is about to go: the legacy stream waits for its work now, if it does not yet.
    pub(super) fn let_go_of(&mut self, device: usize, id: u32) -> Result<(), CudaError> {
        if !self.legacies[device].unjoined.contains(&id) {
            return Ok(());
        }
        match self.legacies[device].number {
            Some(legacy) => self.enter(legacy).map(drop),
            None => {
                self.legacies[device].unjoined.retain(|&other| other != id);
                Ok(())
            }
        }
    }
}
