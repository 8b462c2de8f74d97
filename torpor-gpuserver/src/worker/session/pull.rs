//! Taking a client's memory from the GPU that it has left, over a link, while it is brought.
//!
//! What the client has there is what it was given up with: a chunk may come from there as long as it is the same one of the host
//! store here. It is asked for in the order in which it is brought. What has not come within a while, or does not come, is taken
//! from the store, and so is all the rest then.

use crate::chunk::CHUNK_BYTES;
use crate::driver::Place;
use crate::worker::gpu::host_store::Chunk;
use crate::worker::gpu::peer::inlet::{Inlet, Parcel, Visit};
use crate::worker::session::Session;
use crate::worker::session::halt::Halt;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};
use torpor_proto::error::CudaError;

/// How long a part may take to come: the other worker may have no CPU, and its GPU something else to do.
const PATIENCE: Duration = Duration::from_millis(10);

/// Between two looks, after a while.
const NAP: Duration = Duration::from_micros(20);

/// Where a client's memory may still be that was served elsewhere.
#[derive(Debug)]
pub(crate) struct Former {
    inlet: Arc<Inlet>,
    /// What it was there: chunks of the host store by their addresses, in their order.
    chunks: Vec<(u64, u64)>,
}

impl Former {
    fn has(&self, address: u64, chunk: u64) -> bool {
        let found = self.chunks.binary_search_by_key(&address, |&(address, _)| address);
        found.is_ok_and(|at| self.chunks[at].1 == chunk)
    }

    /// The parts of a segment that it has, none longer than it gives at once.
    fn parts(&self, address: u64, chunks: &[Chunk]) -> Vec<Range<u64>> {
        let mut parts: Vec<Range<u64>> = Vec::new();
        for (at, chunk) in (address..).step_by(CHUNK_BYTES as usize).zip(chunks) {
            if !chunk.stored().is_some_and(|stored| self.has(at, stored)) {
                continue;
            }
            let end = at + CHUNK_BYTES;
            match parts.last_mut() {
                Some(last) if last.end == at && end - last.start <= self.inlet.parcel_bytes() => {
                    last.end = end
                }
                _ => parts.push(at..end),
            }
        }
        parts
    }
}

/// A swap-in that takes from there what it can.
#[derive(Debug)]
pub(crate) struct Pull {
    visit: Visit,
    /// Addresses that are to come, in order.
    parts: VecDeque<Range<u64>>,
    /// How many of them are asked for.
    asked: usize,
    /// Since when the first one is waited for.
    waiting: Option<Instant>,
}

impl Pull {
    fn ask(&mut self) {
        while let Some(part) = self.parts.get(self.asked)
            && self.visit.ask(part.start, part.end - part.start)
        {
            self.asked += 1;
        }
    }

    /// What has become of the first part; one that takes too long does not come.
    fn look(&mut self) -> Parcel {
        let parcel = self.visit.next();
        if !self.visit.is_lenders_turn() {
            self.waiting = None;
        } else if parcel == Parcel::OnItsWay
            && self.waiting.get_or_insert_with(Instant::now).elapsed() > PATIENCE
        {
            return Parcel::Gone;
        }
        parcel
    }
}

impl Session {
    /// Its memory may still be at the other end of a link.
    pub(super) fn note_former(&mut self, link: u64) {
        let Some(inlet) = self.shared.peers.inlet(link) else { return };
        let stored = |(start, chunks): (u64, &[Chunk])| -> Vec<(u64, u64)> {
            let chunks = (start..).step_by(CHUNK_BYTES as usize).zip(chunks);
            chunks.filter_map(|(at, chunk)| Some((at, chunk.stored()?))).collect()
        };
        let segments = self.space.segments().map(|(start, segment)| (start, &segment.chunks[..]));
        let chunks = segments.flat_map(stored).collect();
        self.residency.former = Some(Former { inlet, chunks });
    }

    /// Begins to take these segments from where they were, once in the client's life here.
    pub(super) fn begin_pull(&mut self, segments: impl Iterator<Item = u64>) -> Option<Pull> {
        let former = self.residency.former.take()?;
        let parts = segments.filter_map(|address| {
            let (_, segment) = self.space.segment_of(address)?;
            Some(former.parts(address, &segment.chunks))
        });
        let parts: VecDeque<_> = parts.flatten().collect();
        if parts.is_empty() {
            return None;
        }
        let visit = former.inlet.visit(self.link.client)?;
        let mut pull = Pull { visit, parts, asked: 0, waiting: None };
        pull.ask();
        Some(pull)
    }

    /// Whether a segment can be brought without waiting for a part that is on its way.
    pub(super) fn may_bring(&mut self, segment: u64, bytes: u64) -> bool {
        match self.pull_of(segment, bytes) {
            Some(pull) => pull.look() != Parcel::OnItsWay,
            None => true,
        }
    }

    /// Posts the copies of those parts of a segment that come from where it was. Returns which they are.
    pub(super) fn take_parcels(&mut self, segment: u64) -> Result<Vec<Range<u64>>, Halt> {
        let mut taken = Vec::new();
        let Some(bytes) = self.space.segment_of(segment).map(|(_, segment)| segment.bytes) else {
            return Ok(taken);
        };
        while self.pull_of(segment, bytes).is_some() {
            if !self.await_parcel(segment, bytes)? {
                self.end_pull();
                break;
            }
            let to = |address: u64| self.space.device_address(address).ok_or(CudaError::UNKNOWN);
            let Some(swap_in) = &mut self.residency.swap_in else { break };
            let Some(pull) = &mut swap_in.pull else { break };
            let Some(part) = pull.parts.front().cloned() else { break };
            let (to, length) = (to(part.start)?, (part.end - part.start) as usize);
            let stream = self.streams.enter_setup();
            // SAFETY: the segment was just mapped and stays until the client's streams, this one included, are idle; the slot is
            // filled, which it stays until this is read.
            unsafe { stream.copy((Place::Device, to), (Place::Device, pull.visit.slot()), length)? };
            pull.visit.take(stream)?;
            pull.parts.pop_front();
            pull.asked -= 1;
            pull.waiting = None;
            pull.ask();
            swap_in.peer_bytes += part.end - part.start;
            taken.push(part);
        }
        Ok(taken)
    }

    /// The pull, if its next part is one of this segment's.
    fn pull_of(&mut self, segment: u64, bytes: u64) -> Option<&mut Pull> {
        let pull = self.residency.swap_in.as_mut()?.pull.as_mut()?;
        let is_its = |part: &Range<u64>| part.start >= segment && part.end <= segment + bytes;
        pull.parts.front().is_some_and(is_its).then_some(pull)
    }

    /// Waits for the next part. False if it does not come.
    fn await_parcel(&mut self, segment: u64, bytes: u64) -> Result<bool, Halt> {
        let began = Instant::now();
        while let Some(pull) = self.pull_of(segment, bytes) {
            match pull.look() {
                Parcel::Here => return Ok(true),
                Parcel::Gone => break,
                Parcel::OnItsWay => {}
            }
            if self.is_interrupted() {
                return Err(Halt::Interrupted);
            }
            if began.elapsed() < self.shared.tuning.spin {
                std::hint::spin_loop();
            } else {
                std::thread::sleep(NAP);
            }
        }
        Ok(false)
    }

    fn end_pull(&mut self) {
        if let Some(swap_in) = &mut self.residency.swap_in
            && let Some(pull) = swap_in.pull.take()
        {
            tracing::debug!(
                client = self.link.client,
                left = pull.parts.len(),
                "its memory comes from the host from now on"
            );
        }
    }
}
