//! A worker that is the other end of a channel.

use super::*;
use crate::server::workers::order::Attachment;
use std::collections::HashSet;
use std::sync::atomic::AtomicU64;
use tokio::time::timeout;
use torpor_proto::control::worker::{
    Identify, Lease, LeaseRevoked, ReleaseChunks, Reserve, SlabReady, SlabReturned, StoreRequest,
    from_worker, store_answer, store_request, to_worker,
};

/// A worker without memory of its own.
pub(super) struct Worker {
    store: Arc<Store>,
    pub(super) id: WorkerId,
    inbox: mpsc::UnboundedReceiver<Outgoing>,
    /// What it says of slabs.
    pub(super) failure: Option<String>,
    /// Clients that do not give leases back.
    pub(super) busy: HashSet<u64>,
    pub(super) revoked: Vec<u64>,
    pub(super) slabs: Vec<u32>,
    /// What it was to let go of, and whether it does so.
    pub(super) returned: Vec<u32>,
    pub(super) returns: bool,
    last: u64,
    /// As the last answer said.
    pub(super) lease_lost: bool,
}

impl Worker {
    pub(super) fn new(store: &Arc<Store>) -> Self {
        let (outbox, inbox) = mpsc::unbounded_channel();
        static LAST: AtomicU64 = AtomicU64::new(0);
        let id = WorkerId(LAST.fetch_add(1, Ordering::Relaxed) + 1);
        store.connect(id, 7, outbox);
        let (failure, busy, revoked, slabs) = (Some(String::new()), HashSet::new(), Vec::new(), Vec::new());
        let (store, returned, returns) = (store.clone(), Vec::new(), true);
        Self {
            store,
            id,
            inbox,
            failure,
            busy,
            revoked,
            slabs,
            returned,
            returns,
            last: 0,
            lease_lost: false,
        }
    }

    pub(super) fn say(&self, body: from_worker::Body) {
        assert_eq!(self.store.hear(self.id, 0, body), None);
    }

    pub(super) fn post(&mut self, client: u64, body: store_request::Body) -> u64 {
        self.last += 1;
        self.say(from_worker::Body::StoreRequest(StoreRequest {
            request: self.last,
            client,
            body: Some(body),
        }));
        self.last
    }

    /// Does what it is told until a request is answered.
    pub(super) async fn await_answer(&mut self, request: u64) -> Result<Vec<Place>, String> {
        let mut all = Vec::new();
        loop {
            let Some(answer) = self.obey().await else { continue };
            assert_eq!(answer.request, request);
            match answer.result.unwrap() {
                store_answer::Result::Refusal(reason) => return Err(reason),
                store_answer::Result::Places(places) => {
                    self.lease_lost = places.lease_lost;
                    all.extend(
                        places.places.iter().map(|place| Place { chunk: place.chunk, slot: place.slot }),
                    );
                    if !places.more {
                        return Ok(all);
                    }
                }
            }
        }
    }

    /// Does the next thing that it is told, unless that is an answer.
    pub(super) async fn obey(&mut self) -> Option<torpor_proto::control::worker::StoreAnswer> {
        let outgoing = timeout(PATIENCE, self.inbox.recv()).await.expect("the store says nothing").unwrap();
        match outgoing.message.body.unwrap() {
            to_worker::Body::Slab(slab) => {
                assert!(matches!(outgoing.attachment, Attachment::Slab(_)));
                self.slabs.push(slab.index);
                if let Some(failure) = self.failure.clone() {
                    self.say(from_worker::Body::SlabReady(SlabReady {
                        index: slab.index,
                        failure,
                        bytes_per_second: 0,
                    }));
                }
                None
            }
            to_worker::Body::ReturnSlab(slab) => {
                self.returned.push(slab.index);
                if self.returns {
                    self.say(from_worker::Body::SlabReturned(SlabReturned { index: slab.index }));
                }
                None
            }
            to_worker::Body::RevokeLease(revoke) => {
                self.revoked.push(revoke.client);
                if !self.busy.contains(&revoke.client) {
                    self.say(from_worker::Body::LeaseRevoked(LeaseRevoked { client: revoke.client }));
                }
                None
            }
            to_worker::Body::StoreAnswer(answer) => Some(answer),
            other => panic!("{other:?}"),
        }
    }

    pub(super) async fn reserve(&mut self, client: u64, count: u32) -> Result<Vec<Place>, String> {
        let request = self.post(client, store_request::Body::Reserve(Reserve { count, only_spare: false }));
        self.await_answer(request).await
    }

    pub(super) async fn lease(&mut self, client: u64) -> Result<Vec<Place>, String> {
        let request = self.post(client, store_request::Body::Lease(Lease {}));
        self.await_answer(request).await
    }

    pub(super) async fn identify(
        &mut self,
        client: u64,
        contents: &[(ChunkId, Hash)],
    ) -> Result<Vec<Place>, String> {
        let (chunks, hashes) = contents.iter().map(|(chunk, hash)| (chunk, hash.to_vec())).unzip();
        let identify = Identify { chunks, hashes, is_named: false };
        let request = self.post(client, store_request::Body::Identify(identify));
        self.await_answer(request).await
    }

    /// Reserves chunks, writes to each, and identifies them.
    pub(super) async fn make(&mut self, client: u64, contents: &[u8]) -> Result<Vec<Place>, String> {
        let places = self.reserve(client, contents.len() as u32).await?;
        for (place, &content) in places.iter().zip(contents) {
            memory(&self.store, place.slot).copy_in(&bytes(content));
        }
        let hashes = places.iter().zip(contents).map(|(place, &content)| (place.chunk, hash(content)));
        self.identify(client, &hashes.collect::<Vec<_>>()).await
    }

    pub(super) fn release(&self, client: u64, chunks: Vec<u64>) {
        self.say(from_worker::Body::ReleaseChunks(ReleaseChunks { client, chunks }));
    }
}
