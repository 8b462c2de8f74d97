//! What clients' commands do: one file per family, named as the client's and the protocol's.

mod array;
mod control;
mod event;
mod graph;
mod image;
mod ipc;
mod kernel;
mod memory;
mod object;
mod part;
mod stream;
