//! A server over simulated GPUs that go wrong on demand, and the programs that are its clients.

pub mod client;
pub mod node;
pub mod program;
pub mod request;
