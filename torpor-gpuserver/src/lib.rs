//! The GPU server: the node server, which accepts clients, and the workers, one process per GPU.

mod chunk;
pub mod driver;
pub mod gpu_limit;
pub mod policy;
mod fault_in;
pub mod server;
pub mod swap_mode;
pub mod worker;
