//! The GPU server: the node server, which accepts clients, and the workers, one process per GPU.

pub mod driver;
pub mod gpu_limit;
pub mod policy;
pub mod server;
pub mod swap_mode;
pub mod worker;
