//! One worker process: starting it, and ending it.
//!
//! Its end of the socket pair is its standard input, the one descriptor that every process inherits without help.

use crate::server::options::ServerOptions;
use crate::server::settings::declare::text;
use crate::server::size::ByteSize;
use crate::server::workers::socket::PacketSocket;
use rustix::process::{Pid, Signal, kill_process};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::time::timeout;
use torpor_proto::control::client::Device;
use torpor_proto::control::worker::{Begin, FromWorker, ToWorker, from_worker, to_worker};

/// How long a worker may take to make its context. Natively 0.1 to 0.4 s; a busy node with many GPUs takes longer.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a worker may take to leave when its socket is closed.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// One that closed its socket is usually about to end by itself, with a better reason than the server's.
pub const LAST_WORDS: Duration = Duration::from_millis(100);

/// How to start a worker.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The program whose `worker` subcommand it is.
    pub program: PathBuf,
    /// What it is told first.
    pub begin: Begin,
}

impl Recipe {
    /// For the GPU at this place among those that serve.
    #[must_use]
    pub fn new(options: &ServerOptions, driver: &Path, gpu: usize) -> Self {
        let ServerOptions { flags, memory, scheduler, .. } = options;
        let begin = Begin {
            driver: driver.as_os_str().as_bytes().to_vec(),
            images: options.directory.images().into_os_string().into_vec(),
            log: options.log.clone(),
            spin_us: flags.spin_us().into(),
            linger_us: u64::try_from(scheduler.linger().0.as_micros()).unwrap_or(u64::MAX),
            gpu_limit_bytes: options.gpu_limit_bytes(gpu),
            pinned_limit_bytes: options.pinned_limit_bytes,
            image_limit_bytes: memory.image_limit().0,
            code_limit_bytes: memory.code_limit().0,
            active_clients: text(&scheduler.active_per_gpu()),
            eviction: text(&scheduler.eviction()),
            swap: text(&flags.swap()),
            swap_group_bytes: flags.swap_group().0,
            cover: scheduler.cover(),
            spare: scheduler.spare_worker(),
            enclosed: false,
        };
        Self { program: options.program.clone(), begin }
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

/// A worker that is there.
#[derive(Debug)]
pub struct WorkerProcess {
    /// Its end of the conversation.
    pub socket: PacketSocket,
    child: Child,
}

impl WorkerProcess {
    /// Starts a worker for a device of the driver.
    ///
    /// # Errors
    /// [`StartError::Spawn`].
    pub async fn spawn(recipe: &Recipe, device: u32) -> Result<Self, StartError> {
        let failed = |error| StartError::Spawn { program: recipe.program.clone(), error };
        let (socket, theirs) = PacketSocket::pair().map_err(failed)?;
        let child = Command::new(&recipe.program)
            .args(["worker", "--device", &device.to_string()])
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
        Ok(Self { socket, child })
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Whether it is gone.
    #[must_use]
    pub fn has_ended(&mut self) -> bool {
        // An error means that it was waited for already.
        self.child.try_wait().is_ok_and(|status| status.is_some())
    }

    /// Waits until it holds its context, and returns what it says of its device.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn ready(&mut self) -> Result<Device, StartError> {
        let message = timeout(START_TIMEOUT, self.socket.receive::<FromWorker>()).await;
        match message.map_err(|_| StartError::Slow)? {
            Ok(Some(FromWorker { body: Some(from_worker::Body::Ready(ready)) })) => ready
                .device
                .ok_or_else(|| StartError::Failed("it does not say what device it has".to_owned())),
            Ok(Some(FromWorker { body: Some(from_worker::Body::Failed(failed)) })) => {
                Err(StartError::Failed(failed.reason))
            }
            Ok(Some(_)) => Err(StartError::Failed("it speaks before it is ready".to_owned())),
            Ok(None) => Err(StartError::Ended(self.epitaph(LAST_WORDS).await)),
            Err(error) => Err(StartError::Ended(error.to_string())),
        }
    }

    /// Closes the socket, which tells it to leave, and waits for that.
    pub async fn dismiss(self) {
        let Self { socket, mut child } = self;
        drop(socket);
        if timeout(LEAVE_TIMEOUT, child.wait()).await.is_err() {
            tracing::warn!(pid = child.id(), "a worker does not leave; killing it");
            // One that hangs in the kernel, in the driver's module say, cannot even be killed.
            if timeout(LEAVE_TIMEOUT, child.kill()).await.is_err() {
                tracing::error!(pid = child.id(), "a worker cannot be killed: it hangs in the kernel");
            }
        }
    }

    /// Kills it; what it said before can still be received.
    pub fn kill(&self) {
        // As long as it was not waited for, the number is this process's.
        let pid = self.child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        pid.into_iter().for_each(|pid| {
            // One that is gone already need not be killed.
            let _ = kill_process(pid, Signal::KILL);
        });
    }

    /// Kills it if it does not end by itself within `patience`, and says how it ended. What it held is free afterwards.
    pub async fn epitaph(&mut self, patience: Duration) -> String {
        if let Ok(Ok(status)) = timeout(patience, self.child.wait()).await {
            return status.to_string();
        }
        let _ = self.child.start_kill();
        self.child.wait().await.map_or_else(|error| error.to_string(), |_| "killed by the server".to_owned())
    }
}
