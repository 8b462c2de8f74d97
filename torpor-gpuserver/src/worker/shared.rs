//! What the sessions of a worker share, and how each is reached from outside its thread.

use crate::driver::{Device, PinnedWords};
use crate::worker::image_store::ImageStore;
use crate::worker::store::Store;
use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::Duration;
use torpor_proto::channel::MappedChannel;
use torpor_proto::control::Message;
use torpor_proto::control::worker::{ClientUsage, Detached, DeviceFault, FromWorker, from_worker};
use torpor_proto::error::CudaError;
use torpor_proto::handover;
use torpor_proto::layout::AddressRange;
use torpor_proto::ring::wake_consumer;

/// A session as the rest of the worker sees it.
#[derive(Debug)]
pub(super) struct Link {
    /// The client's number.
    pub(super) client: u64,
    /// Its device addresses, taken as long as the session lives.
    pub(super) arena: AddressRange,
    /// Its channel, once that is open.
    pub(super) channel: OnceLock<MappedChannel>,
    /// Its thread, once that runs.
    pub(super) thread: OnceLock<Thread>,
    /// For [`ClientUsage`].
    pub(super) memory_bytes: AtomicU64,
    /// For [`ClientUsage`].
    pub(super) pinned_bytes: AtomicU64,
    /// For [`ClientUsage`].
    pub(super) commands: AtomicU64,
    /// For [`ClientUsage`].
    pub(super) busy: AtomicBool,
    /// The host store wants the lease back that the session holds: give it back when idle, by
    /// [`Store::lease_revoked`].
    pub(super) lease_wanted: AtomicBool,
    stop: AtomicBool,
}

impl Link {
    /// Whether the session is to end.
    #[inline]
    pub(super) fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.wake();
    }

    fn wake(&self) {
        if let Some(channel) = self.channel.get() {
            wake_consumer(channel.ring());
        }
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
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
    /// Words of sessions that ended, for the next ones: giving page-locked memory back would wait for the whole GPU.
    pub(super) words: Mutex<Vec<PinnedWords>>,
    server: Arc<OwnedFd>,
    links: Mutex<HashMap<u64, Arc<Link>>>,
    lost: AtomicU32,
}

impl Shared {
    pub(super) fn new(device: Arc<Device>, server: OwnedFd, images: ImageStore, spin: Duration) -> Self {
        let server = Arc::new(server);
        Self {
            device,
            images,
            store: Store::new(server.clone()),
            spin,
            words: Mutex::default(),
            server,
            links: Mutex::default(),
            lost: AtomicU32::new(0),
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

    /// Notes a new session, unless its number or its addresses are taken.
    pub(super) fn enlist(&self, client: u64, arena: AddressRange) -> Result<Arc<Link>, String> {
        let mut links = self.links();
        if links.contains_key(&client) {
            return Err(format!("client {client} is attached already"));
        }
        let overlaps =
            |link: &&Arc<Link>| link.arena.address < arena.end() && arena.address < link.arena.end();
        if let Some(other) = links.values().find(overlaps) {
            return Err(format!("its addresses are still in use by client {}", other.client));
        }
        let link = Arc::new(Link {
            client,
            arena,
            channel: OnceLock::new(),
            thread: OnceLock::new(),
            memory_bytes: AtomicU64::new(0),
            pinned_bytes: AtomicU64::new(0),
            commands: AtomicU64::new(0),
            busy: AtomicBool::new(false),
            lease_wanted: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        links.insert(client, link.clone());
        Ok(link)
    }

    /// Forgets a session that has ended, then tells the server unless it knows.
    pub(super) fn delist(&self, client: u64, tell: bool) {
        self.links().remove(&client);
        if tell {
            self.tell(from_worker::Body::Detached(Detached { client }));
        }
    }

    /// Asks a session to end. False if there is none.
    pub(super) fn stop(&self, client: u64) -> bool {
        let link = self.links().get(&client).cloned();
        link.inspect(|link| link.stop()).is_some()
    }

    /// Asks a session for its lease of the host store. One that is gone does not use it.
    pub(super) fn want_lease(&self, client: u64) {
        match self.links().get(&client) {
            Some(link) => {
                link.lease_wanted.store(true, Ordering::Relaxed);
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
        let usage = |link: &Arc<Link>| ClientUsage {
            client: link.client,
            memory_bytes: link.memory_bytes.load(Ordering::Relaxed),
            pinned_bytes: link.pinned_bytes.load(Ordering::Relaxed),
            commands: link.commands.load(Ordering::Relaxed),
            busy: link.busy.load(Ordering::Relaxed)
                || link.channel.get().is_some_and(|channel| !channel.ring().is_drained()),
            ..ClientUsage::default()
        };
        self.links().values().map(usage).collect()
    }

    /// The error that the context was lost with.
    #[inline]
    pub(super) fn lost(&self) -> Option<CudaError> {
        CudaError::check(self.lost.load(Ordering::Relaxed)).err()
    }

    /// The context is lost: every client fails, the server is told, and the worker ends.
    pub(super) fn lose(&self, error: CudaError, reason: String) {
        if self.lost.compare_exchange(0, error.0, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return;
        }
        tracing::error!("the GPU's context is lost, {error}: {reason}");
        for link in self.links().values() {
            if let Some(channel) = link.channel.get() {
                channel.fail(error);
            }
            link.wake();
        }
        self.tell(from_worker::Body::DeviceFault(DeviceFault { code: error.0, reason }));
        // The listening thread takes this for the end of the conversation; what was sent before still arrives.
        let _ = rustix::net::shutdown(&self.server, rustix::net::Shutdown::Read);
    }

    fn links(&self) -> MutexGuard<'_, HashMap<u64, Arc<Link>>> {
        lock(&self.links)
    }
}

/// Locks; a session that panicked leaves maps behind that are still whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends one message to the server.
pub(super) fn send(server: &OwnedFd, body: from_worker::Body) -> io::Result<()> {
    handover::send(server, &FromWorker { body: Some(body) }.encode_to_vec(), &[])
}
