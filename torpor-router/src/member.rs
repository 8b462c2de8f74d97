//! A process as its function knows it.

use std::sync::Arc;
use std::time::Instant;
use tokio::sync::watch;

/// A process of a function, on its way, healthy or ending.
#[derive(Debug)]
pub(crate) struct Member {
    /// Its number among the function's.
    pub(crate) id: u64,
    /// Where it listens (`HOST:PORT`), once it is healthy.
    pub(crate) address: Option<Arc<str>>,
    /// Its process group; 0 for an endpoint.
    pub(crate) process_group: u32,
    /// Which of the function's endpoints it is.
    pub(crate) endpoint: Option<usize>,
    /// Requests that it is answering.
    pub(crate) leases: usize,
    /// When it last got or gave back a request.
    pub(crate) idle_since: Instant,
    /// Says that it shall end.
    pub(crate) stop: watch::Sender<bool>,
}

/// A process of a function, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceRow {
    /// Its number among the function's.
    pub id: u64,
    /// starting, ready or stopping
    pub state: &'static str,
    /// Requests that it is answering.
    pub requests: usize,
    /// Where it listens, once it is healthy.
    pub address: Option<Arc<str>>,
}

impl Member {
    /// As it is shown.
    pub(crate) fn row(&self) -> InstanceRow {
        InstanceRow {
            id: self.id,
            state: match (*self.stop.borrow(), &self.address) {
                (true, _) => "stopping",
                (false, None) => "starting",
                (false, Some(_)) => "ready",
            },
            requests: self.leases,
            address: self.address.clone(),
        }
    }
}
