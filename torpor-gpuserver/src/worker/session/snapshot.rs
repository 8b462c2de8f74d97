//! Snapshots: making the host store's copy of a client's memory what the memory is now.
//!
//! What changed since the last snapshot is found by digests that the GPU computes, near the speed of its memory, and only
//! that is copied back. A chunk that is zero takes no room. When the writes of kernels are dropped
//! (`writeback = "never"`), only chunks that the host copied something into are looked at.
//!
//! What the store has of a changed chunk is given up before room for the new contents is asked for, so a client never needs
//! more room than its memory has. If the contents cannot be saved then, they are on the GPU alone, and stay there.

use crate::chunk::CHUNK_BYTES;
use crate::state_file::Void;
use crate::worker::gpu::digest::{ChunkDigest, DigestBuffer};
use crate::worker::gpu::host_store::Content;
use crate::worker::gpu::host_store::{self, Room, StoreError};
use crate::worker::session::Session;
use crate::worker::session::halt::Halt;
use crate::worker::sync::lock;
use crate::worker::work_time::micros;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;
use torpor_proto::error::CudaError;

/// Chunks digested by one launch.
const DIGESTS_AT_ONCE: usize = 4096;

/// The same beside the work of others, whose kernels wait meanwhile: 0.35 ms of an H200.
const DIGESTS_BESIDE: usize = 512;

/// A chunk by its device address.
pub(super) type ChunkAddress = u64;

/// What is other in a client's memory than in the host store.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Chunks that are zero now.
    pub(super) zero: Vec<ChunkAddress>,
    /// All others, with what is in them now.
    pub(super) changed: Vec<(ChunkAddress, ChunkDigest)>,
}

/// What a snapshot took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Snapshot {
    /// Bytes looked at.
    pub(crate) digested_bytes: u64,
    /// How long that took.
    pub(crate) digest_us: u64,
    /// Bytes that had changed.
    pub(crate) copied_back_bytes: u64,
    /// How long it took to save them.
    pub(crate) copy_us: u64,
}

impl Session {
    /// Waits for the client's work and saves what it changed. `None` if the host store has no room for it, or the driver
    /// refuses a call: the memory must stay where it is then.
    ///
    /// # Errors
    /// [`Halt::Lost`], or [`Halt::Interrupted`].
    pub(crate) fn snapshot(&mut self) -> Result<Option<Snapshot>, Halt> {
        let taken = self.take_snapshot();
        let taken = self.unless_refused(taken)?.flatten();
        self.tell_memory();
        Ok(taken)
    }

    fn take_snapshot(&mut self) -> Result<Option<Snapshot>, Halt> {
        self.drain()?;
        self.arrivals.complete();
        let began = Instant::now();
        self.map_unmapped()?;
        let suspects = self.suspects();
        let Changes { zero, changed } = self.changes(&suspects)?;
        let digested = Instant::now();
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
        self.release(&released, Void::Leaving);
        if !changed.is_empty() {
            // Others' chunks may go to files for it, so there is one generation alone.
            self.uncover(Void::Leaving);
        }
        let places = match self.reserve_places(changed.len(), Room::Made) {
            Ok(places) => places,
            Err(StoreError::Interrupted) => return Err(Halt::Interrupted),
            Err(error) => {
                self.end_reservation();
                self.store_failed(&error);
                return Ok(None);
            }
        };
        self.copy_back(&changed, &places)?;
        let taken = Snapshot {
            digested_bytes: suspects.len() as u64 * CHUNK_BYTES,
            digest_us: micros(digested.duration_since(began)),
            copied_back_bytes: changed.len() as u64 * CHUNK_BYTES,
            copy_us: micros(digested.elapsed()),
        };
        self.note_saved(&changed, &places, &mut Vec::new());
        self.end_reservation();
        self.note_looked_at(&suspects);
        self.note_snapshot();
        Ok(Some(taken))
    }

    /// The store has what the client has.
    pub(super) fn note_snapshot(&mut self) {
        let has_worked = std::mem::take(&mut self.residency.has_changed);
        self.residency.snapshots = self.residency.snapshots.saturating_add(has_worked.into());
        self.residency.is_surveyed = true;
        self.residency.written.clear();
    }

    /// What is other in these chunks than at the last snapshot.
    pub(super) fn changes(&mut self, suspects: &[ChunkAddress]) -> Result<Changes, Halt> {
        let mut changes = Changes::default();
        for (&address, digest) in suspects.iter().zip(self.digest(suspects)?) {
            match self.content(address) {
                Some(Content::Zero) if digest.is_zero => {}
                Some(Content::Stored { digest: before, .. }) if *before == digest => {}
                _ if digest.is_zero => changes.zero.push(address),
                _ => changes.changed.push((address, digest)),
            }
        }
        Ok(changes)
    }

    /// These chunks are in these places now; what they were in before is added to `released`.
    pub(super) fn note_saved(
        &mut self,
        changed: &[(ChunkAddress, ChunkDigest)],
        places: &[host_store::Place],
        released: &mut Vec<u64>,
    ) {
        for (&(address, digest), &place) in changed.iter().zip(places) {
            let pointers = if digest.pointers > 0 { self.pointers_in(place) } else { Arc::default() };
            let content = Content::Stored { place, digest, identified: false, pointers };
            self.set_content(address, content, released);
            self.residency.unidentified = true;
            self.residency.is_looked_through = false;
        }
    }

    /// Of these chunks nothing is unsaved that the host copied into them.
    pub(super) fn note_looked_at(&mut self, suspects: &[ChunkAddress]) {
        for &address in suspects {
            if let Some((start, segment)) = self.space.segment_of_mut(address) {
                let chunk = &mut segment.chunks[((address - start) / CHUNK_BYTES) as usize];
                (chunk.copied_into, chunk.is_known) = (false, true);
            }
        }
    }

    /// One that nobody uses.
    pub(super) fn digest_buffer(&self) -> Result<DigestBuffer, CudaError> {
        let pooled = lock(&self.shared.digest_buffers).pop();
        pooled.map_or_else(|| DigestBuffer::new(&self.shared.device, DIGESTS_AT_ONCE), Ok)
    }

    /// What is in these chunks now.
    fn digest(&mut self, suspects: &[ChunkAddress]) -> Result<Vec<ChunkDigest>, Halt> {
        let (shared, reachable) = (self.shared.clone(), [self.space.arena(), self.space.host.range()]);
        let buffer = self.digest_buffer()?;
        let mut digests = Vec::with_capacity(suspects.len());
        let at_once = if shared.working() > 0 { DIGESTS_BESIDE } else { buffer.capacity() };
        for part in suspects.chunks(at_once) {
            for (index, &address) in part.iter().enumerate() {
                let address = self.space.device_address(address).ok_or(CudaError::UNKNOWN)?;
                buffer.set_chunk(index, address);
            }
            let stream = self.streams.enter_setup();
            // SAFETY: the buffer is this call's alone, and goes on living with the others; the chunks are those of resident
            // segments, which stay until the wait below is over.
            let posted = unsafe { shared.digests.post(stream, &buffer, part.len(), CHUNK_BYTES, reachable) };
            let fence = posted.and_then(|()| self.streams.fence_setup()).map_err(Halt::from);
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

    /// Objects that the program has mapped nowhere can be looked at in their homes.
    pub(super) fn map_unmapped(&mut self) -> Result<(), CudaError> {
        for (home, segment) in self.space.segments_mut() {
            if let Some(backing) = segment.backing.as_mut()
                && backing.is_filled
                && backing.address().is_none()
            {
                backing.map(home)?;
            }
        }
        Ok(())
    }

    /// Chunks that may have changed since the last snapshot.
    pub(super) fn suspects(&self) -> Vec<ChunkAddress> {
        let all = !self.residency.drops_writes();
        let mut suspects = Vec::new();
        for (start, segment) in self.space.segments().filter(|(_, segment)| segment.is_filled()) {
            let addresses = (start..).step_by(CHUNK_BYTES as usize).zip(&segment.chunks);
            // What others write is not this client's to drop.
            let all = all || segment.shared.is_some();
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
    pub(super) fn set_content(&mut self, address: ChunkAddress, content: Content, released: &mut Vec<u64>) {
        if let Some((start, segment)) = self.space.segment_of_mut(address) {
            let chunk = &mut segment.chunks[((address - start) / CHUNK_BYTES) as usize];
            if let Content::Stored { place, .. } = std::mem::replace(&mut chunk.content, content) {
                chunk.is_fleeting = true;
                released.push(place.chunk);
            }
        }
    }

    /// The client does not refer to these chunks any more.
    pub(crate) fn release(&mut self, chunks: &[u64], why: Void) {
        if chunks.is_empty() {
            return;
        }
        self.uncover(why);
        // What was hashed and not told yet must not be told any more.
        self.hashed.retain(|(hashed, _)| !chunks.contains(hashed));
        self.shared.store.release(self.link.client, chunks);
    }

    pub(super) fn reserve_places(
        &mut self,
        count: usize,
        room: Room,
    ) -> Result<Vec<host_store::Place>, StoreError> {
        if count == 0 {
            return Ok(Vec::new());
        }
        let reserved = self.shared.store.reserve(self.link.client, count, room, &|| self.is_interrupted());
        // Who is refused does not hear whether the lease is gone.
        self.residency.lease_lost |= reserved.as_ref().map_or(true, |(_, lease_lost)| *lease_lost);
        reserved.map(|(places, _)| places)
    }

    /// What was reserved is written, or given back.
    pub(super) fn end_reservation(&mut self) {
        if self.residency.lease_lost {
            self.give_lease_back();
        }
    }

    /// The addresses of this client that a stored chunk contains: one for each chunk of device memory that it points into, and
    /// one of the host range, if it has any.
    fn pointers_in(&self, place: host_store::Place) -> Arc<[u64]> {
        let (arena, host) = (self.space.arena(), self.space.host.range());
        let Some(words) = self.shared.store.words(place.slot) else { return Arc::default() };
        let (mut pointers, mut to_host) = (BTreeSet::new(), None);
        for word in words {
            if arena.contains(word, 1) {
                pointers.insert(word / CHUNK_BYTES * CHUNK_BYTES);
            } else if host.contains(word, 1) {
                to_host = Some(word);
            }
        }
        pointers.into_iter().chain(to_host).collect()
    }

    /// Tells people why the host store did not do what was wanted, and programs an error.
    pub(crate) fn store_failed(&mut self, error: &StoreError) -> Halt {
        match error {
            StoreError::Interrupted => Halt::Interrupted,
            error => {
                if let Some(untold) = self.residency.unsaved.tell(Instant::now()) {
                    let link = &self.link;
                    tracing::error!(client = link.client, function = %link.function, untold, "the host store: {error}");
                }
                Halt::Refused(CudaError::OUT_OF_MEMORY)
            }
        }
    }
}
