//! A server over simulated GPUs that go wrong on demand, and the programs that are its clients.

#![allow(dead_code, reason = "each of the test programs that share this uses a part of it")]

pub mod client;
pub mod holder;
pub mod node;
pub mod program;
pub mod request;
