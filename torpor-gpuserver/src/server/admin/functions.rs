//! What people ask of functions as a whole: which there are, and to be loaded, unloaded and pinned.

use crate::policy::event::Why;
use crate::server::admin::function_error::{FunctionOrderError, PATIENCE};
use crate::server::admin::suggestions::did_you_mean;
use crate::server::clients::ClientId;
use crate::server::node::Node;
use crate::server::scheduler::moves::{self, MoveError};
use crate::server::settings::{self, Pin};
use crate::server::size::ByteSize;
use crate::server::workers::order::Order;
use crate::server::workers::usage::{self, Activity};
use rustix::process::{Pid, getpgid};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};
use torpor_proto::control::admin;
use torpor_proto::control::worker::{ClientUsage, Evict, SwapIn, to_worker};

const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How long nothing comes or goes until the workers are told again: what came may have left before anybody looked, what was to
/// go may not have been saved for once, and a client may have been between two workers.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// All functions, by name, with what their clients have and do.
pub async fn list(node: &Node) -> Vec<admin::Function> {
    let used = usage::by_client(node.gpus()).await;
    let mut functions = node.functions();
    functions.sort_unstable();
    let stored = node.realms().usage().index.clients;
    let spilled: HashMap<u64, u64> =
        stored.iter().map(|stored| (stored.client.0, stored.spilled_bytes)).collect();
    functions.into_iter().map(|(name, directory)| describe(node, &used, &spilled, name, directory)).collect()
}

fn describe(
    node: &Node,
    used: &HashMap<u64, ClientUsage>,
    spilled: &HashMap<u64, u64>,
    name: String,
    directory: String,
) -> admin::Function {
    let mut gpus = BTreeSet::new();
    let mut activity = None;
    let (mut function, mut pinned) = (admin::Function::default(), BTreeMap::<usize, u64>::new());
    for client in node.clients().iter() {
        if client.introduction.function != name || !client.is_serving() {
            continue;
        }
        let usage = used.get(&client.id.0).copied().unwrap_or_default();
        gpus.insert(client.introduction.gpu());
        activity = activity.max(Some(Activity::of(client.has_failed(), &usage)));
        function.clients += 1;
        function.strict_clients += u32::from(client.introduction.at.is_enclosure);
        function.covered_clients += u32::from(usage.covered);
        function.image_bytes = function.image_bytes.max(usage.function_image_bytes);
        // A worker may say anything.
        for (sum, value) in [
            (&mut function.resident_bytes, usage.memory_bytes),
            (&mut function.allocated_bytes, usage::allocated_bytes(&usage)),
            (&mut function.host_bytes, usage.host_bytes),
            (&mut function.spilled_bytes, spilled.get(&client.id.0).copied().unwrap_or(0)),
            (&mut function.requests, usage.requests),
            (&mut function.hits, usage.hits),
            (&mut function.swaps, usage.swaps),
            (&mut function.fixed_images, usage.fixed_images.into()),
            (&mut function.arrays, usage.arrays.into()),
            (&mut function.array_bytes, usage.array_bytes),
            (&mut function.sharing_clients, usage.shares.into()),
            (pinned.entry(client.introduction.gpu()).or_default(), usage.pinned_bytes),
        ] {
            *sum = sum.saturating_add(value);
        }
    }
    let live = node.settings();
    let settings = live.of(&name);
    let limit = |gpu: usize| settings::memory_limit_bytes(node, live.settings(), &name, gpu);
    // Of a function without clients, what it would have on the largest GPU.
    let largest = || (0..node.gpus().len()).map(limit).max().unwrap_or(0);
    admin::Function {
        memory_limit_bytes: gpus.iter().map(|&gpu| limit(gpu)).min().unwrap_or_else(largest),
        gpus: gpus.into_iter().map(|gpu| node.gpus()[gpu].index).collect(),
        state: activity.unwrap_or(Activity::Idle).to_string(),
        slo_ms: settings.slo_ms.map(Into::into),
        max_clients: settings.max_clients.map(Into::into),
        pinned_bytes: pinned.into_values().max().unwrap_or(0),
        pinned_limit_bytes: settings.pinned_limit_bytes,
        image_limit_bytes: settings::image_limit_bytes(node, &settings),
        writeback: settings.writeback.to_string(),
        pinned: settings.pinned,
        isolation: admin::Isolation::from(settings.isolation).into(),
        devices: settings.gpus.get(),
        name,
        directory,
        ..function
    }
}

/// Brings everything that a function has to its GPU, or all of it to one that is asked for. Returns how many bytes that
/// are.
///
/// # Errors
/// [`FunctionOrderError`]; what was brought stays.
pub async fn load(node: &Arc<Node>, name: &str, gpu: Option<u32>) -> Result<u64, FunctionOrderError> {
    check_known(node, name)?;
    let gpu = check_gpu(node, gpu)?;
    if let Some(gpu) = gpu {
        move_all(node, name, gpu).await?;
    }
    let clients = clients_of(node, name);
    if clients.is_empty() {
        return Err(FunctionOrderError::NoClients(name.to_owned()));
    }
    let order = |client| to_worker::Body::SwapIn(SwapIn { client });
    let missing = |residency: Residency| residency.allocated.saturating_sub(residency.resident);
    let there = carry_out(node, name, &clients, order, missing).await?;
    there.map(|residency| residency.resident).map_err(|residency| FunctionOrderError::NotLoaded {
        name: name.to_owned(),
        resident: ByteSize(residency.resident),
        allocated: ByteSize(residency.allocated),
    })
}

/// Takes everything that a function has off its GPU.
///
/// # Errors
/// [`FunctionOrderError`]; what is still there leaves once the function is idle.
pub async fn unload(node: &Node, name: &str) -> Result<(), FunctionOrderError> {
    check_known(node, name)?;
    let clients = clients_of(node, name);
    let order = |client| to_worker::Body::Evict(Evict { client });
    let gone = carry_out(node, name, &clients, order, |residency| {
        residency.resident.saturating_sub(residency.staying)
    })
    .await?;
    gone.map(drop).map_err(|residency| FunctionOrderError::NotUnloaded {
        name: name.to_owned(),
        resident: ByteSize(residency.resident),
    })
}

/// Says whether a function may be evicted to make room, and where its clients go.
///
/// # Errors
/// [`FunctionOrderError`]; the next clients go there all the same, if there is such a GPU.
pub async fn pin(
    node: &Arc<Node>,
    name: &str,
    pinned: bool,
    gpu: Option<u32>,
) -> Result<(), FunctionOrderError> {
    check_known(node, name)?;
    let gpu = check_gpu(node, gpu)?;
    node.settings().pin(name, Pin { pinned, gpu });
    settings::tell_workers(node);
    match gpu {
        Some(gpu) => move_all(node, name, gpu).await,
        None => Ok(()),
    }
}

/// Moves all clients of a function to a GPU.
async fn move_all(node: &Arc<Node>, name: &str, to: usize) -> Result<(), FunctionOrderError> {
    let deadline = Instant::now() + PATIENCE;
    let number = |gpu: usize| node.gpus()[gpu].index;
    loop {
        let elsewhere: Vec<_> =
            clients_of(node, name).into_iter().filter(|client| client.gpu != to).collect();
        let Some(first) = elsewhere.first().copied() else { return Ok(()) };
        let busy =
            || FunctionOrderError::Busy { name: name.to_owned(), is: number(first.gpu), asked: number(to) };
        let used = usage_where(node, &elsewhere).await;
        let shares = |client: &Served| used.get(&client.client).is_some_and(|usage| usage.shares);
        let (together, alone): (Vec<_>, Vec<_>) = elsewhere.iter().partition(|client| shares(client));
        let ids =
            |served: &[&Served]| served.iter().map(|served| ClientId(served.client)).collect::<Vec<_>>();
        let mut moves = moves::begin_together(node, &ids(&together), to);
        moves.extend(ids(&alone).into_iter().map(|id| (id, moves::begin(node, id, to, Why::Asked, None))));
        let mut left_behind = None;
        for (id, begun) in moves {
            let from = elsewhere.iter().find(|served| served.client == id.0).map_or(first.gpu, |it| it.gpu);
            let moved = match begun {
                Ok(moving) => timeout_at(deadline, moving).await.map_err(|_| busy())?,
                Err(error) => Ok(Err(error)),
            };
            match moved {
                // One that panicked is where it is: the loop sees that.
                Ok(Ok(()) | Err(MoveError::Gone | MoveError::Moving)) | Err(_) => {}
                Ok(Err(reason)) => {
                    let (name, is, asked) = (name.to_owned(), number(from), number(to));
                    let says_why = !matches!(reason, MoveError::Company);
                    let not_moved = FunctionOrderError::NotMoved { name, is, asked, reason };
                    if says_why {
                        return Err(not_moved);
                    }
                    left_behind = Some(not_moved);
                }
            }
        }
        if let Some(not_moved) = left_behind {
            return Err(not_moved);
        }
        if Instant::now() >= deadline {
            return Err(busy());
        }
        sleep(LOOK_EVERY).await;
    }
}

/// What the workers say of these, that serve them.
async fn usage_where(node: &Node, clients: &[Served]) -> HashMap<u64, ClientUsage> {
    let gpus: BTreeSet<usize> = clients.iter().map(|client| client.gpu).collect();
    let mut used = HashMap::new();
    for gpu in gpus {
        used.extend(usage::by_client(&node.gpus()[gpu..=gpu]).await);
    }
    used
}

fn check_known(node: &Node, name: &str) -> Result<(), FunctionOrderError> {
    let known = node.functions();
    let mut names = known.iter().map(|(name, _)| name.as_str());
    if names.clone().any(|known| known == name) {
        return Ok(());
    }
    let hint = did_you_mean(name, &mut names);
    Err(FunctionOrderError::Unknown { name: name.to_owned(), hint })
}

/// The place of a GPU among those that are served.
fn check_gpu(node: &Node, asked: Option<u32>) -> Result<Option<usize>, FunctionOrderError> {
    let Some(asked) = asked else { return Ok(None) };
    let gpus = node.gpus();
    let at = gpus.iter().position(|gpu| gpu.index == asked).ok_or_else(|| {
        let served = gpus.iter().map(|gpu| gpu.index.to_string()).collect::<Vec<_>>().join(", ");
        FunctionOrderError::NoSuchGpu { gpu: asked, served }
    })?;
    Ok(Some(at))
}

/// A client that is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Served {
    client: u64,
    gpu: usize,
}

fn clients_of(node: &Node, name: &str) -> Vec<Served> {
    let clients = node.clients();
    let of_function = clients.iter().filter(|client| client.introduction.function == name);
    let served = of_function.filter(|client| client.is_serving() && !client.has_failed());
    served.map(|client| Served { client: client.id.0, gpu: client.introduction.gpu() }).collect()
}

/// The client of a function that a process group has, or its only one if the group is 0. None if that does not say which.
pub(super) fn client_of_group(node: &Node, name: &str, group: u32) -> Option<ClientId> {
    let clients = node.clients();
    let of_function = clients.iter().filter(|client| client.introduction.function == name);
    let served = of_function.filter(|client| client.is_serving() && !client.has_failed());
    let mut meant =
        served.filter(|client| group == 0 || is_in_group(client.pid, group)).map(|client| client.id);
    meant.next().filter(|_| meant.next().is_none())
}

fn is_in_group(pid: u32, group: u32) -> bool {
    let found = Pid::from_raw(pid.cast_signed()).and_then(|pid| getpgid(Some(pid)).ok());
    found.is_some_and(|found| found.as_raw_nonzero().get() == group.cast_signed())
}

/// Those of the clients that are still served, and where they are now.
fn still_there(node: &Node, name: &str, clients: &[Served]) -> Vec<Served> {
    let is_meant = |now: &Served| clients.iter().any(|client| client.client == now.client);
    clients_of(node, name).into_iter().filter(is_meant).collect()
}

fn tell(node: &Node, clients: &[Served], body: impl Fn(u64) -> to_worker::Body) {
    let table = node.clients();
    for &Served { client, .. } in clients {
        if let Some(served) = table.get(ClientId(client)) {
            // Fails when the server is ending, which whoever waits for the effect learns then.
            let _ = served.introduction.at.order(Order::Tell { client, body: body(client) });
        }
    }
}

/// What the clients of a function have of their GPUs, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Residency {
    resident: u64,
    /// Of that, arrays that cannot leave before their clients do.
    staying: u64,
    allocated: u64,
}

/// Gives the clients' workers an order and waits until no bytes are missing, for as long as they become fewer than ever
/// before. The outer error: nothing is known; the inner one: how it is instead.
async fn carry_out(
    node: &Node,
    name: &str,
    clients: &[Served],
    order: impl Fn(u64) -> to_worker::Body,
    missing: impl Fn(Residency) -> u64,
) -> Result<Result<Residency, Residency>, FunctionOrderError> {
    let mut least: Option<Residency> = None;
    let mut since = Instant::now();
    let mut told: Option<Instant> = None;
    loop {
        if told.is_none_or(|told| told.elapsed().min(since.elapsed()) >= TELL_EVERY) {
            tell(node, &still_there(node, name, clients), &order);
            told = Some(Instant::now());
        }
        if let Some(now) = residency(node, name, clients).await {
            if missing(now) == 0 {
                return Ok(Ok(now));
            }
            if least.is_none_or(|least| missing(now) < missing(least)) {
                (least, since) = (Some(now), Instant::now());
            }
        }
        if since.elapsed() >= PATIENCE {
            return least.map(Err).ok_or_else(|| FunctionOrderError::Silent(name.to_owned()));
        }
        sleep(LOOK_EVERY).await;
    }
}

/// What those of the clients have that are still there; `None` if a worker does not say.
async fn residency(node: &Node, name: &str, clients: &[Served]) -> Option<Residency> {
    let used = usage::by_client(node.gpus()).await;
    let mut sum = Residency::default();
    for Served { client, .. } in still_there(node, name, clients) {
        let usage = used.get(&client)?;
        sum.resident = sum.resident.saturating_add(usage.memory_bytes);
        let staying = if usage.fixed_objects > 0 { usage.array_bytes.min(usage.memory_bytes) } else { 0 };
        sum.staying = sum.staying.saturating_add(staying);
        sum.allocated = sum.allocated.saturating_add(usage::allocated_bytes(usage));
    }
    Some(sum)
}
