//! What the host store knows: slots, chunks, their contents' hashes, who refers to them, and who holds a lease.
//!
//! Pure bookkeeping: no memory, no file, no clock. What must be done outside is said by what a method returns: a
//! *ticket* for a chunk that is to be written or read, numbers of chunks whose files are to be deleted.
//!
//! ```text
//!            reserve            begin_spill … end_spill
//!   (free) ──────────▶ in a slot ──────────────────────▶ in a file
//!      ▲                │   ▲  ◀──────────────────────       │
//!      └── nobody refers┘   │   begin_restore … end_restore  │ nobody refers: the file goes
//!                           └─ an equal chunk is identified ─┘
//! ```
//!
//! A slot that is being written to a file or filled from one is nobody else's until its ticket comes back, even if its
//! chunk is gone by then.

mod audit;
mod identity;
mod lease;
#[cfg(test)]
mod model;
mod moves;
mod names;
mod record;
mod shared_memory;
#[cfg(test)]
mod tests;

pub use audit::{IndexUsage, Known};
pub use moves::{RestoreTicket, SpillTicket, Spilled};

use crate::chunk::Hash;
use crate::server::clients::ClientId;
use crate::server::store::slots::Slots;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Identifies a chunk for as long as the server lives; never given twice.
pub type ChunkId = u64;

/// A chunk and the slot it lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which chunk.
    pub chunk: ChunkId,
    /// Where.
    pub slot: u32,
}

/// What a client asked that it may not ask. Its worker has a bug, or is another release's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misuse {
    /// No such client.
    #[error("the client is not known to the host store")]
    UnknownClient,
    /// It may not use slots now.
    #[error("the client holds no lease: it must ask for one before it uses its chunks again")]
    NoLease,
    /// A chunk that it does not refer to.
    #[error("the client does not refer to chunk {0}")]
    NotReferred(ChunkId),
    /// A chunk named more than once in one request.
    #[error("chunk {0} is named twice")]
    Twice(ChunkId),
    /// A chunk in a file, shared with a client that holds a lease.
    #[error("chunk {0} is in a file, and is shared with a client that has not given its lease back")]
    Leased(ChunkId),
    /// A request that says nothing, or whose parts do not belong together.
    #[error("the request cannot be read")]
    Unreadable,
    /// Content that cannot change any more.
    #[error("chunk {0} was identified before, with another content")]
    Changed(ChunkId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Location {
    Slot(u32),
    /// The hash of what was written.
    File(Hash),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    /// Its slot is being written to a file; `void` if that is of no use any more, since its content may change.
    Spilling { void: bool },
    /// Its file is being read into a slot.
    Restoring,
}

#[derive(Debug)]
struct Chunk {
    location: Location,
    work: Option<Work>,
    /// Known once it is identified: from then on the content does not change.
    hash: Option<Hash>,
    /// How often each client refers to it; never zero.
    referrers: BTreeMap<ClientId, u32>,
    /// Its content is not what its hash says: never written to a file.
    damaged: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lease {
    None,
    /// Its chunks are being brought back, and stay.
    Wanted,
    Held,
    /// Held, but asked to be given back.
    Revoking,
    /// Not held, but what was reserved from this chunk on is being written.
    Writing(ChunkId),
}

impl Lease {
    /// Whether the client may use all of its slots.
    fn is_held(self) -> bool {
        matches!(self, Self::Held | Self::Revoking)
    }

    /// Whether the client has nothing to do with the slot of one of its chunks.
    fn spares(self, chunk: ChunkId) -> bool {
        match self {
            Self::None => true,
            Self::Writing(first) => chunk < first,
            Self::Wanted | Self::Held | Self::Revoking => false,
        }
    }
}

#[derive(Debug)]
struct Client {
    chunks: BTreeSet<ChunkId>,
    /// What else its state may call chunks, see `names.rs`.
    names: BTreeMap<ChunkId, ChunkId>,
    lease: Lease,
    /// Greater for clients that used the store later.
    last_used: u64,
}

impl Client {
    /// One that refers to nothing.
    fn new(lease: Lease, last_used: u64) -> Self {
        Self { chunks: BTreeSet::new(), names: BTreeMap::new(), lease, last_used }
    }
}

/// The bookkeeping of the host store.
#[derive(Debug)]
pub struct Index {
    slots: Slots,
    chunks: BTreeMap<ChunkId, Chunk>,
    by_hash: HashMap<Hash, ChunkId>,
    clients: BTreeMap<ClientId, Client>,
    /// Slots of chunks that were removed while they were being written to a file.
    held: HashMap<ChunkId, u32>,
    last_chunk: ChunkId,
    uses: u64,
    /// Chunks in files.
    in_files: usize,
    /// Chunks that are being written to files.
    spilling: usize,
    /// Slots that are being filled from files.
    restoring: usize,
}

impl Index {
    /// An empty store whose slabs will have `slab_slots` each.
    #[must_use]
    pub fn new(slab_slots: u32) -> Self {
        Self {
            slots: Slots::new(slab_slots),
            chunks: BTreeMap::new(),
            by_hash: HashMap::new(),
            clients: BTreeMap::new(),
            held: HashMap::new(),
            last_chunk: 0,
            uses: 0,
            in_files: 0,
            spilling: 0,
            restoring: 0,
        }
    }

    /// Another slab can be used.
    pub fn add_slab(&mut self) {
        self.slots.grow();
    }

    /// The last slab is used no more, if no chunk lies there and it is not the only one.
    #[must_use]
    pub fn take_slab(&mut self) -> bool {
        self.slots.shrink()
    }

    /// Slots of all slabs.
    #[must_use]
    pub fn total_slots(&self) -> usize {
        self.slots.total()
    }

    /// Chunks of which nobody has said yet what they contain: equal ones may become one.
    #[must_use]
    pub fn unidentified(&self) -> usize {
        self.chunks.len().saturating_sub(self.by_hash.len())
    }

    /// Slots that are free.
    #[must_use]
    pub fn free_slots(&self) -> usize {
        self.slots.free()
    }

    /// There is another client. It refers to nothing yet.
    pub fn admit(&mut self, client: ClientId) {
        self.clients.entry(client).or_insert_with(|| Client::new(Lease::None, 0));
    }

    /// A client is gone: what nobody else refers to is free. Returns the chunks whose files are to be deleted.
    #[must_use]
    pub fn forget(&mut self, client: ClientId) -> Vec<ChunkId> {
        let Some(gone) = self.clients.remove(&client) else { return Vec::new() };
        let mut files = Vec::new();
        for chunk in gone.chunks {
            self.unrefer(client, chunk, true, &mut files);
        }
        files
    }

    /// The client uses the store now.
    pub fn touch(&mut self, client: ClientId) {
        if let Some(client) = self.clients.get_mut(&client) {
            self.uses += 1;
            client.last_used = self.uses;
        }
    }

    /// Makes new chunks, to which the client refers once each. `None` if not enough slots are free. A client that refers to
    /// something and has no lease gets none, but the new chunks stay where they are until it says that it has done with them.
    ///
    /// # Errors
    /// [`Misuse`].
    pub fn reserve(&mut self, client: ClientId, count: usize) -> Result<Option<Vec<Place>>, Misuse> {
        let its = self.clients.get_mut(&client).ok_or(Misuse::UnknownClient)?;
        let Some(slots) = self.slots.take(count) else { return Ok(None) };
        match its.lease {
            Lease::Held | Lease::Revoking | Lease::Writing(_) => {}
            Lease::None | Lease::Wanted if its.chunks.is_empty() => its.lease = Lease::Held,
            Lease::None | Lease::Wanted => its.lease = Lease::Writing(self.last_chunk + 1),
        }
        let place = |slot| {
            self.last_chunk += 1;
            let (chunk, referrers) = (self.last_chunk, BTreeMap::from([(client, 1)]));
            let location = Location::Slot(slot);
            self.chunks.insert(chunk, Chunk { location, work: None, hash: None, referrers, damaged: false });
            its.chunks.insert(chunk);
            Place { chunk, slot }
        };
        Ok(Some(slots.into_iter().map(place).collect()))
    }

    /// The client refers to each of these once less. Returns the chunks whose files are to be deleted.
    ///
    /// # Errors
    /// [`Misuse`], for the first that it does not refer to (any more); the others are released all the same.
    pub fn release(&mut self, client: ClientId, chunks: &[ChunkId]) -> (Vec<ChunkId>, Result<(), Misuse>) {
        let (mut files, mut result) = (Vec::new(), Ok(()));
        if !self.clients.contains_key(&client) {
            return (files, Err(Misuse::UnknownClient));
        }
        for &chunk in chunks {
            if !self.unrefer(client, self.called(client, chunk), false, &mut files) {
                result = result.and(Err(Misuse::NotReferred(chunk)));
            }
        }
        (files, result)
    }

    /// Whether none of a chunk's users has anything to do with its slot.
    fn is_spared(&self, id: ChunkId, chunk: &Chunk) -> bool {
        let mut users = chunk.referrers.keys();
        users.all(|user| self.clients.get(user).is_none_or(|its| its.lease.spares(id)))
    }

    fn slot_of(&self, chunk: ChunkId) -> Option<u32> {
        match self.chunks.get(&chunk)?.location {
            Location::Slot(slot) => Some(slot),
            Location::File(_) => None,
        }
    }

    /// Takes one reference of a client away, or `all`. False if it has none.
    fn unrefer(&mut self, client: ClientId, id: ChunkId, all: bool, files: &mut Vec<ChunkId>) -> bool {
        let Some(chunk) = self.chunks.get_mut(&id) else { return false };
        let Some(count) = chunk.referrers.get_mut(&client) else { return false };
        *count -= 1;
        if *count == 0 || all {
            chunk.referrers.remove(&client);
            if let Some(client) = self.clients.get_mut(&client) {
                client.chunks.remove(&id);
            }
            if chunk.referrers.is_empty() {
                self.remove(id, files);
            }
        }
        true
    }

    /// Nobody refers to a chunk any more.
    fn remove(&mut self, id: ChunkId, files: &mut Vec<ChunkId>) {
        let Some(chunk) = self.chunks.remove(&id) else { return };
        if let Some(hash) = chunk.hash {
            self.by_hash.remove(&hash);
        }
        match chunk.location {
            Location::Slot(slot) => self.discard_slot(id, slot, chunk.work),
            Location::File(_) => {
                self.in_files -= 1;
                files.push(id);
            }
        }
    }

    /// The slot of a chunk that is gone is free, unless it is still being written to a file.
    fn discard_slot(&mut self, id: ChunkId, slot: u32, work: Option<Work>) {
        if matches!(work, Some(Work::Spilling { .. })) {
            self.held.insert(id, slot);
        } else {
            self.slots.give(slot);
        }
    }
}
