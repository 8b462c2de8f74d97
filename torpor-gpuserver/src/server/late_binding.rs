//! Late binding: a client whose request would wait at a busy GPU goes to an idle one.
//!
//! Workers say who waits for a turn. What the GPUs do then is asked anew, and the [policy](crate::policy::placement) decides.

use crate::policy::placement::{self, Gpu};
use crate::server::clients::{Client, ClientId};
use crate::server::gpu::State;
use crate::server::migration;
use crate::server::node::Node;
use crate::server::settings;
use crate::server::usage::{self, Activity};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use torpor_proto::control::worker::{ClientUsage, Usage};

/// A client stays at least so long where it is.
const STAY: Duration = Duration::from_millis(100);

/// How long a client that was moved may take until its worker says that it has its turn.
const SETTLING: Duration = Duration::from_millis(20);

/// Clients that are thought about at a time.
const BATCH: usize = 256;

/// Hears of clients that wait until nobody tells any more.
pub async fn run(node: Arc<Node>, mut waiting: UnboundedReceiver<ClientId>) {
    let mut told = Vec::new();
    while waiting.recv_many(&mut told, BATCH).await > 0 {
        told.sort_unstable();
        told.dedup();
        told.retain(|&client| may_move(&node, client));
        if !told.is_empty() {
            let usage = usage::by_gpu(node.gpus()).await;
            told.iter().for_each(|&client| place(&node, client, &usage));
        }
        told.clear();
    }
}

fn may_move(node: &Node, id: ClientId) -> bool {
    if node.gpus().len() < 2 {
        return false;
    }
    let mut clients = node.clients();
    let Some(client) = clients.get_mut(id) else { return false };
    let live = node.settings();
    let function = &client.introduction.function;
    client.moving_to.is_none()
        && client.moved.is_none_or(|moved| moved.elapsed() >= STAY)
        && !live.of(function).pinned
        && live.gpu_of(function).is_none()
}

fn place(node: &Arc<Node>, id: ClientId, usage: &[Option<Usage>]) {
    let chosen = {
        let clients = node.clients();
        let Some(client) = clients.iter().find(|client| client.id == id) else { return };
        let here = client.introduction.gpu;
        let its = usage.get(here).and_then(Option::as_ref).and_then(|usage| usage_of(usage, id));
        let Some(its) = its else { return };
        let others: Vec<&Client> = clients.iter().filter(|client| client.id != id).collect();
        let gpu = |at| describe(node, &client.introduction.function, at, usage[at].as_ref(), &others);
        let gpus: Vec<Gpu> = (0..usage.len()).map(gpu).collect();
        placement::elsewhere(here, usage::allocated_bytes(its), &gpus)
    };
    if let Some(to) = chosen {
        // Its result is logged, and it may stay for good reasons: it has its turn by now.
        let _ = migration::begin(node, id, to, true);
    }
}

fn describe(node: &Node, function: &str, at: usize, usage: Option<&Usage>, others: &[&Client]) -> Gpu {
    let limit_bytes = node.gpu_limit_bytes(at).unwrap_or(0);
    let (mut taken_bytes, mut kept_bytes, mut taken) = (0_u64, 0_u64, false);
    for client in others {
        let is_here = client.introduction.gpu == at;
        let arrives = client.moving_to == Some(at)
            || (is_here && client.moved.is_some_and(|moved| moved.elapsed() < SETTLING));
        let its = usage.and_then(|usage| usage_of(usage, client.id)).filter(|_| is_here);
        taken |= arrives || its.is_some_and(|its| Activity::of(false, its) != Activity::Idle);
        let bytes = its.map_or(0, |its| its.memory_bytes);
        taken_bytes = taken_bytes.saturating_add(bytes);
        if client.told.pinned {
            kept_bytes = kept_bytes.saturating_add(bytes);
        }
    }
    Gpu {
        usable: usage.is_some()
            && node.gpus()[at].status().state == State::Ready
            && settings::may_be_on(node, function, at),
        taken,
        room_bytes: limit_bytes.saturating_sub(kept_bytes),
        free_bytes: limit_bytes.saturating_sub(taken_bytes),
    }
}

fn usage_of(usage: &Usage, client: ClientId) -> Option<&ClientUsage> {
    usage.clients.iter().find(|usage| usage.client == client.0)
}
