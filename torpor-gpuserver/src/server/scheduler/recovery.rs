//! Clients whose worker died and who did not: each goes on from its state at the next worker of its GPU, or of one like it if that
//! GPU gets none.
//!
//! What a client posts meanwhile waits in its ring. A client that is with none of the workers counts as one that is being moved,
//! so that nobody else moves it, and whoever lets go of it finds that nobody has it. One that was in a request is there when it has
//! done again what it did since its state was written.
//!
//! Making it anew, or what it does again, may be what kills the next worker. Those whose kernels may have ended their worker are made
//! anew one at a time, and are told when a worker is lost to them again ([`Trial`]). Of others that a worker was making when it
//! died, each is made alone from then on, and not more often than [`MOST_DEATHS`] allows.

use crate::policy::event::{What, Why};
use crate::server::clients::{Client, ClientId};
use crate::server::node::Node;
use crate::server::scheduler::bench::Bench;
use crate::server::scheduler::moves;
use crate::server::scheduler::trial::{Outcome, Standing, Trial};
use crate::server::settings;
use crate::server::workers::executor::Executor;
use crate::server::workers::leaving::Stay;
use crate::server::workers::order::{Death, NotServed, Order};
use crate::server::workers::status::{SpareState, State, Status};
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use torpor_proto::error::CudaError;

/// How long a client waits for a worker: longer than a busy node with many GPUs takes to start one.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks for one.
const LOOK: Duration = Duration::from_millis(5);

/// Workers that may die while they make a client anew: with the first one, it may have been another client's fault.
const MOST_DEATHS: u32 = 3;

/// How long a client may take to do again what it did while others wait for it: then it does it beside them.
const ALONE: Duration = Duration::from_secs(5);

/// How long a trial waits for the next spare worker: as long as a context takes to make on a busy machine.
const SPARE_PATIENCE: Duration = Duration::from_secs(3);

/// Workers that may be lost while a suspect is tried, if others were at it that may have been it, too.
const MOST_DOUBTS: u32 = 2;

/// Those of a worker's clients that survive it.
#[derive(Debug)]
pub(crate) struct Bereaved {
    /// Them.
    pub(crate) orphans: Vec<Orphan>,
    /// How it died.
    pub(crate) death: Arc<Death>,
}

/// A client whose worker died.
#[derive(Debug)]
pub(crate) struct Orphan {
    /// Which.
    pub(crate) client: ClientId,
    /// What it is. It holds.
    pub(crate) state: Arc<OwnedFd>,
    /// What the others were told, and it is if nobody takes it.
    pub(crate) error: CudaError,
    /// Its GPU's worker may have it, and lets go of it first.
    pub(crate) lets_go: bool,
    /// What keeps its former worker from being ended meanwhile.
    pub(crate) stay: Option<Stay>,
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
    /// With this error.
    #[error("its kernels ended their worker: {0}")]
    Culprit(CudaError),
    /// Nobody need be told.
    #[error("the process is gone")]
    Gone,
}

/// Takes care of orphans until nobody tells of any.
pub(super) async fn run(node: Arc<Node>, mut bereaved: UnboundedReceiver<Bereaved>) {
    let bench = Bench::default();
    while let Some(Bereaved { orphans, death }) = bereaved.recv().await {
        let clients: Vec<u64> = orphans.iter().map(|orphan| orphan.client.0).collect();
        let (trial, order) = Trial::of(&death, &clients);
        let (mut suspects, others): (Vec<_>, Vec<_>) =
            orphans.into_iter().partition(|orphan| order.contains(&orphan.client.0));
        suspects.sort_by_key(|orphan| order.iter().position(|&client| client == orphan.client.0));
        for orphan in others {
            let innocent = (Standing::Innocent, Instant::now());
            tokio::spawn(care(node.clone(), orphan, innocent, bench.clone()));
        }
        if !suspects.is_empty() {
            tokio::spawn(hold(node.clone(), trial, suspects, bench.clone()));
        }
    }
}

/// Holds a trial.
async fn hold(node: Arc<Node>, mut trial: Trial, suspects: Vec<Orphan>, bench: Bench) {
    let began = Instant::now();
    let patience = began + SPARE_PATIENCE;
    for orphan in suspects {
        let standing = trial.next();
        if standing == Standing::Suspect {
            await_spare(&node, orphan.client, patience).await;
        }
        let tried = tokio::spawn(care(node.clone(), orphan, (standing, began), bench.clone()));
        let outcome = match standing {
            // Nobody need wait for it.
            Standing::Innocent => Outcome::Cleared,
            Standing::Suspect | Standing::Guilty => match timeout(ALONE, tried).await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(_)) | Err(_) => Outcome::Open,
            },
        };
        trial.note(outcome);
    }
}

/// Waits until the loss of a suspect's next worker costs the others no more than the next spare's taking over.
async fn await_spare(node: &Node, id: ClientId, deadline: Instant) {
    let Some(at) = node.clients().get(id).map(|client| client.introduction.at.clone()) else { return };
    let mut status = at.status.clone();
    let is_decided = |status: &Status| {
        status.state == State::Ready && status.spare != SpareState::Starting
            || matches!(status.state, State::Failed(_))
    };
    // It is tried without a spare, too.
    let _ = timeout_at(deadline, status.wait_for(is_decided)).await;
}

/// Takes care of one that waits since then. Returns what that says of it, if it is a suspect.
async fn care(
    node: Arc<Node>,
    orphan: Orphan,
    (standing, since): (Standing, Instant),
    bench: Bench,
) -> Outcome {
    let Orphan { client: id, state, error, lets_go, stay } = orphan;
    let began = Instant::now();
    let Some(at) = claim(&node, id).await else { return Outcome::Open };
    let gpu = at.gpu;
    if lets_go {
        // Nothing comes of it when the server is ending.
        let _ = at.ask(|done| Order::Detach { client: id.0, done }).await;
    }
    let restored = match standing {
        Standing::Guilty => Err(LostError::Culprit(error)),
        Standing::Innocent | Standing::Suspect => {
            restore(&node, id, (&at, &state), standing == Standing::Suspect, (&bench, since)).await
        }
    };
    drop(stay);
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
    let fail = |lost: LostError, error: CudaError| {
        let function = at.store().function(id);
        tracing::error!(client, %function, took_ms, "client lost: {lost}");
        memory.into_iter().for_each(|memory| memory.channel.fail(error));
        at.store().forget(id);
    };
    match restored {
        Ok(gpu) => {
            settings::tell_workers(&node);
            tracing::info!(client, gpu, took_ms, "the client goes on at another worker");
            Outcome::Cleared
        }
        Err(LostError::Gone) => Outcome::Open,
        Err(lost @ LostError::Culprit(error)) => {
            fail(lost, error);
            Outcome::Convicted
        }
        Err(lost) => {
            fail(lost, error);
            Outcome::Open
        }
    }
}

/// Keeps others from moving the client. Returns where it was; `None` if it is gone.
async fn claim(node: &Node, id: ClientId) -> Option<Arc<Executor>> {
    loop {
        {
            let mut clients = node.clients();
            let client = clients.get_mut(id).filter(|client| client.is_serving())?;
            // Whoever was about to move it learns that its worker gives it up no more.
            if client.moving_to.is_none() {
                let (at, gpu) = (client.introduction.at.clone(), client.introduction.gpu());
                client.moving_to = Some(gpu);
                client.generation += 1;
                let (why, generation) = (Why::Lost, client.generation);
                node.events().tell(What::MoveBegan { client: id.0, to: gpu, why, generation });
                return Some(at);
            }
        }
        sleep(LOOK).await;
    }
}

/// Returns the GPU that the client is on.
async fn restore(
    node: &Node,
    id: ClientId,
    (was_at, state): (&Arc<Executor>, &Arc<OwnedFd>),
    mut is_suspect: bool,
    (bench, since): (&Bench, Instant),
) -> Result<usize, LostError> {
    let (deadline, mut deaths, mut doubts) = (Instant::now() + PATIENCE, 0, 0);
    loop {
        let one_at_a_time = if is_suspect || deaths > 0 { Some(bench.take(since).await) } else { None };
        let at = ready_executor(node, id, was_at, deadline).await?;
        let terms = moves::Terms { is_tried: is_suspect, ..moves::Terms::default() };
        let mut attaching = pin!(moves::attach(node, id, &at, state, terms));
        let (attached, was_overdue) = match timeout(ALONE, &mut attaching).await {
            Ok(attached) => (attached, false),
            Err(_) => {
                drop(one_at_a_time);
                (attaching.await, true)
            }
        };
        // Its process is gone, or the server is ending.
        let attached = attached.map_err(|_| LostError::Gone)?;
        let Err(refused) = attached else { return Ok(at.gpu) };
        match refused {
            // It was gone again before it heard of the client.
            NotServed::NoWorker(_) => {}
            NotServed::Died(death) => match death.fault {
                Some(error) if death.accuses(id.0) => {
                    // Others ran beside it after all, unless it is named: it may have been any of them.
                    doubts += u32::from(is_suspect && !was_overdue);
                    if death.culprit.is_some() || doubts >= MOST_DOUBTS {
                        return Err(LostError::Culprit(error));
                    }
                    is_suspect = true;
                }
                // Another client's.
                Some(_) if !death.suspects.is_empty() => {}
                _ => {
                    deaths += 1;
                    if deaths >= MOST_DEATHS {
                        return Err(LostError::Deadly);
                    }
                }
            },
            NotServed::Refused(_) => {
                // It holds the client's addresses until it says that it does not.
                let _ = at.ask(|done| Order::Detach { client: id.0, done }).await;
                return Err(LostError::Refused(refused));
            }
        }
        at.store().released(id);
    }
}

/// How many processes of a client's function that use another of its devices are on a GPU ([`apart`](crate::policy::apart)).
fn strangers(node: &Node, id: ClientId, gpu: usize) -> usize {
    let clients = node.clients();
    let Some(client) = clients.get(id).filter(|client| client.home.is_some()) else { return 0 };
    let is_stranger = |other: &&Client| {
        other.introduction.function == client.introduction.function
            && other.home.is_some_and(|home| Some(home) != client.home)
            && other.moving_to.unwrap_or(other.introduction.gpu()) == gpu
    };
    clients.iter().filter(is_stranger).count()
}

/// Waits for a worker: that of the client's GPU, or, if that has none that could be started, that of another one that is alike.
async fn ready_executor(
    node: &Node,
    id: ClientId,
    was_at: &Arc<Executor>,
    deadline: Instant,
) -> Result<Arc<Executor>, LostError> {
    loop {
        let function = {
            let mut clients = node.clients();
            let client = clients.get_mut(id).filter(|client| client.is_serving()).ok_or(LostError::Gone)?;
            client.introduction.function.clone()
        };
        let status = was_at.status();
        if status.state == State::Ready {
            return Ok(was_at.clone());
        }
        let name = status.device.as_ref().map(|device| &device.name);
        let alike = |&gpu: &usize| {
            let other = node.gpus()[gpu].status();
            other.state == State::Ready
                && other.device.as_ref().map(|device| &device.name) == name
                && settings::may_be_on(node, &function, gpu)
        };
        // A strict function stays where it is.
        if matches!(status.state, State::Failed(_))
            && !was_at.is_enclosure
            && let Some(other) =
                (0..node.gpus().len()).filter(alike).min_by_key(|&gpu| strangers(node, id, gpu))
        {
            return Ok(node.gpus()[other].shared().clone());
        }
        if Instant::now() >= deadline {
            return Err(LostError::NoWorker);
        }
        sleep(LOOK).await;
    }
}
