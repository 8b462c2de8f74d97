//! The host store as sessions see it: slabs that are page-locked here, and questions to the node server.

mod content;
mod locking;
mod questions;
mod slabs;

pub(crate) use content::{Chunk, Content};
pub(crate) use slabs::{return_slab, take_slab};

use crate::chunk::Hash;
use crate::worker::gpu::host_store::questions::Questions;
use crate::worker::gpu::host_store::slabs::Slabs;
use crate::worker::server_socket::ServerSocket;
use std::sync::Arc;
use torpor_proto::control::worker::{
    Identify, Lease, LeaseRevoked, ReleaseChunks, Reserve, ShareChunks, SlabReady, StoreAnswer, from_worker,
    store_request,
};

/// Chunks in one message: 45 bytes each at most where hashes come with them, of a message's 64 KiB.
const CHUNKS_PER_MESSAGE: usize = 1024;

/// A chunk and the slot it lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Which chunk.
    pub(crate) chunk: u64,
    /// Where.
    pub(crate) slot: u32,
}

/// A chunk of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Referred {
    /// Which, and where.
    pub(crate) place: Place,
    /// How often the client refers to it.
    pub(crate) count: u32,
    /// What the client's state may call it: the chunk's number, or that of one which was equal to it.
    pub(crate) name: u64,
}

/// Where room for new chunks may come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// It is made, if need be: others' chunks go to files for it.
    Made,
    /// It is there, and whoever has to leave its GPU does not need it.
    Spare,
}

/// Why the store gives no answer that a session could use.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StoreError {
    /// It refuses. Its log says so too.
    #[error("{0}")]
    Refused(String),
    /// The session is to end.
    #[error("the session ends")]
    Interrupted,
    /// The conversation with the server is over, or makes no sense.
    #[error("the node server gives no answer that can be used; its log, or this worker's, says why")]
    Lost,
}

/// The host store, as this worker reaches it.
#[derive(Debug)]
pub(crate) struct Store {
    server: Arc<ServerSocket>,
    slabs: Slabs,
    questions: Questions,
}

impl Store {
    /// A store without slabs.
    pub(crate) fn new(server: Arc<ServerSocket>) -> Self {
        Self { server, slabs: Slabs::new(), questions: Questions::default() }
    }

    /// Where a slot is: page-locked host memory of 2 MiB, at the same address for the GPU. Consecutive slots of one slab
    /// lie side by side. `None` if there is no such slot.
    #[inline]
    pub(crate) fn address(&self, slot: u32) -> Option<u64> {
        self.slabs.address(slot)
    }

    /// Whether the chunk at the second of two [addresses](Self::address) can be copied in one go with the one at the first.
    pub(crate) fn joins(&self, before: u64, this: u64) -> bool {
        self.slabs.joins(before, this)
    }

    /// The BLAKE3 of what lies in a slot, which must not change while it is hashed.
    pub(crate) fn hash(&self, slot: u32) -> Option<Hash> {
        self.slabs.hash(slot)
    }

    /// The aligned words of a slot, under the same condition.
    pub(crate) fn words(&self, slot: u32) -> Option<impl Iterator<Item = u64> + use<>> {
        self.slabs.words(slot)
    }

    /// Room for `count` new chunks, in the order of their slots. The client refers to each once. True if its other chunks
    /// may have been moved: it has no lease any more, and says [so](Self::lease_revoked) when it has written the new ones.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is reserved then, and the lease may be gone all the same.
    pub(crate) fn reserve(
        &self,
        client: u64,
        count: usize,
        room: Room,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<(Vec<Place>, bool), StoreError> {
        let asked =
            u32::try_from(count).map_err(|_| StoreError::Refused(format!("{count} chunks are too many")))?;
        let reserve = store_request::Body::Reserve(Reserve { count: asked, only_spare: room == Room::Spare });
        let (referred, lease_lost) = self.ask(client, reserve, interrupted)?;
        let places: Vec<_> = referred.into_iter().map(|it| it.place).collect();
        if places.len() == count { Ok((places, lease_lost)) } else { Err(StoreError::Lost) }
    }

    /// Says what chunks contain, by number and BLAKE3. Returns for each where an equal chunk is, which is the same or one
    /// that the client refers to from now on instead. What is identified is never written again. `is_named`: the server has a state
    /// that may call them by these numbers.
    ///
    /// # Errors
    /// [`StoreError`]; the first ones may have been identified then.
    pub(crate) fn identify(
        &self,
        client: u64,
        (chunks, is_named): (&[(u64, Hash)], bool),
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Vec<Place>, StoreError> {
        let mut places = Vec::with_capacity(chunks.len());
        for part in chunks.chunks(CHUNKS_PER_MESSAGE) {
            let (chunks, hashes) = part.iter().map(|&(chunk, hash)| (chunk, hash.to_vec())).unzip();
            let body = store_request::Body::Identify(Identify { chunks, hashes, is_named });
            let (answer, _) = self.ask(client, body, interrupted)?;
            if answer.len() != part.len() {
                return Err(StoreError::Lost);
            }
            places.extend(answer.into_iter().map(|it| it.place));
        }
        Ok(places)
    }

    /// Takes a lease again. Returns where all of the client's chunks are, each once, in the order of their numbers, and then what its
    /// state may call by others, of which nothing is counted.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn lease(
        &self,
        client: u64,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Vec<Referred>, StoreError> {
        self.ask(client, store_request::Body::Lease(Lease {}), interrupted).map(|(referred, _)| referred)
    }

    /// The client refers to each of these once less, to one that is named twice twice less.
    pub(crate) fn release(&self, client: u64, chunks: &[u64]) {
        for part in chunks.chunks(CHUNKS_PER_MESSAGE) {
            let chunks = part.to_vec();
            self.server.tell(from_worker::Body::ReleaseChunks(ReleaseChunks { client, chunks }));
        }
    }

    /// Other clients of its function refer to each of these from now on, too, once more each.
    pub(crate) fn share(&self, client: u64, others: &[u64], chunks: &[u64]) {
        if others.is_empty() {
            return;
        }
        for part in chunks.chunks(CHUNKS_PER_MESSAGE) {
            let (others, chunks) = (others.to_vec(), part.to_vec());
            self.server.tell(from_worker::Body::ShareChunks(ShareChunks { client, others, chunks }));
        }
    }

    /// The client does not use its slots until it has a lease again.
    pub(crate) fn lease_revoked(&self, client: u64) {
        self.server.tell(from_worker::Body::LeaseRevoked(LeaseRevoked { client }));
    }

    /// Another server goes on where the one before was killed: it hears of the slabs that are here, and what has had no answer is asked
    /// again.
    pub(crate) fn resume(&self) {
        for index in self.slabs.indices() {
            self.server.tell(from_worker::Body::SlabReady(SlabReady { index, ..SlabReady::default() }));
        }
        self.questions.ask_again(&self.server);
    }

    /// What the server answers.
    pub(crate) fn answer(&self, answer: StoreAnswer) {
        self.questions.answer(answer, |slot| self.address(slot).is_some());
    }

    fn ask(
        &self,
        client: u64,
        body: store_request::Body,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<(Vec<Referred>, bool), StoreError> {
        self.questions.ask(&self.server, client, body, interrupted)
    }
}

#[cfg(test)]
mod tests;
