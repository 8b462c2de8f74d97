//! What work of a client can reach: the segments that it names, and those that pointers stored in these name, and so on.
//!
//! During a swap-in, an operation waits for everything that it could read or pass on. A kernel waits for what its
//! parameters point to, with what that points to; a copy waits for its two ends, and for all that the copied bytes
//! point to. So whatever is written meanwhile can only hold pointers to what has arrived, and pointers need to be known
//! only as they were at the last snapshot ([`Content::Stored`](super::segments::Content::Stored)). Where pointers could be
//! hidden (tensor maps, globals of an image), an operation waits for everything.

use crate::chunk::CHUNK_BYTES;
use crate::driver::{Place, Stream};
use crate::worker::address_space::AddressSpace;
use crate::worker::arrivals::{Arrivals, EVERYTHING};
use crate::worker::residency::Residency;
use crate::worker::session::Session;
use crate::worker::streams::Streams;
use std::collections::HashMap;
use torpor_proto::error::CudaError;

/// Copies from the host are looked into for pointers up to this length.
const LOOKED_INTO_BYTES: u64 = 8 << 20;

/// The group with which everything has arrived that these words lead to; notes what they name.
pub(super) fn group_of(space: &AddressSpace, residency: &mut Residency, words: &[u64]) -> u64 {
    let arena = space.arena();
    let mut group = 0;
    for &pointer in words.iter().filter(|&&word| arena.contains(word, 1)) {
        if let Some((start, segment)) = space.segment_of(pointer) {
            group = group.max(segment.arrival);
            residency.touch(start);
        }
    }
    group
}

/// A stream to post to, behind a group of arriving memory. A replay of a graph posts nothing, so it waits for nothing.
#[inline]
pub(super) fn enter<'a>(
    streams: &'a mut Streams,
    arrivals: &Arrivals,
    stream: u32,
    group: u64,
) -> Result<&'a Stream, CudaError> {
    match arrivals.event(group) {
        Some((group, event)) if streams.capture.is_none() => streams.enter_behind(stream, group, event),
        _ => streams.enter(stream),
    }
}

impl Session {
    /// Whether it matters what work can reach: memory is on its way, or its order is being learned.
    #[inline]
    pub(super) fn observes_reach(&self) -> bool {
        self.is_arriving() || self.residency.touched.is_some()
    }

    /// Whether memory is on its way.
    pub(super) fn is_arriving(&self) -> bool {
        !self.arrivals.is_empty() || self.is_swapping_in()
    }

    /// The group for work that names these addresses.
    pub(super) fn group_of(&mut self, addresses: &[u64]) -> u64 {
        if self.observes_reach() { group_of(&self.space, &mut self.residency, addresses) } else { 0 }
    }

    /// The group for a copy; notes what else follows from it.
    pub(super) fn group_of_copy(&mut self, to: (Place, u64), from: (Place, u64), bytes: u64) -> u64 {
        match (to.0, from.0) {
            (Place::Host, Place::Device) => self.residency.answered = true,
            (Place::Device, Place::Host) if self.residency.drops_writes() => {
                self.note_copied_into(to.1, bytes)
            }
            _ => {}
        }
        if !self.observes_reach() {
            return 0;
        }
        let group = self.group_of(&[to.1, from.1]);
        if !self.is_arriving() || (to.0, from.0) != (Place::Device, Place::Host) {
            return group;
        }
        match self.space.host.words(from.1, bytes.min(LOOKED_INTO_BYTES + 1)) {
            Some(words) if bytes <= LOOKED_INTO_BYTES => group.max(self.space.reached_by(words)),
            _ => EVERYTHING,
        }
    }

    /// The host writes into these chunks, which is not lost with what kernels write.
    fn note_copied_into(&mut self, address: u64, bytes: u64) {
        let Some((start, segment)) = self.space.segment_of_mut(address) else { return };
        let first = (address - start) / CHUNK_BYTES;
        let last = (address - start).saturating_add(bytes - 1) / CHUNK_BYTES;
        segment.chunks.iter_mut().skip(first as usize).take((last - first + 1) as usize).for_each(|chunk| {
            chunk.copied_into = true;
        });
    }

    /// A stream to post to, behind a group of arriving memory.
    pub(super) fn enter(&mut self, stream: u32, group: u64) -> Result<&Stream, CudaError> {
        self.bring_up_to(group)?;
        enter(&mut self.streams, &self.arrivals, stream, group)
    }

    /// The stream of the arriving memory, if an upload may take its place there among the copies: a copy engine serves
    /// one stream as long as it has work (H200, docs/benchmarks.md), so in any other it would wait for everything.
    pub(super) fn enter_arriving(&mut self, stream: u32, group: u64) -> Result<Option<&Stream>, CudaError> {
        if !self.is_arriving() {
            return Ok(None);
        }
        self.streams.peek(stream)?;
        self.bring_up_to(group)?;
        Ok(self.streams.enter_setup_for_all())
    }
}

impl AddressSpace {
    /// The group with which everything has arrived that these words could lead to, if they are parameters or memory.
    fn reached_by(&self, words: impl Iterator<Item = u64>) -> u64 {
        let arena = self.arena();
        let pointers = words.filter(|&word| arena.contains(word, 1));
        pointers.map(|pointer| self.arrival_of(pointer)).max().unwrap_or(0)
    }

    /// The group with which the segment at an address has arrived, and all that it leads to. 0 if there is none.
    #[inline]
    fn arrival_of(&self, address: u64) -> u64 {
        self.segment_of(address).map_or(0, |(_, segment)| segment.arrival)
    }

    /// Makes each segment's arrival that of everything it leads to. `own` has the group of each segment that is on its way.
    pub(super) fn spread_arrivals(&mut self, own: &HashMap<u64, u64>) {
        let leads_to = |space: &Self, address: u64| -> Vec<u64> {
            let Some((_, segment)) = space.segment_of(address) else { return Vec::new() };
            segment.pointers().filter_map(|pointer| Some(space.segment_of(pointer)?.0)).collect()
        };
        let starts: Vec<u64> = self.segments().map(|(address, _)| address).collect();
        let edges: HashMap<u64, Vec<u64>> = starts
            .iter()
            .map(|&address| (address, leads_to(self, address)))
            .filter(|(_, targets)| !targets.is_empty())
            .collect();
        let arrival = |start: u64| {
            let (mut seen, mut open, mut latest) = (vec![start], vec![start], 0);
            while let Some(address) = open.pop() {
                latest = latest.max(own.get(&address).copied().unwrap_or(0));
                for &target in edges.get(&address).into_iter().flatten() {
                    if !seen.contains(&target) {
                        seen.push(target);
                        open.push(target);
                    }
                }
            }
            latest
        };
        let arrivals: Vec<u64> = starts.iter().map(|&start| arrival(start)).collect();
        for ((_, segment), arrival) in self.segments_mut().zip(arrivals) {
            segment.arrival = segment.arrival.max(arrival);
        }
    }
}
