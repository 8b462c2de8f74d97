//! The GPU server: the node server, which accepts clients, and the workers, one process per GPU.

pub mod driver;
pub mod gpu_limit;
pub mod server;
pub mod worker;
