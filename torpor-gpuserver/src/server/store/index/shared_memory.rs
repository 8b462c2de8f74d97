//! Memory that several clients have together: all of them refer to its chunks, so that these outlive each of them.

use super::{ChunkId, Index, Lease, Location, Misuse, Work};
use crate::server::clients::ClientId;

impl Index {
    /// Others refer to each of these once more, too; those that are gone do not. Nobody comes to refer to a chunk in a file while it
    /// holds a lease, which says that none of its chunks is in one.
    ///
    /// # Errors
    /// [`Misuse`], for the first chunk that the client itself does not refer to, or that one of the others cannot; the rest is shared
    /// all the same.
    pub fn share(&mut self, client: ClientId, others: &[ClientId], chunks: &[ChunkId]) -> Result<(), Misuse> {
        let mut result = Ok(());
        for &name in chunks {
            let id = self.called(client, name);
            let its = self.chunks.get_mut(&id).filter(|chunk| chunk.referrers.contains_key(&client));
            let Some(chunk) = its else {
                result = result.and(Err(Misuse::NotReferred(id)));
                continue;
            };
            let is_in_file = matches!(chunk.location, Location::File(_));
            for other in others {
                if let Some(their) = self.clients.get_mut(other) {
                    if is_in_file && their.lease != Lease::Wanted && !their.lease.spares(id) {
                        result = result.and(Err(Misuse::Leased(id)));
                        continue;
                    }
                    // The other may write from now on, as who is granted a lease.
                    if their.lease.is_held()
                        && let Some(Work::Spilling { void }) = &mut chunk.work
                    {
                        *void = true;
                    }
                    *chunk.referrers.entry(*other).or_default() += 1;
                    their.chunks.insert(id);
                    if name != id {
                        their.names.insert(name, id);
                    }
                }
            }
        }
        result
    }
}
