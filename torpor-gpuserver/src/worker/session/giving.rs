//! Letting another worker read the memory of a client that has gone there, until it has it, or somebody else wants the room.
//!
//! The session's own thread does that: the client is given up, but for its memory, which it gives back afterwards.

use crate::chunk::CHUNK_BYTES;
use crate::driver::Place;
use crate::worker::gpu::Shared;
use crate::worker::gpu::host_store::Chunk;
use crate::worker::gpu::peer::Giving;
use crate::worker::gpu::peer::outlet::{Offer, Wanted};
use crate::worker::mailbox::{Link, Wish};
use crate::worker::memory::segment::ClientSegment;
use crate::worker::session::Session;
use crate::worker::streams::Streams;
use crate::worker::work_time::micros;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use torpor_proto::error::CudaError;

/// How long the other worker may take to ask for the first of it: a client that moves comes to work, or because it is wanted
/// there.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long the other worker may take to read what it has taken, before the landing is left as it is.
const READING: Duration = Duration::from_millis(100);

/// Between two looks, first and after a while.
const NAPS: [Duration; 2] = [Duration::from_micros(20), Duration::from_micros(200)];

/// After so long hardly anybody comes any more; whoever does waits for one nap before the first of its memory is on its way.
const HURRY: Duration = Duration::from_millis(20);

/// A client's memory that another worker may read.
pub(super) struct Gift {
    offer: Offer,
    giving: Arc<Giving>,
}

impl Session {
    /// Offers the client's memory to the worker that it goes to, if there is a link to it and all of the memory is here as it was
    /// saved.
    pub(super) fn offer_memory(&self) -> Option<Gift> {
        let outlet = self.shared.peers.outlet(self.link.leaves_over.load(Ordering::Relaxed))?;
        let is_here = |segment: &ClientSegment| {
            segment.shared.is_none()
                && (segment.is_filled()
                    || segment.chunks.iter().all(|chunk: &Chunk| chunk.stored().is_none()))
        };
        if self.residency.drops_writes() || !self.space.segments().all(|(_, segment)| is_here(segment)) {
            return None;
        }
        let offer = outlet.offer(self.link.client)?;
        // Whoever needs the room gets it.
        self.shared.memory.set_pinned(self.link.client, false);
        let giving = self.shared.peers.begin_giving(self.link.client, self.link.arena);
        Some(Gift { offer, giving })
    }
}

impl Gift {
    /// Gives it, until that is over.
    pub(super) fn give(
        self,
        (shared, link): (&Shared, &Link),
        streams: &mut Streams,
        memory: &BTreeMap<u64, ClientSegment>,
    ) {
        let began = Instant::now();
        let mut rest = Rest::new(shared);
        let visit = loop {
            if let Some(visit) = self.offer.accept() {
                break Some(visit);
            }
            if self.is_over(shared, link) || began.elapsed() > PATIENCE {
                break None;
            }
            rest.nap();
        };
        if let Some(visit) = visit {
            let accepted = Instant::now();
            let given = self.serve(visit, (shared, link), streams, memory);
            match given.and_then(|bytes| self.end(visit, shared, streams).map(|()| bytes)) {
                Ok(bytes) => tracing::debug!(
                    client = link.client,
                    bytes,
                    waited_us = micros(accepted - began),
                    took_us = micros(accepted.elapsed()),
                    "its memory was read by the worker that it went to"
                ),
                // The link stays as it is: nothing more is read over it.
                Err(error) => tracing::warn!(client = link.client, "its memory is not given away: {error}"),
            }
        }
        shared.peers.end_giving(&self.giving);
    }

    fn is_over(&self, shared: &Shared, link: &Link) -> bool {
        self.offer.is_moot()
            || self.giving.is_to_stop()
            || link.wishes(Wish::Evict)
            || shared.lost().is_some()
    }

    /// Returns how much was given.
    fn serve(
        &self,
        visit: u32,
        (shared, link): (&Shared, &Link),
        streams: &mut Streams,
        memory: &BTreeMap<u64, ClientSegment>,
    ) -> Result<u64, CudaError> {
        let (mut posted, mut given_bytes, mut rest) = (0, 0, Rest::new(shared));
        while !self.is_over(shared, link) {
            match self.offer.wanted(visit, posted) {
                Wanted::Over => break,
                Wanted::Later => rest.nap(),
                Wanted::Copy { address, bytes, slot } => {
                    let Some(from) = device_address(memory, address, bytes) else {
                        tracing::error!(
                            client = link.client,
                            address,
                            bytes,
                            "the other worker asks for what is not there"
                        );
                        break;
                    };
                    let stream = streams.enter_setup();
                    // SAFETY: the memory stays mapped until this stream is idle, and nothing writes it; the slot is as long as
                    // that, and nobody reads it now.
                    unsafe { stream.copy((Place::Device, slot), (Place::Device, from), bytes as usize)? };
                    posted += 1;
                    self.offer.fill(stream, posted)?;
                    given_bytes += bytes;
                    rest = Rest::new(shared);
                }
            }
        }
        Ok(given_bytes)
    }

    /// Leaves nothing of the client in the landing, and nothing under way.
    fn end(&self, visit: u32, shared: &Shared, streams: &mut Streams) -> Result<(), CudaError> {
        settle(shared, streams)?;
        let (began, mut rest) = (Instant::now(), Rest::new(shared));
        while self.offer.wanted(visit, 0) == Wanted::Over {
            if self.offer.is_drained() {
                let (landing, bytes) = self.offer.landing();
                // SAFETY: it is mapped as long as the link's end is, and nobody reads what is there now.
                unsafe { streams.enter_setup().fill(landing, (0, bytes as usize, 1), 0, 1)? };
                settle(shared, streams)?;
                break;
            }
            if began.elapsed() > READING || self.offer.is_moot() || shared.lost().is_some() {
                break;
            }
            rest.nap();
        }
        self.offer.close(visit);
        Ok(())
    }
}

/// Where the device has a part of a client's memory, if it lies in one segment and begins and ends with chunks.
fn device_address(memory: &BTreeMap<u64, ClientSegment>, address: u64, bytes: u64) -> Option<u64> {
    let (&start, segment) = memory.range(..=address).next_back()?;
    let offset = address - start;
    let is_there = bytes > 0
        && (offset | bytes).is_multiple_of(CHUNK_BYTES)
        && offset.checked_add(bytes).is_some_and(|end| end <= segment.bytes)
        && segment.is_filled();
    let backing = segment.backing.as_ref().filter(|_| is_there)?;
    Some(backing.address()? + offset)
}

/// Waits until the worker's own stream is idle.
fn settle(shared: &Shared, streams: &mut Streams) -> Result<(), CudaError> {
    let mut fences = Vec::from_iter(streams.fence_setup()?);
    let mut rest = Rest::new(shared);
    while !streams.fences.all_reached(&mut fences) {
        streams.check()?;
        rest.nap();
    }
    Ok(())
}

/// Looks again and again, at first without a pause.
struct Rest {
    since: Instant,
    spin: Duration,
}

impl Rest {
    fn new(shared: &Shared) -> Self {
        Self { since: Instant::now(), spin: shared.tuning.spin }
    }

    fn nap(&mut self) {
        match self.since.elapsed() {
            waited if waited < self.spin => std::hint::spin_loop(),
            // Who wants the room wakes it.
            waited => std::thread::park_timeout(NAPS[usize::from(waited > HURRY)]),
        }
    }
}
