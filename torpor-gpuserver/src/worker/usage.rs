//! Who uses what of the GPU, as the server is told.

use crate::worker::gpu::Shared;
use crate::worker::gpu::pulse::Pulse;
use std::sync::atomic::Ordering;
use torpor_proto::control::worker::{Pong, Usage};

/// Clients in one message: at most 163 bytes each, of a message's 64 KiB.
const CLIENTS_PER_USAGE: usize = 400;
/// Functions in one message: at most 83 bytes each.
const FUNCTIONS_PER_USAGE: usize = 700;

/// What the server asks for all the time.
pub(super) fn pong(shared: &Shared, pulse: &Pulse) -> Pong {
    Pong {
        driver_silent_ms: u64::try_from(pulse.beat().silent.as_millis()).unwrap_or(u64::MAX),
        working: u32::try_from(shared.working()).unwrap_or(u32::MAX),
        unsaved_bytes: shared.unsaved_bytes(),
    }
}

/// Who uses what, in as many parts as messages need.
pub(super) fn parts(shared: &Shared, pulse: &Pulse) -> impl Iterator<Item = Usage> {
    let (free_memory_bytes, total_memory_bytes) = pulse.beat().memory;
    let (clients, code_bytes) = (shared.usage(), shared.images.loaded_bytes());
    let times = shared.gpu_time.by_function();
    let landing_bytes = shared.peers.landing_bytes();
    let [from_host_bytes, from_peers_bytes] =
        [&shared.peers.from_host_bytes, &shared.peers.from_peers_bytes].map(|it| it.load(Ordering::Relaxed));
    let with_clients = clients.len().div_ceil(CLIENTS_PER_USAGE);
    let parts = (with_clients + times.len().div_ceil(FUNCTIONS_PER_USAGE)).max(1);
    (0..parts).map(move |part| Usage {
        clients: clients.chunks(CLIENTS_PER_USAGE).nth(part).unwrap_or_default().to_vec(),
        times: match part.checked_sub(with_clients) {
            Some(part) => times.chunks(FUNCTIONS_PER_USAGE).nth(part).unwrap_or_default().to_vec(),
            None => Vec::new(),
        },
        free_memory_bytes,
        total_memory_bytes,
        code_bytes,
        landing_bytes,
        from_host_bytes,
        from_peers_bytes,
        more: part + 1 < parts,
    })
}
