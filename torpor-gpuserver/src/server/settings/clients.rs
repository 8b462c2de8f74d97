//! What follows from a function's settings for its clients: on which GPUs they may be, and what their workers are told.

use crate::policy::event::{Rules, What};
use crate::server::clients::addresses::Addresses;
use crate::server::clients::{Client, ClientId};
use crate::server::node::Node;
use crate::server::settings::{FunctionSettings, Settings};
use crate::server::workers::order::Order;
use std::num::NonZeroU32;
use std::time::Duration;
use torpor_proto::control::worker::{self, to_worker};

/// The limit of a client of `function` on a GPU, in bytes: that of its function, or what the GPU has for functions.
/// 0 if nothing is known of the GPU yet.
#[must_use]
pub fn memory_limit_bytes(node: &Node, settings: &Settings, function: &str, gpu: usize) -> u64 {
    let limit = settings.of(function).memory_limit_bytes.unwrap_or(u64::MAX);
    limit.min(node.gpu_limit_bytes(gpu).unwrap_or(0))
}

/// The limit of a client of `function` on the GPU that gives it most, in bytes.
#[must_use]
pub fn memory_limit_bytes_anywhere(node: &Node, function: &str) -> u64 {
    let live = node.settings();
    (0..node.gpus().len())
        .map(|gpu| memory_limit_bytes(node, live.settings(), function, gpu))
        .max()
        .unwrap_or(0)
}

/// Images that the clients of a function may use on one GPU, in bytes: half of what the node keeps, unless they say otherwise.
#[must_use]
pub fn image_limit_bytes(node: &Node, settings: &FunctionSettings) -> u64 {
    settings.image_limit_bytes.unwrap_or(node.options().memory.image_limit().0 / 2)
}

/// The limit of a client of `function` on a GPU, in bytes, as the settings are now.
#[must_use]
pub fn memory_limit_bytes_on(node: &Node, function: &str, gpu: usize) -> u64 {
    memory_limit_bytes(node, node.settings().settings(), function, gpu)
}

/// What the worker is to know of a client. A limit that is raised while it runs is at most what it has addresses for.
#[must_use]
pub fn settings_of(
    node: &Node,
    client: u64,
    addresses: &Addresses,
    function: &str,
    gpu: usize,
) -> worker::Settings {
    let live = node.settings();
    let settings = live.of(function);
    worker::Settings {
        client,
        memory_limit_bytes: memory_limit_bytes(node, live.settings(), function, gpu)
            .min(addresses.arena.bytes),
        writeback: worker::Writeback::from(settings.writeback).into(),
        pinned: settings.pinned,
        whole: node.learned().is_whole(function),
        slo_ms: settings.slo_ms.map_or(0, NonZeroU32::get),
        kernel_timeout_ms: settings.kernel_timeout.map_or(0, |time| time.as_millis() as u64),
        pinned_limit_bytes: settings.pinned_limit_bytes.unwrap_or(u64::MAX),
        image_limit_bytes: image_limit_bytes(node, &settings),
    }
}

/// What the scheduler is to know of a function's clients.
fn rules_of(node: &Node, function: &str) -> Rules {
    let live = node.settings();
    let settings = live.of(function);
    Rules {
        pinned: settings.pinned,
        gpu: live.gpu_of(function),
        memory_limit_bytes: settings.memory_limit_bytes,
        slo: settings.slo_ms.map(|ms| Duration::from_millis(ms.get().into())),
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

/// Tells the workers of all clients whose settings are other than they were told, and the scheduler. The rest is left alone.
pub fn tell_workers(node: &Node) {
    node.clients().iter_mut().for_each(|client| tell(node, client));
}

/// As [`tell_workers`], of one client.
pub fn tell_worker(node: &Node, id: ClientId) {
    node.clients().get_mut(id).into_iter().for_each(|client| tell(node, client));
}

fn tell(node: &Node, client: &mut Client) {
    if !client.is_serving() || client.has_failed() {
        return;
    }
    let gpu = client.introduction.gpu();
    let rules = rules_of(node, &client.introduction.function);
    if client.rules != rules {
        client.rules = rules;
        node.events().tell(What::ClientRuled { client: client.id.0, rules });
    }
    let settings = settings_of(node, client.id.0, &client.addresses, &client.introduction.function, gpu);
    if client.told != settings {
        client.told = settings;
        let tell = Order::Tell { client: client.id.0, body: to_worker::Body::Settings(settings) };
        // Fails when the server is ending: nothing needs to be told any more.
        let _ = client.introduction.at.order(tell);
    }
}
