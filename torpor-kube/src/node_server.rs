//! The node server, as its admin API.

use std::time::Duration;
use tonic::Status;
use tonic::transport::{Channel, Endpoint, Error as TransportError};
use torpor_proto::control::admin::admin_client::AdminClient;
use torpor_proto::control::admin::{
    EnsureFunctionRequest, Function, Gpu, ListFunctionsRequest, ListGpusRequest, RemoveFunctionRequest,
    ReportStoreRequest, Terms,
};
use torpor_proto::directory::ServerDirectory;

/// How long it may take to answer; it answers in milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// What it does not do, for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    /// It is not there.
    #[error(
        "no node server answers in {directory}: {reason}; is the torpor-server pod of this node running?"
    )]
    Silent {
        /// Where it should be.
        directory: String,
        /// What the connection says.
        reason: String,
    },
    /// It says why.
    #[error("the node server refuses: {0}")]
    Refused(String),
}

/// A connection to the node server, made when it is first used, and again when the server has been started again.
#[derive(Clone, Debug)]
pub struct NodeServer {
    directory: ServerDirectory,
    client: AdminClient<Channel>,
}

impl NodeServer {
    /// The server that listens in a directory, or will.
    ///
    /// # Errors
    /// The directory's name cannot be in an address.
    pub fn new(directory: ServerDirectory) -> Result<Self, TransportError> {
        let address = format!("unix://{}", directory.admin_socket().display());
        let endpoint = Endpoint::from_shared(address)?.timeout(PATIENCE).connect_timeout(PATIENCE);
        Ok(Self { directory, client: AdminClient::new(endpoint.connect_lazy()) })
    }

    /// Where it listens.
    #[must_use]
    pub fn directory(&self) -> &ServerDirectory {
        &self.directory
    }

    /// Makes a function, unless it is there, on these terms.
    ///
    /// # Errors
    /// [`NodeError`].
    pub async fn ensure(&self, name: &str, terms: Terms) -> Result<(), NodeError> {
        let request = EnsureFunctionRequest { name: name.to_owned(), terms: Some(terms) };
        self.client.clone().ensure_function(request).await.map(drop).map_err(|status| self.error(&status))
    }

    /// Takes a function away; one that is not there is gone.
    ///
    /// # Errors
    /// [`NodeError`].
    pub async fn remove(&self, name: &str) -> Result<(), NodeError> {
        let request = RemoveFunctionRequest { name: name.to_owned() };
        self.client.clone().remove_function(request).await.map(drop).map_err(|status| self.error(&status))
    }

    /// Its GPUs.
    ///
    /// # Errors
    /// [`NodeError`].
    pub async fn gpus(&self) -> Result<Vec<Gpu>, NodeError> {
        let answer = self.client.clone().list_gpus(ListGpusRequest {}).await;
        answer.map(|answer| answer.into_inner().gpus).map_err(|status| self.error(&status))
    }

    /// Its functions.
    ///
    /// # Errors
    /// [`NodeError`].
    pub async fn functions(&self) -> Result<Vec<Function>, NodeError> {
        let answer = self.client.clone().list_functions(ListFunctionsRequest {}).await;
        answer.map(|answer| answer.into_inner().functions).map_err(|status| self.error(&status))
    }

    /// Host memory that it keeps device memory in, in bytes.
    ///
    /// # Errors
    /// [`NodeError`].
    pub async fn pool_bytes(&self) -> Result<u64, NodeError> {
        let answer = self.client.clone().report_store(ReportStoreRequest {}).await;
        answer.map(|answer| answer.into_inner().pool_bytes).map_err(|status| self.error(&status))
    }

    fn error(&self, status: &Status) -> NodeError {
        match status.code() {
            // What comes of the connection, not of the server.
            tonic::Code::Unavailable
            | tonic::Code::Unknown
            | tonic::Code::Cancelled
            | tonic::Code::DeadlineExceeded => NodeError::Silent {
                directory: self.directory.path().display().to_string(),
                reason: status.message().to_owned(),
            },
            _ => NodeError::Refused(status.message().to_owned()),
        }
    }
}
