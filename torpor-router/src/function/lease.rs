//! A request's place at a process.

use crate::function::Function;
use crate::gate::Pass;
use crate::phases::Phases;
use crate::told::Told;
use std::sync::Arc;
use std::time::Duration;

/// One place of one healthy process. Dropped, the place is the next request's.
#[derive(Debug)]
pub struct Lease {
    pub(super) function: Option<Arc<Function>>,
    pub(super) instance: u64,
    /// Where the process listens: `HOST:PORT`.
    pub address: Arc<str>,
    /// Whether the request waited for a process to start.
    pub cold: bool,
    /// The process group of the process; 0 for an endpoint, which may be anywhere.
    pub process_group: u32,
    /// The node server's word of the request, which ends it when this is dropped.
    pub told: Option<Told>,
    /// The request's way through the gate, which the next one has when this is dropped.
    pub pass: Option<Pass>,
}

impl Lease {
    /// Where the request's time went until its answer began: `queue` until the process had it, `function` since.
    pub(crate) async fn phases(&mut self, queue: Duration, function: Duration) -> Phases {
        let cost = match &mut self.told {
            Some(told) => told.cost().await,
            None => None,
        };
        Phases { cold: self.cold, queue, function, cost }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(function) = self.function.take() {
            function.give_back(self.instance);
        }
    }
}
