//! What the sessions of a worker share, and how each is reached from outside its thread.

use crate::driver::{Device, PinnedWords};
use crate::swap_mode::SwapMode;
use crate::worker::digest::{DigestBuffer, Digests};
use crate::worker::gpu_memory::GpuMemory;
use crate::worker::image_store::ImageStore;
use crate::worker::store::Store;
use crate::worker::turns::Turns;
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::thread::Thread;
use std::time::Duration;
use torpor_proto::channel::MappedChannel;
use torpor_proto::control::Message;
use torpor_proto::control::worker::{
    ClientUsage, Detached, DeviceFault, FromWorker, Phase, Released, Settings, from_worker,
};
use torpor_proto::error::CudaError;
use torpor_proto::handover;
use torpor_proto::layout::AddressRange;
use torpor_proto::ring::wake_consumer;

/// A session as the rest of the worker sees it.
#[derive(Debug)]
pub(super) struct Link {
    /// The client's number.
    pub(super) client: u64,
    /// Its function's name.
    pub(super) function: String,
    /// Its device addresses, taken as long as the session lives.
    pub(super) arena: AddressRange,
    /// Its channel, once that is open.
    pub(super) channel: OnceLock<MappedChannel>,
    /// Its thread, once that runs.
    pub(super) thread: OnceLock<Thread>,
    /// For [`ClientUsage`].
    pub(super) usage: LinkUsage,
    /// What others want of the session.
    wishes: AtomicU32,
    /// The settings of its function, if they have changed.
    settings: Mutex<Option<Settings>>,
    stop: AtomicBool,
}

/// What a session tells of itself.
#[derive(Debug, Default)]
pub(super) struct LinkUsage {
    /// Physical device memory.
    pub(super) memory_bytes: AtomicU64,
    /// Page-locked host memory.
    pub(super) pinned_bytes: AtomicU64,
    /// Commands executed.
    pub(super) commands: AtomicU64,
    /// Whether any of them is not finished.
    pub(super) busy: AtomicBool,
    /// Device memory allocated, wherever it is.
    pub(super) allocated_bytes: AtomicU64,
    /// Host store referred to.
    pub(super) host_bytes: AtomicU64,
    /// Times that it was given the GPU.
    pub(super) requests: AtomicU64,
    /// Of those, how often all its memory was there.
    pub(super) hits: AtomicU64,
    /// Of those, how often it was not.
    pub(super) swaps: AtomicU64,
    /// A [`Phase`].
    pub(super) phase: AtomicI32,
}

/// What others want of a session; each is one bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Wish {
    /// Leave the GPU if idle: somebody needs the room.
    Evict = 1,
    /// Leave the GPU as soon as idle: the operator wants it.
    Unload = 2,
    /// Come to the GPU: the operator wants it.
    Load = 4,
    /// Look at the settings.
    Settings = 8,
    /// Let go of the host store's slots while idle.
    Lease = 16,
    /// Be given up for another worker, as soon as idle or waiting for a turn.
    Release = 32,
    /// The same, but only while it waits for its turn.
    ReleaseWaiting = 64,
}

impl Link {
    /// Of a session that is about to begin.
    pub(super) fn new(client: u64, function: &str, arena: AddressRange) -> Self {
        Self {
            client,
            function: function.to_owned(),
            arena,
            channel: OnceLock::new(),
            thread: OnceLock::new(),
            usage: LinkUsage::default(),
            wishes: AtomicU32::new(0),
            settings: Mutex::default(),
            stop: AtomicBool::new(false),
        }
    }

    /// Wants something of the session. Of coming and leaving, what was wanted last counts.
    pub(super) fn ask(&self, wish: Wish) {
        match wish {
            Wish::Unload => self.fulfil(Wish::Load),
            Wish::Load => self.fulfil(Wish::Unload),
            _ => {}
        }
        // SYNC POINT turn
        self.wishes.fetch_or(wish as u32, Ordering::SeqCst);
        self.wake();
    }

    /// Whether anything is wanted.
    #[inline]
    pub(super) fn has_wishes(&self) -> bool {
        self.wishes.load(Ordering::Relaxed) != 0
    }

    /// Whether this is wanted.
    pub(super) fn wishes(&self, wish: Wish) -> bool {
        self.wishes.load(Ordering::Relaxed) & wish as u32 != 0
    }

    /// It is done, or moot.
    pub(super) fn fulfil(&self, wish: Wish) {
        self.wishes.fetch_and(!(wish as u32), Ordering::Relaxed);
    }

    /// As [`Self::fulfil`]. True if it was wanted; of several that ask at once, one alone hears so.
    pub(super) fn take(&self, wish: Wish) -> bool {
        // SYNC POINT turn
        self.wishes.fetch_and(!(wish as u32), Ordering::SeqCst) & wish as u32 != 0
    }

    /// Wants the session to be given up if it waits for its turn. False if it does not, and need not answer.
    ///
    /// SYNC POINT turn: a session whose turn comes says that it is active and then looks at what is wanted; here the wish is
    /// noted first and the phase read then. One of the two sees the other, and whoever takes the wish answers it.
    pub(super) fn ask_release_waiting(&self) -> bool {
        self.ask(Wish::ReleaseWaiting);
        self.usage.phase.load(Ordering::SeqCst) == Phase::Waiting as i32 || !self.take(Wish::ReleaseWaiting)
    }

    /// Gives the session new settings.
    pub(super) fn set_settings(&self, settings: Settings) {
        *lock(&self.settings) = Some(settings);
        self.ask(Wish::Settings);
    }

    /// The new settings, once.
    pub(super) fn take_settings(&self) -> Option<Settings> {
        lock(&self.settings).take()
    }

    /// Whether the session is to end.
    #[inline]
    pub(super) fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.wake();
    }

    /// Wakes the session's thread, whatever it sleeps for.
    pub(super) fn wake(&self) {
        if let Some(channel) = self.channel.get() {
            wake_consumer(channel.ring());
        }
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

/// How sessions behave.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tuning {
    /// How long a session spins before it sleeps.
    pub(super) spin: Duration,
    /// How long an idle client keeps its turn if nobody waits for one.
    pub(super) linger: Duration,
    /// How swap-in is done.
    pub(super) swap: SwapMode,
    /// Bytes of a group of segments.
    pub(super) group_bytes: u64,
    /// Device memory of all clients together.
    pub(super) memory_limit_bytes: u64,
    /// Clients that are active at once.
    pub(super) active_clients: usize,
}

/// What the sessions of a worker share.
#[derive(Debug)]
pub(super) struct Shared {
    /// The GPU.
    pub(super) device: Arc<Device>,
    /// Loaded images.
    pub(super) images: ImageStore,
    /// The host store.
    pub(super) store: Store,
    /// How long a session spins before it sleeps.
    pub(super) spin: Duration,
    /// How long an idle client keeps its turn if nobody waits for one.
    pub(super) linger: Duration,
    /// How swap-in is done.
    pub(super) swap: SwapMode,
    /// Bytes of a group of segments.
    pub(super) group_bytes: u64,
    /// The GPU's physical memory.
    pub(super) memory: Arc<GpuMemory>,
    /// Who is active.
    pub(super) turns: Turns,
    /// The kernel that digests chunks.
    pub(super) digests: Digests,
    /// What it needs for one launch, for whoever is next.
    pub(super) digest_buffers: Mutex<Vec<DigestBuffer>>,
    /// Held by the session that hashes chunks.
    pub(super) hashing: Mutex<()>,
    /// Words of sessions that ended, for the next ones: giving page-locked memory back would wait for the whole GPU.
    pub(super) words: Mutex<Vec<PinnedWords>>,
    /// Addresses of host ranges that released sessions are still giving back.
    pub(super) departing: Mutex<BTreeSet<u64>>,
    server: Arc<OwnedFd>,
    links: Mutex<HashMap<u64, Arc<Link>>>,
    lost: AtomicU32,
    /// Held by whoever tells of the loss.
    losing: Mutex<()>,
}

impl Shared {
    pub(super) fn new(
        device: Arc<Device>,
        server: OwnedFd,
        images: ImageStore,
        digests: Digests,
        tuning: Tuning,
    ) -> Self {
        let Tuning { spin, linger, swap, group_bytes, memory_limit_bytes, active_clients } = tuning;
        let server = Arc::new(server);
        Self {
            memory: Arc::new(GpuMemory::new(&device, memory_limit_bytes)),
            turns: Turns::new(active_clients),
            device,
            images,
            store: Store::new(server.clone()),
            spin,
            linger,
            swap,
            group_bytes,
            digests,
            digest_buffers: Mutex::default(),
            hashing: Mutex::default(),
            words: Mutex::default(),
            departing: Mutex::default(),
            server,
            links: Mutex::default(),
            lost: AtomicU32::new(0),
            losing: Mutex::default(),
        }
    }

    /// The conversation with the server.
    pub(super) fn server(&self) -> &OwnedFd {
        &self.server
    }

    /// Tells the server something. If it is gone, so is this worker soon.
    pub(super) fn tell(&self, body: from_worker::Body) {
        if let Err(error) = send(&self.server, body) {
            tracing::debug!("the node server cannot be told: {error}");
        }
    }

    /// Tells the server that nothing of a client is here any more, and what it is.
    pub(super) fn tell_released(&self, client: u64, state: &OwnedFd) {
        let message = FromWorker { body: Some(from_worker::Body::Released(Released { client })) };
        if let Err(error) = handover::send(&self.server, &message.encode_to_vec(), &[state.as_fd()]) {
            tracing::debug!("the node server cannot be told: {error}");
        }
    }

    /// Notes a new session, unless its number or its addresses are taken.
    pub(super) fn enlist(
        &self,
        client: u64,
        function: &str,
        arena: AddressRange,
    ) -> Result<Arc<Link>, String> {
        let mut links = self.links();
        if links.contains_key(&client) {
            return Err(format!("client {client} is attached already"));
        }
        let overlaps =
            |link: &&Arc<Link>| link.arena.address < arena.end() && arena.address < link.arena.end();
        if let Some(other) = links.values().find(overlaps) {
            return Err(format!("its addresses are still in use by client {}", other.client));
        }
        let link = Arc::new(Link::new(client, function, arena));
        links.insert(client, link.clone());
        Ok(link)
    }

    /// Forgets a session that has ended, then tells the server unless it knows.
    pub(super) fn delist(&self, client: u64, tell: bool) {
        self.turns.give_up(client);
        self.memory.leave(client);
        self.links().remove(&client);
        if tell {
            self.tell(from_worker::Body::Detached(Detached { client }));
        }
    }

    /// The session of a client.
    pub(super) fn link(&self, client: u64) -> Option<Arc<Link>> {
        self.links().get(&client).cloned()
    }

    /// Asks a session to end. False if there is none.
    pub(super) fn stop(&self, client: u64) -> bool {
        self.link(client).inspect(|link| link.stop()).is_some()
    }

    /// Asks a session for its lease of the host store. One that is gone does not use it.
    pub(super) fn want_lease(&self, client: u64) {
        match self.links().get(&client) {
            Some(link) => {
                link.ask(Wish::Lease);
                link.wake();
            }
            None => self.store.lease_revoked(client),
        }
    }

    /// Whether any session is left.
    pub(super) fn has_sessions(&self) -> bool {
        !self.links().is_empty()
    }

    /// What each client uses.
    pub(super) fn usage(&self) -> Vec<ClientUsage> {
        let report = |link: &Arc<Link>| {
            let usage = &link.usage;
            ClientUsage {
                client: link.client,
                memory_bytes: usage.memory_bytes.load(Ordering::Relaxed),
                pinned_bytes: usage.pinned_bytes.load(Ordering::Relaxed),
                commands: usage.commands.load(Ordering::Relaxed),
                busy: usage.busy.load(Ordering::Relaxed)
                    || link.channel.get().is_some_and(|channel| !channel.ring().is_drained()),
                allocated_bytes: usage.allocated_bytes.load(Ordering::Relaxed),
                host_bytes: usage.host_bytes.load(Ordering::Relaxed),
                requests: usage.requests.load(Ordering::Relaxed),
                hits: usage.hits.load(Ordering::Relaxed),
                swaps: usage.swaps.load(Ordering::Relaxed),
                phase: usage.phase.load(Ordering::Relaxed),
            }
        };
        self.links().values().map(report).collect()
    }

    /// The error that the context was lost with.
    #[inline]
    pub(super) fn lost(&self) -> Option<CudaError> {
        // SYNC POINT lost: who sees it says nothing to the server before the server was told.
        CudaError::check(self.lost.load(Ordering::Acquire)).err()
    }

    /// The context is lost: every client fails, the server is told, and the worker ends.
    pub(super) fn lose(&self, error: CudaError, reason: String) {
        // Others who meet the same error wait here: the end of a client must not be what the server hears first.
        let _one_at_a_time = lock(&self.losing);
        if self.lost().is_some() {
            return;
        }
        tracing::error!("the GPU's context is lost, {error}: {reason}");
        self.fail_every_client(error);
        self.tell(from_worker::Body::DeviceFault(DeviceFault { code: error.0, reason }));
        // SYNC POINT lost
        self.lost.store(error.0, Ordering::Release);
        // Again, for who came meanwhile.
        self.fail_every_client(error);
        // The listening thread takes this for the end of the conversation; what was sent before still arrives.
        let _ = rustix::net::shutdown(&self.server, rustix::net::Shutdown::Read);
    }

    fn fail_every_client(&self, error: CudaError) {
        for link in self.links().values() {
            if let Some(channel) = link.channel.get() {
                channel.fail(error);
            }
            link.wake();
        }
    }

    fn links(&self) -> MutexGuard<'_, HashMap<u64, Arc<Link>>> {
        lock(&self.links)
    }
}

/// Locks; a session that panicked leaves maps behind that are still whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Locks if nobody else has.
pub(super) fn lock_now<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// Sends one message to the server.
pub(super) fn send(server: &OwnedFd, body: from_worker::Body) -> io::Result<()> {
    handover::send(server, &FromWorker { body: Some(body) }.encode_to_vec(), &[])
}
