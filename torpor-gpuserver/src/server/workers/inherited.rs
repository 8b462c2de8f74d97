//! What the server before has left at a GPU: its workers, and the clients that were there.

use crate::server::clients::ClientId;
use crate::server::scheduler::{Bereaved, Orphan};
use crate::server::workers::order::Death;
use crate::server::workers::process::WorkerProcess;
use crate::server::workers::served::Coming;
use crate::server::workers::supervisor::Supervisor;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use torpor_proto::channel::MappedChannel;
use torpor_proto::error::CudaError;

/// What a supervisor goes on with.
#[derive(Debug, Default)]
pub(crate) struct Inherited {
    /// The worker that serves.
    pub(crate) first: Option<WorkerProcess>,
    /// Those that served before it, or strict functions, and may not be gone yet.
    pub(crate) leaving: Vec<WorkerProcess>,
    /// The one that would take its place.
    pub(crate) spare: Option<WorkerProcess>,
    /// The clients that were here, or about to be.
    pub(crate) clients: Vec<InheritedClient>,
}

/// A client that was at a worker, or about to be.
#[derive(Debug)]
pub(crate) struct InheritedClient {
    pub(crate) client: u64,
    /// Its channel; `None` if the worker is only to let go of it.
    pub(crate) channel: Option<Arc<MappedChannel>>,
    /// What it was last, as far as anybody knows.
    pub(crate) state: Option<Arc<OwnedFd>>,
}

impl Supervisor {
    /// Waits until the GPU writes nothing any more of what workers had under way that are over.
    pub(super) async fn await_earlier(&mut self) {
        for mut worker in std::mem::take(&mut self.earlier) {
            let _ = worker.epitaph(Duration::ZERO).await;
        }
    }

    /// The worker serves none of these, or will not for long: each goes on from its state.
    pub(super) fn restore_unconfirmed(&mut self) {
        let error = CudaError::LAUNCH_FAILED;
        let unconfirmed = self.served.take_unconfirmed(error);
        let orphan = |(client, state)| {
            self.store.released(ClientId(client));
            // The worker may be making it anew.
            Orphan { client: ClientId(client), state, error, lets_go: true, stay: None }
        };
        let orphans: Vec<_> = unconfirmed.into_iter().map(orphan).collect();
        self.tell_orphans(orphans);
    }

    /// The worker is about to serve a client that the server before gave it: if it does not, the client goes on from its state.
    pub(super) fn await_coming(&mut self, client: u64) {
        let Some(Coming { state, answer }) = self.served.coming(client) else { return };
        let (orphans, store) = (self.site.words.orphans.clone(), self.store.clone());
        tokio::spawn(async move {
            if let Ok(Err(refused)) = answer.await {
                store.released(ClientId(client));
                let (client, error) = (ClientId(client), CudaError::LAUNCH_FAILED);
                let orphans_of = vec![Orphan { client, state, error, lets_go: true, stay: None }];
                let _ = orphans.send(Bereaved { orphans: orphans_of, death: Death::of(refused.to_string()) });
            }
        });
    }

    /// The worker has given a client up that the server before asked for.
    pub(super) fn restore_released(&self, client: u64, state: OwnedFd) {
        self.store.released(ClientId(client));
        let (client, state, error) = (ClientId(client), Arc::new(state), CudaError::LAUNCH_FAILED);
        self.tell_orphans(vec![Orphan { client, state, error, lets_go: false, stay: None }]);
    }

    fn tell_orphans(&self, orphans: Vec<Orphan>) {
        if !orphans.is_empty() {
            let death = Death::of("the server was killed while the client was on its way");
            // Whoever hears it is gone when the server is ending.
            let _ = self.site.words.orphans.send(Bereaved { orphans, death });
        }
    }
}
