//! Snapshots: making the host store's copy of a client's memory what the memory is now.
//!
//! What changed since the last snapshot is found by digests that the GPU computes, near the speed of its memory, and only
//! that is copied back. A chunk that is zero takes no room. When the writes of kernels are dropped
//! (`writeback = "never"`), only chunks that the host copied something into are looked at.
//!
//! What the store has of a changed chunk is given up before room for the new contents is asked for, so a client never needs
//! more room than its memory has. If the contents cannot be saved then, they are on the GPU alone, and stay there.

use crate::chunk::CHUNK_BYTES;
use crate::driver::Place;
use crate::worker::digest::{ChunkDigest, DigestBuffer};
use crate::worker::segments::Content;
use crate::worker::session::Session;
use crate::worker::shared::lock;
use crate::worker::store::{self, StoreError};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;
use torpor_proto::error::CudaError;

/// Chunks digested by one launch.
const DIGESTS_AT_ONCE: usize = 4096;

/// A chunk by its device address.
type ChunkAddress = u64;

/// What a snapshot took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Snapshot {
    /// Bytes looked at.
    pub(super) digested_bytes: u64,
    /// How long that took.
    pub(super) digest_us: u128,
    /// Bytes that had changed.
    pub(super) copied_back_bytes: u64,
    /// How long it took to save them.
    pub(super) copy_us: u128,
}

impl Session {
    /// Waits for the client's work and saves what it changed. `None` if the host store has no room for it, or the driver
    /// refuses a call: the memory must stay where it is then.
    ///
    /// # Errors
    /// The context's, or `CUDA_ERROR_DEINITIALIZED` if the session is to end.
    pub(super) fn snapshot(&mut self) -> Result<Option<Snapshot>, CudaError> {
        let taken = self.take_snapshot();
        let taken = self.unless_refused(taken)?.flatten();
        self.tell_memory();
        Ok(taken)
    }

    fn take_snapshot(&mut self) -> Result<Option<Snapshot>, CudaError> {
        self.drain()?;
        self.arrivals.complete();
        let began = Instant::now();
        let suspects = self.suspects();
        let digests = self.digest(&suspects)?;
        let digested = Instant::now();
        let (mut zero, mut changed) = (Vec::new(), Vec::new());
        for (&address, digest) in suspects.iter().zip(digests) {
            match self.content(address) {
                Some(Content::Zero) if digest.is_zero => {}
                Some(Content::Stored { digest: before, .. }) if *before == digest => {}
                _ if digest.is_zero => zero.push(address),
                _ => changed.push((address, digest)),
            }
        }
        let mut released = Vec::new();
        for address in zero {
            self.set_content(address, Content::Zero, &mut released);
        }
        for &(address, _) in &changed {
            if let Some(Content::Stored { pointers, .. }) = self.content(address) {
                let content = Content::Unsaved { pointers: pointers.clone() };
                self.set_content(address, content, &mut released);
            }
        }
        self.release(&released);
        let places = match self.reserve_places(changed.len()) {
            Ok(places) => places,
            Err(StoreError::Interrupted) => return Err(CudaError::DEINITIALIZED),
            Err(error) => {
                self.end_reservation();
                self.store_failed(&error);
                return Ok(None);
            }
        };
        if let Err(error) = self.copy_back(&changed, &places) {
            // Whoever gets the places next must not find copies under way to them.
            self.wait_for_setup()?;
            self.release(&places.iter().map(|place| place.chunk).collect::<Vec<_>>());
            self.end_reservation();
            return Err(error);
        }
        let taken = Snapshot {
            digested_bytes: suspects.len() as u64 * CHUNK_BYTES,
            digest_us: digested.duration_since(began).as_micros(),
            copied_back_bytes: changed.len() as u64 * CHUNK_BYTES,
            copy_us: digested.elapsed().as_micros(),
        };
        for ((address, digest), place) in changed.into_iter().zip(places) {
            let pointers = if digest.pointers > 0 { self.pointers_in(place) } else { Arc::default() };
            let content = Content::Stored { place, digest, identified: false, pointers };
            self.set_content(address, content, &mut Vec::new());
            self.residency.unidentified = true;
        }
        self.end_reservation();
        for address in suspects {
            if let Some((start, segment)) = self.space.segment_of_mut(address) {
                segment.chunks[((address - start) / CHUNK_BYTES) as usize].copied_into = false;
            }
        }
        Ok(Some(taken))
    }

    /// What is in these chunks now.
    fn digest(&mut self, suspects: &[ChunkAddress]) -> Result<Vec<ChunkDigest>, CudaError> {
        let (shared, arena) = (self.shared.clone(), self.space.arena());
        let buffer = match lock(&shared.digest_buffers).pop() {
            Some(buffer) => buffer,
            None => DigestBuffer::new(&shared.device, DIGESTS_AT_ONCE)?,
        };
        let mut digests = Vec::with_capacity(suspects.len());
        for part in suspects.chunks(buffer.capacity()) {
            part.iter().enumerate().for_each(|(index, &address)| buffer.set_chunk(index, address));
            let stream = self.streams.enter_setup();
            // SAFETY: the buffer is this call's alone, and goes on living with the others; the chunks are those of resident
            // segments, which stay until the wait below is over.
            let posted = unsafe { shared.digests.post(stream, &buffer, part.len(), CHUNK_BYTES, arena) };
            let fence = posted.and_then(|()| self.streams.fence_setup());
            if let Err(error) = fence.and_then(|fence| self.wait_for(Vec::from_iter(fence))) {
                match self.wait_for_setup() {
                    Ok(()) => lock(&shared.digest_buffers).push(buffer),
                    // The kernel may still write into the buffer, so nobody else may have it.
                    Err(_) => std::mem::forget(buffer),
                }
                return Err(error);
            }
            digests.extend((0..part.len()).map(|index| buffer.digest(index)));
        }
        lock(&shared.digest_buffers).push(buffer);
        Ok(digests)
    }

    /// Chunks that may have changed since the last snapshot.
    fn suspects(&self) -> Vec<ChunkAddress> {
        let all = !self.residency.drops_writes();
        let mut suspects = Vec::new();
        for (start, segment) in self.space.segments().filter(|(_, segment)| segment.backing.is_some()) {
            let addresses = (start..).step_by(CHUNK_BYTES as usize).zip(&segment.chunks);
            suspects
                .extend(addresses.filter(|(_, chunk)| all || chunk.copied_into).map(|(address, _)| address));
        }
        suspects
    }

    fn content(&self, address: ChunkAddress) -> Option<&Content> {
        let (start, segment) = self.space.segment_of(address)?;
        Some(&segment.chunks[((address - start) / CHUNK_BYTES) as usize].content)
    }

    /// Replaces what is known of a chunk; what the store had of it is added to `released`.
    fn set_content(&mut self, address: ChunkAddress, content: Content, released: &mut Vec<u64>) {
        if let Some((start, segment)) = self.space.segment_of_mut(address) {
            let chunk = &mut segment.chunks[((address - start) / CHUNK_BYTES) as usize];
            if let Content::Stored { place, .. } = std::mem::replace(&mut chunk.content, content) {
                released.push(place.chunk);
            }
        }
    }

    /// The client does not refer to these chunks any more.
    pub(super) fn release(&mut self, chunks: &[u64]) {
        if chunks.is_empty() {
            return;
        }
        // What was hashed and not told yet must not be told any more.
        self.hashed.retain(|(hashed, _)| !chunks.contains(hashed));
        self.shared.store.release(self.link.client, chunks);
    }

    fn reserve_places(&mut self, count: usize) -> Result<Vec<store::Place>, StoreError> {
        if count == 0 {
            return Ok(Vec::new());
        }
        let reserved = self.shared.store.reserve(self.link.client, count, &|| self.is_interrupted());
        // Who is refused does not hear whether the lease is gone.
        self.residency.lease_lost |= reserved.as_ref().map_or(true, |(_, lease_lost)| *lease_lost);
        reserved.map(|(places, _)| places)
    }

    /// What was reserved is written, or given back.
    fn end_reservation(&mut self) {
        if self.residency.lease_lost {
            self.give_lease_back();
        }
    }

    /// Copies chunks to their places and waits for it; neighbours in one go.
    fn copy_back(
        &mut self,
        changed: &[(ChunkAddress, ChunkDigest)],
        places: &[store::Place],
    ) -> Result<(), CudaError> {
        let to =
            |place: &store::Place| self.shared.store.address(place.slot).ok_or(CudaError::OPERATING_SYSTEM);
        let targets = places.iter().map(to).collect::<Result<Vec<_>, _>>()?;
        let pairs: Vec<(u64, u64)> = changed.iter().map(|&(address, _)| address).zip(targets).collect();
        let follows = |one: &(u64, u64), next: &(u64, u64)| {
            one.0 + CHUNK_BYTES == next.0
                && one.1 + CHUNK_BYTES == next.1
                // One copy must not reach from one allocation into the next.
                && self.space.segment_of(one.0).map(|(start, _)| start)
                    == self.space.segment_of(next.0).map(|(start, _)| start)
        };
        let runs: Vec<_> =
            pairs.chunk_by(follows).map(|run| (run[0], run.len() as u64 * CHUNK_BYTES)).collect();
        for ((from, to), bytes) in runs {
            // SAFETY: the chunks are mapped and idle; the places are page-locked and nobody else's.
            unsafe {
                self.streams.enter_setup().copy((Place::Host, to), (Place::Device, from), bytes as usize)?;
            }
        }
        let fence = self.streams.fence_setup()?;
        self.wait_for(Vec::from_iter(fence))
    }

    /// The addresses of this client's device memory that a stored chunk contains, one for each chunk pointed into.
    fn pointers_in(&self, place: store::Place) -> Arc<[u64]> {
        let arena = self.space.arena();
        let Some(words) = self.shared.store.words(place.slot) else { return Arc::default() };
        let pointers: BTreeSet<u64> = words
            .filter(|&word| arena.contains(word, 1))
            .map(|word| word / CHUNK_BYTES * CHUNK_BYTES)
            .collect();
        pointers.into_iter().collect()
    }

    /// Tells people why the host store did not do what was wanted, and programs an error.
    pub(super) fn store_failed(&self, error: &StoreError) -> CudaError {
        match error {
            StoreError::Interrupted => CudaError::DEINITIALIZED,
            error => {
                let link = &self.link;
                tracing::error!(client = link.client, function = %link.function, "the host store: {error}");
                CudaError::OUT_OF_MEMORY
            }
        }
    }
}
