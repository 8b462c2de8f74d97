//! The node server, as the router asks it: every second whether its GPUs answer, and for all it knows when somebody looks.

use crate::overview::NodeReport;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use torpor_gpuserver::server::size::ByteSize;
use torpor_proto::control::admin::admin_client::AdminClient;
use torpor_proto::control::admin::{
    EnsureFunctionRequest, ListClientsRequest, ListFunctionsRequest, ListGpusRequest,
};
use torpor_proto::directory::ServerDirectory;

/// How often the node server is asked, and how long it may take.
const INTERVAL: Duration = Duration::from_secs(1);

/// How old its last word may be.
const LATELY: Duration = Duration::from_secs(3);

/// What is known of the node.
#[derive(Debug)]
pub struct Node {
    directory: PathBuf,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    at: Option<Instant>,
    trouble: Option<String>,
    /// What functions may use of the largest GPU, once that is known.
    largest: Option<ByteSize>,
}

impl Node {
    /// The node whose server listens in a directory.
    #[must_use]
    pub fn new(directory: PathBuf) -> Self {
        let trouble = Some("the node server has not been asked yet".to_owned());
        Self { directory, known: Mutex::new(Known { at: None, trouble, largest: None }) }
    }

    /// What is wrong, or `None` if a GPU answered lately.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match known.at {
            Some(at) if at.elapsed() > LATELY => Some("the node server does not answer".to_owned()),
            _ => known.trouble.clone(),
        }
    }

    /// What functions together may use of the GPU that has most for them, once a GPU has been ready.
    #[must_use]
    pub fn largest_gpu(&self) -> Option<ByteSize> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).largest
    }

    /// The node server's admin API, connected when it is first asked.
    ///
    /// # Errors
    /// The directory's name cannot be in an address.
    fn client(&self) -> Result<AdminClient<Channel>, String> {
        let endpoint = self.endpoint()?.timeout(INTERVAL).connect_timeout(INTERVAL);
        Ok(AdminClient::new(endpoint.connect_lazy()))
    }

    fn endpoint(&self) -> Result<Endpoint, String> {
        let directory = ServerDirectory::new(self.directory.clone());
        let address = format!("unix://{}", directory.admin_socket().display());
        Endpoint::from_shared(address).map_err(|error| error.to_string())
    }

    /// As for [`Self::report`], for a call that lasts.
    ///
    /// # Errors
    /// The directory's name cannot be in an address.
    pub(crate) fn stream_client(&self) -> Result<AdminClient<Channel>, String> {
        Ok(AdminClient::new(self.endpoint()?.connect_timeout(INTERVAL).connect_lazy()))
    }

    /// All that the node server says of its GPUs, clients and functions.
    ///
    /// # Errors
    /// That it does not answer, for people.
    pub async fn report(&self) -> Result<NodeReport, String> {
        let mut client = self.client()?;
        let silent = |status: Status| format!("the node server does not answer: {}", status.message());
        Ok(NodeReport {
            gpus: client.list_gpus(ListGpusRequest {}).await.map_err(silent)?.into_inner().gpus,
            clients: client.list_clients(ListClientsRequest {}).await.map_err(silent)?.into_inner().clients,
            functions: client
                .list_functions(ListFunctionsRequest {})
                .await
                .map_err(silent)?
                .into_inner()
                .functions,
        })
    }

    /// Makes a function that is not there yet.
    ///
    /// # Errors
    /// What the node server says, for people.
    pub async fn ensure_function(&self, name: &str) -> Result<(), String> {
        let request = EnsureFunctionRequest { name: name.to_owned(), terms: None };
        let made = self.client()?.ensure_function(request).await;
        made.map(drop).map_err(|status| format!("the node server does not make it: {}", status.message()))
    }

    /// Asks for ever.
    pub async fn watch(&self) {
        let mut ticks = tokio::time::interval(INTERVAL);
        let mut client = match self.client() {
            Ok(client) => client,
            Err(error) => return self.set(Some(error), None),
        };
        loop {
            ticks.tick().await;
            let (trouble, largest) = ask(&mut client).await;
            self.set(trouble, largest);
        }
    }

    fn set(&self, trouble: Option<String>, largest: Option<ByteSize>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // One that does not answer is as large as it was.
        let largest = largest.or(known.largest);
        *known = Known { at: Some(Instant::now()), trouble, largest };
    }
}

/// What is wrong, and what functions may use of the largest GPU.
async fn ask(client: &mut AdminClient<Channel>) -> (Option<String>, Option<ByteSize>) {
    match client.list_gpus(ListGpusRequest {}).await {
        Err(status) => (Some(format!("the node server does not answer: {}", status.message())), None),
        Ok(answer) => {
            let gpus = &answer.get_ref().gpus;
            let trouble = match gpus.iter().any(|gpu| gpu.state == "ready") {
                true => None,
                false => {
                    Some("no GPU of the node is ready; `torpor gpus` and `torpor doctor` say why".to_owned())
                }
            };
            // One that never was ready has no limit yet, and may be the largest.
            let known = gpus.iter().all(|gpu| gpu.limit_bytes > 0);
            let largest = gpus.iter().map(|gpu| gpu.limit_bytes).max().filter(|_| known);
            (trouble, largest.map(ByteSize))
        }
    }
}
