//! The host store: where functions keep their device memory while they have no GPU.
//!
//! Memory comes in *slabs*, shared memory that every worker maps and page-locks, made in the background ahead of need. A
//! slab is made of *slots* of 2 MiB, counted through all slabs. What lies in a slot is a *chunk*. Chunks are kept by
//! content: once a session has said what a chunk contains, equal ones become one, with a count of references.
//!
//! A client that refers to chunks holds a *lease* on their slots from its first reservation on: it may read and write
//! them without asking. When the pool is full, the store asks the clients that have not used it for longest to give their
//! leases back, and writes chunks to which no leaseholder refers to files (`spill.rs`). A client asks for a lease again
//! before it uses its chunks again, and they are brought back then. When the files may not grow either, new reservations
//! fail. Nothing is ever dropped to make room; a chunk is gone when nobody refers to it.
//!
//! Who waits for a reservation uses no slot meanwhile, so its lease may be taken without asking: else two that wait for each
//! other's slots would wait for ever. It then writes what it reserved without a lease, says so when it has done that, and
//! asks for a lease before it uses its chunks again.
//!
//! ```text
//!  session ─▶ worker ══StoreRequest══▶ requests ─▶ room: growth, spilling, revoking ─▶ index (all bookkeeping)
//!                    ◀══Slab, StoreAnswer, RevokeLease══ workers            └─▶ slab, spill (memory and files)
//! ```
//!
//! One request at a time looks for room; the others wait their turn, so that a large one is not starved by small ones.
//!
//! Limits: an exchange (bringing chunks back into a full pool) may exceed the spill limit by [`BATCH`] chunks while it
//! lasts. A slab in which nothing lies stays, unless another store of the [pool] needs one.

mod deeds;
mod error;
mod growth;
pub mod index;
mod inherited;
mod ledger;
mod pool;
mod requests;
mod room;
pub mod slab;
pub mod slots;
mod spill;
#[cfg(test)]
mod tests;
mod transfer;
pub(in crate::server) mod verify;
mod workers;

pub use ledger::Asked;
pub use spill::SpillDirectoryError;
pub use workers::WorkerId;

use crate::chunk::CHUNK_BYTES;
use crate::rate_limited::Seldom;
use crate::server::clients::ClientId;
use crate::server::keeper::Keeper;
use crate::server::store::error::StoreError;
use crate::server::store::growth::Growth;
use crate::server::store::index::{ChunkId, IndexUsage, Misuse};
use crate::server::store::ledger::Ledger;
use crate::server::store::pool::Pool;
use crate::server::store::slab::{Slab, SlotMemory};
use crate::server::store::spill::SpillFiles;
use crate::server::store::workers::Workers;
use crate::server::workers::order::Outgoing;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{mpsc, watch};
use torpor_proto::layout::MAX_SLABS;

/// Chunks that are moved at a time.
pub const BATCH: usize = 16;

/// Where chunks may be spilled to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpillOptions {
    /// The directory.
    pub directory: PathBuf,
    /// How much may lie there.
    pub limit_bytes: u64,
}

/// How large the store may become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// Length of a slab, a multiple of [`CHUNK_BYTES`].
    pub slab_bytes: u64,
    /// What all slabs together may have. There is one slab at least.
    pub pool_bytes: u64,
    /// Where chunks may be spilled to, if anywhere.
    pub spill: Option<SpillOptions>,
}

/// Figures of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// How large the pool may become.
    pub pool_bytes: u64,
    /// What may lie in files; 0 without a spill directory.
    pub spill_limit_bytes: u64,
    /// The spill directory, and what its disk has room for.
    pub spill_disk: Option<(PathBuf, u64)>,
    /// Slots, chunks and clients.
    pub index: IndexUsage,
}

/// The host store of a node.
#[derive(Debug)]
pub struct Store {
    slab_bytes: u64,
    slab_slots: u32,
    pool: Arc<Pool>,
    spill_limit_chunks: usize,
    files: Option<Arc<SpillFiles>>,
    keeper: Keeper,
    state: Mutex<State>,
    /// Told whenever somebody who waits may have reason to look again.
    changed: watch::Sender<()>,
    /// Held by whoever looks for room.
    room: tokio::sync::Mutex<()>,
    ending: Arc<AtomicBool>,
}

#[derive(Debug)]
struct State {
    index: Ledger,
    workers: Workers,
    /// All that were made; the last may not be usable by everybody yet.
    slabs: Vec<Arc<Slab>>,
    clients: BTreeMap<ClientId, Owner>,
    growth: Growth,
    /// The slab that is being given back.
    returning: Option<u32>,
    /// Slots that somebody waits for.
    wanted: usize,
    /// Slots that each worker's clients may need when they have to leave the GPU.
    expected: BTreeMap<WorkerId, usize>,
}

/// Whose chunks they are.
#[derive(Debug)]
struct Owner {
    function: Arc<str>,
    /// Where its session was last.
    worker: Option<WorkerId>,
    /// Requests that wait for their turn to look for room.
    queued: u32,
    /// Requests that make new chunks.
    reserving: u32,
    /// Requests that are not answered yet.
    open: BTreeSet<Asked>,
    /// The last one that was.
    answered: Option<Asked>,
    /// Telling people of those that were refused.
    refusals: Seldom,
}

impl Store {
    /// A store without memory. [`Self::start`] lets it have some.
    ///
    /// # Errors
    /// [`SpillDirectoryError`].
    pub fn open(options: &StoreOptions, keeper: &Keeper) -> Result<Arc<Self>, SpillDirectoryError> {
        let files = options.spill.as_ref().map(|spill| SpillFiles::open(&spill.directory)).transpose()?;
        let ledger = Ledger::new(slab_slots(options), keeper.clone());
        Ok(Self::with(options, keeper, files, ledger, Vec::new()))
    }

    fn with(
        options: &StoreOptions,
        keeper: &Keeper,
        files: Option<SpillFiles>,
        index: Ledger,
        slabs: Vec<Arc<Slab>>,
    ) -> Arc<Self> {
        let slab_slots = slab_slots(options);
        let slab_bytes = u64::from(slab_slots) * CHUNK_BYTES;
        let max_slabs =
            u32::try_from(options.pool_bytes / slab_bytes).unwrap_or(MAX_SLABS).clamp(1, MAX_SLABS);
        let spill_limit = options.spill.as_ref().map_or(0, |spill| spill.limit_bytes / CHUNK_BYTES);
        let slabs_made = u32::try_from(slabs.len()).unwrap_or(u32::MAX);
        let pool = Pool::new(max_slabs, slabs_made);
        let spill_limit = usize::try_from(spill_limit).unwrap_or(usize::MAX);
        Self::new(slab_slots, pool, spill_limit, files.map(Arc::new), keeper.clone(), index, slabs)
    }

    /// A store apart: with slabs and an index of its own, of the same pool. It spills nothing, and no keeper knows of it.
    pub(in crate::server) fn apart(&self) -> Arc<Self> {
        let ledger = Ledger::new(self.slab_slots, Keeper::default());
        Self::new(self.slab_slots, self.pool.clone(), 0, None, Keeper::default(), ledger, Vec::new())
    }

    fn new(
        slab_slots: u32,
        pool: Arc<Pool>,
        spill_limit_chunks: usize,
        files: Option<Arc<SpillFiles>>,
        keeper: Keeper,
        index: Ledger,
        slabs: Vec<Arc<Slab>>,
    ) -> Arc<Self> {
        let clients = index.functions().map(|(client, function)| (client, Owner::new(function))).collect();
        let (workers, growth, expected) = (Workers::default(), Growth::Idle, BTreeMap::new());
        let state = State { index, workers, slabs, clients, growth, returning: None, wanted: 0, expected };
        let store = Arc::new(Self {
            slab_bytes: u64::from(slab_slots) * CHUNK_BYTES,
            slab_slots,
            pool: pool.clone(),
            spill_limit_chunks,
            files,
            keeper,
            state: Mutex::new(state),
            changed: watch::Sender::new(()),
            room: tokio::sync::Mutex::default(),
            ending: Arc::default(),
        });
        pool.join(&store);
        store
    }

    /// Begins to make the first slab. Call it in the runtime that the store is to live in.
    pub fn start(self: &Arc<Self>) {
        self.advance(&mut self.state());
    }

    /// What is being made need not be finished.
    pub fn end(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }

    /// A worker is ready: it is told of all slabs through its outbox, and what it says is to be [heard](Self::hear).
    pub fn connect(&self, worker: WorkerId, gpu: u32, outbox: mpsc::UnboundedSender<Outgoing>) {
        let mut state = self.state();
        let State { workers, slabs, .. } = &mut *state;
        workers.connect(worker, gpu, outbox, slabs.iter());
    }

    /// A worker is gone.
    pub fn disconnect(self: &Arc<Self>, worker: WorkerId) {
        let mut state = self.state();
        state.workers.disconnect(worker);
        state.expected.remove(&worker);
        state.index.gone(worker);
        self.advance(&mut state);
        self.wake();
    }

    /// There is another client, which may use the store from now on.
    pub fn admit(&self, client: ClientId, function: &str) {
        let mut state = self.state();
        state.index.admit(client, function);
        state.clients.insert(client, Owner::new(function.into()));
    }

    /// A client is between two workers: nobody uses its slots until it has a lease again.
    pub fn released(&self, client: ClientId) {
        let mut state = self.state();
        state.index.revoked(client, None);
        if let Some(owner) = state.clients.get_mut(&client) {
            owner.worker = None;
        }
        drop(state);
        self.wake();
    }

    /// The client has another state, which calls its chunks by their numbers.
    pub fn forget_names(&self, client: ClientId) {
        self.state().index.forget_names(client);
    }

    /// A client's function, for people.
    pub fn function(&self, client: ClientId) -> Arc<str> {
        self.state().function(client)
    }

    /// A client is gone, and its worker does not touch its slots any more: what nobody else refers to is free.
    pub fn forget(self: &Arc<Self>, client: ClientId) {
        let mut state = self.state();
        let files = state.index.forget(client);
        state.clients.remove(&client);
        drop(state);
        self.delete_later(files);
        self.wake();
    }

    /// Figures.
    pub fn usage(&self) -> Usage {
        let state = self.state();
        Usage {
            pool_bytes: u64::from(self.pool.max_slabs()) * self.slab_bytes,
            spill_limit_bytes: (self.spill_limit_chunks as u64).saturating_mul(CHUNK_BYTES),
            spill_disk: self
                .files
                .as_ref()
                .and_then(|files| Some((files.directory().to_owned(), files.free_bytes().ok()?))),
            index: state.index.usage(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever waits looks again.
    fn wake(&self) {
        self.changed.send_replace(());
    }

    fn pool_slots(&self) -> usize {
        self.pool.max_slabs() as usize * self.slab_slots as usize
    }

    /// Deletes files of chunks that are in slots again. Before anybody could write them again: call it with the state
    /// locked.
    fn delete_now(&self, _state: &State, chunks: &[ChunkId]) {
        if let Some(files) = &self.files {
            chunks.iter().for_each(|&chunk| files.remove(chunk));
        }
    }

    /// Deletes files of chunks that are gone for good.
    fn delete_later(&self, chunks: Vec<ChunkId>) {
        if let Some(files) = &self.files
            && !chunks.is_empty()
        {
            let files = files.clone();
            tokio::task::spawn_blocking(move || chunks.into_iter().for_each(|chunk| files.remove(chunk)));
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.pool.give_back(state.slabs.len() + usize::from(state.returning.is_some()));
    }
}

impl Usage {
    /// That of both stores, of one pool, of which this one spills.
    pub(in crate::server) fn with(mut self, other: Self) -> Self {
        let (index, theirs) = (&mut self.index, other.index);
        index.total_slots += theirs.total_slots;
        index.used_slots += theirs.used_slots;
        index.chunks += theirs.chunks;
        index.shared += theirs.shared;
        index.saved_bytes = index.saved_bytes.saturating_add(theirs.saved_bytes);
        index.spilled += theirs.spilled;
        index.clients.extend(theirs.clients);
        self
    }
}

/// Slots of a slab.
fn slab_slots(options: &StoreOptions) -> u32 {
    u32::try_from(options.slab_bytes / CHUNK_BYTES).unwrap_or(u32::MAX).max(1)
}

impl Owner {
    fn new(function: Arc<str>) -> Self {
        Self {
            function,
            worker: None,
            queued: 0,
            reserving: 0,
            open: BTreeSet::new(),
            answered: None,
            refusals: Seldom::default(),
        }
    }

    /// A request that makes new chunks is over.
    fn reserved(&mut self) {
        self.reserving = self.reserving.saturating_sub(1);
    }
}

impl State {
    fn function(&self, client: ClientId) -> Arc<str> {
        self.clients.get(&client).map_or_else(|| "(gone)".into(), |owner| owner.function.clone())
    }

    /// What a request's mistake is. The client was known when the request came: one that is not any more made none.
    fn misuse(&self, client: ClientId) -> impl Fn(Misuse) -> StoreError + use<> {
        let function = self.function(client);
        move |misuse| match misuse {
            Misuse::UnknownClient => StoreError::Gone,
            misuse => StoreError::Misuse { function: function.clone(), misuse },
        }
    }

    fn check_there(&self, client: ClientId) -> Result<(), StoreError> {
        if self.clients.contains_key(&client) { Ok(()) } else { Err(StoreError::Gone) }
    }

    /// The memory of a slot that the index has given out.
    fn memory(&self, slab_slots: u32, slot: u32) -> SlotMemory {
        self.find_memory(slab_slots, slot).expect("the index gives out slots of slabs that are there")
    }

    /// The memory of a slot that the index gave out once: its slab may be gone.
    fn find_memory(&self, slab_slots: u32, slot: u32) -> Option<SlotMemory> {
        self.slabs.get((slot / slab_slots) as usize)?.slot(slot % slab_slots)
    }
}
