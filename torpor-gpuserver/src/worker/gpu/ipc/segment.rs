//! Shared segments: memory that several clients of one function have, each at addresses of its own.
//!
//! It is one piece of physical memory, which every member maps, and one list of contents in the host store, to which every
//! member refers, so that neither dies with any of them. Which member does what with it says its [`Tenancy`].

use crate::chunk::CHUNK_BYTES;
use crate::driver::PhysicalMemory;
use crate::worker::gpu::host_store::{Chunk, Content, Store};
use crate::worker::gpu::ipc::Secret;
use crate::worker::gpu::ipc::tenancy::{Entered, Leaving, Left, NotJoined, Tenancy};
use crate::worker::gpu::memory::GpuMemory;
use crate::worker::sync::lock;
use std::sync::{Arc, Mutex};

/// Memory of several clients.
#[derive(Debug)]
pub(crate) struct SharedSegment {
    secret: Secret,
    bytes: u64,
    /// Among whose own allocations it counts.
    pub(crate) founder: u64,
    memory: Arc<GpuMemory>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    tenancy: Tenancy,
    /// While it is on the GPU.
    piece: Option<Arc<PhysicalMemory>>,
    /// Where its contents are. Whoever saves it has them; whoever brings it, too.
    chunks: Vec<Chunk>,
    /// Several take it elsewhere.
    goes_with_several: bool,
}

/// As whose memory a segment counts.
#[derive(Clone, Debug)]
pub(crate) struct Usage {
    /// Its length.
    pub(crate) bytes: u64,
    /// What of it is in the host store.
    pub(crate) stored_bytes: u64,
    /// Who counts it among its own allocations.
    pub(crate) founder: Option<u64>,
    /// On the GPU.
    pub(crate) holder: Option<u64>,
    /// As allocated, and in the host store.
    pub(crate) payer: Option<u64>,
    /// Those that have it, if they are several.
    pub(crate) sharers: Vec<u64>,
}

/// What a member finds that wants to map it.
#[derive(Debug)]
pub(crate) enum Found {
    /// It counts as mapped by it now.
    Resident(Arc<PhysicalMemory>),
    /// It must be brought.
    Absent,
    /// Somebody moves it: look again soon.
    Busy,
}

impl SharedSegment {
    /// What was a client's own: on the GPU, mapped there and its to count, or not. `founder`: among whose own allocations it counts.
    pub(crate) fn new(
        secret: Secret,
        bytes: u64,
        memory: &Arc<GpuMemory>,
        (client, founder): (u64, u64),
        piece: Option<Arc<PhysicalMemory>>,
        chunks: Vec<Chunk>,
    ) -> Arc<Self> {
        let tenancy = Tenancy::new(client, piece.is_some());
        let state = Mutex::new(State { tenancy, piece, chunks, goes_with_several: false });
        Arc::new(Self { secret, bytes, founder, memory: memory.clone(), state })
    }

    /// What it is imported with.
    pub(crate) fn secret(&self) -> Secret {
        self.secret
    }

    /// Its length.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Another client of the function becomes a member, and refers to what the host store has of it. It has no lease.
    pub(crate) fn join(&self, client: u64, store: &Store) -> Result<(), NotJoined> {
        let mut state = lock(&self.state);
        state.tenancy.join(client, false)?;
        state.share_with(client, store);
        Ok(())
    }

    /// One that was a member elsewhere is one here. What it refers to as of then it may refer to no longer.
    pub(crate) fn rejoin(&self, client: u64, stored: &[u64], store: &Store) -> Result<(), NotJoined> {
        let mut state = lock(&self.state);
        state.tenancy.join(client, true)?;
        state.share_with(client, store);
        store.release(client, stored);
        Ok(())
    }

    /// A member wants to map it.
    pub(crate) fn enter(&self, client: u64) -> Found {
        let mut state = lock(&self.state);
        match (state.tenancy.enter(client), &state.piece) {
            (Entered::Mapped(before), Some(piece)) => {
                self.memory.hand_over(before, client, self.bytes);
                Found::Resident(piece.clone())
            }
            (Entered::Busy, _) => Found::Busy,
            _ => Found::Absent,
        }
    }

    /// Whether a member is to bring it: then what it consists of, as of the last time that it was saved. The member has reserved
    /// memory for it.
    pub(crate) fn begin_bringing(&self, client: u64) -> Option<Vec<Chunk>> {
        let mut state = lock(&self.state);
        state.tenancy.begin_bringing(client).then(|| state.chunks.clone())
    }

    /// It is in this piece of the member's memory, which has it mapped; or is not, and the reservation is used up.
    pub(crate) fn end_bringing(&self, client: u64, chunks: Vec<Chunk>, piece: Option<Arc<PhysicalMemory>>) {
        let mut state = lock(&self.state);
        state.tenancy.end_bringing(client, piece.is_some());
        if piece.is_none() {
            self.memory.unreserve(client, self.bytes);
        }
        (state.chunks, state.piece) = (chunks, piece);
    }

    /// A member is to leave the GPU. Where it has to save the segment: its memory and contents, to which it alone refers until
    /// [`Self::end_saving`].
    pub(crate) fn begin_leaving(
        &self,
        client: u64,
        store: &Store,
    ) -> Option<(Arc<PhysicalMemory>, Vec<Chunk>)> {
        let mut state = lock(&self.state);
        let piece = state.piece.clone()?;
        let Leaving::Saves(before) = state.tenancy.begin_leaving(client) else { return None };
        self.memory.hand_over(before, client, self.bytes);
        let stored = state.stored();
        state.tenancy.others(client).into_iter().for_each(|other| store.release(other, &stored));
        Some((piece, std::mem::take(&mut state.chunks)))
    }

    /// It is saved, and the member has unmapped it; or stays where it is.
    pub(crate) fn end_saving(&self, client: u64, chunks: Vec<Chunk>, is_saved: bool, store: &Store) {
        let mut state = lock(&self.state);
        state.tenancy.end_saving(client, is_saved);
        state.chunks = chunks;
        store.share(client, &state.tenancy.others(client), &state.stored());
        if is_saved {
            state.piece = None;
            self.memory.unreserve(client, self.bytes);
        }
    }

    /// A member has unmapped it.
    pub(crate) fn let_go(&self, client: u64) {
        let mut state = lock(&self.state);
        if let Some(next) = state.tenancy.let_go(client) {
            self.memory.hand_over(client, next, self.bytes);
        }
    }

    /// A member is gone, and has unmapped it. What the store has for it goes with it, or was given up.
    pub(crate) fn leave(&self, client: u64) {
        let mut state = lock(&self.state);
        if state.tenancy.mover() == Some(client) && state.chunks.is_empty() {
            // It has died while it saved them.
            let lost = Chunk::new(Content::Unsaved { pointers: Arc::default() });
            state.chunks = vec![lost; (self.bytes / CHUNK_BYTES) as usize];
        }
        match state.tenancy.leave(client) {
            Left::Unheld => {}
            Left::To(next) => self.memory.hand_over(client, next, self.bytes),
            Left::Nobody => {
                state.piece = None;
                self.memory.unreserve(client, self.bytes);
            }
        }
    }

    /// Before a client that goes on unmaps it and leaves: the store has nothing of it for that client any more, and others need
    /// not wait for it. False while somebody moves it.
    pub(crate) fn give_up(&self, client: u64, store: &Store) -> bool {
        let mut state = lock(&self.state);
        if state.tenancy.mover().is_some() {
            return false;
        }
        if state.tenancy.has(client) {
            store.release(client, &state.stored());
        }
        // The last one is counted until it has unmapped it.
        if !state.tenancy.is_alone(client)
            && let Left::To(next) = state.tenancy.leave(client)
        {
            self.memory.hand_over(client, next, self.bytes);
        }
        true
    }

    /// Nobody joins until [`Self::stay`]. Whether these alone have it, and all of it is saved: then they take it to another GPU.
    pub(crate) fn depart(&self, party: &[u64]) -> bool {
        let mut state = lock(&self.state);
        state.tenancy.set_departing(true);
        let members = state.tenancy.members();
        state.goes_with_several = members.len() > 1;
        let is_absent = state.piece.is_none() && state.tenancy.mover().is_none();
        is_absent && members.iter().all(|member| party.contains(member))
    }

    /// Whether several take it to another GPU.
    pub(crate) fn goes_with_several(&self) -> bool {
        lock(&self.state).goes_with_several
    }

    /// Where its contents are, once it departs.
    pub(crate) fn saved(&self) -> Vec<Chunk> {
        lock(&self.state).chunks.clone()
    }

    /// It stays, after all.
    pub(crate) fn stay(&self) {
        lock(&self.state).tenancy.set_departing(false);
    }

    /// Nobody joins any more: whoever allocated it has freed it.
    pub(crate) fn close(&self) {
        lock(&self.state).tenancy.close();
    }

    /// Whether nobody joins any more.
    pub(crate) fn is_closed(&self) -> bool {
        lock(&self.state).tenancy.is_closed()
    }

    /// Who has it.
    pub(crate) fn members(&self) -> Vec<u64> {
        lock(&self.state).tenancy.members()
    }

    /// Whether it is on the GPU and counts as this member's.
    pub(crate) fn is_held_by(&self, client: u64) -> bool {
        lock(&self.state).tenancy.holder() == Some(client)
    }

    /// As whose memory it counts.
    pub(crate) fn usage(&self) -> Usage {
        let state = lock(&self.state);
        let (holder, payer) = (state.tenancy.holder(), state.tenancy.payer());
        Usage {
            bytes: self.bytes,
            stored_bytes: state.stored().len() as u64 * CHUNK_BYTES,
            founder: Some(self.founder).filter(|&founder| state.tenancy.has(founder)),
            holder,
            payer: holder.or(payer),
            sharers: Some(state.tenancy.members()).filter(|members| members.len() > 1).unwrap_or_default(),
        }
    }
}

impl State {
    /// A new member refers to what the store has of it.
    fn share_with(&self, client: u64, store: &Store) {
        if let Some(&member) = self.tenancy.others(client).first() {
            store.share(member, &[client], &self.stored());
        }
    }

    fn stored(&self) -> Vec<u64> {
        self.chunks.iter().filter_map(Chunk::stored).collect()
    }
}
