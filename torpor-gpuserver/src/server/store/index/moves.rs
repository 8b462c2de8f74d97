//! Chunks on their way between slots and files.

use super::{ChunkId, Client, Index, Location, Work};
use crate::chunk::Hash;
use crate::server::clients::ClientId;

/// A chunk that is to be written to its file.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the slot stays taken until the ticket comes back"]
pub struct SpillTicket {
    /// Which.
    pub chunk: ChunkId,
    /// Where it is.
    pub slot: u32,
    /// What it contains, if that is known.
    pub hash: Option<Hash>,
}

/// A chunk that is to be read from its file.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the slot stays taken until the ticket comes back"]
pub struct RestoreTicket {
    /// Which.
    pub chunk: ChunkId,
    /// Where it is to be.
    pub slot: u32,
    /// What its file contains.
    pub hash: Hash,
}

/// What became of writing a chunk to its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spilled {
    /// It was written; this is the hash of it.
    Written(Hash),
    /// It could not be written.
    Failed,
    /// Its content is not what its hash says.
    Damaged,
}

impl Index {
    /// Begins to move chunks to files, `most` at most: those whose slots nobody uses, the ones that have not been used
    /// for longest first.
    pub fn begin_spills(&mut self, most: usize) -> Vec<SpillTicket> {
        let may_spare = |(_, client): &(&ClientId, &Client)| client.lease.spares(0);
        let mut clients: Vec<_> = self.clients.iter().filter(may_spare).collect();
        clients.sort_by_key(|(_, client)| client.last_used);
        let mut tickets = Vec::new();
        for (id, client) in clients {
            // A chunk is as young as the last of its users: the others pass it over.
            let is_last_user = |other: &ClientId| {
                other == id
                    || self
                        .clients
                        .get(other)
                        .is_some_and(|other_client| (other_client.last_used, other) < (client.last_used, id))
            };
            for &chunk in &client.chunks {
                if tickets.len() == most {
                    break;
                }
                let Some(its) = self.chunks.get(&chunk) else { continue };
                let Location::Slot(slot) = its.location else { continue };
                let is_youngest_user = its.referrers.keys().all(is_last_user);
                if its.work.is_none() && !its.damaged && is_youngest_user && self.is_spared(chunk, its) {
                    tickets.push(SpillTicket { chunk, slot, hash: its.hash });
                }
            }
        }
        for ticket in &tickets {
            if let Some(chunk) = self.chunks.get_mut(&ticket.chunk) {
                chunk.work = Some(Work::Spilling { void: false });
            }
        }
        self.spilling += tickets.len();
        tickets
    }

    /// A chunk was written to its file, or could not be. True if the file counts; else it is to be deleted.
    #[must_use]
    pub fn end_spill(&mut self, ticket: SpillTicket, spilled: Spilled) -> bool {
        self.spilling -= 1;
        let is_spared = self.chunks.get(&ticket.chunk).is_some_and(|its| self.is_spared(ticket.chunk, its));
        let Some(chunk) = self.chunks.get_mut(&ticket.chunk) else {
            if let Some(slot) = self.held.remove(&ticket.chunk) {
                self.slots.give(slot);
            }
            return false;
        };
        let void = chunk.work.take() != Some(Work::Spilling { void: false });
        match spilled {
            Spilled::Written(hash) if !void && is_spared => {
                chunk.location = Location::File(hash);
                self.in_files += 1;
                self.slots.give(ticket.slot);
                return true;
            }
            // Who may write while it is read is no reason to call it damaged.
            Spilled::Damaged if !void => chunk.damaged = true,
            _ => {}
        }
        false
    }

    /// Begins to bring a chunk back. `None` if it is in a slot, on its way, or unknown, or if no slot is free.
    pub fn begin_restore(&mut self, id: ChunkId) -> Option<RestoreTicket> {
        let chunk = self.chunks.get_mut(&id)?;
        let (Location::File(hash), None) = (chunk.location, chunk.work) else { return None };
        let slot = *self.slots.take(1)?.first()?;
        chunk.work = Some(Work::Restoring);
        self.restoring += 1;
        Some(RestoreTicket { chunk: id, slot, hash })
    }

    /// A chunk was brought back, or could not be. True if its file is to be deleted.
    #[must_use]
    pub fn end_restore(&mut self, ticket: RestoreTicket, done: bool) -> bool {
        self.restoring -= 1;
        if let Some(chunk) = self.chunks.get_mut(&ticket.chunk) {
            chunk.work = None;
            if done && matches!(chunk.location, Location::File(_)) {
                chunk.location = Location::Slot(ticket.slot);
                self.in_files -= 1;
                return true;
            }
        }
        self.slots.give(ticket.slot);
        false
    }

    /// Chunks that are in files, or on the way there.
    #[must_use]
    pub fn spilled(&self) -> usize {
        self.in_files + self.spilling
    }
}
