//! Torpor in Kubernetes: what a node's kubelet talks to, so that pods become functions.
//!
//! Two ways, each a process on every node beside the node server:
//! - [`dra`]: a driver for dynamic resource allocation (Kubernetes 1.34 and newer). A claim is a function.
//! - [`device_plugin`]: for older clusters. One of a fixed number of slots is a function.
//!
//! Neither touches a GPU or the memory of a function. They make functions by the admin API of the node server, and tell the container
//! runtime, by way of the kubelet, what a container is given ([`torpor_cdi`]).

pub mod device_plugin;
pub mod dra;
pub mod health;
pub mod installation;
pub mod metrics;
pub mod node_args;
pub mod node_server;
pub mod protocol;
mod reason;
pub mod socket;
