//! A server process, a client that speaks hello and lifeline, and a worker without a GPU.

pub mod client;
pub mod fake_worker;
pub mod server;
