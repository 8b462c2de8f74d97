//! The GPU's physical memory: how much of it functions may use, who has how much, and what is kept for the next one.
//!
//! Memory is first *reserved*, which may mean that other clients are asked to leave, and then taken piece by piece.
//! Pieces that are given back are kept by size, because functions of one model ask for the same sizes again and again;
//! they count towards the limit, and hold whatever was in them: whoever takes one overwrites all of it.

use crate::driver::{Device, PhysicalMemory};
use crate::policy::eviction::{self, Resident};
use crate::worker::shared::{Link, Wish, lock};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use torpor_proto::error::CudaError;

/// How long nobody tries again to save memory that could not be saved.
const STUCK: Duration = Duration::from_secs(1);

/// What came of a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reserved {
    /// It is the client's.
    Granted,
    /// Others were asked to leave: ask again when woken.
    Later,
    /// Nobody that may be evicted has enough.
    Exhausted,
}

#[derive(Debug)]
struct Client {
    link: Arc<Link>,
    bytes: u64,
    last_used: u64,
    active: bool,
    pinned: bool,
    /// Since when its memory cannot be saved.
    stuck: Option<Instant>,
    /// It waits for memory.
    waiting: bool,
}

#[derive(Debug)]
struct State {
    /// What the driver has turned out to have, if that is less than the limit.
    available_bytes: u64,
    /// Reserved or taken by clients.
    used_bytes: u64,
    pool: BTreeMap<u64, Vec<PhysicalMemory>>,
    pool_bytes: u64,
    clients: HashMap<u64, Client>,
    uses: u64,
}

/// The physical memory of one GPU.
#[derive(Debug)]
pub(super) struct GpuMemory {
    device: Arc<Device>,
    limit_bytes: u64,
    state: Mutex<State>,
}

impl GpuMemory {
    /// At most `limit_bytes` for all functions together.
    pub(super) fn new(device: &Arc<Device>, limit_bytes: u64) -> Self {
        let state = State {
            available_bytes: limit_bytes,
            used_bytes: 0,
            pool: BTreeMap::new(),
            pool_bytes: 0,
            clients: HashMap::new(),
            uses: 0,
        };
        Self { device: device.clone(), limit_bytes, state: Mutex::new(state) }
    }

    /// The most that all functions together may use.
    pub(super) fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    /// A client is there.
    pub(super) fn enter(&self, link: &Arc<Link>, pinned: bool) {
        let client = Client {
            link: link.clone(),
            bytes: 0,
            last_used: 0,
            active: false,
            pinned,
            stuck: None,
            waiting: false,
        };
        lock(&self.state).clients.insert(link.client, client);
    }

    /// A client is gone; it has given everything back.
    pub(super) fn leave(&self, client: u64) {
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
    pub(super) fn trim(&self) {
        let pool = lock(&self.state).take_pool();
        drop(pool);
    }

    /// The client is active, or no longer. Only an idle one can be evicted.
    pub(super) fn set_active(&self, client: u64, active: bool) {
        let mut state = lock(&self.state);
        state.uses += 1;
        let uses = state.uses;
        if let Some(client) = state.clients.get_mut(&client) {
            client.active = active;
            client.last_used = uses;
            client.stuck = None;
        }
        if !active {
            state.wake_waiting();
        }
    }

    /// Whether the client is never to be evicted.
    pub(super) fn set_pinned(&self, client: u64, pinned: bool) {
        if let Some(client) = lock(&self.state).clients.get_mut(&client) {
            client.pinned = pinned;
        }
    }

    /// The client's memory cannot be saved now, so it stays where it is until it is used again, or until somebody else needs
    /// memory a while later.
    pub(super) fn set_stuck(&self, client: u64) {
        let mut state = lock(&self.state);
        if let Some(client) = state.clients.get_mut(&client) {
            client.stuck = Some(Instant::now());
        }
        state.wake_waiting();
    }

    /// Reserves memory for a client.
    pub(super) fn reserve(&self, client: u64, bytes: u64) -> Reserved {
        let mut state = lock(&self.state);
        let wanted = state.used_bytes.saturating_add(bytes);
        let Some(missing) = wanted.checked_sub(state.available_bytes).filter(|&missing| missing > 0) else {
            state.used_bytes = wanted;
            if let Some(client) = state.clients.get_mut(&client) {
                client.bytes += bytes;
                client.waiting = false;
            }
            return Reserved::Granted;
        };
        let waits =
            state.clients.get_mut(&client).is_some_and(|client| std::mem::replace(&mut client.waiting, true));
        if !waits {
            state.unstick();
        }
        if let Some(victims) = eviction::least_recently_used(&state.residents(client), missing) {
            victims.iter().filter_map(|victim| state.clients.get(victim)).for_each(|victim| {
                victim.link.ask(Wish::Evict);
            });
            return Reserved::Later;
        }
        // Those that are active and wait for nothing will be idle some time.
        let others = state.clients.values().filter(|other| other.link.client != client);
        let may_leave =
            others.filter(|other| other.active && !other.waiting && !other.pinned && other.bytes > 0);
        if may_leave.count() > 0 {
            return Reserved::Later;
        }
        if let Some(client) = state.clients.get_mut(&client) {
            client.waiting = false;
        }
        Reserved::Exhausted
    }

    /// The client waits for memory no longer, though it did not get it.
    pub(super) fn wait_no_longer(&self, client: u64) {
        if let Some(client) = lock(&self.state).clients.get_mut(&client) {
            client.waiting = false;
        }
    }

    /// Gives up what was reserved and not taken.
    pub(super) fn unreserve(&self, client: u64, bytes: u64) {
        let mut state = lock(&self.state);
        state.subtract(client, bytes);
        state.wake_waiting();
    }

    /// Takes a piece of what was reserved. It holds whatever was in it.
    ///
    /// # Errors
    /// The driver's: `CUDA_ERROR_OUT_OF_MEMORY` if others than Torpor use the GPU, too.
    pub(super) fn take(&self, bytes: u64) -> Result<PhysicalMemory, CudaError> {
        let mut spare = Vec::new();
        {
            let mut state = lock(&self.state);
            if let Some(physical) = state.take_from_pool(bytes) {
                return Ok(physical);
            }
            while state.used_bytes + state.pool_bytes > state.available_bytes {
                let Some(largest) = state.pool.last_key_value().map(|(&bytes, _)| bytes) else { break };
                spare.extend(state.take_from_pool(largest));
            }
        }
        drop(spare);
        match PhysicalMemory::new(&self.device, bytes) {
            Err(CudaError::OUT_OF_MEMORY) => {
                self.trim();
                PhysicalMemory::new(&self.device, bytes)
            }
            result => result,
        }
    }

    /// The driver has no memory for a piece of this size. Until a client ends, clients share what they have now, and no
    /// more.
    pub(super) fn lower_limit(&self, bytes: u64) {
        let mut state = lock(&self.state);
        state.available_bytes = state.used_bytes.min(state.available_bytes);
        tracing::warn!(
            "the driver has no {bytes} bytes more, though functions use only {} of {}: is something else on this GPU?",
            state.used_bytes,
            self.limit_bytes
        );
    }

    /// Gives a piece back.
    pub(super) fn give_back(&self, client: u64, physical: PhysicalMemory) {
        let mut state = lock(&self.state);
        let bytes = physical.bytes();
        state.subtract(client, bytes);
        state.pool_bytes += bytes;
        state.pool.entry(bytes).or_default().push(physical);
        state.wake_waiting();
    }
}

impl State {
    fn residents(&self, except: u64) -> Vec<Resident> {
        let others = self.clients.values().filter(|client| client.link.client != except);
        let resident = |client: &Client| Resident {
            client: client.link.client,
            bytes: client.bytes,
            last_used: client.last_used,
            evictable: !client.active && !client.pinned && client.stuck.is_none(),
        };
        others.map(resident).collect()
    }

    /// Somebody begins to wait: memory that could not be saved a while ago may be saved now. Not while somebody waits, who
    /// would never learn that there is nothing to wait for.
    fn unstick(&mut self) {
        for client in self.clients.values_mut() {
            client.stuck = client.stuck.filter(|since| since.elapsed() < STUCK);
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

    fn wake_waiting(&self) {
        self.clients.values().filter(|client| client.waiting).for_each(|client| client.link.wake());
    }
}
