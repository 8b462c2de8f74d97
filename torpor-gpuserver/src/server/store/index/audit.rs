//! What the index can say of itself: figures, contents to check, and whether it contradicts itself.

use super::{ChunkId, Index, Lease, Location, Work};
use crate::chunk::{CHUNK_BYTES, Hash};
use crate::server::clients::ClientId;
use std::collections::HashSet;

/// Figures of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexUsage {
    /// Slots that can be used.
    pub total_slots: usize,
    /// Of those, how many are.
    pub used_slots: usize,
    /// Chunks, wherever they are.
    pub chunks: usize,
    /// Chunks to which more than one client refers, or one more than once.
    pub shared: usize,
    /// What the references beyond the first of each chunk would take if chunks were not shared.
    pub saved_bytes: u64,
    /// Chunks in files, or on the way there.
    pub spilled: usize,
    /// Per client.
    pub clients: Vec<ClientUsage>,
}

/// Figures of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientUsage {
    /// Which.
    pub client: ClientId,
    /// What the chunks that it refers to have, shared ones included, wherever they are.
    pub referred_bytes: u64,
    /// Of that, what is in files.
    pub spilled_bytes: u64,
}

/// A chunk whose content is known, and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Which.
    pub chunk: ChunkId,
    /// Its slot, or `None` if it is in its file.
    pub slot: Option<u32>,
    /// Its content.
    pub hash: Hash,
}

impl Index {
    /// Figures.
    #[must_use]
    pub fn usage(&self) -> IndexUsage {
        let references = |id: &ChunkId| {
            self.chunks
                .get(id)
                .map_or(0, |chunk| chunk.referrers.values().map(|&count| u64::from(count)).sum::<u64>())
        };
        let in_file = |id: &ChunkId| {
            self.chunks.get(id).is_some_and(|chunk| matches!(chunk.location, Location::File(_)))
        };
        let clients = self.clients.iter().map(|(&client, its)| ClientUsage {
            client,
            referred_bytes: its.chunks.len() as u64 * CHUNK_BYTES,
            spilled_bytes: its.chunks.iter().filter(|id| in_file(id)).count() as u64 * CHUNK_BYTES,
        });
        IndexUsage {
            total_slots: self.slots.total(),
            used_slots: self.slots.total() - self.slots.free(),
            chunks: self.chunks.len(),
            shared: self.chunks.keys().filter(|id| references(id) > 1).count(),
            saved_bytes: self.chunks.keys().map(|id| references(id).saturating_sub(1) * CHUNK_BYTES).sum(),
            spilled: self.spilled(),
            clients: clients.collect(),
        }
    }

    /// Chunks of a client, wherever they are.
    #[must_use]
    pub fn chunks_of(&self, client: ClientId) -> usize {
        self.clients.get(&client).map_or(0, |its| its.chunks.len())
    }

    /// Every chunk whose content is known: identified, or in a file.
    #[must_use]
    pub fn known(&self) -> Vec<Known> {
        let known = |(&chunk, its): (&ChunkId, &super::Chunk)| match its.location {
            Location::File(hash) => Some(Known { chunk, slot: None, hash }),
            Location::Slot(slot) => its.hash.map(|hash| Known { chunk, slot: Some(slot), hash }),
        };
        self.chunks.iter().filter_map(known).collect()
    }

    /// Whether a chunk is still where it was, with the same content.
    #[must_use]
    pub fn still(&self, known: &Known) -> bool {
        self.chunks.get(&known.chunk).is_some_and(|chunk| match (chunk.location, known.slot) {
            (Location::Slot(slot), Some(then)) => slot == then && chunk.hash == Some(known.hash),
            (Location::File(hash), None) => hash == known.hash,
            _ => false,
        })
    }

    /// How often a client refers to a chunk.
    #[must_use]
    pub fn references(&self, client: ClientId, chunk: ChunkId) -> u32 {
        self.chunks.get(&chunk).and_then(|chunk| chunk.referrers.get(&client)).copied().unwrap_or(0)
    }

    /// The clients that refer to a chunk.
    #[must_use]
    pub fn referrers(&self, chunk: ChunkId) -> Vec<ClientId> {
        self.chunks.get(&chunk).map_or_else(Vec::new, |chunk| chunk.referrers.keys().copied().collect())
    }

    /// What contradicts itself, for people; nothing, if all is well.
    #[must_use]
    pub fn contradictions(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut taken = HashSet::new();
        let mut claim = |slot: u32, what: String| {
            if slot as usize >= self.slots.total() || self.slots.is_free(slot) {
                found.push(format!("{what} lies in slot {slot}, which is free or none"));
            } else if !taken.insert(slot) {
                found.push(format!("{what} lies in slot {slot}, as something else does"));
            }
        };
        for (id, chunk) in &self.chunks {
            if let Location::Slot(slot) = chunk.location {
                claim(slot, format!("chunk {id}"));
            }
        }
        for (id, &slot) in &self.held {
            claim(slot, format!("chunk {id}, removed,"));
        }
        let used = taken.len() + self.restoring;
        if used != self.slots.total() - self.slots.free() {
            found.push(format!(
                "{used} slots are in use, but {} are taken",
                self.slots.total() - self.slots.free()
            ));
        }
        let in_files =
            self.chunks.values().filter(|chunk| matches!(chunk.location, Location::File(_))).count();
        if in_files != self.in_files {
            found.push(format!("{in_files} chunks are in files, but {} are counted", self.in_files));
        }
        for (id, chunk) in &self.chunks {
            if chunk.referrers.is_empty() || chunk.referrers.values().any(|&count| count == 0) {
                found.push(format!("chunk {id} is kept though somebody refers to it not once"));
            }
            let knows = |client| self.clients.get(client).is_some_and(|its| its.chunks.contains(id));
            if !chunk.referrers.keys().all(knows) {
                found.push(format!("chunk {id} is referred to by a client that does not know it"));
            }
            if chunk.hash.is_some_and(|hash| self.by_hash.get(&hash) != Some(id)) {
                found.push(format!("chunk {id} is not found by its content"));
            }
            let moving = matches!(chunk.work, Some(Work::Spilling { .. }));
            if moving && matches!(chunk.location, Location::File(_)) {
                found.push(format!("chunk {id} is being written to its file a second time"));
            }
        }
        for (id, client) in &self.clients {
            let refers = |chunk| self.chunks.get(chunk).is_some_and(|chunk| chunk.referrers.contains_key(id));
            if !client.chunks.iter().all(refers) {
                found.push(format!("client {} refers to a chunk that does not know it", id.0));
            }
            let usable = |&chunk: &ChunkId| self.slot_of(chunk).is_some();
            if client.lease.is_held() && !client.chunks.iter().all(usable) {
                found.push(format!("client {} holds a lease on a chunk in a file", id.0));
            }
            if let Lease::Writing(first) = client.lease
                && !client.chunks.range(first..).all(usable)
            {
                found.push(format!("client {} is writing a chunk that is in a file", id.0));
            }
        }
        if self.by_hash.len() != self.chunks.values().filter(|chunk| chunk.hash.is_some()).count() {
            found.push("a content is remembered whose chunk is gone".to_owned());
        }
        found
    }
}
