//! Copying chunks of a client's memory to places of the host store.

use crate::chunk::CHUNK_BYTES;
use crate::driver::Place;
use crate::state_file::Void;
use crate::worker::gpu::digest::ChunkDigest;
use crate::worker::gpu::host_store;
use crate::worker::session::Session;
use crate::worker::session::halt::Halt;
use crate::worker::session::snapshot::ChunkAddress;
use torpor_proto::error::CudaError;

/// Posted at once beside the work of others: a copy engine serves one stream as long as that has work, so their answers wait for all
/// of it (0.3 ms).
const COPIED_BESIDE_BYTES: u64 = 16 << 20;

impl Session {
    /// Copies chunks to places that were reserved for them, and waits for it. If that fails, the places are given back.
    pub(super) fn copy_back(
        &mut self,
        changed: &[(ChunkAddress, ChunkDigest)],
        places: &[host_store::Place],
    ) -> Result<(), Halt> {
        let copied = self.copy_to(changed, places);
        if copied.is_err() {
            // Whoever gets the places next must not find copies under way to them.
            self.wait_for_setup()?;
            self.release(&places.iter().map(|place| place.chunk).collect::<Vec<_>>(), Void::Unsaved);
            self.end_reservation();
        }
        copied
    }

    /// Neighbours go in one go, but for what would hold up whoever works meanwhile.
    fn copy_to(
        &mut self,
        changed: &[(ChunkAddress, ChunkDigest)],
        places: &[host_store::Place],
    ) -> Result<(), Halt> {
        let to = |place: &host_store::Place| {
            self.shared.store.address(place.slot).ok_or(CudaError::OPERATING_SYSTEM)
        };
        let targets = places.iter().map(to).collect::<Result<Vec<_>, _>>()?;
        let pairs: Vec<(u64, u64)> = changed.iter().map(|&(address, _)| address).zip(targets).collect();
        let follows = |one: &(u64, u64), next: &(u64, u64)| {
            one.0 + CHUNK_BYTES == next.0
                && self.shared.store.joins(one.1, next.1)
                // One copy must not reach from one allocation into the next.
                && self.space.segment_of(one.0).map(|(start, _)| start)
                    == self.space.segment_of(next.0).map(|(start, _)| start)
        };
        let is_beside = self.shared.working() > 0;
        let longest = if is_beside { COPIED_BESIDE_BYTES / CHUNK_BYTES } else { u64::MAX };
        let parts = pairs
            .chunk_by(follows)
            .flat_map(|run| run.chunks(usize::try_from(longest).unwrap_or(usize::MAX)));
        let parts: Vec<_> = parts.map(|part| (part[0], part.len() as u64 * CHUNK_BYTES)).collect();
        let mut posted_bytes = 0;
        for ((chunk, to), bytes) in parts {
            if is_beside && posted_bytes + bytes > COPIED_BESIDE_BYTES {
                let fence = self.streams.fence_setup()?;
                self.wait_for(Vec::from_iter(fence))?;
                posted_bytes = 0;
            }
            posted_bytes += bytes;
            let from = self.space.device_address(chunk).ok_or(CudaError::UNKNOWN)?;
            // SAFETY: the chunks are mapped and idle; the places are page-locked and nobody else's.
            unsafe {
                self.streams.enter_setup().copy((Place::Host, to), (Place::Device, from), bytes as usize)?;
            }
        }
        let fence = self.streams.fence_setup()?;
        self.wait_for(Vec::from_iter(fence))
    }
}
