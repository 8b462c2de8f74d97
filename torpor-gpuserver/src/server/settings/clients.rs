//! What follows from a function's settings for its clients: on which GPUs they may be, and what their workers are told.

use crate::server::node::Node;
use crate::server::served::Order;
use crate::server::settings::Settings;
use torpor_proto::control::worker::{self, to_worker};
use torpor_proto::layout::ARENA_BYTES;

/// The limit of a client of `function` on a GPU, in bytes: that of its function, or what the GPU has for functions.
/// 0 if nothing is known of the GPU yet.
#[must_use]
pub fn memory_limit_bytes(node: &Node, settings: &Settings, function: &str, gpu: usize) -> u64 {
    let limit = settings.of(function).memory_limit_bytes.unwrap_or(u64::MAX);
    limit.min(node.gpu_limit_bytes(gpu).unwrap_or(0)).min(ARENA_BYTES)
}

/// What the worker is to know of a client.
#[must_use]
pub fn settings_of(node: &Node, client: u64, function: &str, gpu: usize) -> worker::Settings {
    let live = node.settings();
    let settings = live.of(function);
    worker::Settings {
        client,
        memory_limit_bytes: memory_limit_bytes(node, live.settings(), function, gpu),
        writeback: worker::Writeback::from(settings.writeback).into(),
        pinned: settings.pinned,
    }
}

/// Whether a GPU has room for a client of `function`, and no other was asked for.
#[must_use]
pub fn may_be_on(node: &Node, function: &str, gpu: usize) -> bool {
    let live = node.settings();
    if let Some(pinned_to) = live.gpu_of(function) {
        return pinned_to == gpu;
    }
    let limit = live.of(function).memory_limit_bytes.unwrap_or(0).min(node.largest_gpu_limit_bytes());
    // A GPU that is being started may turn out to be large enough.
    node.gpu_limit_bytes(gpu).is_none_or(|room| room >= limit)
}

/// Tells the workers of all clients whose settings are other than they were told. The rest is left alone.
pub fn tell_workers(node: &Node) {
    let mut clients = node.clients();
    for client in clients.iter_mut().filter(|client| client.is_serving() && !client.has_failed()) {
        let gpu = client.introduction.gpu;
        let settings = settings_of(node, client.id.0, &client.introduction.function, gpu);
        if client.told != settings {
            client.told = settings;
            let tell = Order::Tell { client: client.id.0, body: to_worker::Body::Settings(settings) };
            // Fails when the server is ending: nothing needs to be told any more.
            let _ = node.gpus()[gpu].orders.send(tell);
        }
    }
}
