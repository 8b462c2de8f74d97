//! One worker process: starting it, and ending it.
//!
//! Its end of the socket pair is its standard input, the one descriptor that every process inherits without help.

use crate::server::keeper::{Keeper, numbered};
use crate::server::options::ServerOptions;
use crate::server::settings::declare::text;
use crate::server::size::ByteSize;
use crate::server::store::WorkerId;
use crate::server::workers::driver_files::DriverFiles;
use crate::server::workers::ending::Process;
use crate::server::workers::socket::PacketSocket;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::process::Command;
use tokio::time::timeout;
use torpor_proto::control::client::Device;
use torpor_proto::control::keeper;
use torpor_proto::control::worker::{Begin, FromWorker, ToWorker, from_worker, to_worker};

/// How long a worker may take to make its context. Natively 0.1 to 0.4 s; a busy node with many GPUs takes longer.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a worker may take to leave when its socket is closed.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// One that closed its socket is usually about to end by itself, with a better reason than the server's.
pub const LAST_WORDS: Duration = Duration::from_millis(100);

/// Under what kind of name workers are kept.
pub const WORKER: &str = "worker";

/// How to start a worker.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The program whose `worker` subcommand it is.
    pub program: PathBuf,
    /// What it is told first.
    pub begin: Begin,
    /// Its GPU's place among those that serve.
    pub gpu: usize,
    /// Who keeps it for the server after this one.
    pub keeper: Keeper,
    /// Which server this is, among those that had the same workers.
    pub server: u64,
}

impl Recipe {
    /// For the GPU at this place among those that serve, which is `device` as the driver counts.
    #[must_use]
    pub fn new(options: &ServerOptions, driver: &Path, (gpu, device): (usize, u32), keeper: &Keeper) -> Self {
        let ServerOptions { flags, memory, scheduler, .. } = options;
        let begin = Begin {
            driver: driver.as_os_str().as_bytes().to_vec(),
            images: options.directory.images().into_os_string().into_vec(),
            compiler: options.directory.compiler_socket(device).into_os_string().into_vec(),
            log: options.log.clone(),
            spin_us: flags.spin_us().into(),
            linger_us: u64::try_from(scheduler.linger().0.as_micros()).unwrap_or(u64::MAX),
            gpu_limit_bytes: options.gpu_limit_bytes(gpu),
            pinned_limit_bytes: options.pinned_limit_bytes,
            image_limit_bytes: memory.image_limit().0,
            code_limit_bytes: memory.code_limit().0,
            active_clients: text(&scheduler.active_per_gpu()),
            eviction: text(&scheduler.eviction()),
            busy_turn_us: u64::try_from(scheduler.busy_turn().0.as_micros()).unwrap_or(u64::MAX),
            staging_idle_us: u64::try_from(flags.staging_idle().0.as_micros()).unwrap_or(u64::MAX),
            swap: text(&flags.swap()),
            swap_group_bytes: flags.swap_group().0,
            cover: scheduler.cover(),
            lean: scheduler.lean(),
            spare: scheduler.spare_worker(),
            enclosed: false,
        };
        Self { program: options.program.clone(), begin, gpu, keeper: keeper.clone(), server: serial() }
    }
}

/// Why a worker does not serve.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The process could not be made.
    #[error("{program} cannot be started: {error}")]
    Spawn {
        /// Which program.
        program: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// It says that it cannot.
    #[error("{0}")]
    Failed(String),
    /// It ended, or closed its socket.
    #[error("it ended before it was ready ({0}); its messages are above")]
    Ended(String),
    /// There is no room for its context.
    #[error(
        "GPU {gpu} has no room for the enclosure of function {function}: its context takes {context} of the {limit} that functions may \
         use, and what others have cannot leave; end or unpin some"
    )]
    Full {
        /// Which GPU.
        gpu: u32,
        /// Whose enclosure.
        function: String,
        /// What it takes.
        context: ByteSize,
        /// What all have.
        limit: ByteSize,
    },
    /// It takes too long.
    #[error("it was not ready within {} seconds; is the GPU hung? (`nvidia-smi` would hang too)", START_TIMEOUT.as_secs())]
    Slow,
}

/// A worker that is there. The keeper knows of it as long as this lives.
#[derive(Debug)]
pub struct WorkerProcess {
    /// Its end of the conversation.
    pub socket: PacketSocket,
    process: Process,
    /// What it has open of the driver's, from when it serves on.
    driver_files: DriverFiles,
    keeper: Keeper,
    /// What the keeper is told of it.
    words: keeper::Worker,
}

impl WorkerProcess {
    /// Starts a worker for a device of the driver.
    ///
    /// # Errors
    /// [`StartError::Spawn`].
    pub async fn spawn(recipe: &Recipe, device: u32, is_spare: bool) -> Result<Self, StartError> {
        let failed = |error| StartError::Spawn { program: recipe.program.clone(), error };
        let (socket, theirs) = PacketSocket::pair().map_err(failed)?;
        let keeper = recipe.keeper.clone();
        let mut command = Command::new(&recipe.program);
        command.args(["worker", "--device", &device.to_string()]);
        if keeper.is_there() && !recipe.begin.enclosed {
            command.arg("--kept");
        }
        let child = command
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            // A Ctrl-C at the terminal is for the server, which ends its workers in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let begin = ToWorker { body: Some(to_worker::Body::Begin(recipe.begin.clone())) };
        // One that has ended is not told; how it ended is found out by whoever waits until it is ready.
        let _ = socket.send(&begin, &[]).await;
        let words = keeper::Worker {
            serial: serial(),
            gpu: u32::try_from(recipe.gpu).unwrap_or(u32::MAX),
            pid: child.id().unwrap_or(0),
            is_spare,
            device: None,
            is_enclosed: recipe.begin.enclosed,
        };
        let worker = Self {
            socket,
            process: Process::Child(child),
            driver_files: DriverFiles::default(),
            keeper,
            words,
        };
        worker.keep();
        Ok(worker)
    }

    /// A worker that the server before has started.
    ///
    /// # Errors
    /// The kernel's.
    pub fn inherit(
        keeper: &Keeper,
        words: keeper::Worker,
        socket: OwnedFd,
        process: OwnedFd,
    ) -> io::Result<Self> {
        let (socket, keeper) = (PacketSocket::of(socket)?, keeper.clone());
        let process = Process::inherit(words.pid, process)?;
        Ok(Self { socket, process, driver_files: DriverFiles::default(), keeper, words })
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.pid()
    }

    /// What identifies it, for the next server too.
    #[must_use]
    pub fn id(&self) -> WorkerId {
        WorkerId(self.words.serial)
    }

    /// What it has said of its device, to the server before.
    #[must_use]
    pub fn device(&self) -> Option<Arc<Device>> {
        self.words.device.clone().map(Arc::new)
    }

    /// It serves from now on, if it was the spare.
    pub fn serves(&mut self) {
        if self.words.is_spare {
            self.words.is_spare = false;
            self.keep();
        }
    }

    /// Has the driver keep what is the worker's beyond its end, until that is waited for: its context is made.
    pub fn hold(&mut self) {
        let Some(pid) = self.pid() else { return };
        match self.process.descriptor().and_then(|process| DriverFiles::of(process, pid)) {
            Ok(files) => self.driver_files = files,
            Err(error) => tracing::debug!(pid, "its driver's files cannot be held: {error}"),
        }
    }

    /// Whether the driver keeps what is the worker's beyond its end.
    #[must_use]
    pub fn is_held(&self) -> bool {
        !self.driver_files.is_empty()
    }

    /// Whether it is gone.
    #[must_use]
    pub fn has_ended(&mut self) -> bool {
        self.process.has_ended()
    }

    /// Waits until it holds its context, and returns what it says of its device.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn ready(&mut self) -> Result<Device, StartError> {
        let message = timeout(START_TIMEOUT, self.socket.peek::<FromWorker>()).await;
        match message.map_err(|_| StartError::Slow)? {
            Ok(Some((FromWorker { body: Some(from_worker::Body::Ready(ready)), .. }, _))) => {
                let device = ready.device;
                let device = device
                    .ok_or_else(|| StartError::Failed("it does not say what device it has".to_owned()))?;
                self.words.device = Some(device.clone());
                self.keep();
                // It has just been there.
                let _ = self.socket.pass_over();
                Ok(device)
            }
            Ok(Some((FromWorker { body: Some(from_worker::Body::Failed(failed)), .. }, _))) => {
                Err(StartError::Failed(failed.reason))
            }
            Ok(Some(_)) => Err(StartError::Failed("it speaks before it is ready".to_owned())),
            Ok(None) => Err(StartError::Ended(self.epitaph(LAST_WORDS).await)),
            Err(error) => Err(StartError::Ended(error.to_string())),
        }
    }

    /// Ends the conversation, which tells it to leave, and waits for that.
    pub async fn dismiss(mut self) {
        self.socket.close();
        let pid = self.pid();
        // What it gives back in order it need not wait for.
        self.driver_files.close().await;
        if self.process.ends_within(LEAVE_TIMEOUT).await.is_none() {
            tracing::warn!(pid, "a worker does not leave; killing it");
            self.process.kill();
            // One that hangs in the kernel, in the driver's module say, cannot even be killed.
            if self.process.ends_within(LEAVE_TIMEOUT).await.is_none() {
                tracing::error!(pid, "a worker cannot be killed: it hangs in the kernel");
            }
        }
    }

    /// Kills it; what it said before can still be received.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// Kills it if it does not end by itself within `patience`, and says how it ended. What it held is free afterwards.
    pub async fn epitaph(&mut self, patience: Duration) -> String {
        let how = match self.process.ends_within(patience).await {
            Some(how) => how,
            None => {
                self.process.kill();
                self.process.ends().await;
                "killed by the server".to_owned()
            }
        };
        self.driver_files.close().await;
        how
    }

    /// Tells the keeper what is known of it.
    fn keep(&self) {
        if !self.keeper.is_there() {
            return;
        }
        let name = numbered(WORKER, self.words.serial);
        match self.process.descriptor() {
            Ok(process) => self.keeper.keep(&name, &self.words, &[self.socket.descriptor(), process.as_fd()]),
            Err(error) => tracing::error!("a worker cannot be left to a server after this one: {error}"),
        }
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        self.keeper.forget(&numbered(WORKER, self.words.serial));
    }
}

/// A number that no server has given before.
fn serial() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
