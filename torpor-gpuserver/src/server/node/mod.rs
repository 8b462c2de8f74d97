//! The node: its clients, its GPUs, its functions, and what happens between them.
//!
//! A client's way through it: [`Node::admit`] (hello), [`Node::join`] (it takes its memory), [`Node::part`] (it is gone).

mod clients;
mod device_names;
mod functions;
mod kept;
mod place;

pub use clients::ATTACH_TIMEOUT;
pub use functions::FunctionError;
pub(in crate::server) use kept::{CLIENT, COUNTER, Legacies, Legacy, LegacyMemory, MEMORY, PARTY};

use crate::gpu_limit::gpu_limit_bytes;
use crate::policy::placement::Placement;
use crate::server::clients::ClientTable;
use crate::server::entrance::function::Function;
use crate::server::entrance::tree::ServerTree;
use crate::server::keeper::{Heritage, Keeper};
use crate::server::options::ServerOptions;
use crate::server::realms::Realms;
use crate::server::scheduler::Teller;
use crate::server::sensors::SensorReader;
use crate::server::settings::{Live, Settings};
use crate::server::workers::gpu::Gpu;
use crate::server::workers::learned::Learned;
use std::collections::HashMap;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::runtime::Handle;
use tokio::sync::watch;
use torpor_proto::control::client::DeviceName;
use torpor_proto::error::CudaError;

/// Everything the server's tasks share.
#[derive(Debug)]
pub struct Node {
    options: ServerOptions,
    tree: ServerTree,
    gpus: Vec<Gpu>,
    realms: Arc<Realms>,
    learned: Arc<Learned>,
    simulated: bool,
    events: Teller,
    sensors: Arc<SensorReader>,
    clients: Mutex<ClientTable>,
    functions: Mutex<HashMap<String, Function>>,
    settings: Mutex<Live>,
    next_gpu: AtomicUsize,
    /// Of the devices of functions that see several, once one has been asked for.
    device_names: OnceLock<Vec<DeviceName>>,
    stop: watch::Sender<bool>,
    placement: watch::Sender<Placement>,
    /// Where clients are answered.
    acceptor: Handle,
    keeper: Keeper,
    /// What the server before has left and nobody has taken yet.
    heritage: Mutex<Heritage>,
}

impl Node {
    /// A node without functions.
    #[must_use]
    pub(crate) fn new(
        options: ServerOptions,
        tree: ServerTree,
        gpus: Vec<Gpu>,
        realms: Arc<Realms>,
        learned: Arc<Learned>,
        simulated: bool,
        events: Teller,
        sensors: SensorReader,
        stop: watch::Sender<bool>,
        acceptor: Handle,
        (keeper, heritage): (Keeper, Heritage),
    ) -> Self {
        let settings = Settings::new(&options.settings, options.flags.memory_limit);
        let max_clients = options.scheduler.max_clients().get();
        let placement = watch::Sender::new(options.scheduler.placement());
        Self {
            options,
            tree,
            gpus,
            realms,
            learned,
            simulated,
            events,
            sensors: Arc::new(sensors),
            clients: Mutex::new(ClientTable::new(max_clients)),
            functions: Mutex::default(),
            settings: Mutex::new(Live::new(settings)),
            next_gpu: AtomicUsize::new(0),
            device_names: OnceLock::new(),
            stop,
            placement,
            acceptor,
            keeper,
            heritage: Mutex::new(heritage),
        }
    }

    /// Who keeps what the server after this one needs.
    #[must_use]
    pub(crate) fn keeper(&self) -> &Keeper {
        &self.keeper
    }

    /// What the server before has left and nobody has taken yet, locked.
    pub(in crate::server) fn heritage(&self) -> MutexGuard<'_, Heritage> {
        self.heritage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the server was told at its start.
    #[must_use]
    pub fn options(&self) -> &ServerOptions {
        &self.options
    }

    /// How many NVLinks of a GPU are up, if NVML says.
    pub async fn nvlinks(&self, uuid: Vec<u8>) -> Option<u32> {
        self.sensors.nvlinks(uuid).await
    }

    /// The GPUs.
    #[must_use]
    pub fn gpus(&self) -> &[Gpu] {
        &self.gpus
    }

    /// Where functions' memory is while they have no GPU.
    #[must_use]
    pub(in crate::server) fn realms(&self) -> &Realms {
        &self.realms
    }

    /// What functions' accidents have taught.
    #[must_use]
    pub fn learned(&self) -> &Learned {
        &self.learned
    }

    /// Whether the GPUs are simulated.
    #[must_use]
    pub fn simulated(&self) -> bool {
        self.simulated
    }

    /// The directory tree.
    #[must_use]
    pub(super) fn tree(&self) -> &ServerTree {
        &self.tree
    }

    /// Where what happens is told.
    pub(crate) fn events(&self) -> &Teller {
        &self.events
    }

    /// The clients, locked. Never held across an await.
    pub fn clients(&self) -> MutexGuard<'_, ClientTable> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The functions' settings, locked. Never held across an await, nor while the clients are asked for.
    pub fn settings(&self) -> MutexGuard<'_, Live> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Device memory that all functions together may use on a GPU; `None` if it never was ready.
    #[must_use]
    pub fn gpu_limit_bytes(&self, gpu: usize) -> Option<u64> {
        let device = self.gpus.get(gpu)?.status().device?;
        let limit = self.options.gpu_limit_bytes(gpu);
        Some(gpu_limit_bytes(limit, device.total_memory_bytes, self.options.scheduler.spare_worker()))
    }

    /// The same of the GPU that has most.
    #[must_use]
    pub fn largest_gpu_limit_bytes(&self) -> u64 {
        (0..self.gpus.len()).filter_map(|gpu| self.gpu_limit_bytes(gpu)).max().unwrap_or(0)
    }

    /// Where clients go that wait, from now on; its receivers see what holds.
    #[must_use]
    pub(in crate::server) fn placement(&self) -> &watch::Sender<Placement> {
        &self.placement
    }

    /// Ends the server, soon. Every client's calls fail from now on.
    pub fn stop(&self) {
        self.clients().fail(CudaError::DEVICE_UNAVAILABLE);
        self.stop.send_replace(true);
    }

    /// Turns true when the server is to end.
    #[must_use]
    pub fn stopping(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }
}
