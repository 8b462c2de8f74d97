//! The GPU server: the node server, which accepts clients, and the workers, one process per GPU.

pub mod driver;
pub mod policy;
pub mod server;
pub mod worker;
