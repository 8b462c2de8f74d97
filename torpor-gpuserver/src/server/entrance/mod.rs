//! How a process becomes a client: a function's directory and its two sockets, and who answers there.

pub(crate) mod acceptor;
pub(crate) mod admission;
pub(crate) mod control;
pub(crate) mod function;
pub(crate) mod function_log;
pub mod group;
pub(crate) mod lifeline;
pub(crate) mod printable;
pub(crate) mod sockets;
pub(crate) mod tree;
pub mod zmtp;
