//! What a settings file may say of the router, as it is written.

use crate::server::time::Time;
use serde::Deserialize;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// `[server]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerSection {
    /// Where the router takes requests.
    pub listen: Option<SocketAddr>,
    /// Where it shows its page.
    pub page: Option<SocketAddr>,
    /// The Unix socket on which the router is asked about itself.
    pub admin_socket: Option<PathBuf>,
    /// A file with one API key a line; without it requests need none.
    pub api_keys_file: Option<PathBuf>,
    /// The chain of certificates that the front shows, PEM.
    pub tls_cert: Option<PathBuf>,
    /// Its key, PEM.
    pub tls_key: Option<PathBuf>,
    /// Where spans of requests go, by OTLP.
    pub otlp_endpoint: Option<String>,
    /// The engine's network in which functions' containers are, and where the router reaches them.
    pub container_network: Option<String>,
    /// How long requests under way may take when the router ends.
    pub drain_timeout: Option<Time>,
    /// Connections that clients may have open at once.
    pub max_connections: Option<NonZeroUsize>,
}
