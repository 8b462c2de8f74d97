//! The GPU server: the node server, which accepts clients, and the workers, one process per GPU.

mod chunk;
pub mod driver;
mod fault_in;
pub mod server;
pub mod worker;
