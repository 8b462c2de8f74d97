//! Whose worker a supervisor keeps running, and what follows for a strict function's: it waits for room for its context before there is a
//! process, and is closed when nobody needs it any more.

use crate::gpu_limit::enclosure_bytes;
use crate::server::keeper::Keeper;
use crate::server::realms::Realm;
use crate::server::scheduler::Words;
use crate::server::size::ByteSize;
use crate::server::store::Store;
use crate::server::workers::enclosures::Enclosures;
use crate::server::workers::executor::Executor;
use crate::server::workers::gpu::stopped;
use crate::server::workers::inherited::{Inherited, InheritedClient};
use crate::server::workers::learned::Learned;
use crate::server::workers::ledger::{Ledger, Seat};
use crate::server::workers::peers::Peers;
use crate::server::workers::process::{Recipe, StartError};
use crate::server::workers::served::Served;
use crate::server::workers::supervisor::Supervisor;
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

/// How long an enclosure stays that nobody holds: a function's next process may come soon, and a context takes a while to make.
const STAY: Duration = Duration::from_secs(10);

/// How long others may take to make room for the context of an enclosure: less than a client waits for its worker.
const SEAT_PATIENCE: Duration = Duration::from_secs(8);

/// What the supervisors of one GPU's workers have together.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    /// The GPU's place among the server's.
    pub(crate) at: usize,
    /// Its number, as the driver counts.
    pub(crate) index: u32,
    /// How to start a worker there.
    pub(crate) recipe: Recipe,
    /// What functions' accidents have taught.
    pub(crate) learned: Arc<Learned>,
    /// The links between workers of those that share GPUs.
    pub(crate) peers: Arc<Peers>,
    /// Where what happens is told.
    pub(crate) words: Words,
    /// Turns true when the server is to end.
    pub(crate) stop: watch::Receiver<bool>,
    /// Who has how much of the GPU's memory.
    pub(crate) ledger: Arc<Ledger>,
}

impl Site {
    /// What the context of an enclosure takes of the memory that executors have together.
    pub(super) fn context_bytes(&self) -> u64 {
        enclosure_bytes(self.ledger.limit_bytes())
    }
}

/// Whose worker it is.
#[derive(Debug)]
pub(super) enum Kind {
    /// That of the functions that share the GPU.
    Shared,
    /// A strict function's.
    Enclosure {
        function: String,
        enclosures: Arc<Enclosures>,
        _realm: Arc<Realm>,
        /// Since when nobody has held it.
        deserted: Option<Instant>,
    },
}

impl Supervisor {
    /// Of the worker for those functions that share a GPU, and its executor.
    pub(super) fn of_shared(site: Site, store: Arc<Store>, inherited: Inherited) -> (Arc<Executor>, Self) {
        Self::new(site, Kind::Shared, store, inherited)
    }

    /// Of a strict function's worker, and its executor.
    pub(super) fn of_enclosure(
        mut site: Site,
        realm: Arc<Realm>,
        enclosures: Arc<Enclosures>,
        function: &str,
    ) -> (Arc<Executor>, Self) {
        let (store, begin) = (realm.store.clone(), &mut site.recipe.begin);
        begin.enclosed = true;
        begin.images = realm.images.clone().into_os_string().into_vec();
        let function = function.to_owned();
        let kind = Kind::Enclosure { function, enclosures, _realm: realm, deserted: None };
        Self::new(site, kind, store, Inherited::default())
    }

    /// The links to the workers of other GPUs; a strict function's has none, and nothing of others mapped for them.
    pub(super) fn peers(&self) -> Option<&Peers> {
        matches!(self.kind, Kind::Shared).then_some(&self.site.peers)
    }

    /// Nothing is known yet of a worker's clients, but of those that were at it under the server before. What is learned of them is kept,
    /// except for an enclosure's, which ends with this server, as its store does.
    pub(super) fn served(site: &Site, kind: &Kind, clients: Vec<InheritedClient>) -> Served {
        match kind {
            Kind::Shared => Served::new(&site.recipe.keeper, clients),
            Kind::Enclosure { .. } => Served::new(&Keeper::default(), clients),
        }
    }

    /// An enclosure's place among those that have memory of the GPU; others find theirs later.
    pub(super) async fn sit_down(&mut self) -> Result<Option<Seat>, StartError> {
        let Kind::Enclosure { function, .. } = &self.kind else { return Ok(None) };
        let bytes = self.site.context_bytes();
        let full = |function: &String| StartError::Full {
            gpu: self.site.index,
            function: function.clone(),
            context: ByteSize(bytes),
            limit: ByteSize(self.site.ledger.limit_bytes()),
        };
        let mut stop = self.site.stop.clone();
        tokio::select! {
            seat = timeout(SEAT_PATIENCE, self.site.ledger.enclose(bytes)) => {
                seat.ok().flatten().map(Some).ok_or_else(|| full(function))
            }
            _ = stopped(&mut stop) => Err(full(function)),
        }
    }

    /// Closes an enclosure that nobody has held for a while. True if nobody gives it orders any more.
    pub(super) fn close_if_deserted(&mut self) -> bool {
        let Kind::Enclosure { function, enclosures, deserted, .. } = &mut self.kind else { return false };
        if enclosures.is_held(function) {
            *deserted = None;
            return false;
        }
        let since = *deserted.get_or_insert_with(Instant::now);
        since.elapsed() >= STAY && enclosures.close(function)
    }

    /// What is said of it, for people.
    pub(super) fn name(&self, what: &str) -> String {
        match &self.kind {
            Kind::Shared => what.to_owned(),
            Kind::Enclosure { function, .. } => format!("enclosure of function {function}: {what}"),
        }
    }
}
