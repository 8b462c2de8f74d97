//! This process as a client of the node.

use super::CudaResult;
use super::connect::{Connection, connect};
use super::context::Context;
use super::device::DeviceInfo;
use super::memory::DeviceMemory;
use super::owed::Owed;
use super::pinned::PinnedMemory;
use super::registered::RegisteredMemory;
use super::remoting::{Batch, Remoting};
use super::staging::{Downloads, Uploads};
use super::{channel, fork, image::Images};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;
use torpor_proto::channel::MappedChannel;
use torpor_proto::error::CudaError;
use torpor_proto::layout::AddressRange;
use torpor_proto::mapping::Mapping;
use torpor_proto::ring::Producer;

/// The connection and all that hangs on it. One per process, for as long as the process lives.
pub struct Client {
    pub(super) channel: MappedChannel,
    pub(super) producer: Mutex<Producer>,
    pub(super) free_slots: AtomicU64,
    pub(super) lifeline: OwnedFd,
    pub(super) is_lost: AtomicBool,
    pub(super) spin: Duration,
    pub(super) remoting: Remoting,
    pub(super) batch: Batch,
    /// Posts of the whole process, to know whether anything happened since a synchronisation.
    pub(super) posted: AtomicU64,
    pub(super) synchronized: AtomicU64,
    pub(super) arena: AddressRange,
    pub(super) host: AddressRange,
    /// What the program can ask about its device.
    pub device: DeviceInfo,
    pub(super) primary: &'static Context,
    pub(super) memory: DeviceMemory,
    pub(super) pinned: PinnedMemory,
    pub(super) registered: RegisteredMemory,
    pub(super) uploads: Uploads,
    pub(super) downloads: Downloads,
    pub(super) images: Images,
    pub(super) owed: Owed,
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
/// `NO_DEVICE` if `CUDA_VISIBLE_DEVICES` hides the device; `SYSTEM_NOT_READY` ("required driver daemons" in `cuda.h`)
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
    if hides_every_device(std::env::var("CUDA_VISIBLE_DEVICES").ok().as_deref()) {
        return Err(CudaError::NO_DEVICE);
    }
    let _one_at_a_time = CONNECTING.lock().unwrap_or_else(PoisonError::into_inner);
    if CLIENT.get().is_some() {
        return Ok(());
    }
    let connection = connect().map_err(|error| {
        crate::log::write(&error.to_string());
        CudaError::SYSTEM_NOT_READY
    })?;
    let client = Client::new(connection)?;
    fork::watch(client.lifeline.as_raw_fd());
    let _ = CLIENT.set(client);
    Ok(())
}

/// The one device is number 0. As with NVIDIA's driver, a list that begins with anything else leaves none.
fn hides_every_device(visible: Option<&str>) -> bool {
    let Some(list) = visible else { return false };
    let first = list.split(',').next().unwrap_or_default().trim();
    !(first == "0" || first.starts_with("GPU-"))
}

impl Client {
    fn new(connection: Connection) -> CudaResult<Self> {
        let Connection {
            welcome,
            channel,
            lifeline,
            arena,
            host,
            host_memory,
            arena_reservation,
            host_mapping,
        } = connection;
        let staging = AddressRange { address: host.address, bytes: welcome.staging_bytes };
        let device = DeviceInfo::new(welcome.device.unwrap_or_default(), welcome.memory_limit_bytes)?;
        Ok(Self {
            channel,
            producer: Mutex::new(Producer::new()),
            free_slots: AtomicU64::new(channel::ALL_SLOTS),
            lifeline,
            is_lost: AtomicBool::new(false),
            spin: Duration::from_micros(welcome.spin_us.into()),
            remoting: Remoting::of_process(),
            batch: Batch::default(),
            posted: AtomicU64::new(1),
            synchronized: AtomicU64::new(0),
            arena,
            host,
            memory: DeviceMemory::new(arena),
            device,
            primary: Context::primary(),
            pinned: PinnedMemory::new(host, staging.bytes),
            registered: RegisteredMemory::new(host_memory),
            uploads: Uploads::new(staging),
            downloads: Downloads::new(staging),
            images: Images::default(),
            owed: Owed::default(),
            _arena_reservation: arena_reservation,
            _host_mapping: host_mapping,
        })
    }

    /// The primary context. It exists from the start; retaining it only counts.
    #[must_use]
    pub fn primary_context(&self) -> &'static Context {
        self.primary
    }

    /// Whether an address is of the device: the arena, or a module's global.
    pub(super) fn is_device_address(&self, address: u64) -> bool {
        self.arena.contains(address, 0) || self.images.is_global(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visible_devices_are_honoured() {
        for shown in [None, Some("0"), Some("0,1"), Some(" 0 "), Some("GPU-abc")] {
            assert!(!hides_every_device(shown), "{shown:?}");
        }
        for hidden in ["", "-1", "1", "1,0", "none"] {
            assert!(hides_every_device(Some(hidden)), "{hidden}");
        }
    }
}
