//! The graphs of a client, by its numbers.
//!
//! The records stay with the graph, so that another worker can build it, and so that it can be changed: with other records it
//! is built again, and the launchable graph is updated with the result, or replaced if the driver cannot do that.

use crate::driver::ExecutableGraph;
use crate::worker::objects::event::ClientEvent;
use crate::worker::objects::table::Table;
use std::rc::Rc;
use torpor_proto::image::DriverCalls;

/// Graphs of a client.
const LIMIT: u32 = 1 << 16;

/// A graph, as a client made it.
#[derive(Debug, Default)]
pub(crate) struct ClientGraph {
    pub(crate) words: Vec<u64>,
    /// What it will be with the next update.
    pub(crate) next: Vec<u64>,
    /// The flags, once it is whole.
    pub(crate) flags: Option<u64>,
    /// There is none before the first launch after a move from another worker.
    pub(crate) executable: Option<ExecutableGraph>,
    /// The executable is not what the words say.
    pub(crate) is_stale: bool,
    /// Events that the graph records or waits for at every launch.
    pub(crate) external: Vec<External>,
    /// What its kernels may call.
    pub(crate) calls: DriverCalls,
}

/// The graphs of a client.
#[derive(Debug)]
pub(crate) struct Graphs {
    pub(crate) table: Table<Box<ClientGraph>>,
    pub(crate) words: usize,
}

impl Graphs {
    pub(crate) fn new() -> Self {
        Self { table: Table::new(LIMIT), words: 0 }
    }
}

/// An event that a graph records, or waits for, at every launch.
#[derive(Debug)]
pub(crate) struct External {
    pub(crate) event: Rc<ClientEvent>,
    pub(crate) recorded: bool,
}
