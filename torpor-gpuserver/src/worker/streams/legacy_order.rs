//! What CUDA promises between the legacy stream of a context and its blocking streams: work on either waits for all earlier work on
//! the other. An event is recorded and waited for only when there was work since the last time.

use crate::worker::streams::Streams;
use torpor_proto::error::CudaError;

/// What a stream is to its context's legacy stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Legacy,
    Blocking,
    NonBlocking,
}

/// The legacy stream of a context.
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
        Ok(entry.role == Role::Legacy && !self.legacies[entry.context as usize].unjoined.is_empty())
    }

    /// Work on the legacy stream waits for all earlier work on blocking streams.
    pub(super) fn join_into_legacy(&mut self, context: usize) -> Result<(), CudaError> {
        let Some(number) = self.legacies[context].number else { return Ok(()) };
        let entry = self.table.get_mut(number)?;
        if entry.live.is_none() {
            entry.make_live(&mut self.parts, &mut self.fences)?;
        }
        while let Some(id) = self.legacies[context].unjoined.pop() {
            let (legacy, blocking) = self.table.get_two_mut(number, id)?;
            if let (Some(legacy), Some(blocking)) = (&legacy.live, &mut blocking.live) {
                blocking.unjoined = false;
                legacy.stream.wait(blocking.record_join()?, 0)?;
            }
        }
        Ok(())
    }

    /// Work on a blocking stream waits for all earlier work on the legacy stream.
    pub(super) fn join_legacy_into(&mut self, context: usize, id: u32) -> Result<(), CudaError> {
        let &Legacy { number, work, .. } = &self.legacies[context];
        let live = self.live(id)?;
        let first = !std::mem::replace(&mut live.unjoined, true);
        let behind = live.joined < work;
        live.joined = work;
        if first {
            self.legacies[context].unjoined.push(id);
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
    pub(super) fn let_go_of(&mut self, context: usize, id: u32) -> Result<(), CudaError> {
        if !self.legacies[context].unjoined.contains(&id) {
            return Ok(());
        }
        match self.legacies[context].number {
            Some(legacy) => self.enter(legacy).map(drop),
            None => {
                self.legacies[context].unjoined.retain(|&other| other != id);
                Ok(())
            }
        }
    }

    /// The legacy stream of a green context is about to go: its blocking streams, if any are left, wait for none.
    pub(super) fn end_legacy(&mut self, context: usize) -> Result<(), CudaError> {
        self.legacies[context].number = None;
        while let Some(id) = self.legacies[context].unjoined.pop() {
            self.live(id)?.unjoined = false;
        }
        Ok(())
    }
}
