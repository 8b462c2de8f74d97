//! A server's life: start, serve, end.

use crate::server::admin::AdminService;
use crate::server::entrance::acceptor::Acceptor;
use crate::server::entrance::group::guard_socket;
use crate::server::entrance::sockets;
use crate::server::entrance::tree::{FileIdentity, ServerTree};
use crate::server::error::ServerError;
use crate::server::keeper::{self, Heritage, Keeper};
use crate::server::node::{Legacies, Node};
use crate::server::options::ServerOptions;
use crate::server::predecessor::{self, Predecessor};
use crate::server::priority;
use crate::server::probe::{UsableDriver, find_driver};
use crate::server::realms::Realms;
use crate::server::scheduler::{self, Ear, Teller};
use crate::server::sensors::SensorReader;
use crate::server::settings;
use crate::server::size::ByteSize;
use crate::server::store::Store;
use crate::server::workers::compiler::Compiler;
use crate::server::workers::gpu::{Gpu, stopped};
use crate::server::workers::inherited::Inherited;
use crate::server::workers::kind::Site;
use crate::server::workers::learned::Learned;
use crate::server::workers::peers::Peers;
use crate::server::workers::process::Recipe;
use crate::server::workers::status::State;
use rustix::process::{Resource, Rlimit};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::UnixListenerStream;
use torpor_proto::control::admin::admin_server::AdminServer;
use torpor_proto::directory::DEFAULT_FUNCTION;

/// How long connections to the admin API may take to end.
const ADMIN_PATIENCE: Duration = Duration::from_secs(2);

/// How long workers may take to end: five seconds to leave, five to die.
const WORKER_PATIENCE: Duration = Duration::from_secs(12);

/// How long what reads and writes files may take to end.
const THREAD_PATIENCE: Duration = Duration::from_secs(1);

/// Under what name the admin API's socket is kept.
const ADMIN: &str = "admin";

/// Between two looks whether the admin API's socket is still there.
const ADMIN_CHECK: Duration = Duration::from_secs(1);

/// A server that is ready, for people to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serving {
    /// Where it listens.
    pub directory: PathBuf,
    /// Name and memory in bytes of each GPU that is ready.
    pub gpus: Vec<(String, u64)>,
}

impl fmt::Display for Serving {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.gpus.len();
        let plural = if count == 1 { "" } else { "s" };
        write!(formatter, "serving {}, {count} GPU{plural}", self.directory.display())?;
        for (at, alike) in self.gpus.chunk_by(|one, next| one == next).enumerate() {
            let separator = if at == 0 { ": " } else { ", " };
            let times = if alike.len() == 1 { String::new() } else { format!("{} × ", alike.len()) };
            let (name, bytes) = &alike[0];
            write!(formatter, "{separator}{times}{name} ({})", ByteSize(*bytes))?;
        }
        Ok(())
    }
}

/// Serves until SIGINT, SIGTERM or the admin API ends it. `ready` is called once clients can come; when `also_stop` is
/// over, the server ends too.
///
/// # Errors
/// [`ServerError`], if it cannot begin to serve.
pub fn run(
    options: ServerOptions,
    also_stop: impl Future<Output = ()>,
    ready: impl FnOnce(&Serving),
) -> Result<(), ServerError> {
    raise_descriptor_limit();
    priority::raise();
    let (keeper, mut heritage) = keeper::inherit()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let predecessor = {
        let _inside = runtime.enter();
        Predecessor::recall(&options, &keeper, &mut heritage).unwrap_or_else(|error| {
            tracing::error!("this server cannot go on where the one before ended, whose workers and clients are lost: {error}");
            // Its workers and clients see the end of their sockets, and others see that of its locks.
            heritage = Heritage::default();
            keeper.forget_all();
            None
        })
    };
    let (mut inherited, mut gpus_before) = (None, Vec::new());
    let (tree, driver, store) = match predecessor {
        Some(Predecessor { tree, driver, store, clients, gpus }) => {
            (inherited, gpus_before) = (Some(clients), gpus);
            (tree, driver, store)
        }
        None => {
            let tree = ServerTree::take(&options.directory, options.group)?;
            let driver = find_driver(&options.flags.driver(), &options.program)?;
            (tree, driver, Store::open(&options.store, &keeper)?)
        }
    };
    let indices = match &options.flags.gpus {
        Some(gpus) => gpus.clone(),
        None => (0..driver.devices).collect(),
    };
    if let Some(&gpu) = indices.iter().find(|&&gpu| gpu >= driver.devices) {
        return Err(ServerError::NoSuchGpu { gpu, devices: driver.devices, driver: driver.library });
    }
    let (limits, gpus) = (options.memory.gpu_limit.as_ref().map_or(1, Vec::len), indices.len());
    if limits != 1 && limits != gpus {
        return Err(ServerError::GpuLimits { limits, gpus });
    }
    let recipe = |(gpu, index)| (index, Recipe::new(&options, &driver.library, (gpu, index), &keeper));
    let gpus_by_driver = indices.clone();
    let recipes: Vec<_> = indices.into_iter().enumerate().map(recipe).collect();
    let listen = |&gpu| {
        Compiler::listen(&options, &driver.library, gpu).map_err(|error| ServerError::Compiler { gpu, error })
    };
    let compilers = gpus_by_driver.iter().map(listen).collect::<Result<Vec<_>, ServerError>>()?;
    let peers = Arc::new(Peers::new(options.memory.peer_buffer().0, &keeper, &mut heritage));
    predecessor::keep(&keeper, &options, &tree, &driver, &store, gpus_by_driver.clone());
    gpus_before.resize_with(recipes.len(), Inherited::default);
    let recipes = recipes.into_iter().zip(gpus_before);
    let served = runtime.block_on(async {
        let (stop, stopping) = watch::channel(false);
        store.start();
        let keep = |compiler: Compiler| compiler.keep(stopping.clone());
        let compilers: Vec<_> = compilers.into_iter().map(keep).collect();
        let (words, ear) = scheduler::channel(gpus_by_driver);
        let learned = Arc::new(Learned::default());
        let realms = Realms::new(store.clone(), &options.directory.enclosures());
        let most_enclosures = options.scheduler.strict_per_gpu().get();
        let supervise = |(at, ((index, recipe), inherited))| {
            let (learned, peers) = (learned.clone(), peers.clone());
            let (words, stop) = (words.clone(), stopping.clone());
            let site = Site { at, index, recipe, learned, peers, words, stop, ledger: Arc::default() };
            Gpu::supervise(site, store.clone(), realms.clone(), most_enclosures, inherited)
        };
        let (gpus, supervisors): (Vec<_>, Vec<_>) = recipes.enumerate().map(supervise).unzip();
        let enclosures: Vec<_> = gpus.iter().map(Gpu::enclosures).collect();
        let parts = (gpus, learned, words.events, ear);
        let before = (keeper, heritage, inherited);
        let served = serve(options, tree, parts, realms, &driver, before, &stop, also_stop, ready).await;
        store.end();
        stop.send_replace(true);
        let enclosed = enclosures.iter().flat_map(|enclosures| enclosures.take_tasks());
        for supervisor in enclosed.chain(supervisors).chain(compilers) {
            // One that panicked has been reported; one whose worker hangs in the kernel is not waited for.
            let _ = timeout(WORKER_PATIENCE, supervisor).await;
        }
        served
    });
    // A file system that hangs may keep a thread for ever: the process ends all the same.
    runtime.shutdown_timeout(THREAD_PATIENCE);
    served
}

async fn serve(
    options: ServerOptions,
    tree: ServerTree,
    (gpus, learned, teller, ear): (Vec<Gpu>, Arc<Learned>, Teller, Ear),
    realms: Arc<Realms>,
    driver: &UsableDriver,
    (keeper, heritage, inherited): (Keeper, Heritage, Option<Legacies>),
    stop: &watch::Sender<bool>,
    also_stop: impl Future<Output = ()>,
    ready: impl FnOnce(&Serving),
) -> Result<(), ServerError> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut stopping = stop.subscribe();
    tokio::pin!(also_stop);
    let directory = options.directory.clone();
    let started = tokio::select! {
        started = first_ready(&gpus, driver.simulated) => started?,
        _ = interrupt.recv() => return Ok(()),
        _ = terminate.recv() => return Ok(()),
        () = &mut also_stop => return Ok(()),
    };
    // Ends before the node does, whose conversations it holds.
    let acceptor = Acceptor::start()?;
    let clients_at = acceptor.runtime().clone();
    let sensors = SensorReader::new(driver);
    let node = Node::new(
        options,
        tree,
        gpus,
        realms,
        learned,
        driver.simulated,
        teller,
        sensors,
        stop.clone(),
        clients_at,
        (keeper, heritage),
    );
    let node = Arc::new(node);
    check_limits(&node)?;
    settings::recall(&node);
    // Before others can come, who would be given their addresses, and before anybody looks for those that have no worker.
    if let Some(clients) = inherited {
        node.resume(clients);
        settings::tell_workers(&node);
    }
    scheduler::start(&node, ear);
    node.ensure_function(DEFAULT_FUNCTION)?;
    for function in node.options().settings.functions.keys() {
        node.ensure_function(&function.0)?;
    }
    node.reopen_functions();
    if let Some((path, stamp)) = node.options().config.clone() {
        tokio::spawn(settings::watch(node.clone(), path, stamp)?);
    }
    let admin = listen_for_admin(&node, &directory.admin_socket())?;
    tokio::spawn(keep_admin_socket(node.clone(), directory.admin_socket()));
    node.keeper().note_service();
    ready(&Serving { directory: directory.path().to_owned(), gpus: started });
    tokio::select! {
        _ = interrupt.recv() => tracing::info!("ending, interrupted"),
        _ = terminate.recv() => tracing::info!("ending, terminated"),
        () = &mut also_stop => tracing::info!("ending, whoever started this server is gone"),
        () = stopped(&mut stopping) => {}
    }
    node.stop();
    node.close_functions();
    // The admin API answers whoever told it to end before it ends itself; nobody may hold it up, though.
    let _ = timeout(ADMIN_PATIENCE, admin).await;
    Ok(())
}

fn listen_for_admin(node: &Arc<Node>, socket: &std::path::Path) -> io::Result<JoinHandle<()>> {
    let inherited = sockets::inherit(&mut node.heritage(), ADMIN, [socket]);
    let listener = match inherited {
        Some([listener]) => sockets::listener(listener)?,
        None => {
            let _ = std::fs::remove_file(socket);
            let listener = UnixListener::bind(socket)?;
            guard_socket(socket)?;
            listener
        }
    };
    sockets::keep(node.keeper(), ADMIN, [(&listener, socket)]);
    let (service, mut stopping) = (AdminServer::new(AdminService(node.clone())), node.stopping());
    Ok(tokio::spawn(async move {
        let server = tonic::transport::Server::builder().add_service(service);
        let incoming = UnixListenerStream::new(listener);
        let ended =
            server.serve_with_incoming_shutdown(incoming, async move { stopped(&mut stopping).await }).await;
        if let Err(error) = ended {
            tracing::error!("the admin API ended: {error}");
        }
    }))
}

/// Listens for the admin API again when somebody removed its socket.
async fn keep_admin_socket(node: Arc<Node>, socket: PathBuf) {
    let mut stopping = node.stopping();
    let mut made = FileIdentity::of(&socket);
    loop {
        tokio::select! {
            biased;
            () = stopped(&mut stopping) => return,
            () = sleep(ADMIN_CHECK) => {}
        }
        let there = FileIdentity::of(&socket);
        if there.is_some() && there == made {
            continue;
        }
        // What somebody else put there is his.
        if there.is_none() {
            match listen_for_admin(&node, &socket) {
                Ok(_) => tracing::warn!("the admin API's socket was removed; it is there again"),
                Err(error) => tracing::error!("the admin API's socket cannot be made again: {error}"),
            }
            made = FileIdentity::of(&socket);
        }
    }
}

/// Whether what was asked for is there.
fn check_limits(node: &Node) -> Result<(), ServerError> {
    for (at, gpu) in node.gpus().iter().enumerate() {
        let (limit, device) = (node.options().gpu_limit_bytes(at), gpu.status().device);
        let total = device.map_or(u64::MAX, |device| device.total_memory_bytes);
        if limit > total {
            return Err(ServerError::GpuLimit { gpu: gpu.index, limit, total });
        }
    }
    let above = node.settings().settings().above(node.largest_gpu_limit_bytes()).next();
    above.map_or(Ok(()), |error| Err(error.into()))
}

/// Waits until every GPU's first worker is ready or failed. Returns name and memory of those that are ready.
async fn first_ready(gpus: &[Gpu], simulated: bool) -> Result<Vec<(String, u64)>, ServerError> {
    let (mut ready, mut reasons) = (Vec::new(), Vec::new());
    for gpu in gpus {
        let mut status = gpu.shared().status.clone();
        let Ok(status) = status.wait_for(|status| status.state != State::Starting).await else { continue };
        match (&status.state, &status.device) {
            (State::Failed(reason), _) => reasons.push(format!("GPU {}: {reason}", gpu.index)),
            (_, Some(device)) => {
                let name =
                    if simulated { format!("{} (simulated)", device.name) } else { device.name.clone() };
                ready.push((name, device.total_memory_bytes));
            }
            _ => {}
        }
    }
    if ready.is_empty() { Err(ServerError::NoGpu(reasons.join("; "))) } else { Ok(ready) }
}

/// Each client takes a few descriptors; the usual soft limit is for programs that use select(2).
pub(super) fn raise_descriptor_limit() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let _ = rustix::process::setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_gpus_are_counted() {
        let serving = |gpus: &[(&str, u64)]| {
            let gpus = gpus.iter().map(|&(name, bytes)| (name.to_owned(), bytes)).collect();
            Serving { directory: "/run/torpor".into(), gpus }.to_string()
        };
        assert_eq!(serving(&[("H200", 141 << 30)]), "serving /run/torpor, 1 GPU: H200 (141 GiB)");
        let three = [("H200", 141 << 30), ("H200", 141 << 30), ("L4", 24 << 30)];
        assert_eq!(serving(&three), "serving /run/torpor, 3 GPUs: 2 × H200 (141 GiB), L4 (24 GiB)");
    }
}
