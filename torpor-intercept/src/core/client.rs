//! This process as a client of the node.

use super::CudaResult;
use super::connect::{Connection, connect, look};
use super::device::DeviceInfo;
use super::devices::{self, Devices};
use super::ipc::Ipc;
use super::lifeline::Lifeline;
use super::limits::Limits;
use super::line::Line;
use super::managed::ManagedMemory;
use super::memory::DeviceMemory;
use super::owners::Owners;
use super::pinned::PinnedMemory;
use super::registered::RegisteredMemory;
use super::remoting::{Batch, Remoting};
use super::spin::Spin;
use super::staging::{Downloads, Uploads};
use super::stream::{DeferredSyncs, Stream};
use super::virtual_memory::VirtualMemory;
use super::visible::VisibleDevices;
use super::{channel, fork, image::Images};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use torpor_proto::channel::MappedChannel;
use torpor_proto::control::client::{Sensors, View};
use torpor_proto::error::CudaError;
use torpor_proto::layout::AddressRange;
use torpor_proto::mapping::Mapping;
use torpor_proto::ring::Producer;

/// The connection and all that hangs on it. One per process, for as long as the process lives.
pub struct Client {
    /// As the server knows it.
    pub(super) id: u64,
    pub(super) channel: MappedChannel,
    pub(super) producer: Mutex<Producer>,
    pub(super) free_slots: AtomicU64,
    /// Threads that wait for a free slot.
    pub(super) slot_line: Line,
    pub(super) lifeline: Lifeline,
    pub(super) is_lost: AtomicBool,
    /// As the server asks for.
    pub(super) spin: Duration,
    pub(super) waiting: Spin,
    pub(super) remoting: Remoting,
    pub(super) batch: Batch,
    /// Posts of the whole process, to know whether anything happened since a synchronisation.
    pub(super) posted: AtomicU64,
    pub(super) synchronized: AtomicU64,
    pub(super) arena: AddressRange,
    pub(super) host: AddressRange,
    /// What the program can ask about its devices.
    pub(super) devices: Devices,
    pub(super) limits: Limits,
    pub(super) memory: DeviceMemory,
    pub(super) owners: Owners,
    pub(super) virtual_memory: VirtualMemory,
    pub(super) ipc: Ipc,
    pub(super) pinned: PinnedMemory,
    pub(super) managed: ManagedMemory,
    pub(super) registered: RegisteredMemory,
    pub(super) uploads: Uploads,
    pub(super) downloads: Downloads,
    pub(super) images: Images,
    pub(super) deferred: DeferredSyncs,
    _arena_reservation: Mapping,
    _host_mapping: Mapping,
}

static CLIENT: OnceLock<Client> = OnceLock::new();

/// The client this process became with [`initialize`].
///
/// # Errors
/// `NOT_INITIALIZED` before that, and in the child of a process that is one.
#[inline]
pub fn client() -> CudaResult<&'static Client> {
    if fork::is_forked_child() {
        return Err(CudaError::NOT_INITIALIZED);
    }
    CLIENT.get().ok_or(CudaError::NOT_INITIALIZED)
}

/// `cuInit`: makes this process a client, if it is none yet.
///
/// # Errors
/// `NO_DEVICE` if `CUDA_VISIBLE_DEVICES` hides every device; `SYSTEM_NOT_READY` ("required driver daemons" in `cuda.h`)
/// if no server takes it; the log says why.
pub fn initialize() -> CudaResult<()> {
    static CONNECTING: Mutex<()> = Mutex::new(());
    crate::log::prepare();
    if fork::is_forked_child() {
        return Err(CudaError::NOT_INITIALIZED);
    }
    if CLIENT.get().is_some() {
        return Ok(());
    }
    let visible = VisibleDevices::of_process();
    if visible.are_none() {
        return Err(CudaError::NO_DEVICE);
    }
    let _one_at_a_time = CONNECTING.lock().unwrap_or_else(PoisonError::into_inner);
    if CLIENT.get().is_some() {
        return Ok(());
    }
    // Who sees nothing becomes no client.
    if !visible.may_be_the_only() && visible.choose(surveyed_devices()?).is_empty() {
        return Err(CudaError::NO_DEVICE);
    }
    let connection = connect().map_err(|error| {
        crate::log::write(&error.to_string());
        CudaError::SYSTEM_NOT_READY
    })?;
    let client = Client::new(connection, &visible)?;
    client.count_devices();
    // Before any other stream, whose work they may have to wait for.
    Stream::create_legacies(&client)?;
    fork::watch(&client.lifeline);
    let _ = CLIENT.set(client);
    Ok(())
}

/// The function's devices, whatever this process wants to see of them, for questions that make it no client: it may fork and use
/// CUDA in its children.
///
/// # Errors
/// `SYSTEM_NOT_READY` if no server answers; the log says why.
pub fn surveyed_devices() -> CudaResult<&'static [DeviceInfo]> {
    static SURVEYED: OnceLock<Vec<DeviceInfo>> = OnceLock::new();
    crate::log::prepare();
    let known = CLIENT.get().map(|client| client.devices.of_function());
    if let Some(known) = known.or_else(|| SURVEYED.get().map(Vec::as_slice)) {
        return Ok(known);
    }
    let view = looked()?;
    let found =
        devices::of_function(view.device.unwrap_or_default(), &view.devices, view.memory_limit_bytes)?;
    Ok(SURVEYED.get_or_init(|| found))
}

/// What the node's NVML says of the GPU now, or said a moment ago: programs ask for one number after the other.
///
/// # Errors
/// `SYSTEM_NOT_READY` if no server answers; the log says why.
pub fn surveyed_sensors() -> CudaResult<Sensors> {
    const MOMENT: Duration = Duration::from_millis(100);
    static SAID: Mutex<Option<(Instant, Sensors)>> = Mutex::new(None);
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((at, sensors)) = *said
        && at.elapsed() < MOMENT
    {
        return Ok(sensors);
    }
    let sensors = looked()?.sensors.unwrap_or_default();
    *said = Some((Instant::now(), sensors));
    Ok(sensors)
}

fn looked() -> CudaResult<View> {
    look().map_err(|error| {
        crate::log::write(&error.to_string());
        CudaError::SYSTEM_NOT_READY
    })
}

impl Client {
    fn new(connection: Connection, visible: &VisibleDevices) -> CudaResult<Self> {
        let Connection { welcome, channel, lifeline, arena, host, arena_reservation, host_mapping } =
            connection;
        let staging = AddressRange { address: host.address, bytes: welcome.staging_bytes };
        let spin = Duration::from_micros(welcome.spin_us.into());
        let limit_bytes = welcome.memory_limit_bytes;
        let of_function =
            devices::of_function(welcome.device.unwrap_or_default(), &welcome.devices, limit_bytes)?;
        Ok(Self {
            id: welcome.client,
            channel,
            producer: Mutex::new(Producer::new()),
            free_slots: AtomicU64::new(channel::ALL_SLOTS),
            slot_line: Line::default(),
            lifeline: Lifeline::new(lifeline),
            is_lost: AtomicBool::new(false),
            spin,
            waiting: Spin::new(spin),
            remoting: Remoting::of_process(),
            batch: Batch::default(),
            posted: AtomicU64::new(1),
            synchronized: AtomicU64::new(0),
            arena,
            host,
            memory: DeviceMemory::new(arena.for_allocations(), welcome.memory_limit_bytes),
            owners: Owners::default(),
            virtual_memory: VirtualMemory::default(),
            ipc: Ipc::default(),
            devices: Devices::new(of_function, visible)?,
            limits: Limits::default(),
            pinned: PinnedMemory::new(host, staging.bytes),
            managed: ManagedMemory::default(),
            registered: RegisteredMemory::default(),
            uploads: Uploads::new(staging),
            downloads: Downloads::new(staging),
            images: Images::default(),
            deferred: DeferredSyncs::default(),
            _arena_reservation: arena_reservation,
            _host_mapping: host_mapping,
        })
    }

    /// Whether an address is of the device: the arena, or a module's global.
    pub(super) fn is_device_address(&self, address: u64) -> bool {
        self.arena.contains(address, 0) || self.images.is_global(address)
    }
}
