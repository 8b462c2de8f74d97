//! Moving a client from one GPU to another: its worker gives it up, with its state, and another one takes it.
//!
//! ```text
//! Release ─▶ old worker ─▶ Released, state ─▶ Attach, state ─▶ new worker ─▶ Attached
//!                └─ NotReleased: it stays                           └─ refuses, or dies: Detach, then Attach to the old one
//! ```
//!
//! Clients that have memory or events together are moved as [parties].
//!
//! The client notices nothing: its commands wait in its ring. [`Introduction::at`](crate::server::clients::Introduction::at)
//! changes at the moment at which the order to attach is given, with the clients locked, so that whoever lets go of the
//! client at any moment gives that order to the worker that has it, or behind the order to take it.

use crate::policy::event::{What, Why};
use crate::server::clients::ClientId;
use crate::server::node::Node;
use crate::server::scheduler::parties::{self, Seat};
use crate::server::settings;
use crate::server::workers::enclosures::TooManyEnclosures;
use crate::server::workers::executor::Executor;
use crate::server::workers::order::{NotReleased, NotServed, Order};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use torpor_proto::error::CudaError;

/// Why a client is not where it was to go.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// It is not there (any more), or all of its calls fail.
    #[error("the process is gone")]
    Gone,
    /// Somebody else moves it.
    #[error("it is being moved already")]
    Moving,
    /// It was moved since this was decided.
    #[error("it was moved meanwhile")]
    Outdated,
    /// Its program was told what GPU it has.
    #[error("the GPU is no {is}, which its program was told that it has")]
    Unlike {
        /// The name of the GPU that it is on.
        is: String,
    },
    /// It is strict, and its function may have no worker there.
    #[error(transparent)]
    Enclosures(#[from] TooManyEnclosures),
    /// It is back where one is that it has memory or events together with.
    #[error(
        "another process that it shares memory or events with could not go with it; `torpor functions` and the log say more"
    )]
    Company,
    /// Its worker keeps it.
    #[error("{0}")]
    Stays(#[from] NotReleased),
    /// It is back.
    #[error("the GPU's worker does not take it: {0}")]
    Refused(NotServed),
    /// Nobody has it; all of its calls fail.
    #[error("neither GPU's worker takes it: {there}; nor does the one where it was: {back}")]
    Lost {
        /// Why not where it was to go.
        there: Box<MoveError>,
        /// Why not where it was.
        back: NotServed,
    },
}

/// A move under way, and what comes of it.
pub(crate) type Moving = JoinHandle<Result<(), MoveError>>;

/// Begins to move a client to another GPU, unless it is there; [because it waits](Why::Waiting) only if it waits for its turn now,
/// and only if it is of this `generation`, where that is known. The task ends when the client is there, or stays: with a busy client
/// that may take long. Nobody need wait for it.
///
/// # Errors
/// [`MoveError`], also as the task's result.
pub fn begin(
    node: &Arc<Node>,
    id: ClientId,
    to: usize,
    why: Why,
    generation: Option<u64>,
) -> Result<Moving, MoveError> {
    let from = claim(node, id, to, why, generation)?;
    Ok(spawn(node, id, (from, to), why, None))
}

/// Begins to move clients of a function that is asked to be on another GPU, as [`begin`]. Those that are at one worker go together, or
/// none of them does.
pub(crate) fn begin_together(
    node: &Arc<Node>,
    ids: &[ClientId],
    to: usize,
) -> Vec<(ClientId, Result<Moving, MoveError>)> {
    let claimed = ids.iter().map(|&id| (id, claim(node, id, to, Why::Asked, None)));
    let (claimed, failed): (Vec<_>, Vec<_>) = claimed.partition(|(_, from)| from.is_ok());
    let mut claimed: Vec<(ClientId, Arc<Executor>)> =
        claimed.into_iter().filter_map(|(id, from)| Some((id, from.ok()?))).collect();
    claimed.sort_by_key(|(_, from)| Arc::as_ptr(from));
    let mut begun = Vec::new();
    for party in claimed.chunk_by(|(_, one), (_, other)| Arc::ptr_eq(one, other)) {
        let ids: Vec<ClientId> = party.iter().map(|&(id, _)| id).collect();
        for ((id, from), seat) in party.iter().zip(parties::seats(&ids)) {
            begun.push((*id, Ok(spawn(node, *id, (from.clone(), to), Why::Asked, Some(seat)))));
        }
    }
    begun.extend(failed.into_iter().filter_map(|(id, from)| Some((id, Err(from.err()?)))));
    begun
}

/// Keeps others from moving the client. Returns where it is.
fn claim(
    node: &Node,
    id: ClientId,
    to: usize,
    why: Why,
    generation: Option<u64>,
) -> Result<Arc<Executor>, MoveError> {
    let mut clients = node.clients();
    let client = clients.get_mut(id).filter(|client| client.is_serving() && !client.has_failed());
    let client = client.ok_or(MoveError::Gone)?;
    if client.moving_to.is_some() {
        return Err(MoveError::Moving);
    }
    if generation.is_some_and(|generation| generation != client.generation) {
        return Err(MoveError::Outdated);
    }
    let from = client.introduction.at.clone();
    let name = |gpu: usize| node.gpus()[gpu].status().device.map(|device| device.name.clone());
    if name(from.gpu) != name(to) {
        return Err(MoveError::Unlike { is: name(from.gpu).unwrap_or_default() });
    }
    client.moving_to = Some(to);
    client.generation += 1;
    if from.gpu != to {
        node.events().tell(What::MoveBegan { client: id.0, to, why, generation: client.generation });
    }
    Ok(from)
}

fn spawn(
    node: &Arc<Node>,
    id: ClientId,
    (from, to): (Arc<Executor>, usize),
    why: Why,
    seat: Option<Seat>,
) -> Moving {
    let node = node.clone();
    tokio::spawn(async move {
        let began = Instant::now();
        let moved = match seat {
            _ if from.gpu == to => Ok(()),
            Some(seat) => parties::carry(&node, id, (&from, to), seat).await,
            None => carry(&node, id, (&from, to), why).await,
        };
        let from = from.gpu;
        let took = began.elapsed();
        if let Some(client) = node.clients().get_mut(id) {
            client.moving_to = None;
            client.generation += 1;
            let (client, generation) = (id.0, client.generation);
            if from != to {
                node.events().tell(match &moved {
                    Ok(()) => What::Moved { client, from, to, why, took, generation },
                    Err(error) => What::Stayed { client, to, why, reason: error.to_string(), generation },
                });
            }
        }
        let (client, took_ms) = (id.0, took.as_millis());
        match &moved {
            Ok(()) => {
                settings::tell_workers(&node);
                tracing::debug!(client, from, to, took_ms, "client moved");
            }
            Err(error @ MoveError::Refused(_)) => {
                tracing::warn!(client, from, to, "client not moved: {error}")
            }
            Err(error @ MoveError::Lost { .. }) => tracing::error!(client, from, to, "client lost: {error}"),
            Err(error) => tracing::debug!(client, from, to, "client not moved: {error}"),
        }
        moved
    })
}

async fn carry(
    node: &Node,
    id: ClientId,
    (from, to): (&Arc<Executor>, usize),
    why: Why,
) -> Result<(), MoveError> {
    let (client, while_waiting) = (id.0, why == Why::Waiting);
    let to = &executor(node, id, from, to)?;
    let link = if from.is_enclosure { 0 } else { node.gpus()[from.gpu].peers().link(from.gpu, to.gpu) };
    let released = from.ask(|done| Order::Release { client, while_waiting, link, party: None, done }).await;
    let state = Arc::new(released.ok_or(MoveError::Gone)??);
    from.store().released(id);
    let Err(there) = attach(node, id, to, &state, Terms { link, ..Terms::default() }).await? else {
        return Ok(());
    };
    let_go(id, to).await;
    go_back(node, id, from, &state, MoveError::Refused(there)).await
}

/// A worker has nothing of the client any more that it was asked to serve.
pub(super) async fn let_go(id: ClientId, at: &Arc<Executor>) {
    // It holds the client's addresses until it says that it does not.
    let _ = at.ask(|done| Order::Detach { client: id.0, done }).await;
    at.store().released(id);
}

/// The client goes on where it was, as that is why it is not where it was to go. Always an error.
pub(super) async fn go_back(
    node: &Node,
    id: ClientId,
    from: &Arc<Executor>,
    state: &Arc<OwnedFd>,
    there: MoveError,
) -> Result<(), MoveError> {
    let Err(back) = attach(node, id, from, state, Terms::default()).await? else {
        return Err(there);
    };
    if let Some(memory) = node.clients().get_mut(id).and_then(|client| client.memory().cloned()) {
        memory.channel.fail(CudaError::LAUNCH_FAILED);
    }
    Err(MoveError::Lost { there: Box::new(there), back })
}

/// Who serves the client on a GPU, if it comes there from this one.
pub(super) fn executor(
    node: &Node,
    id: ClientId,
    from: &Executor,
    to: usize,
) -> Result<Arc<Executor>, MoveError> {
    Ok(match from.is_enclosure {
        false => node.gpus()[to].shared().clone(),
        true => node.gpus()[to].enclosure(&function_of(node, id)?)?,
    })
}

fn function_of(node: &Node, id: ClientId) -> Result<String, MoveError> {
    Ok(node.clients().get(id).ok_or(MoveError::Gone)?.introduction.function.clone())
}

/// On what terms a client comes to a worker that was at another one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Terms {
    /// Over which link its memory may be had; 0 for none.
    pub(super) link: u64,
    /// It may have ended its last worker, and has this one to itself at first.
    pub(super) is_tried: bool,
    /// It executes nothing until it is told to.
    pub(super) held: bool,
}

/// Its memory may come over a link, if that is not 0. The inner error: the worker does not take it.
pub(super) async fn attach(
    node: &Node,
    id: ClientId,
    to: &Arc<Executor>,
    state: &Arc<OwnedFd>,
    Terms { link, is_tried, held }: Terms,
) -> Result<Result<(), NotServed>, MoveError> {
    let answer = {
        let mut clients = node.clients();
        let client = clients.get_mut(id).ok_or(MoveError::Gone)?;
        let memory = client.memory().ok_or(MoveError::Gone)?.clone();
        let function = client.introduction.function.clone();
        client.introduction.at = to.clone();
        // Before its worker hears of it.
        node.keep_client(client);
        client.told = settings::settings_of(node, id.0, &client.addresses, &function, to.gpu);
        let mut attach = node.attach_message(&client.addresses, &function, &client.told);
        (attach.resumed, attach.link, attach.home) = (true, link, client.home);
        (attach.is_tried, attach.held) = (is_tried, held);
        let (done, answer) = oneshot::channel();
        let order = Order::Attach { attach, memory, state: Some(state.clone()), done };
        to.order(order).then_some(()).ok_or(MoveError::Gone)?;
        if client.home.is_some() {
            node.events().tell(What::SessionBegan { client: id.0, is_shut: true });
        }
        answer
    };
    // The sender is dropped when the client is let go of, or the server is ending.
    answer.await.map_err(|_| MoveError::Gone)
}
