//! Two generations of what the host store has for a client: the one that its [state](crate::worker::session::checkpoint) tells of, and
//! the one that is made while the client's memory is saved ahead of time.
//!
//! Whoever goes on from the state after this worker's end needs the old one, so that is given up when the server has been told of
//! the new one, or when the state is void. Who goes on refers to both, and gives up the one that it knows nothing of.

use crate::state_file::Void;
use crate::worker::gpu::host_store::{Content, Referred};
use crate::worker::session::Session;
use std::collections::HashMap;

impl Session {
    /// The client's memory has other contents now than these chunks.
    pub(super) fn supersede(&mut self, chunks: Vec<u64>) {
        if !self.survives() {
            return self.release(&chunks, Void::Leaving);
        }
        // What was hashed and not told yet must not be told any more.
        self.hashed.retain(|(hashed, _)| !chunks.contains(hashed));
        self.residency.superseded.extend(chunks);
    }

    /// Nobody needs the old generation any more.
    pub(super) fn give_up_superseded(&mut self) {
        let superseded = std::mem::take(&mut self.residency.superseded);
        if !superseded.is_empty() {
            self.shared.store.release(self.link.client, &superseded);
        }
    }

    /// Gives up what the client refers to and its state did not tell of, when it has a lease for the first time here.
    pub(super) fn give_up_unknown(&mut self, referred: &[Referred]) {
        // Chunks of memory that it has together with others are not all to be found here.
        if !std::mem::take(&mut self.residency.came_as_state) || self.residency.shares {
            return;
        }
        let mut own: HashMap<u64, u32> = HashMap::new();
        let chunks = self.space.segments().flat_map(|(_, segment)| &segment.chunks);
        let stored = chunks.filter_map(|chunk| match &chunk.content {
            Content::Stored { place, .. } => Some(place.chunk),
            _ => None,
        });
        let in_arrays = self.arrays.stored.iter().map(|place| place.chunk);
        stored
            .chain(in_arrays)
            .chain(self.residency.superseded.iter().copied())
            .for_each(|chunk| *own.entry(chunk).or_default() += 1);
        let surplus = |referred: &Referred| {
            let chunk = referred.place.chunk;
            let count = referred.count.saturating_sub(own.get(&chunk).copied().unwrap_or(0));
            std::iter::repeat_n(chunk, count as usize)
        };
        let unknown: Vec<u64> = referred.iter().flat_map(surplus).collect();
        if !unknown.is_empty() {
            tracing::debug!(
                client = self.link.client,
                chunks = unknown.len(),
                "gives up what was saved since its state was written"
            );
            self.shared.store.release(self.link.client, &unknown);
        }
    }
}
