//! A client's device memory: segments, and where the contents of each of their chunks are.
//!
//! A segment is one allocation of 2 MiB or a multiple. It is either *resident*, backed with physical memory, or not; then
//! each of its chunks is zero, or lies in the host store. While it is resident the host store has its contents as they
//! were at the last snapshot, if there was one and no later one failed.
//!
//! A segment that is an *object* (cuMemCreate) is named by its home, where the program cannot reach it, and mapped at the
//! addresses that the program says: none, one or several, its *views*.
//!
//! One that other clients have too is *shared* ([`Membership`]): its chunks are those of the [`SharedSegment`], and here only while
//! this client saves or brings it.

use crate::chunk::CHUNK_BYTES;
use crate::driver::{Mapping, PhysicalMemory};
use crate::worker::gpu::digest::ChunkDigest;
use crate::worker::gpu::host_store::{Chunk, Content, Place};
use crate::worker::gpu::ipc::segment::SharedSegment;
use crate::worker::gpu::memory::GpuMemory;
use std::sync::Arc;
use torpor_proto::control::migration::{self, Origin};
use torpor_proto::error::CudaError;

/// Physical memory that a segment has.
#[derive(Debug)]
enum Physical {
    Own(PhysicalMemory),
    /// Other clients have it, too.
    Shared(Arc<PhysicalMemory>),
}

/// Physical memory behind a segment, and where it is mapped; goes back to the GPU's when dropped. The device must have done
/// with it.
#[derive(Debug)]
pub(crate) struct Backing {
    physical: Option<Physical>,
    mappings: Vec<Mapping>,
    /// It has the segment's contents, or will have behind what was posted; else it has whatever was in it.
    pub(crate) is_filled: bool,
    memory: Arc<GpuMemory>,
    client: u64,
}

impl Backing {
    /// Takes over what was taken for a client.
    pub(crate) fn new(physical: PhysicalMemory, memory: &Arc<GpuMemory>, client: u64) -> Self {
        let physical = Some(Physical::Own(physical));
        Self { physical, mappings: Vec::new(), is_filled: false, memory: memory.clone(), client }
    }

    /// Of a shared segment, whose contents it has.
    pub(crate) fn shared(physical: Arc<PhysicalMemory>, memory: &Arc<GpuMemory>, client: u64) -> Self {
        let physical = Some(Physical::Shared(physical));
        Self { physical, mappings: Vec::new(), is_filled: true, memory: memory.clone(), client }
    }

    /// Makes its memory one that other clients may have, too.
    pub(crate) fn share(&mut self) -> Option<Arc<PhysicalMemory>> {
        let shared = match self.physical.take()? {
            Physical::Own(physical) => Arc::new(physical),
            Physical::Shared(physical) => physical,
        };
        self.physical = Some(Physical::Shared(shared.clone()));
        Some(shared)
    }

    /// Maps it at one more address.
    ///
    /// # Errors
    /// The driver's.
    pub(crate) fn map(&mut self, address: u64) -> Result<(), CudaError> {
        let physical = match self.physical.as_ref().ok_or(CudaError::UNKNOWN)? {
            Physical::Own(physical) => physical,
            Physical::Shared(physical) => physical,
        };
        self.mappings.push(Mapping::new(physical, address)?);
        Ok(())
    }

    /// Takes it away from an address.
    ///
    /// # Errors
    /// The driver's: it is never anybody else's then.
    pub(crate) fn unmap(&mut self, address: u64) -> Result<(), CudaError> {
        let Some(at) = self.mappings.iter().position(|mapping| mapping.address() == address) else {
            return Ok(());
        };
        let unmapped = self.mappings.swap_remove(at).unmap();
        if unmapped.is_err() {
            self.withhold();
        }
        unmapped
    }

    /// An address at which it is.
    pub(crate) fn address(&self) -> Option<u64> {
        self.mappings.first().map(Mapping::address)
    }

    /// Takes its memory away, which somebody else may have; so much stays reserved for the client. Returns how much.
    pub(crate) fn lay_by(mut self) -> u64 {
        let unmapped: Vec<_> = self.mappings.drain(..).map(Mapping::unmap).collect();
        if unmapped.iter().any(Result::is_err) {
            self.withhold();
        }
        let Some(Physical::Own(physical)) = self.physical.take() else { return 0 };
        let bytes = physical.bytes();
        self.memory.lay_by(physical);
        bytes
    }

    /// The device gets it back, instead of the next client.
    fn withhold(&mut self) {
        if let Some(Physical::Own(physical)) = self.physical.take() {
            self.memory.unreserve(self.client, physical.bytes());
        }
    }
}

impl Drop for Backing {
    fn drop(&mut self) {
        let unmapped: Vec<_> = self.mappings.drain(..).map(Mapping::unmap).collect();
        if unmapped.iter().any(Result::is_err) {
            self.withhold();
        }
        if let Some(Physical::Own(physical)) = self.physical.take() {
            self.memory.give_back(self.client, physical);
        }
    }
}

/// A client's part in a shared segment; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Membership {
    /// What it shares.
    pub(crate) segment: Arc<SharedSegment>,
    client: u64,
    origin: Origin,
}

impl Membership {
    pub(crate) fn new(segment: Arc<SharedSegment>, client: u64, origin: Origin) -> Self {
        Self { segment, client, origin }
    }

    /// Whether it is somebody else's allocation.
    pub(crate) fn is_import(&self) -> bool {
        self.origin == Origin::Import
    }

    /// What it is, for another worker. What others have left to this client is its own where it goes.
    fn save(&self) -> migration::Shared {
        let Self { segment, client, origin } = self;
        let is_left = *origin == Origin::Import && !segment.goes_with_several();
        migration::Shared {
            secret: segment.secret().0.to_vec(),
            origin: if is_left { Origin::Object } else { *origin }.into(),
            founder: if is_left { *client } else { segment.founder },
            is_closed: !is_left && segment.is_closed(),
        }
    }

    /// Whether the memory counts as this client's while it is on the GPU.
    pub(crate) fn holds(&self) -> bool {
        self.segment.is_held_by(self.client)
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        if self.origin == Origin::Allocation {
            self.segment.close();
        }
        self.segment.leave(self.client);
    }
}

/// A device allocation. Fields are dropped in this order: it is unmapped before others hear that it is.
#[derive(Debug)]
pub(crate) struct ClientSegment {
    /// Its length.
    pub(crate) bytes: u64,
    /// Its physical memory, while it is resident.
    pub(crate) backing: Option<Backing>,
    /// Its parts, from the beginning.
    pub(crate) chunks: Vec<Chunk>,
    /// The group of copies with which it, and all that it points to, has arrived; 0 if it has.
    pub(crate) arrival: u64,
    /// Of an object: the addresses at which the program has mapped it.
    pub(crate) views: Option<Vec<u64>>,
    /// Others have it, or may have it.
    pub(crate) shared: Option<Membership>,
}

impl ClientSegment {
    /// New, without physical memory, all zero.
    pub(crate) fn new(bytes: u64) -> Self {
        let chunk = Chunk::new(Content::Zero);
        let chunks = vec![chunk; (bytes / CHUNK_BYTES) as usize];
        Self { bytes, backing: None, chunks, arrival: 0, views: None, shared: None }
    }

    /// What other clients have, too: an object that is mapped nowhere yet.
    pub(crate) fn imported(membership: Membership) -> Self {
        let bytes = membership.segment.bytes();
        Self {
            bytes,
            backing: None,
            chunks: Vec::new(),
            arrival: 0,
            views: Some(Vec::new()),
            shared: Some(membership),
        }
    }

    /// Whether it is on the GPU as a part of this client's memory.
    pub(crate) fn is_resident(&self) -> bool {
        self.shared.as_ref().map_or(self.backing.is_some(), Membership::holds)
    }

    /// Whether it is this client's to bring.
    pub(crate) fn needs_memory(&self) -> bool {
        self.backing.is_none() && self.shared.is_none()
    }

    /// Whether it is a part of what this client has allocated.
    pub(crate) fn is_own(&self) -> bool {
        !self.shared.as_ref().is_some_and(Membership::is_import)
    }

    /// Where it is when it is resident; `home` is its own address.
    pub(crate) fn places(&self, home: u64) -> Vec<u64> {
        self.views.clone().filter(|views| !views.is_empty()).unwrap_or_else(|| vec![home])
    }

    /// Whether its contents are on the GPU.
    pub(crate) fn is_filled(&self) -> bool {
        self.backing.as_ref().is_some_and(|backing| backing.is_filled)
    }

    /// Whether the program can reach it.
    pub(crate) fn is_reachable(&self) -> bool {
        self.views.as_ref().is_none_or(|views| !views.is_empty())
    }

    /// What it is, for another worker. It is not resident.
    pub(crate) fn save(&self, address: u64) -> migration::Segment {
        let chunk = |chunk: &Chunk| {
            let stored = match &chunk.content {
                Content::Zero | Content::Unsaved { .. } => None,
                Content::Stored { place, digest, identified, pointers } => Some(migration::StoredChunk {
                    chunk: place.chunk,
                    digest_low: digest.low,
                    digest_high: digest.high,
                    identified: *identified,
                    pointers: pointers.to_vec(),
                }),
            };
            migration::Chunk { stored, copied_into: chunk.copied_into, is_fleeting: chunk.is_fleeting }
        };
        let object = self.views.clone().map(|views| migration::Object { views });
        let shared = self.shared.as_ref().map(Membership::save);
        migration::Segment { address, chunks: self.chunks.iter().map(chunk).collect(), object, shared }
    }

    /// What its chunks were at another worker. Where they are is known when the client has a lease again.
    pub(crate) fn restore(&mut self, chunks: Vec<migration::Chunk>) {
        let chunk = |chunk: migration::Chunk| {
            let content = match chunk.stored {
                None => Content::Zero,
                Some(stored) => Content::Stored {
                    place: Place { chunk: stored.chunk, slot: u32::MAX },
                    digest: ChunkDigest {
                        low: stored.digest_low,
                        high: stored.digest_high,
                        pointers: stored.pointers.len() as u64,
                        is_zero: false,
                    },
                    identified: stored.identified,
                    pointers: stored.pointers.into(),
                },
            };
            Chunk { content, copied_into: chunk.copied_into, is_fleeting: chunk.is_fleeting, is_known: true }
        };
        self.chunks = chunks.into_iter().map(chunk).collect();
    }

    /// The numbers of its chunks in the host store.
    pub(crate) fn stored(&self) -> impl Iterator<Item = u64> {
        self.chunks.iter().filter_map(Chunk::stored)
    }

    /// All addresses of the client found in it at the last snapshot.
    pub(crate) fn pointers(&self) -> impl Iterator<Item = u64> {
        let pointers = |chunk: &Chunk| match &chunk.content {
            Content::Stored { pointers, .. } | Content::Unsaved { pointers } => pointers.clone(),
            _ => Arc::default(),
        };
        self.chunks
            .iter()
            .map(pointers)
            .filter(|pointers| !pointers.is_empty())
            .flat_map(|pointers| pointers.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn chunk() -> impl Strategy<Value = migration::Chunk> {
        let numbers = (any::<u64>(), any::<u64>(), any::<u64>(), any::<bool>());
        let stored = (numbers, prop::collection::vec(any::<u64>(), 0..3)).prop_map(
            |((chunk, digest_low, digest_high, identified), pointers)| migration::StoredChunk {
                chunk,
                digest_low,
                digest_high,
                identified,
                pointers,
            },
        );
        (prop::option::of(stored), any::<bool>(), any::<bool>()).prop_map(
            |(stored, copied_into, is_fleeting)| migration::Chunk { stored, copied_into, is_fleeting },
        )
    }

    proptest! {
        #[test]
        fn a_segment_is_at_one_worker_what_it_was_at_another(chunks in prop::collection::vec(chunk(), 1..5)) {
            let mut segment = ClientSegment::new(chunks.len() as u64 * CHUNK_BYTES);
            prop_assert!(segment.save(7).chunks.iter().all(|chunk| chunk.stored.is_none()));
            segment.restore(chunks.clone());
            prop_assert_eq!(segment.save(7), migration::Segment { address: 7, chunks, ..Default::default() });
        }
    }
}
