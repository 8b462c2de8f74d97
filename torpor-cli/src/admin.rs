//! The admin API of a server, as a caller sees it.

use crate::error::CliError;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};
use torpor_proto::control::admin::admin_client::AdminClient;
use torpor_proto::directory::ServerDirectory;

/// How long a server may take to answer; it answers in milliseconds.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long a server may take for what takes long. It gives up earlier, with a reason, if it makes no progress.
const PATIENCE: Duration = Duration::from_secs(600);

/// A connection to a server.
#[derive(Debug)]
pub struct Admin {
    runtime: Runtime,
    client: AdminClient<Channel>,
}

impl Admin {
    /// Connects to the server in a directory.
    ///
    /// # Errors
    /// [`CliError::NoServer`] if none listens.
    pub fn connect(directory: &ServerDirectory) -> Result<Self, CliError> {
        Self::connect_with(directory, TIMEOUT)
    }

    /// Connects to the server in a directory, for calls that are answered when something long is done.
    ///
    /// # Errors
    /// [`CliError::NoServer`] if none listens.
    pub fn connect_patiently(directory: &ServerDirectory) -> Result<Self, CliError> {
        Self::connect_with(directory, PATIENCE)
    }

    fn connect_with(directory: &ServerDirectory, timeout: Duration) -> Result<Self, CliError> {
        check_listening(directory)?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let address = format!("unix://{}", directory.admin_socket().display());
        let unreachable = |error: tonic::transport::Error| CliError::Refused(error.to_string());
        let endpoint = Endpoint::from_shared(address).map_err(unreachable)?.timeout(timeout);
        let channel = runtime.block_on(endpoint.connect()).map_err(unreachable)?;
        Ok(Self { runtime, client: AdminClient::new(channel) })
    }

    /// Calls the API.
    ///
    /// # Errors
    /// [`CliError::Refused`] with the server's reason.
    pub fn call<T>(
        &mut self,
        call: impl AsyncFnOnce(&mut AdminClient<Channel>) -> Result<Response<T>, Status>,
    ) -> Result<T, CliError> {
        let answer = self.runtime.block_on(call(&mut self.client));
        answer.map(Response::into_inner).map_err(|status| CliError::Refused(status.message().to_owned()))
    }
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
