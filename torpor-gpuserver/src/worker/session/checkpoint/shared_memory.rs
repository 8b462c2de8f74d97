//! Shared memory and events at a move: what a client has alone goes along, and can be imported where it goes. Who has some
//! together with others stays.

use crate::worker::gpu::ipc::Secret;
use crate::worker::gpu::ipc::segment::SharedSegment;
use crate::worker::memory::segment::{ClientSegment, Membership};
use crate::worker::session::Session;
use torpor_proto::control::migration::Shared;
use torpor_proto::error::CudaError;

impl Session {
    /// From now on nobody imports anything of the client's here, and its segments have what is to be saved of them. False if
    /// somebody has imported something meanwhile: then all stays.
    pub(super) fn depart_shared(&mut self) -> bool {
        let client = self.link.client;
        let mut departs = self.withdraw_events();
        for (_, segment) in self.space.segments_mut() {
            let Some(membership) = &segment.shared else { continue };
            match membership.segment.depart(client) {
                Some(chunks) => segment.chunks = chunks,
                None => departs = false,
            }
        }
        if !departs {
            self.stay_shared();
        }
        departs
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

    /// Makes a segment one that others may import here.
    pub(super) fn restore_shared(&mut self, home: u64, shared: &Shared) -> Result<(), CudaError> {
        let secret = <[u64; 2]>::try_from(&shared.secret[..]).map_err(|_| CudaError::INVALID_VALUE)?;
        let (secret, client, memory) = (Secret(secret), self.link.client, &self.shared.memory);
        let Some((_, ClientSegment { bytes, chunks, shared: part, .. })) = self.space.segment_of_mut(home)
        else {
            return Err(CudaError::INVALID_VALUE);
        };
        let segment = SharedSegment::new(secret, *bytes, memory, client, None, std::mem::take(chunks));
        self.shared.ipc.segments.add(secret, &self.link.function, &segment);
        self.residency.shares = true;
        *part = Some(Membership::new(segment, client, shared.origin()));
        Ok(())
    }
}
