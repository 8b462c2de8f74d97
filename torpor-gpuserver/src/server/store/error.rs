//! Why the host store does not do what a function needs.

use crate::server::size::ByteSize;
use crate::server::store::index::Misuse;
use crate::server::store::spill::SpillError;
use std::sync::Arc;

/// How full the store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// What is asked for.
    pub needed: ByteSize,
    /// What of the host pool is in use.
    pub used: ByteSize,
    /// How large the host pool may be.
    pub pool: ByteSize,
}

/// Why a function does not get what it needs of the host store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It would not fit even if it were alone.
    #[error(
        "function {function} needs {} of host memory beside the {held} that it has, and the host pool is {}: raise --host-pool",
        fill.needed, fill.pool
    )]
    TooLarge {
        /// Whose.
        function: Arc<str>,
        /// What it has already.
        held: ByteSize,
        /// How full.
        fill: Fill,
    },
    /// The pool is full, and nothing may be written to files.
    #[error(
        "function {function} needs {} of host memory, but {} of the host pool of {} is in use and there is no spill \
         directory: raise --host-pool, name a --spill-dir, or end functions",
        fill.needed, fill.used, fill.pool
    )]
    NoSpilling {
        /// Whose.
        function: Arc<str>,
        /// How full.
        fill: Fill,
    },
    /// The pool is full, and so are the files.
    #[error(
        "function {function} needs {} of host memory, but {} of the host pool of {} and {spilled} of the spill limit of \
         {limit} are in use: raise --host-pool or --spill-limit, or end functions",
        fill.needed, fill.used, fill.pool
    )]
    SpillFull {
        /// Whose.
        function: Arc<str>,
        /// How full.
        fill: Fill,
        /// What is in files.
        spilled: ByteSize,
        /// What may be.
        limit: ByteSize,
    },
    /// Everything in the pool is being used.
    #[error(
        "function {function} needs {} of host memory, but {} of the host pool of {} is in use by functions that are not \
         idle: raise --host-pool or run fewer functions at a time",
        fill.needed, fill.used, fill.pool
    )]
    Busy {
        /// Whose.
        function: Arc<str>,
        /// How full.
        fill: Fill,
    },
    /// The pool may be larger, but cannot.
    #[error(
        "function {function} needs {} of host memory, but the host pool has only {} of its {} and does not grow: {reason}",
        fill.needed, fill.used, fill.pool
    )]
    Growth {
        /// Whose.
        function: Arc<str>,
        /// How full.
        fill: Fill,
        /// Why not.
        reason: String,
    },
    /// The pool is full, and a file cannot be written.
    #[error(
        "function {function} needs {} of host memory, but {} of the host pool of {} is in use and idle memory cannot be \
         spilled: {error}; make room there, name another --spill-dir or raise --host-pool",
        fill.needed, fill.used, fill.pool
    )]
    Unspillable {
        /// Whose.
        function: Arc<str>,
        /// How full.
        fill: Fill,
        /// Which file, and why.
        error: SpillError,
    },
    /// What is free is for those that have to leave their GPUs.
    #[error(
        "function {function} could save {} ahead of time, but {} of the host pool of {} is in use: raise --host-pool",
        fill.needed, fill.used, fill.pool
    )]
    NothingSpare {
        /// Whose.
        function: Arc<str>,
        /// How full.
        fill: Fill,
    },
    /// A file cannot be read.
    #[error("function {function}: {error}")]
    Spill {
        /// Whose.
        function: Arc<str>,
        /// Which file, and why.
        error: SpillError,
    },
    /// Its worker cannot reach all of the store.
    #[error("function {function} is on a GPU that cannot use the host store: {reason}")]
    Worker {
        /// Whose.
        function: Arc<str>,
        /// Why not.
        reason: String,
    },
    /// The client went while its request waited: nobody waits for the answer.
    #[error("the client is gone")]
    Gone,
    /// What no session asks.
    #[error("function {function}: {misuse}; this is a mistake of its worker")]
    Misuse {
        /// Whose.
        function: Arc<str>,
        /// What.
        misuse: Misuse,
    },
}
