//! A GPU of the node, as the rest of the server sees it: what is known of it, and who executes what there.

use crate::server::realms::Realms;
use crate::server::store::Store;
use crate::server::workers::enclosures::{Enclosures, TooManyEnclosures};
use crate::server::workers::executor::Executor;
use crate::server::workers::gpu_time::GpuTimes;
use crate::server::workers::inherited::Inherited;
use crate::server::workers::kind::Site;
use crate::server::workers::peers::Peers;
use crate::server::workers::status::Status;
use crate::server::workers::supervisor::Supervisor;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A GPU of the node.
#[derive(Debug)]
pub struct Gpu {
    /// Its number, as the driver counts.
    pub index: u32,
    peers: Arc<Peers>,
    /// The executor of the functions that share it.
    shared: Arc<Executor>,
    /// Those of strict functions.
    enclosures: Arc<Enclosures>,
}

impl Gpu {
    /// Starts a worker and keeps one running until the server is to end. The task ends when the last worker did. Strict functions have
    /// at most so many enclosures.
    #[must_use]
    pub(crate) fn supervise(
        site: Site,
        store: Arc<Store>,
        realms: Arc<Realms>,
        most_enclosures: u32,
        inherited: Inherited,
    ) -> (Self, JoinHandle<()>) {
        let (index, peers) = (site.index, site.peers.clone());
        let enclosures = Enclosures::new(site.clone(), realms, most_enclosures);
        let (shared, supervisor) = Supervisor::of_shared(site, store, inherited);
        (Self { index, peers, shared, enclosures }, tokio::spawn(supervisor.run()))
    }

    /// The executor of a strict function there.
    ///
    /// # Errors
    /// [`TooManyEnclosures`].
    pub fn enclosure(&self, function: &str) -> Result<Arc<Executor>, TooManyEnclosures> {
        self.enclosures.enter(function)
    }

    /// Whether a strict function has an executor there, or may have one.
    #[must_use]
    pub fn may_enclose(&self, function: &str) -> bool {
        self.enclosures.may_enter(function)
    }

    /// The executors of strict functions there, by function.
    #[must_use]
    pub fn enclosed(&self) -> Vec<(String, Arc<Executor>)> {
        self.enclosures.list()
    }

    /// What the context of each of them takes of the GPU's memory.
    #[must_use]
    pub fn context_bytes(&self) -> u64 {
        self.enclosures.context_bytes()
    }

    /// For whoever waits for their end.
    #[must_use]
    pub(crate) fn enclosures(&self) -> Arc<Enclosures> {
        self.enclosures.clone()
    }

    /// The executor of the functions that share it.
    #[must_use]
    pub fn shared(&self) -> &Arc<Executor> {
        &self.shared
    }

    /// All executors there.
    #[must_use]
    pub fn executors(&self) -> Vec<Arc<Executor>> {
        std::iter::once(self.shared.clone()).chain(self.enclosed().into_iter().map(|(_, its)| its)).collect()
    }

    /// What is known of it now.
    #[must_use]
    pub fn status(&self) -> Status {
        self.shared.status()
    }

    /// The links to the workers of others, the same of all GPUs.
    #[must_use]
    pub fn peers(&self) -> &Peers {
        &self.peers
    }

    /// How long functions have used it, as far as its workers were asked.
    #[must_use]
    pub fn times(&self) -> GpuTimes {
        let mut times = self.shared.times();
        times.add(&self.enclosures.past());
        self.enclosed().iter().for_each(|(_, executor)| times.add(&executor.times()));
        times
    }
}

/// Waits until the server is to end.
pub async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the sender, and with it the server, is gone.
    let _ = stop.wait_for(|&stop| stop).await;
}
