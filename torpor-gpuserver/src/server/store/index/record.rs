//! The index as a message, and back: where the file of what was done to it begins.

use super::{Chunk, Client, Index, Lease, Location};
use crate::chunk::Hash;
use crate::server::clients::ClientId;
use crate::server::store::slots::Slots;
use std::collections::{BTreeMap, BTreeSet};
use torpor_proto::control::keeper;

impl Index {
    /// Whether nothing is on its way to or from a file.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.spilling == 0 && self.restoring == 0 && self.held.is_empty()
    }

    /// All of it but what others know: functions, answers. Call it while it [is quiet](Self::is_quiet).
    #[must_use]
    pub fn to_record(&self, slab_slots: u32) -> keeper::Index {
        let chunks = self.chunks.iter().map(|(&chunk, its)| {
            let (slot, file) = match its.location {
                Location::Slot(slot) => (Some(slot), Vec::new()),
                Location::File(hash) => (None, hash.to_vec()),
            };
            let referrers = its.referrers.iter();
            keeper::Chunk {
                chunk,
                slot,
                file,
                hash: its.hash.map_or_else(Vec::new, |hash| hash.to_vec()),
                damaged: its.damaged,
                referrers: referrers
                    .map(|(client, &count)| keeper::Referrer { client: client.0, count })
                    .collect(),
            }
        });
        let clients = self.clients.iter().map(|(client, its)| {
            let (lease, writing) = match its.lease {
                Lease::None => (keeper::Lease::None, 0),
                Lease::Wanted => (keeper::Lease::Wanted, 0),
                Lease::Held => (keeper::Lease::Held, 0),
                Lease::Revoking => (keeper::Lease::Revoking, 0),
                Lease::Writing(first) => (keeper::Lease::Writing, first),
            };
            keeper::StoreClient {
                client: client.0,
                lease: lease.into(),
                writing,
                last_used: its.last_used,
                names: its.names.iter().map(|(&name, &chunk)| keeper::Name { name, chunk }).collect(),
                ..keeper::StoreClient::default()
            }
        });
        keeper::Index {
            slab_slots,
            slabs: u32::try_from(self.slots.total()).unwrap_or(u32::MAX) / slab_slots.max(1),
            last_chunk: self.last_chunk,
            uses: self.uses,
            chunks: chunks.collect(),
            clients: clients.collect(),
            ..keeper::Index::default()
        }
    }

    /// The index of a record; `None` if that contradicts itself.
    #[must_use]
    pub fn from_record(record: &keeper::Index) -> Option<Self> {
        let mut index = Self::new(record.slab_slots);
        let mut taken = BTreeSet::new();
        for its in &record.clients {
            let lease = match its.lease() {
                keeper::Lease::None => Lease::None,
                keeper::Lease::Wanted => Lease::Wanted,
                keeper::Lease::Held => Lease::Held,
                keeper::Lease::Revoking => Lease::Revoking,
                keeper::Lease::Writing => Lease::Writing(its.writing),
            };
            let mut client = Client::new(lease, its.last_used);
            client.names.extend(its.names.iter().map(|its| (its.name, its.chunk)));
            index.clients.insert(ClientId(its.client), client);
        }
        for its in &record.chunks {
            let location = match its.slot {
                Some(slot) => Location::Slot(slot),
                None => Location::File(Hash::try_from(its.file.as_slice()).ok()?),
            };
            match location {
                Location::Slot(slot) if !taken.insert(slot) => return None,
                Location::Slot(_) => {}
                Location::File(_) => index.in_files += 1,
            }
            let hash = match its.hash.as_slice() {
                [] => None,
                hash => Some(Hash::try_from(hash).ok()?),
            };
            if let Some(hash) = hash {
                index.by_hash.insert(hash, its.chunk);
            }
            let mut referrers = BTreeMap::new();
            for referrer in &its.referrers {
                let client = ClientId(referrer.client);
                index.clients.get_mut(&client)?.chunks.insert(its.chunk);
                referrers.insert(client, referrer.count);
            }
            let chunk = Chunk { location, work: None, hash, referrers, damaged: its.damaged };
            index.chunks.insert(its.chunk, chunk);
        }
        index.slots = Slots::with_taken(record.slab_slots, record.slabs, &taken)?;
        (index.last_chunk, index.uses) = (record.last_chunk, record.uses);
        Some(index)
    }

    /// The server that made promises is gone: nobody is being brought anything back, and nobody was asked for a lease.
    pub fn begin_anew(&mut self) {
        for client in self.clients.values_mut() {
            client.lease = match client.lease {
                Lease::Wanted => Lease::None,
                Lease::Revoking => Lease::Held,
                lease => lease,
            };
        }
    }

    /// The clients that there are.
    pub fn clients(&self) -> impl Iterator<Item = ClientId> {
        self.clients.keys().copied()
    }

    /// The chunks that there are.
    #[cfg(test)]
    pub fn known_chunks(&self) -> impl Iterator<Item = u64> {
        self.chunks.keys().copied()
    }

    /// Whether a chunk is in its file.
    #[must_use]
    pub fn is_in_file(&self, chunk: u64) -> bool {
        self.chunks.get(&chunk).is_some_and(|chunk| matches!(chunk.location, Location::File(_)))
    }
}
