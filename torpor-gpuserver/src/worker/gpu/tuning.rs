//! How a worker behaves, as the server says at its start.

use crate::gpu_limit::{context_limit_bytes, gpu_limit_bytes};
use crate::policy::eviction::Eviction;
use crate::policy::sharing::ActiveLimit;
use crate::swap_mode::SwapMode;
use clap::ValueEnum;
use std::time::Duration;
use torpor_proto::control::worker::Begin;

/// How sessions behave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tuning {
    /// How long a session spins before it sleeps.
    pub(crate) spin: Duration,
    /// How long an idle client keeps its turn if nobody waits for one.
    pub(crate) linger: Duration,
    /// How long those that had a turn just before wait for turns of others that are as busy.
    pub(crate) busy_turn: Duration,
    /// How long a client asks for nothing until its staging area is unlocked.
    pub(crate) staging_idle: Duration,
    /// How swap-in is done.
    pub(crate) swap: SwapMode,
    /// Bytes of a group of segments.
    pub(crate) group_bytes: u64,
    /// Device memory of all clients together.
    pub(crate) memory_limit_bytes: u64,
    /// Page-locked host memory of all clients together.
    pub(crate) pinned_limit_bytes: u64,
    /// Clients that are active at once.
    pub(crate) active_clients: ActiveLimit,
    /// Who leaves first when others need the room.
    pub(crate) eviction: Eviction,
    /// Device memory that the limits of the context take together, at most.
    pub(crate) context_limit_bytes: u64,
    /// Whether the server is given idle clients' states.
    pub(crate) cover: bool,
    /// Whether clients may be active with a part of their memory.
    pub(crate) lean: bool,
    /// Whether it is for one function alone, beside other workers of the GPU.
    pub(crate) enclosed: bool,
}

impl Tuning {
    /// What is said, on a GPU with `total_bytes` of memory. An error names what this release does not know.
    pub(crate) fn new(begin: &Begin, total_bytes: u64) -> Result<Self, String> {
        let memory_limit_bytes = gpu_limit_bytes(begin.gpu_limit_bytes, total_bytes, begin.spare);
        let active_clients = begin.active_clients.parse::<ActiveLimit>();
        Ok(Self {
            spin: Duration::from_micros(begin.spin_us),
            linger: Duration::from_micros(begin.linger_us),
            busy_turn: Duration::from_micros(begin.busy_turn_us),
            staging_idle: Duration::from_micros(begin.staging_idle_us),
            swap: SwapMode::from_str(&begin.swap, false)?,
            group_bytes: begin.swap_group_bytes,
            memory_limit_bytes,
            pinned_limit_bytes: begin.pinned_limit_bytes,
            active_clients: active_clients.map_err(|error| format!("{}: {error}", begin.active_clients))?,
            eviction: Eviction::from_str(&begin.eviction, false)?,
            context_limit_bytes: context_limit_bytes(memory_limit_bytes, total_bytes, begin.spare),
            cover: begin.cover,
            lean: begin.lean,
            enclosed: begin.enclosed,
        })
    }
}
