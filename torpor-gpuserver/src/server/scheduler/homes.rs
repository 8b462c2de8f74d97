//! Homes: which of its function's devices a client's program uses. The worker tells, once its client has begun to use one.

use crate::policy::event::What;
use crate::server::clients::ClientId;
use crate::server::node::Node;
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedReceiver;

/// Hears of homes until nobody tells any more. A client has one, the first.
pub(super) async fn run(node: Arc<Node>, mut homes: UnboundedReceiver<(ClientId, u32)>) {
    while let Some((id, home)) = homes.recv().await {
        let mut clients = node.clients();
        let Some(client) = clients.get_mut(id).filter(|client| client.home.is_none()) else { continue };
        // Of a function whose programs see fewer devices, it says nothing.
        if home >= node.settings().of(&client.introduction.function).gpus.get() {
            continue;
        }
        client.home = Some(home);
        node.keep_client(client);
        node.events().tell(What::ClientHome { client: id.0, home });
    }
}
