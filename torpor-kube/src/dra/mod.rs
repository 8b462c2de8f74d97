//! The driver for dynamic resource allocation: a claim is a function.
//!
//! 1. The node's GPUs are published (`slice`), each for any number of claims, with as much memory as the host keeps for functions.
//! 2. The scheduler allocates a claim; the kubelet asks to prepare it (`service`).
//! 3. What it asks for is read from the API server (`claim`, `parameters`), and the node server makes the function on these terms.
//! 4. A file tells the container runtime what a container with the claim is given (`prepared`); it is also what is known of prepared
//!    claims, so that there is no other state, and nothing to be lost with this process.

mod api;
mod claim;
mod parameters;
mod prepared;
mod publish;
mod quantity;
mod registration;
mod service;
mod slice;

use crate::health;
use crate::installation::InstallError;
use crate::metrics::{self, MetricsError};
use crate::node_args::NodeArgs;
use crate::protocol::dra::dra_plugin_server::DraPluginServer;
use crate::protocol::registration::registration_server::RegistrationServer;
use crate::protocol::{v1, v1alpha1};
use crate::socket::{Socket, SocketError};
use api::{Api, ApiError};
use prepared::Prepared;
use registration::Registration;
use service::{HealthService, Service};
use slice::Offer;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;
use tonic::service::Routes;
use torpor_gpuserver::server::settings::device_memory;
use torpor_gpuserver::server::size::ByteSize;

/// The driver's name, by which classes and slices name it.
pub const DRIVER: &str = "gpu.torpor.dev";

/// Between two looks whether the sockets are there.
const LOOK_EVERY: Duration = Duration::from_secs(1);

const EXAMPLES: &str = "\
A pod whose claim was allocated one of the node's devices gets a function of its own, with the memory limit and the objective that the
claim says. Kubernetes 1.34 or newer; before 1.36, without the feature DRAConsumableCapacity, --shares says how many claims a GPU has.

Examples:
  torpor-kube dra --node-name \"$NODE_NAME\"
  torpor-kube dra --node-name \"$NODE_NAME\" --default-memory 4GiB --memory-per-gpu 1TiB
  KUBECONFIG=~/.kube/config torpor-kube dra --node-name worker-1      # outside of a pod";

/// Serve claims of the driver gpu.torpor.dev (dynamic resource allocation)
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Dra {
    #[command(flatten)]
    node: NodeArgs,

    /// This node, as the API server calls it
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    node_name: String,

    /// Where the container runtime looks for devices
    #[arg(long, value_name = "DIR", default_value = "/var/run/cdi")]
    cdi_dir: PathBuf,

    /// Memory of each GPU that claims can have together [default: the GPU's, or the node server's host pool by the number of GPUs if
    /// that is more]
    #[arg(long, value_name = "SIZE", value_parser = device_memory)]
    memory_per_gpu: Option<ByteSize>,

    /// Memory of a claim that asks for none
    #[arg(long, value_name = "SIZE", default_value = "2GiB", value_parser = device_memory)]
    default_memory: ByteSize,

    /// Publish so many devices for each GPU, each for one claim, instead of one for any number of them
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=128))]
    shares: Option<u32>,
}

/// Why the driver does not run.
#[derive(Debug, thiserror::Error)]
pub enum DraError {
    /// The host is not prepared.
    #[error(transparent)]
    Install(#[from] InstallError),
    /// The server's directory is no address.
    #[error("--directory cannot be a server's: {0}")]
    Directory(#[from] tonic::transport::Error),
    /// There is no API server.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// Nobody could look.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
}

impl Dra {
    /// Which level is logged.
    #[must_use]
    pub fn log(&self) -> &str {
        &self.node.log
    }

    /// Serves the kubelet for ever.
    ///
    /// # Errors
    /// [`DraError`].
    pub async fn run(self) -> Result<Infallible, DraError> {
        let (server, installed) = (self.node.server()?, self.node.install()?);
        let api = Api::infer().await?;
        if let Some(address) = self.node.metrics {
            metrics::serve(address, server.clone(), &self.node.kubelet_dir).await?;
        }
        let offer = Offer {
            node: self.node_name.clone(),
            memory_per_gpu: self.memory_per_gpu.map(|size| size.0),
            default_memory: self.default_memory.0,
            shares: self.shares,
        };
        let health = health::watch(server.clone()).await;
        let prepared = Arc::new(Prepared::new(server, installed, self.cdi_dir));
        tokio::spawn(prepared::tidy_up(prepared.clone(), health.clone()));
        tokio::spawn(publish::keep_published(api.clone(), offer.clone(), health.clone()));

        let folder = self.node.kubelet_dir.join("plugins").join(DRIVER);
        let socket = folder.join("dra.sock");
        let service = Service::new(api, self.node_name, prepared);
        let watched = HealthService::new(offer, health);
        let routes = Routes::new(DraPluginServer::new(service))
            .add_service(v1::dra_resource_health_server::DraResourceHealthServer::new(watched.clone()))
            .add_service(v1alpha1::dra_resource_health_server::DraResourceHealthServer::new(watched));
        let registry = self.node.kubelet_dir.join("plugins_registry").join(format!("{DRIVER}-reg.sock"));
        let registration = Routes::new(RegistrationServer::new(Registration::new(socket.clone())));
        // The kubelet calls the first as soon as it has seen the second.
        let serve = || {
            Ok::<_, SocketError>([
                Socket::serve(&socket, routes.clone())?,
                Socket::serve(&registry, registration.clone())?,
            ])
        };
        loop {
            match serve() {
                Ok(sockets) => {
                    while sockets.iter().all(Socket::is_there) {
                        sleep(LOOK_EVERY).await;
                    }
                    tracing::info!("somebody has removed a socket; making both again");
                }
                Err(error) => {
                    tracing::error!("{error}; trying again");
                    sleep(LOOK_EVERY).await;
                }
            }
        }
    }
}
