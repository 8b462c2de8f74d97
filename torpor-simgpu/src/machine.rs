//! The simulated machine: everything there is one of in a process.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use crate::array::{Array, Mipmapped};
use crate::check::{Clocks, Writers};
use crate::clock::Clock;
use crate::compile::Compilation;
use crate::config::Config;
use crate::context::Context;
use crate::device::Device;
use crate::engine::Engines;
use crate::error::{CudaError, Result};
use crate::event::Event;
use crate::function::{Function, Kernel};
use crate::graph::{Condition, Executable, Graph};
use crate::green::Part;
use crate::handle::Table;
use crate::launch::InFlight;
use crate::library::Library;
use crate::lock;
use crate::log::Log;
use crate::memory::{Physical, Space};
use crate::module::Module;
use crate::object::Objects;
use crate::printed::Printed;
use crate::stream::Queue;

/// Everything.
#[derive(Debug)]
pub struct Machine {
    pub config: Config,
    pub log: Log,
    pub clock: Clock,
    pub engines: Engines,
    pub space: Space,
    pub devices: Vec<Device>,
    pub contexts: Table<Context>,
    pub streams: Table<Queue>,
    pub events: Table<Event>,
    pub allocations: Table<Physical>,
    pub libraries: Table<Library>,
    pub modules: Table<Module>,
    pub functions: Table<Function>,
    pub kernels: Table<Kernel>,
    /// Where the functions of the next module begin.
    pub functions_end: AtomicU64,
    pub graphs: Table<Graph>,
    pub executables: Table<Executable>,
    pub compilations: Table<Compilation>,
    pub conditions: Table<Condition>,
    pub arrays: Table<Array>,
    pub mipmapped: Table<Mipmapped>,
    /// Parts of devices that green contexts are made of.
    pub descriptions: Table<Part>,
    pub greens: Table<Context>,
    splits: AtomicU32,
    /// Texture and surface objects.
    pub objects: Objects,
    /// What kernels printed and nobody has synchronised with yet.
    pub printed: Printed,
    /// Launches issued and not complete.
    pub in_flight: InFlight,
    /// What the host has waited for, for the check `unordered`.
    pub host_clocks: Mutex<Clocks>,
    /// Who wrote what, for the check `unordered`.
    pub writers: Writers,
    /// Set when the sticky error is: running kernels stop.
    pub cancel: AtomicBool,
    /// Somebody's call waits for all work of its device, and everybody else's calls wait for that.
    pub is_jammed: AtomicBool,
    sticky: AtomicI32,
}

/// Functions are above all memory, and in each process elsewhere, so that an address of another process is none here.
const FUNCTIONS: u64 = 1 << 60;
const PROCESS_SHIFT: u32 = 32;

static MACHINE: OnceLock<Machine> = OnceLock::new();
static INITIALISING: Mutex<()> = Mutex::new(());

/// The machine, if `cuInit` has made it.
pub fn machine() -> Result<&'static Machine> {
    MACHINE.get().ok_or(CudaError::NOT_INITIALIZED)
}

/// Makes the machine that the environment describes, unless there is one.
pub fn initialise() -> Result<&'static Machine> {
    let _initialising = lock(&INITIALISING);
    if let Some(machine) = MACHINE.get() {
        return Ok(machine);
    }
    let refused = |message: &dyn std::fmt::Display| {
        // Nobody has named a log yet, and a machine that silently fails to start cannot be found out.
        eprintln!("torpor-simgpu: {message}");
        CudaError::NOT_INITIALIZED
    };
    let config = Config::from_environment().map_err(|error| refused(&error))?;
    let log =
        Log::open(config.log.as_deref()).map_err(|error| refused(&format!("TORPOR_SIMGPU_LOG: {error}")))?;
    Ok(MACHINE.get_or_init(|| Machine::new(config, log)))
}

impl Machine {
    fn new(config: Config, log: Log) -> Self {
        let devices =
            (0..config.devices).map(|ordinal| Device::new(ordinal, config.profile.memory_bytes)).collect();
        let clock = Clock::new(config.time);
        log.line(&format!("{} x {}, {:?} time", config.devices, config.profile.name, config.time));
        Self {
            objects: Objects::new(config.object_handles),
            config,
            log,
            clock,
            engines: Engines::default(),
            space: Space::default(),
            devices,
            contexts: Table::new(0),
            streams: Table::new(1),
            events: Table::new(2),
            allocations: Table::new(3),
            libraries: Table::new(4),
            modules: Table::new(5),
            functions: Table::new(6),
            kernels: Table::new(7),
            functions_end: AtomicU64::new(FUNCTIONS | u64::from(std::process::id()) << PROCESS_SHIFT),
            graphs: Table::new(8),
            executables: Table::new(9),
            compilations: Table::new(10),
            conditions: Table::new(11),
            arrays: Table::new(12),
            mipmapped: Table::new(13),
            descriptions: Table::new(14),
            greens: Table::new(15),
            splits: AtomicU32::new(0),
            printed: Printed::default(),
            in_flight: InFlight::default(),
            host_clocks: Mutex::default(),
            writers: Writers::default(),
            cancel: AtomicBool::new(false),
            is_jammed: AtomicBool::new(false),
            sticky: AtomicI32::new(0),
        }
    }

    /// The device with this ordinal.
    pub fn device(&self, ordinal: i32) -> Result<&Device> {
        let index = usize::try_from(ordinal).map_err(|_| CudaError::INVALID_DEVICE)?;
        self.devices.get(index).ok_or(CudaError::INVALID_DEVICE)
    }

    /// A number that no other split of a device's multiprocessors has, from 1.
    pub fn next_split(&self) -> u32 {
        self.splits.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Makes `error` the answer to every later call of the process; the first one stays.
    pub fn stick(&self, error: CudaError, reason: &str) {
        let first = self.sticky.compare_exchange(0, error.0, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        self.cancel.store(true, Ordering::SeqCst);
        if first {
            self.log.line(&format!("sticky error {error}: {reason}"));
        }
        for queue in self.streams.all() {
            queue.wake();
        }
    }

    /// Waits while a call keeps all others waiting.
    pub fn wait_while_jammed(&self) -> Result {
        while self.is_jammed.load(Ordering::SeqCst) {
            self.health(None)?;
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Fails if the process has a sticky error, or if the device is lost.
    pub fn health(&self, device: Option<usize>) -> Result {
        match self.sticky.load(Ordering::SeqCst) {
            0 => {}
            code => return Err(CudaError(code)),
        }
        if device.is_some_and(|device| self.config.faults.is_lost(device)) {
            self.log.once(&format!("device {} has fallen off the bus", device.unwrap_or(0)));
            return Err(CudaError::UNKNOWN);
        }
        Ok(())
    }
}
