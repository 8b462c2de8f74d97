//! Epochs: up to where the client's work is done, so that it is known which segments the GPU has done with.
//!
//! A fence behind each command would cost more than it tells. So commands are counted by epochs, and a fence is put behind an epoch
//! when a segment that has come is used for the first time: then what was used before may be what is to go.

use crate::worker::gpu::fence::{Fence, Fences};
use std::collections::VecDeque;

/// The client's work, as it was posted.
#[derive(Debug, Default)]
pub(super) struct Epochs {
    /// What is posted now belongs to this one.
    current: u64,
    /// Those that are over, with the fences behind their work.
    over: VecDeque<Vec<Fence>>,
}

impl Epochs {
    pub(super) fn current(&self) -> u64 {
        self.current
    }

    /// What is posted from now on belongs to the next one.
    pub(super) fn end(&mut self, fences: Vec<Fence>) {
        self.over.push_back(fences);
        self.current += 1;
    }

    /// Notices what is done.
    pub(super) fn look(&mut self, fences: &Fences) {
        while self.over.front_mut().is_some_and(|epoch| fences.all_reached(epoch)) {
            self.over.pop_front();
        }
    }

    /// How many epochs are over whose work is done.
    pub(super) fn done(&self) -> u64 {
        self.current - self.over.len() as u64
    }

    /// Whether all work of an epoch is done.
    pub(super) fn is_done(&self, epoch: u64) -> bool {
        epoch < self.done()
    }
}
