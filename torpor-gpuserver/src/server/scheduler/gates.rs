//! Gates: what the policy of [gangs](crate::policy::gangs) has to say to ranks, their workers are told.

use crate::policy::gangs::{Gangs, Gate, Word};
use crate::server::clients::ClientId;
use crate::server::node::Node;
use crate::server::workers::order::Order;
use std::time::{SystemTime, UNIX_EPOCH};
use torpor_proto::control::worker::{self, GateState, to_worker};

/// Of a node that begins now. Workers may have heard words of a server before this one, whose numbers are lower.
pub(super) fn gangs() -> Gangs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Gangs::new(u64::try_from(since.as_micros()).unwrap_or_default())
}

/// Tells them. A rank that is gone needs no word, and one that is on its way gets another one when it has come.
pub(super) fn tell(node: &Node, words: Vec<Word>) {
    for Word { client, number, gate } in words {
        let state = match gate {
            Gate::Open => GateState::Open,
            Gate::Shut => GateState::Shut,
            Gate::Once => GateState::Once,
            Gate::Briefly => GateState::Briefly,
        };
        tracing::trace!(client, number, ?gate, "gate");
        let body = to_worker::Body::Gate(worker::Gate { client, number, state: state.into() });
        if let Some(served) = node.clients().get(ClientId(client)) {
            // Fails when the server is ending.
            let _ = served.introduction.at.order(Order::Tell { client, body });
        }
    }
}
