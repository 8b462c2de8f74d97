//! The GPU server: the node server, which accepts clients, and the workers, one process per GPU.

mod bucket;
mod chunk;
pub mod compiler;
pub mod driver;
mod fault_in;
pub mod gpu_limit;
mod open_files;
pub mod policy;
mod rate_limited;
mod replaced;
pub mod server;
pub mod standard_input;
mod state_file;
pub mod swap_mode;
pub mod worker;
