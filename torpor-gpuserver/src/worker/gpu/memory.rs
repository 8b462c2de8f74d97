//! The GPU's physical memory: how much of it functions may use, who has how much, and what is kept for the next one.
//!
//! Memory is first *reserved*, which may mean that other clients are asked to leave, and then taken piece by piece.
//! Pieces that are given back are kept by size, because functions of one model ask for the same sizes again and again;
//! they count towards the limit, and hold whatever was in them: whoever takes one overwrites all of it.

mod client;
pub(crate) mod joining;
pub(crate) mod neighbours;
mod shortage;
pub(crate) mod taken;
mod uses;

use crate::driver::{Device, PhysicalMemory, PinnedArray};
use crate::policy::eviction::{self, Eviction, Resident};
use crate::policy::reuse::Reuse;
use crate::worker::gpu::memory::client::Client;
use crate::worker::gpu::memory::neighbours::Neighbours;
use crate::worker::gpu::memory::shortage::Shortage;
use crate::worker::gpu::run_queue::Turns;
use crate::worker::gpu::tuning::Tuning;
use crate::worker::mailbox::{Link, Wish};
use crate::worker::server_socket::ServerSocket;
use crate::worker::sync::lock;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;
use torpor_proto::error::CudaError;

/// What came of a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reserved {
    /// It is the client's.
    Granted,
    /// Others were asked to leave: ask again when woken.
    Later,
    /// All that could leave wait for memory, too: one of them has to give its turn up, and this is the one.
    StepBack,
    /// Nobody that may be evicted has enough.
    Exhausted,
}

#[derive(Debug)]
struct State {
    /// What the driver has turned out to have, if that is less than the limit.
    available_bytes: u64,
    /// Reserved or taken by clients, or the context's.
    used_bytes: u64,
    /// What limits of the context took.
    context_bytes: u64,
    pool: BTreeMap<u64, Vec<PhysicalMemory>>,
    pool_bytes: u64,
    clients: HashMap<u64, Client>,
    uses: u64,
    /// Since when uses are counted.
    began: Instant,
    neighbours: Neighbours,
    /// Functions whose ranks were found to have no room together.
    crowds: BTreeSet<String>,
}

/// The physical memory of one GPU.
#[derive(Debug)]
pub(crate) struct GpuMemory {
    device: Arc<Device>,
    limit_bytes: u64,
    eviction: Eviction,
    /// Since when anybody is here.
    first_client: OnceLock<Instant>,
    server: Arc<ServerSocket>,
    /// What arrays are cleared with, once there is one.
    zeroes: Mutex<Option<PinnedArray>>,
    state: Mutex<State>,
    shortage: Shortage,
    /// Held while pieces go back to the driver.
    releasing: Mutex<()>,
    /// Held while memory is given up for another worker, until the server is told.
    giving: Mutex<()>,
}

impl GpuMemory {
    /// As the server says. Of those that share the GPU's memory with others, nothing at first.
    pub(crate) fn new(device: &Arc<Device>, server: &Arc<ServerSocket>, tuning: &Tuning) -> Self {
        let (limit_bytes, eviction) = (tuning.memory_limit_bytes, tuning.eviction);
        let state = State {
            available_bytes: limit_bytes,
            used_bytes: 0,
            context_bytes: 0,
            pool: BTreeMap::new(),
            pool_bytes: 0,
            clients: HashMap::new(),
            uses: 0,
            began: Instant::now(),
            neighbours: Neighbours::new(if tuning.enclosed { 0 } else { limit_bytes }),
            crowds: BTreeSet::new(),
        };
        Self {
            device: device.clone(),
            limit_bytes,
            eviction,
            first_client: OnceLock::new(),
            server: server.clone(),
            zeroes: Mutex::default(),
            state: Mutex::new(state),
            shortage: Shortage::new(),
            releasing: Mutex::default(),
            giving: Mutex::default(),
        }
    }

    /// The most that all functions together may use.
    pub(crate) fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    /// A client is there.
    pub(crate) fn enter(&self, link: &Arc<Link>, pinned: bool) {
        self.first_client.get_or_init(Instant::now);
        lock(&self.state).clients.insert(link.client, Client::new(link, pinned));
    }

    /// A client is gone; it has given everything back.
    pub(crate) fn leave(&self, client: u64) {
        let mut state = lock(&self.state);
        if let Some(client) = state.clients.remove(&client) {
            state.used_bytes -= client.bytes;
        }
        state.available_bytes = self.limit_bytes;
        state.wake_waiting();
        drop(state);
        self.trim();
    }

    /// Gives the device back what nobody uses.
    pub(crate) fn trim(&self) {
        self.release(State::take_pool);
    }

    /// Gives the device pieces back, behind those that others are giving back: so whoever has done so knows that the driver has them.
    fn release<P>(&self, pieces: impl FnOnce(&mut State) -> P) {
        let _one_at_a_time = lock(&self.releasing);
        let pieces = pieces(&mut lock(&self.state));
        drop(pieces);
    }

    /// Whether the client is never to be evicted.
    pub(crate) fn set_pinned(&self, client: u64, pinned: bool) {
        if let Some(client) = lock(&self.state).clients.get_mut(&client) {
            client.pinned = pinned;
        }
    }

    /// The client's memory cannot be saved now, so it stays where it is until it is used again, or until somebody else needs
    /// memory a while later.
    pub(crate) fn set_stuck(&self, client: u64) {
        let mut state = lock(&self.state);
        if let Some(client) = state.clients.get_mut(&client) {
            client.stuck = Some(Instant::now());
        }
        state.wake_waiting();
    }

    /// Reserves memory for an active client. Of those that may have to leave for it, those go last whose turn is next.
    pub(crate) fn reserve(&self, client: u64, bytes: u64, turns: &Turns) -> Reserved {
        let line = turns.line();
        let mut state = lock(&self.state);
        let wanted = state.used_bytes.saturating_add(bytes);
        let Some(missing) = wanted.checked_sub(state.room_bytes()).filter(|&missing| missing > 0) else {
            state.used_bytes = wanted;
            if let Some(client) = state.clients.get_mut(&client) {
                client.bytes += bytes;
                client.wanted_bytes = 0;
            }
            return Reserved::Granted;
        };
        self.shortage.note();
        let wanted = |client: &mut Client| std::mem::replace(&mut client.wanted_bytes, bytes);
        if state.clients.get_mut(&client).map_or(0, wanted) == 0 {
            state.unstick();
        }
        let mut state = match self.ask_others_first(state, client, missing) {
            Ok(state) => state,
            Err(reserved) => return reserved,
        };
        if let Some(victims) = eviction::victims(&state.residents(client, &line), missing, self.eviction) {
            victims.iter().filter_map(|victim| state.clients.get(victim)).for_each(|victim| {
                victim.link.ask(Wish::Evict);
            });
            return Reserved::Later;
        }
        let others = state.clients.values().filter(|other| other.link.client != client && other.may_leave());
        // Who could leave for a rank that others wait for does not wait for these.
        let may_leave = state.clients.get(&client).is_some_and(Client::may_leave);
        let waits =
            |other: &&Client| other.wanted_bytes > 0 || may_leave && state.awaits_one_of(&line, other);
        let (waiting, working): (Vec<_>, Vec<_>) = others.partition(waits);
        let (somebody_waits, somebody_works) = (!waiting.is_empty(), !working.is_empty());
        // Those that are active and wait for nothing will be idle some time.
        if somebody_works {
            drop(state);
            turns.want_memory(client);
            return Reserved::Later;
        }
        let Some(client) = state.clients.get_mut(&client) else { return Reserved::Exhausted };
        client.wanted_bytes = 0;
        if somebody_waits && client.may_leave() { Reserved::StepBack } else { Reserved::Exhausted }
    }

    /// The client waits for memory no longer, though it did not get it.
    pub(crate) fn wait_no_longer(&self, client: u64) {
        if let Some(client) = lock(&self.state).clients.get_mut(&client) {
            client.wanted_bytes = 0;
        }
    }

    /// Gives up what was reserved and not taken.
    pub(crate) fn unreserve(&self, client: u64, bytes: u64) {
        let mut state = lock(&self.state);
        state.subtract(client, bytes);
        state.wake_waiting();
    }

    /// What one client has reserved or taken is another's from now on.
    pub(crate) fn hand_over(&self, from: u64, to: u64, bytes: u64) {
        let mut state = lock(&self.state);
        if let Some(from) = state.clients.get_mut(&from) {
            from.bytes -= bytes;
        }
        if let Some(to) = state.clients.get_mut(&to) {
            to.bytes += bytes;
        }
        // Who waits may find other clients that can leave.
        state.wake_waiting();
    }

    /// Takes a piece of what was reserved. It holds whatever was in it.
    ///
    /// # Errors
    /// The driver's: `CUDA_ERROR_OUT_OF_MEMORY` if others than Torpor use the GPU, too.
    pub(crate) fn take(&self, bytes: u64) -> Result<PhysicalMemory, CudaError> {
        if let Some(physical) = lock(&self.state).take_from_pool(bytes) {
            return Ok(physical);
        }
        self.make(|| PhysicalMemory::new(&self.device, bytes))
    }

    /// The driver has no memory for a piece of this size. Until a client ends, clients share what they have now, and no
    /// more.
    pub(crate) fn lower_limit(&self, bytes: u64) {
        let mut state = lock(&self.state);
        state.available_bytes = state.used_bytes.min(state.available_bytes);
        tracing::warn!(
            "the driver has no {bytes} bytes more, though functions use only {} of {}: is something else on this GPU?",
            state.used_bytes,
            self.limit_bytes
        );
    }

    /// Keeps a piece for the next one; so much stays reserved for the client that had it.
    pub(crate) fn lay_by(&self, physical: PhysicalMemory) {
        let mut state = lock(&self.state);
        let bytes = physical.bytes();
        state.pool_bytes += bytes;
        state.pool.entry(bytes).or_default().push(physical);
    }

    /// Gives a piece back.
    pub(crate) fn give_back(&self, client: u64, physical: PhysicalMemory) {
        let mut state = lock(&self.state);
        let bytes = physical.bytes();
        state.subtract(client, bytes);
        state.pool_bytes += bytes;
        state.pool.entry(bytes).or_default().push(physical);
        state.wake_waiting();
    }
}

impl State {
    fn residents(&self, except: u64, line: &[u64]) -> Vec<Resident> {
        let others = self.clients.values().filter(|client| client.link.client != except);
        let now = self.began.elapsed();
        let usual = Reuse::usual(self.clients.values().map(|client| client.reuse));
        let resident = |client: &Client| Resident {
            client: client.link.client,
            bytes: client.evictable_bytes(),
            last_used: client.last_used,
            until_used: client.reuse.until_next(now, usual),
            next_turn: line.iter().position(|&waiting| waiting == client.link.client),
            shows: client.shows(),
            evictable: !client.active && !client.pinned && client.stuck.is_none(),
        };
        others.map(resident).collect()
    }

    /// Somebody begins to wait: memory that could not be saved a while ago may be saved now. Not while somebody waits, who
    /// would never learn that there is nothing to wait for.
    fn unstick(&mut self) {
        for client in self.clients.values_mut() {
            client.stuck = client.stuck.filter(|_| client.is_stuck());
        }
    }

    fn take_from_pool(&mut self, bytes: u64) -> Option<PhysicalMemory> {
        let pieces = self.pool.get_mut(&bytes)?;
        let physical = pieces.pop();
        if pieces.is_empty() {
            self.pool.remove(&bytes);
        }
        self.pool_bytes -= physical.as_ref().map_or(0, PhysicalMemory::bytes);
        physical
    }

    /// Whether kept pieces are too much, beside what clients have.
    fn has_surplus(&self) -> bool {
        self.pool_bytes > 0 && self.used_bytes + self.pool_bytes > self.room_bytes()
    }

    /// Those that are.
    fn take_surplus(&mut self) -> Vec<PhysicalMemory> {
        let mut surplus = Vec::new();
        while self.has_surplus() {
            let Some(largest) = self.pool.last_key_value().map(|(&bytes, _)| bytes) else { break };
            surplus.extend(self.take_from_pool(largest));
        }
        surplus
    }

    fn take_pool(&mut self) -> BTreeMap<u64, Vec<PhysicalMemory>> {
        self.pool_bytes = 0;
        std::mem::take(&mut self.pool)
    }

    fn subtract(&mut self, client: u64, bytes: u64) {
        self.used_bytes -= bytes;
        if let Some(client) = self.clients.get_mut(&client) {
            client.bytes -= bytes;
        }
    }

    /// What functions may have now: what the driver has, and what other workers leave.
    fn room_bytes(&self) -> u64 {
        self.available_bytes.min(self.neighbours.allowance_bytes)
    }

    fn wake_waiting(&self) {
        self.neighbours.look_again();
        self.clients.values().filter(|client| client.wanted_bytes > 0).for_each(|client| client.link.wake());
    }
}
