//! A real stream, and what is known of the work that was posted to it.

use crate::driver::{Event, Stream};
use crate::worker::gpu::fence::{Counter, Fence, Fences};
use std::collections::VecDeque;
use torpor_proto::error::CudaError;

/// A real stream and what was posted to it.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) stream: Stream,
    /// Of which of the program's contexts it is.
    pub(super) context: u32,
    pub(super) counter: Counter,
    /// Something was posted since the last fence.
    pub(super) unfenced: bool,
    /// How much was posted since the last checkpoint.
    pub(super) posted: u32,
    /// Fences every so many commands (`congestion`), the oldest first.
    pub(super) checkpoints: VecDeque<Fence>,
    /// It copies to or from the staging area since the last staging mark.
    pub(super) touches_staging: bool,
    /// Blocking streams: the legacy stream does not wait for all of its work yet.
    pub(super) unjoined: bool,
    /// Blocking streams: how much of the legacy stream's work it waits for. The legacy stream: how much `join` stands for.
    pub(super) joined: u64,
    /// Recorded where another stream has to wait for this one.
    pub(super) join: Option<Event>,
    /// The group of arriving memory that it waits for, or has waited for.
    pub(super) awaited_group: u64,
    /// What is left of its work only waits for the setup stream.
    pub(super) follows_setup: bool,
}

impl Live {
    /// A stream without work.
    pub(super) fn new(stream: Stream, fences: &mut Fences, context: u32) -> Result<Box<Self>, CudaError> {
        Ok(Box::new(Self {
            stream,
            context,
            counter: fences.counter()?,
            unfenced: false,
            posted: 0,
            checkpoints: VecDeque::new(),
            touches_staging: false,
            unjoined: false,
            joined: 0,
            join: None,
            awaited_group: 0,
            follows_setup: false,
        }))
    }

    /// Records the event that others wait for.
    pub(super) fn record_join(&mut self) -> Result<&Event, CudaError> {
        if self.join.is_none() {
            self.join = Some(Event::untimed(self.stream.device())?);
        }
        let join = self.join.as_ref().ok_or(CudaError::UNKNOWN)?;
        join.record(&self.stream, 0)?;
        self.unfenced = true;
        Ok(join)
    }

    /// Puts a fence behind its work, if there is any since the last one. `None` if all is done.
    pub(super) fn fence(&mut self, fences: &Fences) -> Result<Option<Fence>, CudaError> {
        if self.unfenced {
            fences.post(&self.stream, &mut self.counter)?;
            self.unfenced = false;
        }
        let last = self.counter.last();
        Ok((!fences.is_reached(last)).then_some(last))
    }

    /// Whether all of its work is known to be done.
    pub(super) fn is_idle(&self, fences: &Fences) -> bool {
        !self.unfenced && fences.is_reached(self.counter.last())
    }
}
