//! The spare worker of a GPU: its context is made, it serves no client, and it takes the place of the first one at once when that
//! ends.
//!
//! A task of its own makes it, some time after the first one is ready, and looks after it. What cannot be made, or ends by itself, is
//! made again after a pause that grows; the server goes on without it meanwhile.

use crate::server::workers::gpu::stopped;
use crate::server::workers::process::{LAST_WORDS, Recipe, StartError, WorkerProcess};
use crate::server::workers::status::{SpareState, Status};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use torpor_proto::control::client::Device;
use torpor_proto::control::worker::FromWorker;

/// Between the first worker's readiness and the spare's start: the first clients load their code then, and a context takes a core for
/// most of a second.
const SETTLE: Duration = Duration::from_secs(3);

/// The same where the next one may be needed at once. Clients are being made anew at the first worker, which the driver does not do
/// while it makes a context (for 250 ms, on an H200).
const SHORT_SETTLE: Duration = Duration::from_millis(400);

/// Between two attempts, at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// A spare that stood ready as long as this did not end for what ended the ones before it.
const HEALTHY: Duration = Duration::from_secs(30);

/// A worker that may serve.
#[derive(Debug)]
pub(super) struct Standby {
    pub(super) worker: WorkerProcess,
    /// What it says of its device, if it is ready.
    pub(super) device: Option<Arc<Device>>,
}

/// The spare worker of a GPU.
#[derive(Debug)]
pub(super) enum Spare {
    /// There is never one.
    Off,
    /// There is none until the first worker is ready.
    Due(Box<Keeper>),
    /// It is looked after, until it is wanted.
    Kept { hurry: Arc<Notify>, wanted: oneshot::Sender<()>, task: JoinHandle<(Keeper, Option<Standby>)> },
}

impl Spare {
    /// The spare of a GPU, if the recipe is for one that has any.
    pub(super) fn new(
        recipe: &Recipe,
        index: u32,
        status: &watch::Sender<Status>,
        stop: &watch::Receiver<bool>,
        inherited: Option<WorkerProcess>,
    ) -> Self {
        if !recipe.begin.spare {
            return Self::Off;
        }
        let (recipe, status, stop) = (recipe.clone(), status.clone(), stop.clone());
        let is_there = inherited.is_some();
        let (hurry, failures, has_told, is_urgent) = (Arc::default(), 0, false, false);
        let keeper = Keeper { index, recipe, status, stop, failures, has_told, is_urgent, hurry, inherited };
        let mut spare = Self::Due(Box::new(keeper));
        if is_there {
            spare.keep(false);
        }
        spare
    }

    /// The first worker is ready: a spare is made, in a while, or at once.
    pub(super) fn keep(&mut self, at_once: bool) {
        *self = match std::mem::replace(self, Self::Off) {
            Self::Due(mut keeper) => {
                keeper.is_urgent = at_once;
                // What the last one was told is not for this one.
                keeper.hurry = Arc::default();
                keeper.publish(SpareState::Starting);
                let (wanted, heard) = oneshot::channel();
                let hurry = keeper.hurry.clone();
                Self::Kept { hurry, wanted, task: tokio::spawn(keeper.keep(heard)) }
            }
            other => other,
        };
    }

    /// The first worker is over: if the spare has not been begun yet, it is now, while that one's process ends.
    pub(super) fn hurry(&self) {
        if let Self::Kept { hurry, .. } = self {
            hurry.notify_one();
        }
    }

    /// The spare, ready or being started, if there is one. There is none from then on.
    pub(super) async fn take(&mut self) -> Option<Standby> {
        match std::mem::replace(self, Self::Off) {
            Self::Kept { wanted, task, .. } => {
                // The task is over already if the server is ending.
                let _ = wanted.send(());
                // One that panicked keeps no spare any more.
                let (keeper, standby) = task.await.ok()?;
                keeper.publish(SpareState::Starting);
                *self = Self::Due(Box::new(keeper));
                let mut standby = standby?;
                // What ended the first one may have ended both.
                (!standby.worker.has_ended()).then_some(standby)
            }
            other => {
                *self = other;
                None
            }
        }
    }
}

/// Makes the spare, and looks after it.
#[derive(Debug)]
pub(super) struct Keeper {
    index: u32,
    recipe: Recipe,
    status: watch::Sender<Status>,
    stop: watch::Receiver<bool>,
    /// Attempts since the last spare that was of use.
    failures: u32,
    /// The operator knows that there is none.
    has_told: bool,
    /// The next one is made as soon as those that go on at once have done so.
    is_urgent: bool,
    /// Told when the next one is to be made at once.
    hurry: Arc<Notify>,
    /// The spare of the server before.
    inherited: Option<WorkerProcess>,
}

impl Keeper {
    async fn keep(mut self, mut wanted: oneshot::Receiver<()>) -> (Self, Option<Standby>) {
        loop {
            let reason = match self.stand(&mut wanted).await {
                Ok(standby) => return (self, standby),
                Err(reason) => reason,
            };
            self.publish(SpareState::Failed);
            self.failures = self.failures.saturating_add(1);
            if self.has_told {
                tracing::debug!(gpu = self.index, "still no spare worker: {reason}");
            } else {
                self.has_told = true;
                tracing::warn!(
                    gpu = self.index,
                    "no spare worker stands ready: {reason}. The GPU is served without it, and it is tried again by itself; \
                     spare_worker = false in [scheduler] does without"
                );
            }
        }
    }

    /// One spare, from the pause before it to its end. `Ok` when it is wanted, or the server is ending; else why it is no more.
    async fn stand(&mut self, wanted: &mut oneshot::Receiver<()>) -> Result<Option<Standby>, String> {
        let mut worker = match self.inherited.take() {
            Some(worker) => worker,
            None => {
                let pause =
                    if std::mem::take(&mut self.is_urgent) { SHORT_SETTLE } else { pause(self.failures) };
                tokio::select! {
                    () = sleep(pause) => {}
                    // What cannot be made is not tried more often for that.
                    () = self.hurry.notified(), if self.failures == 0 => {}
                    _ = &mut *wanted => return Ok(None),
                    () = stopped(&mut self.stop) => return Ok(None),
                }
                self.publish(SpareState::Starting);
                let started = WorkerProcess::spawn(&self.recipe, self.index, true).await;
                started.map_err(|error| error.to_string())?
            }
        };
        let known = worker.device();
        let ready = tokio::select! {
            ready = readiness(&mut worker, known) => ready,
            _ = &mut *wanted => return Ok(Some(Standby { worker, device: None })),
            () = stopped(&mut self.stop) => {
                worker.dismiss().await;
                return Ok(None);
            }
        };
        let device = match ready {
            Ok(device) => Some(device),
            Err(error) => {
                let _ = worker.epitaph(LAST_WORDS).await;
                return Err(error.to_string());
            }
        };
        let since = Instant::now();
        self.has_told = false;
        self.publish(SpareState::Ready(worker.pid().unwrap_or(0)));
        tracing::info!(gpu = self.index, pid = worker.pid(), "a spare worker stands ready");
        tokio::select! {
            // It is not asked anything, so it says nothing until it ends.
            _ = worker.socket.receive::<FromWorker>() => {}
            _ = &mut *wanted => {
                self.failures = 0;
                return Ok(Some(Standby { worker, device }));
            }
            () = stopped(&mut self.stop) => {
                worker.dismiss().await;
                return Ok(None);
            }
        }
        if since.elapsed() >= HEALTHY {
            self.failures = 0;
        }
        Err(format!("it ended by itself ({})", worker.epitaph(LAST_WORDS).await))
    }

    fn publish(&self, spare: SpareState) {
        self.status.send_modify(|status| status.spare = spare);
    }
}

/// Waits until a worker holds its context, unless it was `known` to.
async fn readiness(
    worker: &mut WorkerProcess,
    known: Option<Arc<Device>>,
) -> Result<Arc<Device>, StartError> {
    match known {
        Some(device) => Ok(device),
        None => worker.ready().await.map(Arc::new),
    }
}

/// The pause before an attempt, after so many that failed.
fn pause(failures: u32) -> Duration {
    SETTLE.saturating_mul(2_u32.saturating_pow(failures)).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit() {
        assert_eq!([0, 1, 2].map(pause), [SETTLE, SETTLE * 2, SETTLE * 4]);
        assert_eq!([10, u32::MAX].map(pause), [LONGEST_PAUSE; 2]);
    }
}
