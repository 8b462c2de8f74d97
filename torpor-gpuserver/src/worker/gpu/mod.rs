//! What the sessions of a worker share.

pub(crate) mod anteroom;
pub(crate) mod aside;
mod bandwidth;
mod calm;
pub(crate) mod console;
pub(crate) mod context_limits;
pub(crate) mod cpu;
pub(crate) mod digest;
pub(crate) mod fence;
pub(crate) mod gpu_time;
pub(crate) mod handles;
pub(crate) mod host_store;
pub(crate) mod images;
pub(crate) mod ipc;
mod loss;
pub(crate) mod memory;
pub(crate) mod peer;
pub(crate) mod pen;
pub(crate) mod pinned_budget;
mod pressure;
pub(crate) mod pulse;
pub(crate) mod quiet;
mod roster;
pub(crate) mod run_queue;
pub(crate) mod throttle;
pub(crate) mod tuning;

use crate::compiler::Compiler;
use crate::driver::{Device, PinnedWords};
use crate::worker::gpu::anteroom::Anteroom;
use crate::worker::gpu::aside::Aside;
use crate::worker::gpu::calm::is_idle;
use crate::worker::gpu::console::Console;
use crate::worker::gpu::context_limits::ContextLimits;
use crate::worker::gpu::cpu::CpuLine;
use crate::worker::gpu::digest::{DigestBuffer, Digests};
use crate::worker::gpu::gpu_time::GpuTime;
use crate::worker::gpu::handles::Handles;
use crate::worker::gpu::host_store::Store;
use crate::worker::gpu::images::ImageStore;
use crate::worker::gpu::images::loader::Loader;
use crate::worker::gpu::ipc::Ipc;
use crate::worker::gpu::memory::GpuMemory;
use crate::worker::gpu::peer::Peers;
use crate::worker::gpu::pen::Pen;
use crate::worker::gpu::pinned_budget::{PinnedBudget, PinnedRefusal, PinnedShare};
use crate::worker::gpu::quiet::{Quiet, Silence, Windows};
use crate::worker::gpu::run_queue::Turns;
use crate::worker::gpu::throttle::Throttle;
use crate::worker::gpu::tuning::Tuning;
use crate::worker::mailbox::{Link, Wish};
use crate::worker::server_socket::ServerSocket;
use crate::worker::sync::lock;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use torpor_proto::control::worker::{ClientUsage, Happened, from_worker, happened};
use torpor_proto::error::CudaError;

/// Between two words that some session waits for its turn: hundreds may wait at once, and the server has other things to
/// hear.
const WAITING_PAUSE: Duration = Duration::from_millis(1);

/// Who is served.
pub(crate) type Links = Mutex<HashMap<u64, Arc<Link>>>;

/// What the sessions of a worker share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The GPU.
    pub(crate) device: Arc<Device>,
    /// Loaded images.
    pub(crate) images: ImageStore,
    /// How they are loaded.
    pub(crate) loader: Arc<Loader>,
    /// The host store.
    pub(crate) store: Store,
    /// How sessions behave.
    pub(crate) tuning: Tuning,
    /// The GPU's physical memory.
    pub(crate) memory: Arc<GpuMemory>,
    /// Handles of texture and surface objects.
    pub(crate) handles: Arc<Handles>,
    /// What clients let each other have.
    pub(crate) ipc: Ipc,
    /// Who is active.
    pub(crate) turns: Turns,
    /// Who has used it for how long.
    pub(crate) gpu_time: GpuTime,
    /// What clients want of the context.
    pub(crate) limits: ContextLimits,
    /// Who prints.
    pub(crate) pen: Pen,
    /// Who has all others launch nothing.
    pub(crate) quiet: Arc<Quiet>,
    /// Where the driver writes what kernels say; none if that is left alone.
    pub(crate) console: Option<Arc<Console>>,
    /// Page-locked host memory of clients.
    pub(crate) pinned: Arc<PinnedBudget>,
    /// What is given back when the whole GPU may be waited for.
    pub(crate) aside: Arc<Aside>,
    /// What clients left that may come back.
    pub(crate) anteroom: Arc<Anteroom>,
    /// Links to other GPUs' workers.
    pub(crate) peers: Peers,
    /// Who waits for a CPU.
    pub(crate) cpus: CpuLine,
    /// The kernel that digests chunks.
    pub(crate) digests: Digests,
    /// What it needs for one launch, for whoever is next.
    pub(crate) digest_buffers: Mutex<Vec<DigestBuffer>>,
    /// Held by the sessions that hash chunks, one each.
    pub(crate) hashing: Box<[Mutex<()>]>,
    /// Held by the session that saves its memory ahead of time.
    pub(crate) saving: Mutex<()>,
    /// Words of sessions that ended, for the next ones: giving page-locked memory back would wait for the whole GPU.
    pub(crate) words: Mutex<Vec<Arc<PinnedWords>>>,
    /// How often work went on without a turn.
    pub(crate) overstays: AtomicU64,
    /// How often sessions say that they wait for their turns.
    pub(crate) waiting_words: Throttle,
    /// The conversation with the server.
    pub(crate) server: Arc<ServerSocket>,
    /// Somebody follows what happens to clients.
    followed: AtomicBool,
    links: Arc<Links>,
    lost: AtomicU32,
    /// Held by whoever tells of the loss.
    losing: Mutex<()>,
}

impl Shared {
    pub(crate) fn new(
        device: Arc<Device>,
        server: Arc<ServerSocket>,
        images: ImageStore,
        compiler: Compiler,
        digests: Digests,
        console: Option<Arc<Console>>,
        tuning: Tuning,
    ) -> Self {
        let memory = Arc::new(GpuMemory::new(&device, &server, &tuning));
        let links = Arc::<Links>::default();
        let quiet = Arc::<Quiet>::default();
        let aside = Aside::of(&device, &links, &quiet);
        Self {
            quiet,
            handles: Handles::new(&device, &memory),
            memory,
            ipc: Ipc::default(),
            turns: Turns::new(tuning.active_clients),
            gpu_time: GpuTime::new(),
            limits: ContextLimits::new(tuning.context_limit_bytes),
            pen: Pen::default(),
            console,
            cpus: CpuLine::new(),
            pinned: PinnedBudget::new(tuning.pinned_limit_bytes),
            anteroom: Anteroom::new(tuning.pinned_limit_bytes, &aside),
            peers: Peers::default(),
            loader: Loader::new(&device, compiler, &aside, images.limits.code_bytes),
            aside,
            device,
            images,
            store: Store::new(server.clone()),
            tuning,
            digests,
            digest_buffers: Mutex::default(),
            hashing: CpuLine::new().places_to_hash(),
            saving: Mutex::default(),
            words: Mutex::default(),
            overstays: AtomicU64::new(0),
            waiting_words: Throttle::new(WAITING_PAUSE),
            server,
            followed: AtomicBool::new(false),
            links,
            lost: AtomicU32::new(0),
            losing: Mutex::default(),
        }
    }

    /// Tells the server something. If it is gone, so is this worker soon.
    pub(crate) fn tell(&self, body: from_worker::Body) {
        self.server.tell(body);
    }

    /// Somebody follows what happens to clients from now on, or nobody does.
    pub(crate) fn follow(&self, events: bool) {
        self.followed.store(events, Ordering::Relaxed);
    }

    /// Something happened to a client: the server hears of it if somebody follows.
    pub(crate) fn tell_followers(&self, client: u64, what: impl FnOnce() -> happened::What) {
        if self.followed.load(Ordering::Relaxed) {
            self.tell(from_worker::Body::Happened(Happened { client, what: Some(what()) }));
        }
    }

    /// Takes a part of the page-locked memory, for which what clients left that are elsewhere may have to go.
    ///
    /// # Errors
    /// [`PinnedRefusal`].
    pub(crate) fn take_pinned(
        &self,
        function: &str,
        function_limit_bytes: u64,
        bytes: u64,
    ) -> Result<PinnedShare, PinnedRefusal> {
        let take = || self.pinned.take(function, function_limit_bytes, bytes);
        take().or_else(|refusal| if self.anteroom.clear() { take() } else { Err(refusal) })
    }

    /// The session of a client.
    pub(crate) fn link(&self, client: u64) -> Option<Arc<Link>> {
        self.links().get(&client).cloned()
    }

    /// Asks a session for its lease of the host store. One that is gone does not use it.
    pub(crate) fn want_lease(&self, client: u64) {
        match self.links().get(&client) {
            Some(link) => link.ask(Wish::Lease),
            None => self.store.lease_revoked(client),
        }
    }

    /// Whether any client is still being made here.
    pub(crate) fn is_making(&self) -> bool {
        self.links().values().any(|link| link.presence.is_coming())
    }

    /// Whether any session is left.
    pub(crate) fn has_sessions(&self) -> bool {
        !self.links().is_empty()
    }

    /// How many clients have work.
    pub(crate) fn working(&self) -> usize {
        self.links().values().filter(|link| link.work.is_working()).count()
    }

    /// What of all clients' memory may need room of the host store that it does not have yet.
    pub(crate) fn unsaved_bytes(&self) -> u64 {
        self.links().values().map(|link| link.usage.unsaved_bytes.load(Ordering::Relaxed)).sum()
    }

    /// What each client uses.
    pub(crate) fn usage(&self) -> Vec<ClientUsage> {
        let images = |link: &Link| self.images.quota.used_bytes(&link.function);
        let mut usage: Vec<_> = self.links().values().map(|link| link.report(images(link))).collect();
        self.ipc.add_usage(&mut usage);
        usage
    }

    /// The error that the context was lost with.
    #[inline]
    pub(crate) fn lost(&self) -> Option<CudaError> {
        // SYNC POINT lost: who sees it says nothing to the server before the server was told.
        CudaError::check(self.lost.load(Ordering::Acquire)).err()
    }

    /// Whether another client's work goes on without a turn, began to do so before this one's, if this one's does, and was one of so
    /// many first overstays.
    pub(crate) fn overstays_before(&self, link: &Link, first: u64) -> bool {
        let number = |link: &Link| link.overstays.load(Ordering::Relaxed).checked_sub(1).unwrap_or(u64::MAX);
        self.links().values().any(|other| number(other) < number(link).min(first))
    }

    /// All sessions.
    pub(crate) fn all_links(&self) -> Vec<Arc<Link>> {
        self.links().values().cloned().collect()
    }

    /// Whether no kernel runs, as far as is known.
    pub(crate) fn is_idle(&self) -> bool {
        is_idle(&self.links)
    }

    /// Whether it is quiet now for a client that waits for that.
    pub(crate) fn look_for_quiet(&self, windows: &mut Windows, client: u64) -> Option<Silence> {
        windows.look(&self.quiet, &self.links, client)
    }

    fn links(&self) -> MutexGuard<'_, HashMap<u64, Arc<Link>>> {
        lock(&self.links)
    }
}
