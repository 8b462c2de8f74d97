//! What fills a segment that was just backed: copies from the host store, or from the GPU that the client was on before, and zeroes.

use crate::chunk::CHUNK_BYTES;
use crate::driver::Place;
use crate::worker::gpu::host_store::{Chunk, Content, Store};
use crate::worker::session::Session;
use crate::worker::session::halt::Halt;
use std::sync::atomic::Ordering;
use torpor_proto::error::CudaError;

/// Where a chunk comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// It is zero.
    Nowhere,
    /// From this slot of the host store.
    Host(u64),
    /// It is posted already.
    Peer,
}

impl Source {
    /// Whether a chunk from there can be posted together with the one before it.
    fn follows(self, before: Self, store: &Store) -> bool {
        match (before, self) {
            (Self::Host(before), Self::Host(this)) => store.joins(before, this),
            (before, this) => before == this,
        }
    }
}

/// What is on its way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Posted {
    /// From the host and from another GPU.
    pub(crate) bytes: u64,
    /// From the host: fewer and longer ones are faster (`host_store/locking.rs`).
    pub(crate) copies: usize,
}

impl Session {
    /// Posts the copies and fills that give a segment that was just backed its contents, every byte of it.
    pub(crate) fn post_contents(&mut self, address: u64) -> Result<Posted, Halt> {
        let from_peer = self.take_parcels(address)?;
        let is_from_peer = |at: u64| from_peer.iter().any(|part| part.contains(&at));
        let (_, segment) = self.space.segment_of(address).ok_or(CudaError::UNKNOWN)?;
        let mut chunks = (address..).step_by(CHUNK_BYTES as usize).zip(&segment.chunks);
        if chunks.any(|(at, chunk)| chunk.stored().is_some() && !is_from_peer(at)) {
            // Only now: those that left for this one may have needed the slots.
            self.renew_lease().map_err(|error| self.store_failed(&error))?;
        }
        let (_, segment) = self.space.segment_of(address).ok_or(CudaError::UNKNOWN)?;
        let source = |(at, chunk): (u64, &Chunk)| match &chunk.content {
            _ if is_from_peer(at) => Ok(Source::Peer),
            Content::Zero => Ok(Source::Nowhere),
            Content::Unsaved { .. } => Err(CudaError::OPERATING_SYSTEM),
            Content::Stored { place, .. } => {
                self.shared.store.address(place.slot).map(Source::Host).ok_or(CudaError::OPERATING_SYSTEM)
            }
        };
        let chunks = (address..).step_by(CHUNK_BYTES as usize).zip(&segment.chunks);
        let sources = chunks.map(source).collect::<Result<Vec<_>, _>>()?;
        let mut destination = self.space.device_address(address).ok_or(CudaError::UNKNOWN)?;
        let (mut host_bytes, mut peer_bytes, mut copies) = (0, 0, 0);
        for run in sources.chunk_by(|&before, &this| this.follows(before, &self.shared.store)) {
            let bytes = run.len() as u64 * CHUNK_BYTES;
            let stream = self.streams.enter_setup();
            // SAFETY: the segment was just mapped and stays until the client's streams, this one included, are idle; the
            // slots are page-locked, and nobody writes them while the client refers to them.
            unsafe {
                match run[0] {
                    Source::Nowhere => stream.fill(destination, (0, bytes as usize, 1), 0, 1)?,
                    Source::Host(from) => {
                        stream.copy((Place::Device, destination), (Place::Host, from), bytes as usize)?;
                        host_bytes += bytes;
                        copies += 1;
                    }
                    Source::Peer => peer_bytes += bytes,
                }
            }
            destination += bytes;
        }
        self.shared.peers.from_host_bytes.fetch_add(host_bytes, Ordering::Relaxed);
        self.shared.peers.from_peers_bytes.fetch_add(peer_bytes, Ordering::Relaxed);
        Ok(Posted { bytes: host_bytes + peer_bytes, copies })
    }
}
