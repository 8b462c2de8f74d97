//! The device plugin: a fixed number of slots, each a function that a container is while it has the slot.
//!
//! The kubelet's protocol knows whole devices and no parameters, and no end of an allocation. So a slot's function stays, and whoever
//! has the slot next is it.

mod registration;
mod service;
mod slots;

pub use slots::{Slots, SlotsError};

use crate::health;
use crate::installation::InstallError;
use crate::metrics::{self, MetricsError};
use crate::node_args::NodeArgs;
use crate::protocol::device_plugin::device_plugin_server::DevicePluginServer;
use registration::{Kubelet, keep_registered};
use service::Service;
use std::convert::Infallible;
use tonic::service::Routes;
use torpor_gpuserver::server::settings::device_memory;
use torpor_gpuserver::server::size::ByteSize;
use torpor_proto::control::admin::Terms;

/// The resource that containers ask for.
pub const RESOURCE: &str = "torpor.dev/gpu";

const EXAMPLES: &str = "\
A container with `resources: {limits: {torpor.dev/gpu: 1}}` gets one of the node's slots. With it come a function's directory and Torpor's
library: its programs have CUDA, and no GPU. For clusters without dynamic resource allocation; `torpor-kube dra` does more.

Examples:
  torpor-kube device-plugin --slots 64
  torpor-kube device-plugin --slots 16 --memory-limit 8GiB --metrics 0.0.0.0:9095";

/// Offer slots as the resource torpor.dev/gpu, for clusters without dynamic resource allocation
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct DevicePlugin {
    #[command(flatten)]
    node: NodeArgs,

    /// Containers of this node that may be functions at the same time
    #[arg(long, value_name = "COUNT", default_value = "32", value_parser = clap::value_parser!(u32).range(1..=2048))]
    slots: u32,

    /// Device memory that each process of a slot may allocate [default: as the settings file of the node server says]
    #[arg(long, value_name = "SIZE", value_parser = device_memory)]
    memory_limit: Option<ByteSize>,
}

/// Why the device plugin does not run.
#[derive(Debug, thiserror::Error)]
pub enum DevicePluginError {
    /// The host is not prepared.
    #[error(transparent)]
    Install(#[from] InstallError),
    /// The server's directory is no address.
    #[error("--directory cannot be a server's: {0}")]
    Directory(#[from] tonic::transport::Error),
    /// Nobody could look.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
}

impl DevicePlugin {
    /// Which level is logged.
    #[must_use]
    pub fn log(&self) -> &str {
        &self.node.log
    }

    /// Serves the kubelet for ever.
    ///
    /// # Errors
    /// [`DevicePluginError`].
    pub async fn run(self) -> Result<Infallible, DevicePluginError> {
        let (server, installed) = (self.node.server()?, self.node.install()?);
        if let Some(address) = self.node.metrics {
            metrics::serve(address, server.clone(), &self.node.kubelet_dir).await?;
        }
        let terms = Terms { memory_limit_bytes: self.memory_limit.map(|limit| limit.0), ..Terms::default() };
        let health = health::watch(server.clone()).await;
        let service = Service::new(server, installed, Slots::new(self.slots), terms, health);
        let kubelet = Kubelet::new(&self.node.kubelet_dir);
        Ok(keep_registered(&kubelet, Routes::new(DevicePluginServer::new(service))).await)
    }
}
