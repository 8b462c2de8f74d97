//! What workers say of their clients, as the scheduler hears it.

use crate::policy::event::{self, Figures};
use crate::server::workers::gpu::Gpu;
use crate::server::workers::usage;
use std::time::Duration;
use torpor_proto::control::worker::{ClientUsage, Phase, Usage};

/// Of each GPU's clients; nothing where the worker of those that share it does not answer in time.
pub(super) async fn by_gpu(gpus: &[Gpu]) -> Vec<Option<Vec<Figures>>> {
    let usage = usage::by_gpu(gpus).await;
    let of_gpu = |said: Vec<Option<Usage>>| {
        said.first()?.as_ref()?;
        let mut all = Vec::new();
        for (at, usage) in said.iter().enumerate() {
            // A move of a strict function waits for a context.
            let is_strict = at > 0;
            all.extend(usage.iter().flat_map(|usage| &usage.clients).map(|usage| figures(usage, is_strict)));
        }
        Some(all)
    };
    usage.into_iter().map(of_gpu).collect()
}

impl From<Phase> for event::Phase {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Idle => Self::Idle,
            Phase::Waiting => Self::Waiting,
            Phase::Active => Self::Active,
        }
    }
}

fn figures(usage: &ClientUsage, is_strict: bool) -> Figures {
    Figures {
        client: usage.client,
        phase: usage.phase().into(),
        busy: usage.busy,
        fixed: is_strict || usage.fixed_images > 0 || usage.shares || usage.fixed_objects > 0,
        resident_bytes: usage.memory_bytes,
        allocated_bytes: usage::allocated_bytes(usage),
        worked: Duration::from_micros(usage.worked_us),
        turns: usage.requests,
        turn_lasts: Duration::from_micros(usage.turn_us),
    }
}
