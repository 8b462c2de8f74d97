//! What workers say of their clients, as the scheduler hears it.

use crate::policy::event::{self, Figures};
use crate::server::workers::gpu::Gpu;
use crate::server::workers::usage;
use std::time::Duration;
use torpor_proto::control::worker::{ClientUsage, Phase};

/// Of each GPU's clients; nothing where the worker does not answer in time.
pub(super) async fn by_gpu(gpus: &[Gpu]) -> Vec<Option<Vec<Figures>>> {
    let usage = usage::by_gpu(gpus).await;
    usage.into_iter().map(|usage| Some(usage?.clients.iter().map(figures).collect())).collect()
}

fn figures(usage: &ClientUsage) -> Figures {
    Figures {
        client: usage.client,
        phase: match usage.phase() {
            Phase::Idle => event::Phase::Idle,
            Phase::Waiting => event::Phase::Waiting,
            Phase::Active => event::Phase::Active,
        },
        busy: usage.busy,
        fixed: usage.fixed_images > 0 || usage.shares || usage.arrays > 0,
        resident_bytes: usage.memory_bytes,
        allocated_bytes: usage::allocated_bytes(usage),
        worked: Duration::from_micros(usage.worked_us),
        turns: usage.requests,
        turn_lasts: Duration::from_micros(usage.turn_us),
    }
}
