//! Memory that several clients have together: all of them refer to its chunks, so that these outlive each of them.

use super::{ChunkId, Index, Misuse};
use crate::server::clients::ClientId;

impl Index {
    /// Others refer to each of these once more, too; those that are gone do not.
    ///
    /// # Errors
    /// [`Misuse`], for the first chunk that the client itself does not refer to; the others are shared all the same.
    pub fn share(&mut self, client: ClientId, others: &[ClientId], chunks: &[ChunkId]) -> Result<(), Misuse> {
        let mut result = Ok(());
        for &id in chunks {
            let its = self.chunks.get_mut(&id).filter(|chunk| chunk.referrers.contains_key(&client));
            let Some(chunk) = its else {
                result = result.and(Err(Misuse::NotReferred(id)));
                continue;
            };
            for other in others {
                if let Some(their) = self.clients.get_mut(other) {
                    *chunk.referrers.entry(*other).or_default() += 1;
                    their.chunks.insert(id);
                }
            }
        }
        result
    }
}
