//! Chunks of equal contents are one chunk.

use super::{ChunkId, Index, Location, Misuse, Place, Work};
use crate::chunk::Hash;
use crate::server::clients::ClientId;
use std::collections::HashSet;

impl Index {
    /// Says what chunks contain. Returns for each the place of the chunk that has this content, to which the client refers
    /// from now on, and the chunks whose files are to be deleted. A chunk that others refer to as well stays as it is where another
    /// has its content: nobody tells them of a new place.
    ///
    /// # Errors
    /// [`Misuse`]; nothing has changed then.
    pub fn identify(
        &mut self,
        client: ClientId,
        contents: &[(ChunkId, Hash)],
    ) -> Result<(Vec<Place>, Vec<ChunkId>), Misuse> {
        let its = self.clients.get(&client).ok_or(Misuse::UnknownClient)?;
        if !its.lease.is_held() {
            return Err(Misuse::NoLease);
        }
        let mut seen = HashSet::new();
        for (id, hash) in contents {
            let chunk =
                self.chunks.get(id).filter(|_| its.chunks.contains(id)).ok_or(Misuse::NotReferred(*id))?;
            if !seen.insert(id) {
                return Err(Misuse::Twice(*id));
            }
            if chunk.hash.is_some_and(|known| known != *hash) {
                return Err(Misuse::Changed(*id));
            }
        }
        let mut files = Vec::new();
        let places = contents.iter().map(|&(id, hash)| {
            let chunk = match self.by_hash.get(&hash) {
                Some(&equal) if equal != id && self.is_its_alone(client, id) => {
                    self.merge(client, id, equal, &mut files);
                    equal
                }
                Some(_) => id,
                None => {
                    self.by_hash.insert(hash, id);
                    self.chunks.entry(id).and_modify(|chunk| chunk.hash = Some(hash));
                    id
                }
            };
            Place { chunk, slot: self.slot_of(chunk).unwrap_or(u32::MAX) }
        });
        let places = places.collect();
        Ok((places, files))
    }

    fn is_its_alone(&self, client: ClientId, id: ChunkId) -> bool {
        self.chunks.get(&id).is_some_and(|chunk| chunk.referrers.keys().eq([&client]))
    }

    /// The client refers to `equal` instead of `id`, which it alone referred to. Both have the same content; `id` is in a
    /// slot, since the client holds a lease.
    fn merge(&mut self, client: ClientId, id: ChunkId, equal: ChunkId, files: &mut Vec<ChunkId>) {
        let (Some(gone), Some(its)) = (self.chunks.remove(&id), self.clients.get_mut(&client)) else {
            return;
        };
        its.chunks.remove(&id);
        its.chunks.insert(equal);
        let Some(kept) = self.chunks.get_mut(&equal) else { return };
        *kept.referrers.entry(client).or_insert(0) += gone.referrers.get(&client).copied().unwrap_or(0);
        if let Some(Work::Spilling { void }) = &mut kept.work {
            *void = true;
        }
        let Location::Slot(slot) = gone.location else { return };
        match kept.location {
            Location::Slot(_) => self.discard_slot(id, slot, gone.work),
            Location::File(_) => {
                kept.location = Location::Slot(slot);
                self.in_files -= 1;
                files.push(equal);
            }
        }
    }
}
