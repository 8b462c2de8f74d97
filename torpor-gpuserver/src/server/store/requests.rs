//! What workers say to the store, and what they are answered.

use super::{Store, WorkerId};
use crate::chunk::Hash;
use crate::server::clients::ClientId;
use crate::server::store::error::StoreError;
use crate::server::store::index::{ChunkId, Misuse, Place};
use crate::server::store::workers::Reach;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use torpor_proto::control::worker::{
    self, Identify, Places, Reserve, StoreAnswer, StoreRequest, from_worker, store_answer,
};
use torpor_proto::control::worker::{store_request, to_worker};

/// Places in one message: at most 19 bytes each, of a message's 64 KiB.
const PLACES_PER_ANSWER: usize = 2048;

/// How long a worker may take to page-lock the slabs.
const REACH_PATIENCE: Duration = Duration::from_secs(30);

impl Store {
    /// Hears what a worker says. Returns what is none of the store's business.
    pub fn hear(self: &Arc<Self>, worker: WorkerId, body: from_worker::Body) -> Option<from_worker::Body> {
        match body {
            from_worker::Body::SlabReady(ready) => {
                let mut state = self.state();
                if let Some(reason) = state.workers.answered(worker, ready.index, &ready.failure) {
                    tracing::error!("{reason}; is RLIMIT_MEMLOCK too low, or --host-pool too large?");
                }
                self.advance(&mut state);
                drop(state);
                self.wake();
            }
            from_worker::Body::StoreRequest(request) => {
                // A worker says that a client is gone after its last request, so here alone it can be a mistake.
                let known = self.note_worker(ClientId(request.client), worker);
                if known {
                    tokio::spawn(self.clone().serve(worker, request));
                } else {
                    self.refuse_unknown(worker, &request);
                }
            }
            from_worker::Body::ReleaseChunks(release) => {
                let client = ClientId(release.client);
                let mut state = self.state();
                let (files, result) = state.index.release(client, &release.chunks);
                let function = state.function(client);
                drop(state);
                match result {
                    // Of memory that it had together with others, one of these may say so after its end.
                    Ok(()) | Err(Misuse::UnknownClient) => {}
                    Err(misuse) => {
                        tracing::warn!(client = client.0, "{}", StoreError::Misuse { function, misuse });
                    }
                }
                self.delete_later(files);
                self.wake();
            }
            from_worker::Body::ShareChunks(share) => {
                let client = ClientId(share.client);
                let mut state = self.state();
                let function = state.function(client);
                let others = share.others.into_iter().map(ClientId);
                let others: Vec<ClientId> =
                    others.filter(|&other| state.function(other) == function).collect();
                if let Err(misuse) = state.index.share(client, &others, &share.chunks) {
                    tracing::warn!(client = client.0, "{}", StoreError::Misuse { function, misuse });
                }
            }
            from_worker::Body::LeaseRevoked(revoked) => {
                let client = ClientId(revoked.client);
                let mut state = self.state();
                // A worker that gave the client up may say so late, when it has a lease again elsewhere.
                if state.clients.get(&client).is_some_and(|owner| owner.worker == Some(worker)) {
                    state.index.revoked(client);
                }
                drop(state);
                self.wake();
            }
            other => return Some(other),
        }
        None
    }

    fn note_worker(&self, client: ClientId, worker: WorkerId) -> bool {
        let mut state = self.state();
        let owner = state.clients.get_mut(&client);
        owner.map(|owner| owner.worker = Some(worker)).is_some()
    }

    fn refuse_unknown(&self, worker: WorkerId, request: &StoreRequest) {
        let misuse = Misuse::UnknownClient;
        let error = StoreError::Misuse { function: "(unknown)".into(), misuse };
        tracing::error!(client = request.client, "{error}");
        let result = Some(store_answer::Result::Refusal(error.to_string()));
        let answer = StoreAnswer { request: request.request, result };
        self.state().workers.tell(worker, to_worker::Body::StoreAnswer(answer));
    }

    async fn serve(self: Arc<Self>, worker: WorkerId, request: StoreRequest) {
        let (number, client) = (request.request, ClientId(request.client));
        let result = self.answer(worker, client, request.body).await;
        let mut state = self.state();
        // Its worker died meanwhile: nobody uses what was asked for.
        if state.clients.get(&client).is_some_and(|owner| owner.worker.is_none()) {
            state.index.revoked(client);
        }
        let lease_lost = !state.index.is_leased(client);
        let answer = |result| {
            let answer = StoreAnswer { request: number, result: Some(result) };
            state.workers.tell(worker, to_worker::Body::StoreAnswer(answer));
        };
        match result {
            Ok(places) => {
                let mut parts = places.chunks(PLACES_PER_ANSWER).peekable();
                loop {
                    let part = parts.next().unwrap_or_default();
                    let places =
                        part.iter().map(|place| worker::Place { chunk: place.chunk, slot: place.slot });
                    let more = parts.peek().is_some();
                    answer(store_answer::Result::Places(Places {
                        places: places.collect(),
                        more,
                        lease_lost,
                    }));
                    if !more {
                        break;
                    }
                }
            }
            Err(StoreError::Gone) => {
                tracing::debug!(client = client.0, "the client went while it waited for the host store");
            }
            Err(error) => {
                if !matches!(error, StoreError::NothingSpare { .. }) {
                    tracing::error!(client = client.0, "{error}");
                }
                answer(store_answer::Result::Refusal(error.to_string()));
            }
        }
    }

    async fn answer(
        self: &Arc<Self>,
        worker: WorkerId,
        client: ClientId,
        body: Option<store_request::Body>,
    ) -> Result<Vec<Place>, StoreError> {
        self.reached(worker, client).await?;
        match body {
            Some(store_request::Body::Reserve(Reserve { count, only_spare: true })) => {
                self.reserve_spare(client, count as usize)
            }
            Some(store_request::Body::Reserve(Reserve { count, .. })) => {
                self.reserve(client, count as usize).await
            }
            Some(store_request::Body::Identify(identify)) => self.identify(client, &identify),
            Some(store_request::Body::Lease(_)) => self.lease(client).await,
            None => Err(self.state().misuse(client)(Misuse::Unreadable)),
        }
    }

    /// Says what chunks contain.
    fn identify(&self, client: ClientId, identify: &Identify) -> Result<Vec<Place>, StoreError> {
        let mut state = self.state();
        let misuse = state.misuse(client);
        let hashes = identify.hashes.iter().map(|hash| Hash::try_from(hash.as_slice()));
        let hashes: Vec<Hash> = hashes.collect::<Result<_, _>>().map_err(|_| misuse(Misuse::Unreadable))?;
        if hashes.len() != identify.chunks.len() {
            return Err(misuse(Misuse::Unreadable));
        }
        let contents: Vec<(ChunkId, Hash)> = identify.chunks.iter().copied().zip(hashes).collect();
        state.index.touch(client);
        let (places, files) = state.index.identify(client, &contents).map_err(misuse)?;
        self.delete_now(&state, &files);
        drop(state);
        self.wake();
        Ok(places)
    }

    /// Waits until a worker can reach every slot that it may be told.
    async fn reached(&self, worker: WorkerId, client: ClientId) -> Result<(), StoreError> {
        let deadline = Instant::now() + REACH_PATIENCE;
        loop {
            let mut changes = self.changed.subscribe();
            let (reach, function) = {
                let state = self.state();
                state.check_there(client)?;
                let usable = state.index.total_slots() / self.slab_slots as usize;
                let reach = state.workers.reach_of(worker, u32::try_from(usable).unwrap_or(u32::MAX));
                (reach, state.function(client))
            };
            match reach {
                Reach::All => return Ok(()),
                Reach::Never(reason) => return Err(StoreError::Worker { function, reason }),
                Reach::Soon if Instant::now() >= deadline => {
                    let reason =
                        format!("page-locking takes longer than {} seconds", REACH_PATIENCE.as_secs());
                    return Err(StoreError::Worker { function, reason });
                }
                Reach::Soon => drop(timeout_at(deadline, changes.changed()).await),
            }
        }
    }
}
