//! The admin API of a server, as a caller sees it.

use crate::error::CliError;
use crate::server_process::{InBrackets, ServerProcess};
use std::error::Error;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};
use torpor_proto::control::admin::admin_client::AdminClient;
use torpor_proto::directory::ServerDirectory;

/// How long a server may take to answer; it answers in milliseconds.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long a server may take for what takes long. It gives up earlier, with a reason, if it makes no progress.
const PATIENCE: Duration = Duration::from_secs(600);

/// While something long is done, the server's end of the connection must show every so often that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// How long a server may take to start: drivers are given 60 s.
const START_PATIENCE: Duration = Duration::from_secs(75);

/// A wait that takes longer than this is explained.
const SILENCE: Duration = Duration::from_secs(1);

/// Between two looks at a server that is starting.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A connection to a server.
#[derive(Debug)]
pub struct Admin {
    directory: ServerDirectory,
    timeout: Duration,
    runtime: Runtime,
    client: AdminClient<Channel>,
}

impl Admin {
    /// Connects to the server in a directory, once it has started if it is starting.
    ///
    /// # Errors
    /// [`CliError::NoServer`] if none listens.
    pub fn connect(directory: &ServerDirectory) -> Result<Self, CliError> {
        Self::connect_with(directory, TIMEOUT)
    }

    /// As [`Self::connect`], for calls that are answered when something long is done.
    ///
    /// # Errors
    /// [`CliError::NoServer`] if none listens.
    pub fn connect_patiently(directory: &ServerDirectory) -> Result<Self, CliError> {
        Self::connect_with(directory, PATIENCE)
    }

    fn connect_with(directory: &ServerDirectory, timeout: Duration) -> Result<Self, CliError> {
        await_listening(directory)?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let address = format!("unix://{}", directory.admin_socket().display());
        let unreachable = |error: tonic::transport::Error| broke_off(directory, error.to_string());
        let endpoint = Endpoint::from_shared(address).map_err(unreachable)?;
        let endpoint = endpoint.http2_keep_alive_interval(KEEP_ALIVE).keep_alive_timeout(TIMEOUT);
        let deadline = Instant::now() + timeout;
        let channel = loop {
            match runtime.block_on(endpoint.connect()) {
                Err(_) if awaits_next(directory, deadline) => {}
                connected => break connected.map_err(unreachable)?,
            }
        };
        Ok(Self { directory: directory.clone(), timeout, runtime, client: AdminClient::new(channel) })
    }

    /// Calls the API.
    ///
    /// # Errors
    /// [`CliError::Refused`] with the server's reason, [`CliError::Silent`], [`CliError::BrokeOff`].
    pub fn call<T>(
        &mut self,
        call: impl AsyncFnOnce(&mut AdminClient<Channel>) -> Result<Response<T>, Status>,
    ) -> Result<T, CliError> {
        let Self { directory, timeout: patience, runtime, client } = self;
        let answer = runtime.block_on(async { timeout(*patience, call(client)).await });
        let silent = |_| CliError::Silent {
            directory: directory.path().to_owned(),
            process: InBrackets(ServerProcess::of(directory)),
            seconds: patience.as_secs(),
        };
        answer.map_err(silent)?.map(Response::into_inner).map_err(|status| refused(directory, status))
    }

    /// As [`Self::call`], for what may be asked twice: if the server is killed over it and its keeper starts another one, that is asked.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn ask<T>(
        &mut self,
        ask: impl AsyncFn(&mut AdminClient<Channel>) -> Result<Response<T>, Status>,
    ) -> Result<T, CliError> {
        let deadline = Instant::now() + self.timeout;
        loop {
            match self.call(async |api| ask(api).await) {
                Err(CliError::BrokeOff { .. }) if awaits_next(&self.directory, deadline) => {}
                answered => return answered,
            }
        }
    }

    /// Waits for what an earlier call goes on to say, for as long as that takes.
    ///
    /// # Errors
    /// [`CliError::Refused`], [`CliError::BrokeOff`].
    pub fn wait<T>(&mut self, said: impl Future<Output = Result<T, Status>>) -> Result<T, CliError> {
        self.runtime.block_on(said).map_err(|status| refused(&self.directory, status))
    }
}

/// Whether a server that broke off may be replaced by its keeper: then this waits a moment. Nobody holds the directory of one that is
/// gone for good.
fn awaits_next(directory: &ServerDirectory, deadline: Instant) -> bool {
    let awaits = Instant::now() < deadline && ServerProcess::of(directory).is_some();
    if awaits {
        std::thread::sleep(LOOK_EVERY);
    }
    awaits
}

fn refused(directory: &ServerDirectory, status: Status) -> CliError {
    match status.source() {
        // What the server says has no cause here.
        None => CliError::Refused(status.message().to_owned()),
        Some(cause) => broke_off(directory, last_cause(cause)),
    }
}

fn broke_off(directory: &ServerDirectory, reason: String) -> CliError {
    let process = InBrackets(ServerProcess::of(directory));
    CliError::BrokeOff { directory: directory.path().to_owned(), process, reason }
}

/// What the operating system, or HTTP/2, said; the errors around it only say that it said something.
fn last_cause(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

/// Whether a server listens in a directory.
///
/// # Errors
/// [`CliError::NoServer`] if none does, [`CliError::Unreachable`] if this user cannot know.
pub fn check_listening(directory: &ServerDirectory) -> Result<(), CliError> {
    let path = directory.path().to_owned();
    match UnixStream::connect(directory.admin_socket()) {
        Ok(_) => Ok(()),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            Err(CliError::NoServer(path))
        }
        // TORPOR_SERVER names a function's directory or a file, say.
        Err(error) if error.kind() == ErrorKind::NotADirectory => Err(CliError::NoServer(path)),
        Err(error) => Err(CliError::Unreachable { directory: path, error }),
    }
}

/// As [`check_listening`], but a server that holds the directory and does not listen is starting, or ending: one waits for
/// that.
fn await_listening(directory: &ServerDirectory) -> Result<(), CliError> {
    let began = Instant::now();
    let mut explained = false;
    loop {
        match check_listening(directory) {
            Err(CliError::NoServer(path)) => {
                let process = ServerProcess::of(directory);
                let in_brackets = InBrackets(process);
                match process {
                    // It may have begun to listen, and somebody else may have looked at the lock, between the two looks.
                    None => return check_listening(directory),
                    Some(_) if began.elapsed() >= START_PATIENCE => {
                        return Err(CliError::DoesNotListen { directory: path, process: in_brackets });
                    }
                    Some(_) if !explained && began.elapsed() >= SILENCE => {
                        eprintln!(
                            "torpor: waiting for the server in {}{in_brackets}, which is starting or ending",
                            path.display()
                        );
                        explained = true;
                    }
                    Some(_) => {}
                }
            }
            known => return known,
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
