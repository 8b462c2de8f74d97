//! Gathering: a client that wants what another one of its function has exported goes to that one's GPU, or that one to its.

use crate::policy::event::Why;
use crate::server::clients::ClientId;
use crate::server::node::Node;
use crate::server::scheduler::moves::{self, MoveError};
use crate::server::workers::order::Order;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, sleep, timeout};
use torpor_proto::control::worker::{Sought, to_worker};

/// How long the two are brought together at most: the one that is to go may be busy, or on its way elsewhere.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(20);

/// Held while it is looked whether two stay where they are, and the move of one is begun.
type Beginning = Arc<Mutex<()>>;

/// Hears of clients that seek others until nobody tells any more.
pub(super) async fn run(node: Arc<Node>, mut seeking: UnboundedReceiver<(ClientId, ClientId)>) {
    let beginning = Beginning::default();
    while let Some((client, exporter)) = seeking.recv().await {
        let node = node.clone();
        let beginning = beginning.clone();
        tokio::spawn(async move {
            if gather(&node, &beginning, client, exporter).await {
                return;
            }
            // Its worker looks once more.
            if let Some(served) = node.clients().get(client) {
                let body = to_worker::Body::Sought(Sought { client: client.0 });
                // Fails when the server is ending.
                let _ = served.introduction.at.order(Order::Tell { client: client.0, body });
            }
        });
    }
}

/// Until both are on one GPU, or cannot be. True if the client was moved: it goes on by itself.
async fn gather(node: &Arc<Node>, beginning: &Beginning, client: ClientId, exporter: ClientId) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if !are_of_one_function(node, client, exporter) {
            return false;
        }
        let (Some(here), Some(there)) = (gpu_of(node, client), gpu_of(node, exporter)) else { return false };
        let stays = |id, gpu| gpu_of(node, id) == Some(gpu) && !is_moving(node, id);
        let is_settled = || stays(client, here) && stays(exporter, there);
        if here == there && is_settled() {
            return false;
        }
        if here == there {
            // It has what it exported once it is there.
            sleep(PAUSE).await;
            continue;
        }
        // Who seeks waits, and goes at once; who has exported something may be in a request.
        for (goes, to, why) in [(client, there, Why::Waiting), (exporter, here, Why::Asked)] {
            let begun = {
                let _alone = beginning.lock().unwrap_or_else(PoisonError::into_inner);
                // Two that seek each other would change places.
                if is_settled() { moves::begin(node, goes, to, why, None) } else { Err(MoveError::Moving) }
            };
            let moved = match begun {
                Ok(moving) => match timeout(deadline - Instant::now(), moving).await {
                    Ok(Ok(moved)) => moved,
                    _ => return false,
                },
                Err(error) => Err(error),
            };
            match moved {
                Ok(()) => return goes == client,
                Err(MoveError::Moving) => break,
                Err(_) => {}
            }
        }
        sleep(PAUSE).await;
    }
    false
}

fn are_of_one_function(node: &Node, one: ClientId, other: ClientId) -> bool {
    let clients = node.clients();
    let function = |id: ClientId| {
        let client = clients.iter().find(|client| client.id == id && client.is_serving())?;
        Some(&client.introduction.function)
    };
    function(one).is_some() && function(one) == function(other)
}

fn is_moving(node: &Node, id: ClientId) -> bool {
    node.clients().get(id).is_some_and(|client| client.moving_to.is_some())
}

fn gpu_of(node: &Node, id: ClientId) -> Option<usize> {
    Some(node.clients().get(id)?.introduction.gpu())
}
