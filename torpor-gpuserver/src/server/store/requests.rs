//! What workers say to the store, and what they are answered.

use super::{Asked, State, Store, WorkerId};
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

/// Places in one message: at most 36 bytes each, of a message's 64 KiB.
const PLACES_PER_ANSWER: usize = 1536;

/// How long a worker may take to page-lock the slabs.
const REACH_PATIENCE: Duration = Duration::from_secs(30);

impl Store {
    /// Hears what a worker says. Returns what is none of the store's business.
    ///
    /// What has been heard counts when this returns, also for the next server.
    pub fn hear(
        self: &Arc<Self>,
        worker: WorkerId,
        number: u64,
        body: from_worker::Body,
    ) -> Option<from_worker::Body> {
        let said = Asked { worker, request: number };
        match body {
            // The server before was killed when it had written that down.
            from_worker::Body::ReleaseChunks(_)
            | from_worker::Body::ShareChunks(_)
            | from_worker::Body::LeaseRevoked(_)
                if number > 0 && self.state().index.was_heard(said) => {}
            from_worker::Body::SlabReady(ready) => {
                let mut state = self.state();
                if let Some(reason) = state.workers.answered(worker, ready.index, &ready.failure) {
                    tracing::error!("{reason}; is RLIMIT_MEMLOCK too low, or --host-pool too large?");
                }
                self.advance(&mut state);
                drop(state);
                self.wake();
            }
            from_worker::Body::SlabReturned(returned) => {
                let mut state = self.state();
                state.workers.returned(worker, returned.index);
                self.advance(&mut state);
                drop(state);
                self.wake();
            }
            from_worker::Body::StoreRequest(request) => {
                // A worker says that a client is gone after its last request, so here alone it can be a mistake.
                let (client, asked) = (ClientId(request.client), Asked { worker, request: request.request });
                match self.note_request(client, asked) {
                    Some(true) => drop(tokio::spawn(self.clone().serve(asked, request))),
                    Some(false) => {}
                    None => self.refuse_unknown(worker, &request),
                }
            }
            from_worker::Body::ReleaseChunks(release) => {
                let client = ClientId(release.client);
                let mut state = self.state();
                let (files, result) = state.index.release(client, &release.chunks, said);
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
                if let Err(misuse) = state.index.share(client, &others, &share.chunks, said) {
                    tracing::warn!(client = client.0, "{}", StoreError::Misuse { function, misuse });
                }
            }
            from_worker::Body::LeaseRevoked(revoked) => {
                let client = ClientId(revoked.client);
                let mut state = self.state();
                // A worker that gave the client up may say so late, when it has a lease again elsewhere.
                if state.clients.get(&client).is_some_and(|owner| owner.worker == Some(worker)) {
                    state.index.revoked(client, Some(said));
                }
                drop(state);
                self.wake();
            }
            other => return Some(other),
        }
        None
    }

    /// Notes where a client is and what is asked for it. Returns whether that is to be served: it is not if it was answered before, or
    /// is being served, which a worker cannot know that asks another server again. `None` if there is no such client.
    fn note_request(&self, client: ClientId, asked: Asked) -> Option<bool> {
        let mut state = self.state();
        let answered = state.index.answered(client, asked);
        let owner = state.clients.get_mut(&client)?;
        owner.worker = Some(asked.worker);
        match answered {
            Some(places) => {
                state.answer(client, asked, (&places, &[]));
                Some(false)
            }
            // It was heard twice, and this server's answer is on its way.
            None => Some(owner.answered != Some(asked) && owner.open.insert(asked)),
        }
    }

    fn refuse_unknown(&self, worker: WorkerId, request: &StoreRequest) {
        let misuse = Misuse::UnknownClient;
        let error = StoreError::Misuse { function: "(unknown)".into(), misuse };
        tracing::error!(client = request.client, "{error}");
        let result = Some(store_answer::Result::Refusal(error.to_string()));
        let answer = StoreAnswer { request: request.request, result };
        self.state().workers.tell(worker, to_worker::Body::StoreAnswer(answer));
    }

    async fn serve(self: Arc<Self>, asked: Asked, request: StoreRequest) {
        let client = ClientId(request.client);
        let is_lease = matches!(request.body, Some(store_request::Body::Lease(_)));
        let result = self.answer(asked, client, request.body).await;
        let mut state = self.state();
        if let Some(owner) = state.clients.get_mut(&client) {
            owner.open.remove(&asked);
            owner.answered = Some(asked);
        }
        // Its worker died meanwhile: nobody uses what was asked for.
        if state.clients.get(&client).is_some_and(|owner| owner.worker.is_none()) {
            state.index.revoked(client, None);
        }
        match result {
            Ok(places) => {
                let named = if is_lease { state.index.named(client) } else { Vec::new() };
                state.answer(client, asked, (&places, &named));
            }
            Err(StoreError::Gone) => {
                tracing::debug!(client = client.0, "the client went while it waited for the host store");
            }
            Err(error) => {
                if !matches!(error, StoreError::NothingSpare { .. }) {
                    let refusals = state.clients.get_mut(&client).map(|owner| &mut owner.refusals);
                    match refusals.map_or(Some(0), |refusals| refusals.tell(Instant::now().into_std())) {
                        Some(untold) => tracing::error!(client = client.0, untold, "{error}"),
                        None => tracing::debug!(client = client.0, "once more: {error}"),
                    }
                }
                state.say(asked, store_answer::Result::Refusal(error.to_string()));
            }
        }
    }

    async fn answer(
        self: &Arc<Self>,
        asked: Asked,
        client: ClientId,
        body: Option<store_request::Body>,
    ) -> Result<Vec<Place>, StoreError> {
        self.reached(asked.worker, client).await?;
        match body {
            Some(store_request::Body::Reserve(Reserve { count, only_spare: true })) => {
                self.reserve_spare(client, count as usize, asked)
            }
            Some(store_request::Body::Reserve(Reserve { count, .. })) => {
                self.reserve(client, count as usize, asked).await
            }
            Some(store_request::Body::Identify(identify)) => self.identify(client, &identify, asked),
            Some(store_request::Body::Lease(_)) => self.lease(client).await,
            None => Err(self.state().misuse(client)(Misuse::Unreadable)),
        }
    }

    /// Says what chunks contain.
    fn identify(
        &self,
        client: ClientId,
        identify: &Identify,
        asked: Asked,
    ) -> Result<Vec<Place>, StoreError> {
        let mut state = self.state();
        let misuse = state.misuse(client);
        let hashes = identify.hashes.iter().map(|hash| Hash::try_from(hash.as_slice()));
        let hashes: Vec<Hash> = hashes.collect::<Result<_, _>>().map_err(|_| misuse(Misuse::Unreadable))?;
        if hashes.len() != identify.chunks.len() {
            return Err(misuse(Misuse::Unreadable));
        }
        let contents: Vec<(ChunkId, Hash)> = identify.chunks.iter().copied().zip(hashes).collect();
        state.index.touch(client);
        if state.clients.get(&client).is_none_or(|owner| owner.worker != Some(asked.worker)) {
            // Its worker died meanwhile: the next one calls the chunks by their numbers.
            return Err(StoreError::Gone);
        }
        let contents = (&contents[..], identify.is_named);
        let (places, files) = state.index.identify(client, contents, asked).map_err(misuse)?;
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

impl State {
    /// Tells a worker where chunks are, and those that the client's state calls by other numbers.
    fn answer(&self, client: ClientId, asked: Asked, (places, named): (&[Place], &[(ChunkId, Place)])) {
        let lease_lost = !self.index.is_leased(client);
        let numbered = places.iter().map(|&Place { chunk, slot }| {
            let references = self.index.references(client, chunk);
            worker::Place { chunk, slot, references, name: None }
        });
        let named = named.iter().map(|&(name, Place { chunk, slot })| worker::Place {
            chunk,
            slot,
            references: 0,
            name: Some(name),
        });
        let places: Vec<_> = numbered.chain(named).collect();
        let mut parts = places.chunks(PLACES_PER_ANSWER).peekable();
        loop {
            let part = parts.next().unwrap_or_default().to_vec();
            let more = parts.peek().is_some();
            self.say(asked, store_answer::Result::Places(Places { places: part, more, lease_lost }));
            if !more {
                break;
            }
        }
    }

    fn say(&self, asked: Asked, result: store_answer::Result) {
        let answer = StoreAnswer { request: asked.request, result: Some(result) };
        self.workers.tell(asked.worker, to_worker::Body::StoreAnswer(answer));
    }
}
