//! What the workers say of who uses what.

use crate::server::workers::executor::Executor;
use crate::server::workers::gpu::Gpu;
use crate::server::workers::heartbeat::Silent;
use crate::server::workers::order::Order;
use crate::server::workers::status::State;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use torpor_proto::control::worker::{ClientUsage, Phase, Usage};

/// How long workers may take; a list without figures is better than none. On a machine that is busy a worker can take half of that, and
/// whoever reads the list takes a missing figure for 0.
const TIMEOUT: Duration = Duration::from_secs(1);

/// What the executors of each GPU say, in the order of the GPUs, that of those who share it first; nothing where one does not answer
/// in time.
pub async fn by_gpu(gpus: &[Gpu]) -> Vec<Vec<Option<Usage>>> {
    let deadline = Instant::now() + TIMEOUT;
    let ask = |executor: Arc<Executor>| {
        let (done, answer) = oneshot::channel();
        let status = executor.status();
        let mute = status.silence.is_some_and(|silence| silence.who == Silent::Worker);
        (status.state == State::Ready && !mute && executor.order(Order::ReportUsage { done }))
            .then_some(answer)
    };
    let asked: Vec<Vec<_>> = gpus.iter().map(|gpu| gpu.executors().into_iter().map(ask).collect()).collect();
    let mut reports = Vec::with_capacity(asked.len());
    for answers in asked {
        let mut said = Vec::with_capacity(answers.len());
        for answer in answers {
            said.push(match answer {
                Some(answer) => timeout_at(deadline, answer).await.ok().and_then(Result::ok),
                None => None,
            });
        }
        reports.push(said);
    }
    reports
}

/// What the workers say of each client, by its number.
pub async fn by_client(gpus: &[Gpu]) -> HashMap<u64, ClientUsage> {
    let reports = by_gpu(gpus).await;
    let clients = reports.into_iter().flatten().flatten().flat_map(|usage| usage.clients);
    clients.map(|usage| (usage.client, usage)).collect()
}

/// Device memory that a client has allocated. What is on the GPU is allocated, whatever else its worker says.
#[must_use]
pub fn allocated_bytes(usage: &ClientUsage) -> u64 {
    usage.allocated_bytes.max(usage.memory_bytes)
}

/// What a client, or a function, does. In the order in which the most telling of several is the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Activity {
    /// Every call fails.
    Failed,
    /// Nothing.
    Idle,
    /// It has work and no GPU.
    Waiting,
    /// It has its GPU.
    Active,
}

impl Activity {
    /// That of a client.
    #[must_use]
    pub fn of(has_failed: bool, usage: &ClientUsage) -> Self {
        match usage.phase() {
            _ if has_failed => Self::Failed,
            Phase::Waiting => Self::Waiting,
            Phase::Active => Self::Active,
            Phase::Idle if usage.busy => Self::Active,
            Phase::Idle => Self::Idle,
        }
    }
}

impl fmt::Display for Activity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Failed => "failed",
            Self::Idle => "idle",
            Self::Waiting => "waiting",
            Self::Active => "active",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_without_a_gpu_waits_though_it_has_work() {
        let usage = |phase: Phase, busy| ClientUsage { phase: phase.into(), busy, ..ClientUsage::default() };
        assert_eq!(Activity::of(false, &usage(Phase::Waiting, true)), Activity::Waiting);
        assert_eq!(Activity::of(false, &usage(Phase::Idle, true)), Activity::Active);
        assert_eq!(Activity::of(false, &usage(Phase::Active, false)), Activity::Active);
        assert_eq!(Activity::of(true, &usage(Phase::Active, true)), Activity::Failed);
        // A worker of another release.
        let unknown = ClientUsage { phase: 17, ..ClientUsage::default() };
        assert_eq!(Activity::of(false, &unknown), Activity::Idle);
    }
}
