//! The worker: the process that holds the CUDA context of one GPU's clients and runs the commands of many clients.
//!
//! One thread listens to the node server; each client has a thread of its own, its *session*, that reads the client's
//! ring and executes what is in it (`session`). A session trusts nothing that a client writes and shares nothing with
//! the others but the context, the loaded images and the knowledge that the context is lost. It never blocks on the
//! GPU: what waits for the GPU is kept as *pending* work (`objects::pending`) and looked at between commands.
//!
//! | folder | what is there |
//! |---|---|
//! | `commands` | what clients' commands do, a file per family |
//! | `session` | the thread of a client: when it has the GPU, how its memory comes and goes, how it moves and ends |
//! | `streams` | a client's streams, their order among each other, and fences |
//! | `objects` | what a client's numbers stand for |
//! | `memory` | a client's memory as bookkeeping |
//! | `gpu` | what all sessions share: physical memory, the turn, images, the host store |
//!
//! Limits: one GPU, one server, one context for the process's whole life. A sticky CUDA error ends the worker, since
//! no other context can be made in the same process.

mod commands;
mod cost;
mod ending;
mod gpu;
mod mailbox;
mod memory;
mod objects;
mod relinquish;
mod server_socket;
mod session;
mod streams;
mod sync;
mod usage;
mod warden;
mod words;
mod work_time;

pub use gpu::console::Console;
pub use server_socket::die_with_server;

use crate::compiler::Compiler;
use crate::driver::{Device, Driver, DriverError, Reservation};
use crate::worker::gpu::Shared;
use crate::worker::gpu::digest::Digests;
use crate::worker::gpu::images::ImageStore;
use crate::worker::gpu::images::room::ImageLimits;
use crate::worker::gpu::pulse::Pulse;
use crate::worker::gpu::tuning::Tuning;
use crate::worker::mailbox::Wish;
use crate::worker::server_socket::{ServerSocket, die_with_all};
use std::ffi::OsStr;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use torpor_proto::control::Message;
use torpor_proto::control::worker::{
    Begin, ClientFault, Failed, Mark, NotReleased, Ready, RequestPoint, ToWorker, from_worker, to_worker,
};
use torpor_proto::error::CudaError;
use torpor_proto::handover;
use torpor_proto::layout;

/// The device window is reserved in pieces of this size if the driver refuses it as a whole.
const WINDOW_PIECE_BYTES: u64 = 8 << 40;

/// What a worker begins with.
#[derive(Debug)]
pub struct WorkerOptions {
    /// The device's number, as the driver counts.
    pub device: u32,
    /// The conversation with the node server: a SOCK_SEQPACKET socket.
    pub server: OwnedFd,
    /// Where this process's driver writes what kernels say. Without, it is not read, and nobody's kernels print.
    pub console: Option<Arc<Console>>,
    /// What the server has said first.
    pub begin: Begin,
    /// The server has a keeper, and may be another one before this worker ends.
    pub kept: bool,
}

/// Why a worker ended.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The server speaks differently.
    #[error("the node server did not say how to begin, but: {0}; is it of another release?")]
    Begin(String),
    /// The driver or the device cannot be used.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// The device does not say what it is.
    #[error("the device cannot be described: {0}")]
    Describe(CudaError),
    /// The kernel that finds out what has changed does not load.
    #[error("the driver does not load the worker's own kernel: {0}; is it older than CUDA 11?")]
    Digests(CudaError),
    /// The image directory cannot be used.
    #[error("the image directory cannot be made: {0}")]
    Images(io::Error),
    /// The thread that asks the driver cannot be.
    #[error("no thread to ask the driver by: {0}")]
    Pulse(io::Error),
    /// The thread that gives memory up for other workers cannot be.
    #[error("no thread to give memory up by: {0}")]
    Neighbours(io::Error),
    /// The thread that looks after kernels that do not end cannot be.
    #[error("no thread to watch kernels by: {0}")]
    Warden(io::Error),
    /// The conversation with the server broke.
    #[error("the conversation with the node server broke: {0}")]
    Server(#[from] io::Error),
    /// The context is lost.
    #[error("the GPU's context is lost: {0}")]
    Lost(CudaError),
}

/// Waits for what the server says first. `None` if it is gone.
///
/// # Errors
/// [`WorkerError`]: the socket's, or it says something else.
pub fn hear_first(server: &OwnedFd) -> Result<Option<Begin>, WorkerError> {
    let (message, _) = handover::receive(server)?;
    if message.is_empty() {
        return Ok(None);
    }
    match ToWorker::decode(message.as_slice()).map(|message| message.body) {
        Ok(Some(to_worker::Body::Begin(begin))) => Ok(Some(begin)),
        other => Err(WorkerError::Begin(format!("{other:?}"))),
    }
}

/// Runs a worker as this process, from its main thread. It [dies with](die_with_server) the node server, and the process ends at once, with
/// status 0, when the server closes its end.
///
/// # Errors
/// [`WorkerError`]; the server has been told already.
pub fn run(options: WorkerOptions) -> Result<(), WorkerError> {
    for (name, value) in [
        // Code is loaded when a kernel is first launched.
        ("CUDA_MODULE_LOADING", "LAZY"),
        // Streams of different clients share as few hardware queues as possible (8 by default).
        ("CUDA_DEVICE_MAX_CONNECTIONS", "32"),
    ] {
        if std::env::var_os(name).is_none() {
            // SAFETY: the worker has started no thread yet, and its caller is the program's main thread.
            unsafe { std::env::set_var(name, value) };
        }
    }
    // Nothing is given back one by one: the end of the process gives all back at once, and a lost context takes no calls.
    let started = match start(options) {
        Ok(started) => ManuallyDrop::new(started),
        Err((server, error)) => {
            let failed = from_worker::Body::Failed(Failed { reason: error.to_string() });
            // The server may be gone; the error is returned all the same.
            let _ = server.send(failed);
            return Err(error);
        }
    };
    let shared = &started.shared;
    let ended = listen(shared, &started.pulse);
    if let Some(error) = shared.lost() {
        ending::end(shared);
        return Err(WorkerError::Lost(error));
    }
    ended?;
    // Without running the driver's exit handlers: the kernel gives everything back, and at once.
    // SAFETY: ends the process; nothing of it is used afterwards.
    unsafe { libc::_exit(0) }
}

/// A worker that is ready.
struct Started {
    shared: Arc<Shared>,
    pulse: Arc<Pulse>,
    _window: Vec<Reservation>,
}

fn start(options: WorkerOptions) -> Result<Started, (Arc<ServerSocket>, WorkerError)> {
    let WorkerOptions { device, server, console, begin, kept } = options;
    let server = Arc::new(ServerSocket::new(server));
    if kept && let Err(error) = die_with_all(&server) {
        return Err((server, error.into()));
    }
    let prepare = || {
        let driver = Driver::load(path(&begin.driver))?;
        let (compiler, images) = (path(&begin.compiler).to_owned(), path(&begin.images).to_owned());
        let compiler = Compiler::new(compiler, images.clone(), driver.identity());
        let device = Device::open(driver, device)?;
        let window = reserve_window(&device)?;
        let description = device.describe().map_err(WorkerError::Describe)?;
        let tuning = Tuning::new(&begin, description.total_memory_bytes).map_err(WorkerError::Begin)?;
        let image_limits =
            ImageLimits { disk_bytes: begin.image_limit_bytes, code_bytes: begin.code_limit_bytes };
        let images = ImageStore::open(images, image_limits).map_err(WorkerError::Images)?;
        let digests = Digests::load(&device).map_err(WorkerError::Digests)?;
        let pulse = Pulse::start(&device).map_err(WorkerError::Pulse)?;
        Ok((device, window, description, tuning, (images, compiler), digests, pulse))
    };
    let (device, window, description, tuning, (images, compiler), digests, pulse) = match prepare() {
        Ok(prepared) => prepared,
        Err(error) => return Err((server, error)),
    };
    let shared = Arc::new(Shared::new(device, server, images, compiler, digests, console, tuning));
    if let Err(error) = shared.limits.begin(&shared.device) {
        tracing::warn!("programs whose kernels allocate memory may find less than they set: {error}");
    }
    gpu::memory::neighbours::start(&shared)
        .map_err(|error| (shared.server.clone(), WorkerError::Neighbours(error)))?;
    warden::start(&shared).map_err(|error| (shared.server.clone(), WorkerError::Warden(error)))?;
    shared.tell(from_worker::Body::Ready(Ready { device: Some(description) }));
    Ok(Started { shared, pulse, _window: window })
}

fn path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// Keeps the device addresses of all clients, wherever they are.
fn reserve_window(device: &Arc<Device>) -> Result<Vec<Reservation>, DriverError> {
    let layout::AddressRange { address, bytes } = layout::DEVICE_WINDOW;
    if let Ok(whole) = Reservation::exactly(device, address, bytes) {
        return Ok(vec![whole]);
    }
    (0..bytes.div_ceil(WINDOW_PIECE_BYTES))
        .map(|piece| {
            let offset = piece * WINDOW_PIECE_BYTES;
            Reservation::exactly(device, address + offset, WINDOW_PIECE_BYTES.min(bytes - offset))
        })
        .collect()
}

/// Hears the server out until it closes its end.
fn listen(shared: &Arc<Shared>, pulse: &Pulse) -> io::Result<()> {
    loop {
        let (message, descriptors) = shared.server.receive()?;
        if message.is_empty() {
            return Ok(());
        }
        let body = match ToWorker::decode(message.as_slice()) {
            Ok(message) => message.body,
            Err(error) => {
                tracing::error!(
                    "the node server sent what is no message: {error}; is it of another release?"
                );
                continue;
            }
        };
        match body {
            Some(to_worker::Body::Attach(attach)) => {
                let client = attach.client;
                if let Err(reason) = session::life::start(shared, attach, descriptors) {
                    shared.tell(from_worker::Body::ClientFault(ClientFault { client, reason }));
                }
            }
            Some(to_worker::Body::Detach(detach)) => shared.detach(detach.client),
            Some(to_worker::Body::ReportUsage(_)) => {
                usage::parts(shared, pulse).for_each(|part| shared.tell(from_worker::Body::Usage(part)));
            }
            Some(to_worker::Body::Ping(_)) => {
                shared.tell(from_worker::Body::Pong(usage::pong(shared, pulse)));
            }
            Some(to_worker::Body::Forget(forget)) => {
                shared.peers.forget(forget.client);
                shared.anteroom.forget(forget.client);
            }
            Some(to_worker::Body::Follow(follow)) => shared.follow(follow.events),
            Some(to_worker::Body::AllowMemory(allow)) => shared.memory.allow(allow.bytes),
            Some(to_worker::Body::GrantMemory(grant)) => shared.memory.grant(grant.bytes),
            Some(to_worker::Body::YieldMemory(demand)) => shared.memory.demand(demand),
            Some(to_worker::Body::RefuseMemory(_)) => shared.memory.refuse(),
            Some(to_worker::Body::Resume(resume)) => {
                gpu::peer::unlink_all(shared, resume.last_link);
                shared.resume(resume.server);
            }
            Some(to_worker::Body::Settings(settings)) => {
                if let Some(link) = shared.link(settings.client) {
                    link.set_settings(settings);
                }
            }
            Some(to_worker::Body::Release(release)) => {
                let client = release.client;
                let link = shared.link(client).ok_or("it is not here");
                if let Err(reason) = link.and_then(|link| link.ask_release(release)) {
                    let reason = reason.to_owned();
                    shared.tell(from_worker::Body::NotReleased(NotReleased { client, reason }));
                }
            }
            Some(to_worker::Body::Gate(gate)) => {
                if let Some(link) = shared.link(gate.client) {
                    shared.turns.set_gate(&link, gate.number, gate.state(), &shared.server);
                }
            }
            Some(to_worker::Body::Evict(evict)) => want(shared, evict.client, Wish::Unload),
            Some(to_worker::Body::SwapIn(swap_in)) => want(shared, swap_in.client, Wish::Load),
            Some(to_worker::Body::Mark(mark)) => hear_of_request(shared, &mark),
            Some(to_worker::Body::Sought(sought)) => {
                if let Some(link) = shared.link(sought.client) {
                    link.tell_sought();
                }
            }
            Some(to_worker::Body::Proceed(proceed)) => {
                if let Some(link) = shared.link(proceed.client) {
                    link.company.proceed();
                    link.wake();
                }
            }
            Some(to_worker::Body::RevokeLease(revoke)) => shared.want_lease(revoke.client),
            Some(to_worker::Body::Slab(slab)) => gpu::host_store::take_slab(shared, slab, descriptors),
            Some(to_worker::Body::ReturnSlab(slab)) => gpu::host_store::return_slab(shared, slab.index),
            Some(to_worker::Body::StoreAnswer(answer)) => shared.store.answer(answer),
            Some(to_worker::Body::Lend(lend)) => gpu::peer::lend(shared, lend),
            Some(to_worker::Body::Borrow(borrow)) => gpu::peer::borrow(shared, borrow, descriptors),
            Some(to_worker::Body::Unlink(unlink)) => gpu::peer::unlink(shared, unlink.link),
            _ => tracing::error!("the node server sent an order that this release does not know"),
        }
    }
}

/// The server wants something of a session; one that has ended need not do it.
fn want(shared: &Shared, client: u64, wish: Wish) {
    if let Some(link) = shared.link(client) {
        link.ask(wish);
    }
}

/// A request of a client begins, is answered or has ended. Of a client that is not here nothing is said: it may come.
fn hear_of_request(shared: &Shared, mark: &Mark) {
    let Some(link) = shared.link(mark.client) else { return };
    match mark.point() {
        RequestPoint::Begun => link.begin_request(mark.request),
        RequestPoint::Answered => {
            // What has been used until now is shared out by this.
            shared.gpu_time.settle();
            shared.tell(from_worker::Body::Cost(link.cost(mark.request)));
        }
        RequestPoint::Ended => link.end_request(mark.request),
    }
}
