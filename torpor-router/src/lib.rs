//! The serving front: requests come in by a function's name over HTTP and go to one of its processes.
//!
//! ```text
//!  client ──HTTP──▶ listener ─▶ front (names, keys, terms) ─▶ function (queue, instances) ─▶ gate (order) ─▶ proxy ──HTTP──▶ process
//!  torpor CLI ──admin socket──▶ admin                            │                                      (torpor run)
//!                                                               instance (start, probe, restart, stop)
//! ```
//!
//! A request holds a *lease* on one place of one process from the moment it is passed on until its answer has been sent; the gate
//! lets only as many of those through to the GPUs as it is told to, in the order of a policy ([`order`]). The router keeps no request
//! in memory but its head, and a small body while it waits ([`waiting`]): others stream through. GPUs are the node server's business;
//! the router tells it of requests ([`told`]) and asks it whether a GPU answers ([`node`]).

pub mod admin;
pub mod batch;
pub mod body;
pub mod client;
pub mod config;
pub mod descriptors;
pub mod engine;
pub mod error;
pub mod fresh;
pub mod front;
pub mod function;
pub mod gate;
pub mod instance;
pub mod keys;
pub mod late;
pub mod listener;
pub mod loading;
pub mod logs;
pub mod member;
pub mod metrics;
pub mod node;
pub mod node_metrics;
pub mod order;
pub mod otlp;
pub mod overview;
pub mod page;
pub mod phases;
mod port;
pub mod proxy;
pub mod queue;
pub mod recent;
pub mod registry;
pub mod serve;
pub mod settings;
pub mod spans;
pub mod terms;
pub mod tls;
pub mod told;
pub mod waiting;
pub mod watch;

pub use serve::{RouterArgs, RouterError, serve};
