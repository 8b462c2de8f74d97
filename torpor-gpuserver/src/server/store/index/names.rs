//! Old numbers of chunks that have become equal ones: a client's state may call them so until there is another state, and whoever goes
//! on from it learns with its lease what they are now.

use super::{ChunkId, Index, Place};
use crate::server::clients::ClientId;

impl Index {
    /// What the client's state calls by the first numbers are chunks with the second ones now.
    pub fn rename(&mut self, client: ClientId, renamed: impl IntoIterator<Item = (ChunkId, ChunkId)>) {
        if let Some(its) = self.clients.get_mut(&client) {
            its.names.extend(renamed.into_iter().filter(|(name, chunk)| name != chunk));
        }
    }

    /// Whether its state may call anything by another number.
    #[must_use]
    pub fn has_names(&self, client: ClientId) -> bool {
        self.clients.get(&client).is_some_and(|its| !its.names.is_empty())
    }

    /// The client has another state, which calls its chunks by their numbers.
    pub fn forget_names(&mut self, client: ClientId) {
        if let Some(its) = self.clients.get_mut(&client) {
            its.names.clear();
        }
    }

    /// What the client's state may call by other numbers, and where it is, if that is in a slot.
    #[must_use]
    pub fn named(&self, client: ClientId) -> Vec<(ChunkId, Place)> {
        let Some(its) = self.clients.get(&client) else { return Vec::new() };
        let refers = its.names.iter().filter(|(_, chunk)| its.chunks.contains(chunk));
        refers
            .filter_map(|(&name, &chunk)| Some((name, Place { chunk, slot: self.slot_of(chunk)? })))
            .collect()
    }

    /// The number of what the client calls by this one.
    pub(super) fn called(&self, client: ClientId, name: ChunkId) -> ChunkId {
        let names = self.clients.get(&client).map(|its| &its.names);
        names.and_then(|names| names.get(&name)).copied().unwrap_or(name)
    }
}
