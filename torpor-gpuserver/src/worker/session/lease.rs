//! The client's lease of the host store: while the session holds it, the client's chunks stay in their slots.

use crate::worker::gpu::host_store::Content;
use crate::worker::gpu::host_store::StoreError;
use crate::worker::mailbox::Wish;
use crate::worker::session::Session;
use crate::worker::session::halt::Halt;
use std::collections::HashMap;

impl Session {
    /// Gives the store's slots back, if they are wanted. While the client waits for others, those may need the slots, so it does
    /// that in the middle of a swap-in, too; whatever reads slots [renews the lease](Self::renew_lease) first.
    pub(crate) fn lend_lease(&mut self) -> Result<(), Halt> {
        if self.link.wishes(Wish::Lease) {
            // Behind all copies from and to the slots.
            let fence = self.streams.fence_setup().map_err(Halt::from);
            match fence.and_then(|fence| self.wait_for(Vec::from_iter(fence))) {
                Ok(()) => self.give_lease_back(),
                // It stays wanted, and the next time may be luckier.
                Err(error) if self.is_refusal(error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    pub(crate) fn give_lease_back(&mut self) {
        self.link.fulfil(Wish::Lease);
        self.residency.lease_lost = true;
        self.shared.store.lease_revoked(self.link.client);
    }

    /// Asks the host store where the client's chunks are, if it has moved them meanwhile.
    pub(crate) fn renew_lease(&mut self) -> Result<(), StoreError> {
        if !self.residency.lease_lost {
            return Ok(());
        }
        let referred = self.shared.store.lease(self.link.client, &|| self.is_interrupted())?;
        let places: HashMap<u64, _> = referred.iter().map(|it| (it.name, it.place)).collect();
        for (_, segment) in self.space.segments_mut() {
            for chunk in &mut segment.chunks {
                if let Content::Stored { place, .. } = &mut chunk.content {
                    *place = *places.get(&place.chunk).ok_or(StoreError::Lost)?;
                }
            }
        }
        for place in &mut self.arrays.stored {
            *place = *places.get(&place.chunk).ok_or(StoreError::Lost)?;
        }
        for chunk in &mut self.residency.superseded {
            *chunk = places.get(chunk).map_or(*chunk, |place| place.chunk);
        }
        self.residency.lease_lost = false;
        self.give_up_unknown(&referred);
        Ok(())
    }
}
