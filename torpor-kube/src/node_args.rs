//! Where things are on the node: what both ways are told.

use crate::installation::{InstallError, Installed};
use crate::node_server::NodeServer;
use std::net::SocketAddr;
use std::path::PathBuf;
use tonic::transport::Error as TransportError;
use torpor_proto::directory::ServerDirectory;

/// Flags of both ways. Every path is the same on the host and in the process's own container.
#[derive(Clone, Debug, clap::Args)]
pub struct NodeArgs {
    /// Where the node server listens
    #[arg(long, value_name = "DIR", env = "TORPOR_SERVER", default_value = "/run/torpor")]
    pub directory: PathBuf,

    /// The kubelet's folder
    #[arg(long, value_name = "DIR", default_value = "/var/lib/kubelet")]
    pub kubelet_dir: PathBuf,

    /// Where on the host the library is put that containers are given
    #[arg(long, value_name = "DIR", default_value = "/var/lib/torpor")]
    pub install_dir: PathBuf,

    /// Serve metrics of pods in Prometheus' format, at /metrics [default: none]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub metrics: Option<SocketAddr>,

    /// What to log: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", env = "TORPOR_LOG", default_value = "info")]
    pub log: String,
}

impl NodeArgs {
    /// The node server, which need not be there yet.
    ///
    /// # Errors
    /// The directory's name cannot be in an address.
    pub fn server(&self) -> Result<NodeServer, TransportError> {
        NodeServer::new(ServerDirectory::new(&self.directory))
    }

    /// Puts on the host what containers are given.
    ///
    /// # Errors
    /// [`InstallError`].
    pub fn install(&self) -> Result<Installed, InstallError> {
        Installed::put(&self.install_dir)
    }
}
