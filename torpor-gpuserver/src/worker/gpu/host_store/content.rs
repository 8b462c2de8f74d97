//! Chunks as sessions know them: where the contents of each are.

use crate::worker::gpu::digest::ChunkDigest;
use crate::worker::gpu::host_store::Place;
use std::sync::Arc;

/// Where a chunk's contents are, as of the last snapshot.
#[derive(Clone, Debug)]
pub(crate) enum Content {
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
        /// The addresses of this client that were found in it: of its device memory one in each chunk that they point into, of
        /// its host range one.
        pointers: Arc<[u64]>,
    },
}

/// A part of a segment.
#[derive(Clone, Debug)]
pub(crate) struct Chunk {
    /// Where its contents are.
    pub(crate) content: Content,
    /// Bytes were copied into it from the host since the last snapshot.
    pub(crate) copied_into: bool,
    /// It has had other contents in the host store before: whatever it has is soon another one's.
    pub(crate) is_fleeting: bool,
    /// It has been looked at since it was allocated: what the store has no room for by now is zero.
    pub(crate) is_known: bool,
}

impl Chunk {
    /// One whose contents are there, for all that is known for good.
    pub(crate) fn new(content: Content) -> Self {
        Self { content, copied_into: false, is_fleeting: false, is_known: false }
    }

    /// Its number in the host store, if it is there.
    pub(crate) fn stored(&self) -> Option<u64> {
        match &self.content {
            Content::Stored { place, .. } => Some(place.chunk),
            Content::Zero | Content::Unsaved { .. } => None,
        }
    }

    /// Whether the store may need room for it when it has to leave the GPU.
    pub(crate) fn may_need_room(&self) -> bool {
        match &self.content {
            Content::Stored { .. } => false,
            Content::Unsaved { .. } => true,
            Content::Zero => !self.is_known,
        }
    }
}
