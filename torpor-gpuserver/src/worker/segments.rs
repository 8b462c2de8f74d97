//! A client's device memory: segments, and where the contents of each of their chunks are.
//!
//! A segment is one allocation of 2 MiB or a multiple. It is either *resident*, backed with physical memory, or not; then
//! each of its chunks is zero, or lies in the host store. While it is resident the host store has its contents as they
//! were at the last snapshot, if there was one and no later one failed.

use crate::chunk::CHUNK_BYTES;
use crate::driver::Segment;
use crate::worker::digest::ChunkDigest;
use crate::worker::gpu_memory::GpuMemory;
use crate::worker::store::Place;
use std::sync::Arc;
use torpor_proto::control::migration;

/// Where a chunk's contents are, as of the last snapshot.
#[derive(Clone, Debug)]
pub(super) enum Content {
    /// All bytes are zero, as they are at first.
    Zero,
    /// Nowhere but on the GPU: what the host store had was given up for what is there now, which could not be saved yet. The
    /// segment is resident.
    Unsaved {
        /// As of the last snapshot.
        pointers: Arc<[u64]>,
    },
    /// In the host store.
    Stored {
        /// Where.
        place: Place,
        /// What the digest on the GPU was.
        digest: ChunkDigest,
        /// Whether the store knows what it contains, so that equal chunks are kept once.
        identified: bool,
        /// The device addresses of this client that were found in it, one in each chunk that they point into.
        pointers: Arc<[u64]>,
    },
}

/// A part of a segment.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    /// Where its contents are.
    pub(super) content: Content,
    /// Bytes were copied into it from the host since the last snapshot.
    pub(super) copied_into: bool,
}

/// Physical memory behind a segment; goes back to the GPU's when dropped. The device must have done with it.
#[derive(Debug)]
pub(super) struct Backing {
    segment: Option<Segment>,
    memory: Arc<GpuMemory>,
    client: u64,
    bytes: u64,
}

impl Backing {
    /// Takes over what was mapped for a client.
    pub(super) fn new(segment: Segment, memory: &Arc<GpuMemory>, client: u64, bytes: u64) -> Self {
        Self { segment: Some(segment), memory: memory.clone(), client, bytes }
    }
}

impl Drop for Backing {
    fn drop(&mut self) {
        match self.segment.take().and_then(Segment::unmap) {
            Some(physical) => self.memory.give_back(self.client, physical),
            None => self.memory.unreserve(self.client, self.bytes),
        }
    }
}

/// A device allocation.
#[derive(Debug)]
pub(super) struct ClientSegment {
    /// Its length.
    pub(super) bytes: u64,
    /// Its physical memory, while it is resident.
    pub(super) backing: Option<Backing>,
    /// Its parts, from the beginning.
    pub(super) chunks: Vec<Chunk>,
    /// The group of copies with which it, and all that it points to, has arrived; 0 if it has.
    pub(super) arrival: u64,
}

impl ClientSegment {
    /// New, without physical memory, all zero.
    pub(super) fn new(bytes: u64) -> Self {
        let chunk = Chunk { content: Content::Zero, copied_into: false };
        Self { bytes, backing: None, chunks: vec![chunk; (bytes / CHUNK_BYTES) as usize], arrival: 0 }
    }

    /// What it is, for another worker. It is not resident.
    pub(super) fn save(&self, address: u64) -> migration::Segment {
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
            migration::Chunk { stored, copied_into: chunk.copied_into }
        };
        migration::Segment { address, chunks: self.chunks.iter().map(chunk).collect() }
    }

    /// What its chunks were at another worker. Where they are is known when the client has a lease again.
    pub(super) fn restore(&mut self, chunks: Vec<migration::Chunk>) {
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
            Chunk { content, copied_into: chunk.copied_into }
        };
        self.chunks = chunks.into_iter().map(chunk).collect();
    }

    /// The numbers of its chunks in the host store.
    pub(super) fn stored(&self) -> impl Iterator<Item = u64> {
        self.chunks.iter().filter_map(|chunk| match &chunk.content {
            Content::Stored { place, .. } => Some(place.chunk),
            Content::Zero | Content::Unsaved { .. } => None,
        })
    }

    /// All device addresses found in it at the last snapshot.
    pub(super) fn pointers(&self) -> impl Iterator<Item = u64> {
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
        (prop::option::of(stored), any::<bool>())
            .prop_map(|(stored, copied_into)| migration::Chunk { stored, copied_into })
    }

    proptest! {
        #[test]
        fn a_segment_is_at_one_worker_what_it_was_at_another(chunks in prop::collection::vec(chunk(), 1..5)) {
            let mut segment = ClientSegment::new(chunks.len() as u64 * CHUNK_BYTES);
            prop_assert!(segment.save(7).chunks.iter().all(|chunk| chunk.stored.is_none()));
            segment.restore(chunks.clone());
            prop_assert_eq!(segment.save(7), migration::Segment { address: 7, chunks });
        }
    }
}
