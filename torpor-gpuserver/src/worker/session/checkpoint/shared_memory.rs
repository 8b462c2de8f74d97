//! Shared memory at a move: it goes along with all who have it, each of whose states tells of it. The first of them that is made
//! where they go makes the segment, and the others find it there.

use crate::worker::gpu::host_store::Chunk;
use crate::worker::gpu::ipc::Secret;
use crate::worker::gpu::ipc::segment::SharedSegment;
use crate::worker::gpu::ipc::tenancy::NotJoined;
use crate::worker::memory::segment::{ClientSegment, Membership};
use crate::worker::session::Session;
use crate::worker::session::halt::Halt;
use crate::worker::session::pause::BUSY_NAP;
use std::sync::Arc;
use torpor_proto::control::migration::{Origin, Shared};
use torpor_proto::error::CudaError;

impl Session {
    /// It was decided that the client departs: its segments have what is saved of them.
    pub(super) fn take_shared(&mut self) {
        for (_, segment) in self.space.segments_mut() {
            if let Some(membership) = &segment.shared {
                segment.chunks = membership.segment.saved();
            }
        }
    }

    /// The client stays, after all.
    pub(super) fn stay_shared(&mut self) {
        self.offer_events();
        for (_, segment) in self.space.segments_mut() {
            if let Some(membership) = &segment.shared {
                segment.chunks = Vec::new();
                membership.segment.stay();
            }
        }
    }

    /// Makes a segment of the client's own one that others have, or may import, here, too.
    pub(super) fn regain_shared(&mut self, home: u64, shared: &Shared) -> Result<(), Halt> {
        let Some((_, ClientSegment { bytes, chunks, .. })) = self.space.segment_of_mut(home) else {
            return Err(CudaError::INVALID_VALUE.into());
        };
        let (bytes, chunks) = (*bytes, std::mem::take(chunks));
        let membership = self.rejoin(bytes, chunks, shared)?;
        if let Some((_, segment)) = self.space.segment_of_mut(home) {
            segment.shared = Some(membership);
        }
        Ok(())
    }

    /// As [`Self::regain_shared`], of what is another client's allocation.
    pub(super) fn regain_import(
        &mut self,
        home: u64,
        ClientSegment { bytes, chunks, .. }: ClientSegment,
        shared: &Shared,
    ) -> Result<(), Halt> {
        let membership = self.rejoin(bytes, chunks, shared)?;
        Ok(self.space.import(home, ClientSegment::imported(membership))?)
    }

    /// The client's part in a segment that is here already, or is here from now on.
    fn rejoin(&mut self, bytes: u64, chunks: Vec<Chunk>, shared: &Shared) -> Result<Membership, Halt> {
        let secret = <[u64; 2]>::try_from(&shared.secret[..]).map_err(|_| CudaError::INVALID_VALUE)?;
        let (client, store, function) = (self.link.client, &self.shared.store, &self.link.function);
        let stored: Vec<u64> = chunks.iter().filter_map(Chunk::stored).collect();
        let (secret, founders, memory) = (Secret(secret), (client, shared.founder), &self.shared.memory);
        let its = SharedSegment::new(secret, bytes, memory, founders, None, chunks);
        if shared.is_closed {
            its.close();
        }
        self.residency.shares = true;
        let segment = loop {
            let there = self.shared.ipc.segments.find_or_add(secret, function, &its);
            if Arc::ptr_eq(&there, &its) {
                break its;
            }
            if there.bytes() != bytes {
                return Err(CudaError::INVALID_VALUE.into());
            }
            match there.rejoin(client, &stored, store) {
                Ok(()) => break there,
                Err(NotJoined::Refused) => return Err(CudaError::INVALID_VALUE.into()),
                // Whoever moves it here has it soon; of those that have left with it the last one soon lets go of it.
                Err(NotJoined::Busy) if self.is_interrupted() => return Err(Halt::Interrupted),
                Err(NotJoined::Busy) => std::thread::sleep(BUSY_NAP),
            }
        };
        Ok(Membership::new(segment, client, Origin::try_from(shared.origin).unwrap_or_default()))
    }
}
