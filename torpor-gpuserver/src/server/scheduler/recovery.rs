//! Clients whose worker died and who did not: each goes on from its state at the next worker of its GPU, or of one like it if that
//! GPU gets none.
//!
//! What a client posts meanwhile waits in its ring. A client that is with none of the workers counts as one that is being moved,
//! so that nobody else moves it, and whoever lets go of it finds that nobody has it.
//!
//! A client was not running when its worker died. But making it anew may be what kills the next one: of those that a worker was
//! making when it died, each is made alone from then on, and not more often than [`MOST_DEATHS`] allows.

use crate::policy::event::{What, Why};
use crate::server::clients::ClientId;
use crate::server::node::Node;
use crate::server::scheduler::moves;
use crate::server::settings;
use crate::server::workers::order::{NotServed, Order};
use crate::server::workers::status::State;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, sleep};
use torpor_proto::error::CudaError;

/// How long a client waits for a worker: longer than a busy node with many GPUs takes to start one.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks for one.
const LOOK: Duration = Duration::from_millis(5);

/// Workers that may die while they make a client anew: with the first one, it may have been another client's fault.
const MOST_DEATHS: u32 = 3;

/// A client whose worker died.
#[derive(Debug)]
pub(crate) struct Orphan {
    /// Which.
    pub(crate) client: ClientId,
    /// What it is. It holds.
    pub(crate) state: Arc<OwnedFd>,
    /// What the others were told, and it is if nobody takes it.
    pub(crate) error: CudaError,
}

/// Why a client is lost after all.
#[derive(Debug, thiserror::Error)]
enum LostError {
    #[error("no worker was ready for it within {} seconds", PATIENCE.as_secs())]
    NoWorker,
    #[error("each of {MOST_DEATHS} workers died that was to serve it")]
    Deadly,
    #[error("the GPU's worker does not take it: {0}")]
    Refused(NotServed),
    /// Nobody need be told.
    #[error("the process is gone")]
    Gone,
}

/// Takes care of orphans until nobody tells of any.
pub(super) async fn run(node: Arc<Node>, mut orphans: UnboundedReceiver<Orphan>) {
    let alone = Arc::new(Mutex::new(()));
    while let Some(orphan) = orphans.recv().await {
        tokio::spawn(care(node.clone(), orphan, alone.clone()));
    }
}

async fn care(node: Arc<Node>, orphan: Orphan, alone: Arc<Mutex<()>>) {
    let Orphan { client: id, state, error } = orphan;
    let began = Instant::now();
    let Some(gpu) = claim(&node, id).await else { return };
    let restored = restore(&node, id, gpu, &state, &alone).await;
    let (client, took) = (id.0, began.elapsed());
    let memory = node.clients().get_mut(id).and_then(|served| {
        served.moving_to = None;
        served.generation += 1;
        let (why, generation) = (Why::Lost, served.generation);
        node.events().tell(match &restored {
            Ok(to) => What::Moved { client, from: gpu, to: *to, why, took, generation },
            Err(lost) => What::ClientFailed { client, reason: lost.to_string() },
        });
        served.memory().cloned()
    });
    let took_ms = took.as_millis();
    match restored {
        Ok(gpu) => {
            settings::tell_workers(&node);
            tracing::info!(client, gpu, took_ms, "the client goes on at another worker");
        }
        Err(LostError::Gone) => {}
        Err(lost) => {
            tracing::error!(client, took_ms, "client lost: {lost}");
            memory.into_iter().for_each(|memory| memory.channel.fail(error));
            node.store().forget(id);
        }
    }
}

/// Keeps others from moving the client. Returns where it was; `None` if it is gone.
async fn claim(node: &Node, id: ClientId) -> Option<usize> {
    loop {
        {
            let mut clients = node.clients();
            let client = clients.get_mut(id).filter(|client| client.is_serving())?;
            // Whoever was about to move it learns that its worker gives it up no more.
            if client.moving_to.is_none() {
                let gpu = client.introduction.gpu;
                client.moving_to = Some(gpu);
                client.generation += 1;
                let (why, generation) = (Why::Lost, client.generation);
                node.events().tell(What::MoveBegan { client: id.0, to: gpu, why, generation });
                return Some(gpu);
            }
        }
        sleep(LOOK).await;
    }
}

/// Returns the GPU that the client is on.
async fn restore(
    node: &Node,
    id: ClientId,
    was_on: usize,
    state: &Arc<OwnedFd>,
    alone: &Mutex<()>,
) -> Result<usize, LostError> {
    let (deadline, mut deaths) = (Instant::now() + PATIENCE, 0);
    loop {
        let _one_at_a_time = if deaths > 0 { Some(alone.lock().await) } else { None };
        let gpu = ready_gpu(node, id, was_on, deadline).await?;
        // Its process is gone, or the server is ending.
        let attached = moves::attach(node, id, gpu, state).await.map_err(|_| LostError::Gone)?;
        let Err(refused) = attached else { return Ok(gpu) };
        match refused {
            // It was gone again before it heard of the client.
            NotServed::NoWorker(_) => {}
            NotServed::Died(_) => {
                deaths += 1;
                if deaths >= MOST_DEATHS {
                    return Err(LostError::Deadly);
                }
            }
            NotServed::Refused(_) => {
                // It holds the client's addresses until it says that it does not.
                let _ = node.gpus()[gpu].ask(|done| Order::Detach { client: id.0, done }).await;
                return Err(LostError::Refused(refused));
            }
        }
        node.store().released(id);
    }
}

/// Waits for a worker: that of the client's GPU, or, if that has none that could be started, that of another one that is alike.
async fn ready_gpu(node: &Node, id: ClientId, was_on: usize, deadline: Instant) -> Result<usize, LostError> {
    loop {
        let function = {
            let mut clients = node.clients();
            let client = clients.get_mut(id).filter(|client| client.is_serving()).ok_or(LostError::Gone)?;
            client.introduction.function.clone()
        };
        let status = node.gpus()[was_on].status();
        if status.state == State::Ready {
            return Ok(was_on);
        }
        let name = status.device.as_ref().map(|device| &device.name);
        let alike = |&gpu: &usize| {
            let other = node.gpus()[gpu].status();
            other.state == State::Ready
                && other.device.as_ref().map(|device| &device.name) == name
                && settings::may_be_on(node, &function, gpu)
        };
        if matches!(status.state, State::Failed(_))
            && let Some(other) = (0..node.gpus().len()).find(alike)
        {
            return Ok(other);
        }
        if Instant::now() >= deadline {
            return Err(LostError::NoWorker);
        }
        sleep(LOOK).await;
    }
}
