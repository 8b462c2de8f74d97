//! The node: its clients, its GPUs, its functions, and what happens between them.
//!
//! A client's way through it: [`Node::admit`] (hello), [`Node::join`] (it takes its memory), [`Node::part`] (it is gone).

use crate::gpu_limit::gpu_limit_bytes;
use crate::server::clients::{ClientId, ClientTable, Introduction, NoRoom, Token};
use crate::server::function::Function;
use crate::server::gpu::{Gpu, State};
use crate::server::options::ServerOptions;
use crate::server::served::{ClientMemory, NotServed, Order};
use crate::server::settings::{self, Live, Settings};
use crate::server::store::Store;
use crate::server::tree::{ServerTree, TreeError};
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use torpor_proto::channel::{ChannelError, MappedChannel};
use torpor_proto::control::client::{Device, Hello, Welcome};
use torpor_proto::control::worker::{self, Attach};
use torpor_proto::directory::{InvalidName, check_function_name};
use torpor_proto::error::CudaError;
use torpor_proto::layout::AddressRange;
use torpor_proto::mapping::create_sealed;

/// How long a client waits for a GPU whose worker is being started again: less than it waits for an answer to its
/// hello (0.9 s), so that it learns the reason.
const GPU_TIMEOUT: Duration = Duration::from_millis(600);

/// How long a worker may take to say that it serves a client: less than the client waits for its memory (5 s).
const ATTACH_TIMEOUT: Duration = Duration::from_millis(4500);

/// How long a worker usually takes at most to let go of a client.
const DETACH_PATIENCE: Duration = Duration::from_secs(10);

const MAX_PROGRAM_CHARACTERS: usize = 64;

/// Why a client is not let in. The text is what its user reads.
#[derive(Debug, thiserror::Error)]
pub enum AdmitError {
    /// Too many are there.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// No worker is ready.
    #[error("no GPU is ready{0}; see `torpor gpus` and the server's log")]
    NoGpu(String),
    /// The server is ending.
    #[error("the server is ending")]
    Ending,
    /// The kernel gave no random bytes.
    #[error("the server has no random numbers: {0}")]
    Random(io::Error),
}

/// Why a client gets no memory.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// Its token is not known (any more), or another function's.
    #[error("the token is not known: it is good once, for two seconds, for the function that got it")]
    Token,
    /// The kernel gave no memory.
    #[error("the server cannot make shared memory: {0}")]
    Memory(#[from] ChannelError),
    /// The worker would not have it.
    #[error("the GPU's worker does not take the client: {0}")]
    Worker(#[from] NotServed),
    /// The worker said nothing.
    #[error("the GPU's worker did not answer within {} seconds", ATTACH_TIMEOUT.as_secs_f32())]
    Slow,
}

/// Why there is no such function.
#[derive(Debug, thiserror::Error)]
pub enum FunctionError {
    /// Its name is none.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// Its directory cannot be.
    #[error(transparent)]
    Directory(#[from] TreeError),
    /// Its sockets cannot be.
    #[error("the sockets in {path} cannot be made: {error}")]
    Sockets {
        /// The function's directory.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
}

/// Everything the server's tasks share.
#[derive(Debug)]
pub struct Node {
    options: ServerOptions,
    tree: ServerTree,
    gpus: Vec<Gpu>,
    store: Arc<Store>,
    simulated: bool,
    clients: Mutex<ClientTable>,
    functions: Mutex<HashMap<String, Function>>,
    settings: Mutex<Live>,
    next_gpu: AtomicUsize,
    stop: watch::Sender<bool>,
}

impl Node {
    /// A node without functions.
    #[must_use]
    pub fn new(
        options: ServerOptions,
        tree: ServerTree,
        gpus: Vec<Gpu>,
        store: Arc<Store>,
        simulated: bool,
        stop: watch::Sender<bool>,
    ) -> Self {
        let settings = Settings::new(&options.settings, options.memory_limit_bytes);
        Self {
            options,
            tree,
            gpus,
            store,
            simulated,
            clients: Mutex::default(),
            functions: Mutex::default(),
            settings: Mutex::new(Live::new(settings)),
            next_gpu: AtomicUsize::new(0),
            stop,
        }
    }

    /// What the server was told at its start.
    #[must_use]
    pub fn options(&self) -> &ServerOptions {
        &self.options
    }

    /// The GPUs.
    #[must_use]
    pub fn gpus(&self) -> &[Gpu] {
        &self.gpus
    }

    /// Where functions' memory is while they have no GPU.
    #[must_use]
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Whether the GPUs are simulated.
    #[must_use]
    pub fn simulated(&self) -> bool {
        self.simulated
    }

    /// The clients, locked. Never held across an await.
    pub fn clients(&self) -> MutexGuard<'_, ClientTable> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The functions' settings, locked. Never held across an await, nor while the clients are asked for.
    pub fn settings(&self) -> MutexGuard<'_, Live> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Device memory that all functions together may use on a GPU; `None` if it never was ready.
    #[must_use]
    pub fn gpu_limit_bytes(&self, gpu: usize) -> Option<u64> {
        let device = self.gpus.get(gpu)?.status().device?;
        Some(gpu_limit_bytes(self.options.gpu_limit_bytes(gpu), device.total_memory_bytes))
    }

    /// The same of the GPU that has most.
    #[must_use]
    pub fn largest_gpu_limit_bytes(&self) -> u64 {
        (0..self.gpus.len()).filter_map(|gpu| self.gpu_limit_bytes(gpu)).max().unwrap_or(0)
    }

    /// Name and directory of each function.
    #[must_use]
    pub fn functions(&self) -> Vec<(String, String)> {
        let functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = |function: &Function| function.directory().path().display().to_string();
        functions.iter().map(|(name, function)| (name.clone(), directory(function))).collect()
    }

    /// Ends the server, soon. Every client's calls fail from now on.
    pub fn stop(&self) {
        self.clients().fail(CudaError::DEVICE_UNAVAILABLE);
        self.stop.send_replace(true);
    }

    /// Turns true when the server is to end.
    #[must_use]
    pub fn stopping(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    /// Makes a function unless it is there. Returns its directory.
    ///
    /// # Errors
    /// [`FunctionError`].
    pub fn ensure_function(self: &Arc<Self>, name: &str) -> Result<PathBuf, FunctionError> {
        check_function_name(name)?;
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(function) = functions.get(name) {
            return Ok(function.directory().path().to_owned());
        }
        let directory = self.tree.make_function(name)?;
        let path = directory.path().to_owned();
        let function = Function::open(self, name, directory)
            .map_err(|error| FunctionError::Sockets { path: path.clone(), error })?;
        functions.insert(name.to_owned(), function);
        Ok(path)
    }

    /// Closes every function's sockets.
    pub fn close_functions(&self) {
        self.functions.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// A process of `function` says hello: gives it addresses, a GPU and a token.
    ///
    /// # Errors
    /// [`AdmitError`].
    pub async fn admit(&self, function: &str, hello: Hello) -> Result<Welcome, AdmitError> {
        let (gpu, device) = self.place(function).await?;
        let mut token: Token = [0; 16];
        rustix::rand::getrandom(&mut token, rustix::rand::GetRandomFlags::empty())
            .map_err(|error| AdmitError::Random(error.into()))?;
        let program = printable(&hello.program);
        let who = Introduction { function: function.to_owned(), program, gpu };
        let (client, slot) = self.clients().admit(who, token, Instant::now())?;
        let (arena, host) = self.ranges(slot);
        Ok(Welcome {
            client: client.0,
            token: token.to_vec(),
            arena_address: arena.address,
            arena_bytes: arena.bytes,
            host_address: host.address,
            host_bytes: host.bytes,
            staging_bytes: self.options.staging_bytes,
            spin_us: u32::try_from(self.options.wait_spin.as_micros()).unwrap_or(u32::MAX),
            memory_limit_bytes: settings::settings_of(self, client.0, function, gpu).memory_limit_bytes,
            device: Some((*device).clone()),
        })
    }

    /// A process comes for its memory. When this returns, its GPU's worker serves it.
    ///
    /// # Errors
    /// [`JoinError`]; the token is used up all the same, and nothing else is left of the client.
    pub async fn join(
        &self,
        function: &str,
        token: &Token,
        pid: u32,
    ) -> Result<(ClientId, Arc<ClientMemory>), JoinError> {
        let (id, slot, gpu) = {
            let mut clients = self.clients();
            let client = clients.take(function, token, pid, Instant::now()).ok_or(JoinError::Token)?;
            (client.id, client.slot, client.introduction.gpu)
        };
        match self.attach(id, slot, gpu, function).await {
            Ok(memory) => {
                self.clients().serve(id, memory.clone());
                // They may have changed since it was sent to its worker.
                settings::tell_workers(self);
                Ok((id, memory))
            }
            Err(error) => {
                self.part(id).await;
                Err(error)
            }
        }
    }

    async fn attach(
        &self,
        id: ClientId,
        slot: u32,
        gpu: usize,
        function: &str,
    ) -> Result<Arc<ClientMemory>, JoinError> {
        let (_, host) = self.ranges(slot);
        let (channel, channel_file) = MappedChannel::create()?;
        let host_file = create_sealed("torpor-host", host.bytes).map_err(ChannelError::from)?;
        let memory = Arc::new(ClientMemory { channel: Arc::new(channel), channel_file, host_file });
        let told = settings::settings_of(self, id.0, function, gpu);
        if let Some(client) = self.clients().get_mut(id) {
            client.told = told;
        }
        let attach = self.attach_message(slot, function, &told);
        let theirs = memory.clone();
        self.store.admit(id, function);
        let answer = self.gpus[gpu].ask(|done| Order::Attach { attach, memory: theirs, state: None, done });
        let gone = || NotServed("the server is ending".to_owned());
        timeout(ATTACH_TIMEOUT, answer).await.map_err(|_| JoinError::Slow)?.unwrap_or_else(|| Err(gone()))?;
        Ok(memory)
    }

    /// What a worker is told of a client that it is to serve, from the beginning.
    pub(super) fn attach_message(&self, slot: u32, function: &str, told: &worker::Settings) -> Attach {
        let (arena, host) = self.ranges(slot);
        Attach {
            client: told.client,
            function: function.to_owned(),
            arena_address: arena.address,
            arena_bytes: arena.bytes,
            host_address: host.address,
            host_bytes: host.bytes,
            staging_bytes: self.options.staging_bytes,
            memory_limit_bytes: told.memory_limit_bytes,
            writeback: told.writeback,
            pinned: told.pinned,
            resumed: false,
        }
    }

    /// A client is gone. When this returns, nothing is left of it, and its slot is free.
    pub async fn part(&self, id: ClientId) {
        let Some(gpu) = self.clients().leave(id) else { return };
        let started = Instant::now();
        let detached = self.gpus[gpu].ask(|done| Order::Detach { client: id.0, done });
        tokio::pin!(detached);
        if timeout(DETACH_PATIENCE, &mut detached).await.is_err() {
            tracing::warn!(client = id.0, gpu, "the worker has not let go of a client; its slot stays taken");
            detached.await;
        }
        self.store.forget(id);
        self.clients().release(id);
        tracing::info!(client = id.0, took_ms = started.elapsed().as_millis(), "client gone");
    }

    /// The next GPU that is ready and that the function may be on, waiting a little for one that is being started.
    async fn place(&self, function: &str) -> Result<(usize, Arc<Device>), AdmitError> {
        let deadline = Instant::now() + GPU_TIMEOUT;
        loop {
            if *self.stop.borrow() {
                return Err(AdmitError::Ending);
            }
            let first = self.next_gpu.fetch_add(1, Ordering::Relaxed);
            let mut starting = false;
            let mut reason = String::new();
            for offset in 0..self.gpus.len() {
                let gpu = first.wrapping_add(offset) % self.gpus.len();
                if !settings::may_be_on(self, function, gpu) {
                    continue;
                }
                let status = self.gpus[gpu].status();
                match (status.state, status.device) {
                    (State::Ready, Some(device)) => {
                        // Those passed over were not ready; the turn goes on from the one that was.
                        self.next_gpu.fetch_add(offset, Ordering::Relaxed);
                        return Ok((gpu, device));
                    }
                    (State::Failed(why), _) => reason = format!(" ({why})"),
                    _ => starting = true,
                }
            }
            if !starting || Instant::now() >= deadline {
                return Err(AdmitError::NoGpu(reason));
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn ranges(&self, slot: u32) -> (AddressRange, AddressRange) {
        let nothing = AddressRange { address: 0, bytes: 0 };
        let arena = AddressRange::arena(slot).unwrap_or(nothing);
        let host = AddressRange::host(slot).unwrap_or(nothing);
        (arena, AddressRange { bytes: host.bytes.min(self.options.host_bytes), ..host })
    }
}

/// What a process says of itself ends up in terminals: no control characters, not too long.
fn printable(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(MAX_PROGRAM_CHARACTERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_cannot_steer_a_terminal() {
        assert_eq!(printable("py\x1b[2Jthon\n"), "py[2Jthon");
        assert_eq!(printable(&"x".repeat(1000)).len(), MAX_PROGRAM_CHARACTERS);
    }
}
