//! A worker that is over while what it had is still there: the driver takes a fifth of a second to take that back, and serves nobody else
//! meanwhile. The server chooses the moment, as such a process waits to be killed, or its [driver's files](super::driver_files) are held.
//!
//! Nothing that uses what it shares with others runs any more, as its socket is closed or it says so, so what is known of its
//! clients is final. Those that have done nothing since their states were written go on at the spare at once: nothing on the GPU is
//! theirs. The GPU may still write what others had under way, so these, and whoever wants to let go of them, wait until the process is
//! gone.

use crate::policy::event::What;
use crate::server::clients::ClientId;
use crate::server::scheduler::{Bereaved, Orphan};
use crate::server::workers::order::{Death, Order, Outgoing};
use crate::server::workers::process::WorkerProcess;
use crate::server::workers::served::Served;
use crate::server::workers::serving::Threads;
use crate::server::workers::supervisor::Supervisor;
use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use torpor_proto::error::CudaError;

/// How long it is left alone at most, for the sake of those that go on at once: they are made anew meanwhile, which
/// the driver does not do while it takes back what a process had (0.7 s for 31 clients on an H200). 75 ms for five clients on an H100, 350 for
/// twenty on an H200.
const MOST_LINGER: Duration = Duration::from_millis(500);

/// How long it is left alone after that: those who have waited bring their memory, which the driver keeps waiting, too.
const REPLY: Duration = Duration::from_millis(80);

/// A client that goes on at another worker, until it is there: its former worker is left alone meanwhile.
#[derive(Clone, Debug)]
pub(crate) struct Stay {
    _held: mpsc::Sender<Infallible>,
}

/// A worker whose process is about to be gone.
pub(super) struct Leaving {
    /// How it ended.
    gone: JoinHandle<String>,
    /// Who waits for that.
    served: Served,
    /// What is wanted of these meanwhile.
    orders: Vec<Order>,
    death: Arc<Death>,
    /// What the clients hear that do not survive.
    error: CudaError,
}

/// When a worker's process is gone, and how it ended; never, if none is leaving.
pub(super) async fn gone(leaving: &mut Option<Leaving>) -> String {
    match leaving {
        Some(leaving) => (&mut leaving.gone).await.unwrap_or_else(|error| error.to_string()),
        None => std::future::pending().await,
    }
}

impl Supervisor {
    /// The worker is over. Those of its clients that can go on at once do so; the others when its process is gone, for which
    /// nobody else waits.
    pub(super) fn let_leave(
        &mut self,
        (mut worker, threads): (WorkerProcess, Threads),
        patience: Duration,
        death: Arc<Death>,
        error: CudaError,
    ) {
        let mut served = self.take_served();
        let quiet = served.take_quiet();
        quiet.iter().for_each(|&(client, _)| self.store.released(ClientId(client)));
        let (stay, mut stays) = mpsc::channel(1);
        self.orphan(quiet, &death, error, Some(Stay { _held: stay }));
        let gone = tokio::spawn(async move {
            // What it had the driver has not begun to take back.
            if threads == Threads::Ended || worker.is_held() {
                // Nobody sends anything: it is over when all have gone on.
                let _ = timeout(MOST_LINGER, stays.recv()).await;
                sleep(REPLY).await;
            }
            worker.epitaph(patience).await
        });
        self.leaving = Some(Leaving { gone, served, orders: Vec::new(), death, error });
    }

    /// What is known of a worker's clients, in the place of which nothing is known of the next one's.
    pub(super) fn take_served(&mut self) -> Served {
        let next = Self::served(&self.site, &self.kind, Vec::new());
        std::mem::replace(&mut self.served, next)
    }

    /// The process is gone that was leaving.
    pub(super) fn has_left(&mut self, epitaph: &str) {
        let Some(Leaving { mut served, orders, death, error, .. }) = self.leaving.take() else { return };
        tracing::debug!(gpu = self.site.index, "the worker's process is gone: {epitaph}");
        self.bereave(&mut served, death, error);
        // They are of clients that nobody serves now.
        orders.into_iter().for_each(|order| drop(served.order(order)));
    }

    /// Waits for the process that is leaving, if any is.
    pub(super) async fn wait_for_leaving(&mut self) {
        if self.leaving.is_some() {
            let epitaph = gone(&mut self.leaving).await;
            self.has_left(&epitaph);
        }
    }

    /// Notes what is wanted of a worker. Returns what this one is to be sent, if anything.
    pub(super) fn take_order(&mut self, order: Order) -> Option<Outgoing> {
        match &mut self.leaving {
            Some(leaving) if order.client().is_some_and(|client| leaving.served.has(client)) => {
                leaving.orders.push(order);
                None
            }
            _ => self.served.order(order),
        }
    }

    /// The worker's process is gone, and with it all that it held. Whose state holds goes on at the next one; nobody reads or
    /// writes the others' chunks any more, and nobody will: their memory on the GPU is gone too.
    pub(super) fn bereave(&self, served: &mut Served, death: Arc<Death>, error: CudaError) {
        let survivors = served.survivors();
        // Those that took a command while the worker was ending.
        served.fail(error);
        for client in served.clients() {
            match survivors.iter().any(|&(survivor, _)| survivor == client) {
                true => self.store.released(ClientId(client)),
                false => {
                    let why = served.why_lost(client, &death);
                    if let Some(why) = why {
                        let function = self.store.function(ClientId(client));
                        tracing::warn!(client, %function, "client lost with its worker: {why}");
                    }
                    self.store.forget(ClientId(client));
                    let reason = format!("its GPU's worker died: {}", why.unwrap_or("it was going anyway"));
                    self.site.words.events.tell(What::ClientFailed { client, reason });
                }
            }
        }
        served.bury(&death);
        self.orphan(survivors, &death, error, None);
    }

    fn orphan(
        &self,
        survivors: Vec<(u64, Arc<OwnedFd>)>,
        death: &Arc<Death>,
        error: CudaError,
        stay: Option<Stay>,
    ) {
        let orphan = |(client, state)| Orphan {
            client: ClientId(client),
            state,
            error,
            lets_go: false,
            stay: stay.clone(),
        };
        let orphans = survivors.into_iter().map(orphan).collect();
        // Whoever hears it is gone when the server is ending.
        let _ = self.site.words.orphans.send(Bereaved { orphans, death: death.clone() });
    }
}
