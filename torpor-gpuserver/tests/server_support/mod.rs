//! A server process, a client that speaks hello and lifeline, and a worker without a GPU.

#![allow(dead_code, reason = "each of the test programs that share this uses a part of it")]

pub mod client;
pub mod eventually;
pub mod fake_store;
pub mod fake_worker;
pub mod follower;
pub mod kept;
pub mod process;
pub mod ring;
pub mod server;
