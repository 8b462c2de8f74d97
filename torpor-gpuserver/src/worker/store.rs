//! The host store as sessions see it: slabs that are page-locked here, and questions to the node server.
//!
//! Slots are counted through all slabs, which are equally long; those of one slab lie side by side. A session asks with
//! its own thread and waits for the answer, looking now and then whether it is to end. An answer that comes after that
//! is dropped: its client is gone soon, and the server gives back what it had.

use crate::chunk::{CHUNK_BYTES, Hash, hash_at};
use crate::driver::{Device, HostRegistration};
use crate::swap_mode::SwapMode;
use crate::worker::shared::{Shared, lock, send};
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use torpor_proto::control::worker::{
    self, Identify, Lease, LeaseRevoked, Places, ReleaseChunks, Reserve, SlabReady, StoreAnswer,
    StoreRequest, from_worker, store_answer, store_request,
};
use torpor_proto::layout::MAX_SLABS;
use torpor_proto::mapping::{Mapping, check_sealed};

/// Between two looks at whether a session that waits is to end.
const LOOK: Duration = Duration::from_millis(5);

/// Chunks in one message: 45 bytes each at most where hashes come with them, of a message's 64 KiB.
const CHUNKS_PER_MESSAGE: usize = 1024;

/// A chunk and the slot it lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Which chunk.
    pub(super) chunk: u64,
    /// Where.
    pub(super) slot: u32,
}

/// Why the store gives no answer that a session could use.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum StoreError {
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

/// A slab that is page-locked here. Fields are dropped in this order: what is locked in a mapping goes before it.
#[derive(Debug)]
struct Slab {
    _registration: Option<HostRegistration>,
    _mapping: Mapping,
}

#[derive(Debug, Default)]
struct Waiting {
    places: Vec<Place>,
    lease_lost: bool,
    done: Option<Result<(), StoreError>>,
}

#[derive(Debug, Default)]
struct Questions {
    last: u64,
    waiting: HashMap<u64, Waiting>,
}

/// The host store, as this worker reaches it.
#[derive(Debug)]
pub(super) struct Store {
    server: Arc<OwnedFd>,
    /// Address of each slab; 0 for those that are not there.
    addresses: Box<[AtomicU64]>,
    /// Length of every slab; 0 until the first is there.
    slab_bytes: AtomicU64,
    slabs: Mutex<Vec<Slab>>,
    questions: Mutex<Questions>,
    answered: Condvar,
}

impl Store {
    /// A store without slabs.
    pub(super) fn new(server: Arc<OwnedFd>) -> Self {
        Self {
            server,
            addresses: (0..MAX_SLABS).map(|_| AtomicU64::new(0)).collect(),
            slab_bytes: AtomicU64::new(0),
            slabs: Mutex::default(),
            questions: Mutex::default(),
            answered: Condvar::new(),
        }
    }

    /// Where a slot is: page-locked host memory of 2 MiB, at the same address for the GPU. Consecutive slots of one slab
    /// lie side by side. `None` if there is no such slot.
    #[inline]
    pub(super) fn address(&self, slot: u32) -> Option<u64> {
        let slots = self.slab_bytes.load(Ordering::Relaxed) / CHUNK_BYTES;
        let slab = u64::from(slot).checked_div(slots)?;
        // Acquire: a slab that is seen has its length set. SYNC POINT slab.
        let address = self.addresses.get(usize::try_from(slab).ok()?)?.load(Ordering::Acquire);
        (address != 0).then(|| address + u64::from(slot) % slots * CHUNK_BYTES)
    }

    /// The BLAKE3 of what lies in a slot. Nobody may write there meanwhile, or it is that of nothing.
    pub(super) fn hash(&self, slot: u32) -> Option<Hash> {
        let address = std::ptr::with_exposed_provenance(usize::try_from(self.address(slot)?).ok()?);
        // SAFETY: slabs stay mapped as long as the store lives, and the slot is inside one.
        Some(unsafe { hash_at(address) })
    }

    /// The aligned words of a slot, under the same condition.
    pub(super) fn words(&self, slot: u32) -> Option<impl Iterator<Item = u64> + use<>> {
        let address = self.address(slot)?;
        Some((0..CHUNK_BYTES / 8).map(move |index| {
            let word = std::ptr::with_exposed_provenance::<u64>((address + index * 8) as usize);
            // SAFETY: slabs stay mapped as long as the worker lives, and the slot is inside one; volatile, because the memory
            // is shared.
            unsafe { word.read_volatile() }
        }))
    }

    /// Room for `count` new chunks, in the order of their slots. The client refers to each once. True if its other chunks
    /// may have been moved: it has no lease any more, and says [so](Self::lease_revoked) when it has written the new ones.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is reserved then, and the lease may be gone all the same.
    pub(super) fn reserve(
        &self,
        client: u64,
        count: usize,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<(Vec<Place>, bool), StoreError> {
        let asked =
            u32::try_from(count).map_err(|_| StoreError::Refused(format!("{count} chunks are too many")))?;
        let reserve = store_request::Body::Reserve(Reserve { count: asked });
        let (places, lease_lost) = self.ask(client, reserve, interrupted)?;
        if places.len() == count { Ok((places, lease_lost)) } else { Err(StoreError::Lost) }
    }

    /// Says what chunks contain, by number and BLAKE3. Returns for each where an equal chunk is, which is the same or one
    /// that the client refers to from now on instead. What is identified is never written again.
    ///
    /// # Errors
    /// [`StoreError`]; the first ones may have been identified then.
    pub(super) fn identify(
        &self,
        client: u64,
        chunks: &[(u64, Hash)],
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Vec<Place>, StoreError> {
        let mut places = Vec::with_capacity(chunks.len());
        for part in chunks.chunks(CHUNKS_PER_MESSAGE) {
            let (chunks, hashes) = part.iter().map(|&(chunk, hash)| (chunk, hash.to_vec())).unzip();
            let body = store_request::Body::Identify(Identify { chunks, hashes });
            let (answer, _) = self.ask(client, body, interrupted)?;
            if answer.len() != part.len() {
                return Err(StoreError::Lost);
            }
            places.extend(answer);
        }
        Ok(places)
    }

    /// Takes a lease again. Returns where all of the client's chunks are, each once, in the order of their numbers.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) fn lease(
        &self,
        client: u64,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Vec<Place>, StoreError> {
        self.ask(client, store_request::Body::Lease(Lease {}), interrupted).map(|(places, _)| places)
    }

    /// The client refers to each of these once less, to one that is named twice twice less.
    pub(super) fn release(&self, client: u64, chunks: &[u64]) {
        for part in chunks.chunks(CHUNKS_PER_MESSAGE) {
            let chunks = part.to_vec();
            self.tell(from_worker::Body::ReleaseChunks(ReleaseChunks { client, chunks }));
        }
    }

    /// The client does not use its slots until it has a lease again.
    pub(super) fn lease_revoked(&self, client: u64) {
        self.tell(from_worker::Body::LeaseRevoked(LeaseRevoked { client }));
    }

    /// What the server answers.
    pub(super) fn answer(&self, answer: StoreAnswer) {
        let mut questions = self.questions();
        // Whoever asked may have been interrupted.
        let Some(waiting) = questions.waiting.get_mut(&answer.request) else { return };
        match answer.result {
            Some(store_answer::Result::Places(Places { places, more, lease_lost })) => {
                waiting.lease_lost = lease_lost;
                for worker::Place { chunk, slot } in places {
                    if self.address(slot).is_none() {
                        tracing::error!(
                            "the node server names slot {slot} of the host store, which is not here"
                        );
                        waiting.done = Some(Err(StoreError::Lost));
                    }
                    waiting.places.push(Place { chunk, slot });
                }
                if !more && waiting.done.is_none() {
                    waiting.done = Some(Ok(()));
                }
            }
            Some(store_answer::Result::Refusal(reason)) => {
                waiting.done = Some(Err(StoreError::Refused(reason)))
            }
            None => waiting.done = Some(Err(StoreError::Lost)),
        }
        self.answered.notify_all();
    }

    fn ask(
        &self,
        client: u64,
        body: store_request::Body,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<(Vec<Place>, bool), StoreError> {
        let mut questions = self.questions();
        questions.last += 1;
        let request = questions.last;
        questions.waiting.insert(request, Waiting::default());
        drop(questions);
        let asked = StoreRequest { request, client, body: Some(body) };
        if send(&self.server, from_worker::Body::StoreRequest(asked)).is_err() {
            self.questions().waiting.remove(&request);
            return Err(StoreError::Lost);
        }
        let mut questions = self.questions();
        loop {
            let waiting = questions.waiting.get_mut(&request).ok_or(StoreError::Lost)?;
            if let Some(done) = waiting.done.take() {
                let (places, lease_lost) = (std::mem::take(&mut waiting.places), waiting.lease_lost);
                questions.waiting.remove(&request);
                return done.map(|()| (places, lease_lost));
            }
            if interrupted() {
                questions.waiting.remove(&request);
                return Err(StoreError::Interrupted);
            }
            questions = self.answered.wait_timeout(questions, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn tell(&self, body: from_worker::Body) {
        if let Err(error) = send(&self.server, body) {
            tracing::debug!("the node server cannot be told: {error}");
        }
    }

    fn questions(&self) -> MutexGuard<'_, Questions> {
        lock(&self.questions)
    }

    /// Maps a slab and page-locks it, unless what that brings is being measured.
    fn add(
        &self,
        device: &Arc<Device>,
        index: u32,
        bytes: u64,
        descriptors: &[OwnedFd],
        locked: bool,
    ) -> Result<(), String> {
        let [file] = descriptors else {
            return Err(format!("{} descriptors came with it", descriptors.len()));
        };
        let known = self.slab_bytes.load(Ordering::Relaxed);
        if bytes == 0 || !bytes.is_multiple_of(CHUNK_BYTES) || (known != 0 && known != bytes) {
            return Err(format!("{bytes} bytes are no slab"));
        }
        let place = self.addresses.get(index as usize).ok_or("there are too many slabs")?;
        check_sealed(file, bytes).map_err(|error| error.to_string())?;
        let length = usize::try_from(bytes).map_err(|error| error.to_string())?;
        let mapping =
            Mapping::anywhere(file, length).map_err(|error| format!("it cannot be mapped: {error}"))?;
        let address = mapping.address().as_ptr().expose_provenance() as u64;
        device.make_current().map_err(|error| error.to_string())?;
        // SAFETY: the mapping is dropped after the registration, here and in `Slab`.
        let registration = locked.then(|| unsafe { HostRegistration::new(device, address, bytes) });
        let registration = registration.transpose().map_err(|error| error.to_string())?;
        let slab = Slab { _registration: registration, _mapping: mapping };
        let mut slabs = lock(&self.slabs);
        if place.load(Ordering::Relaxed) != 0 {
            return Err("it is there already".to_owned());
        }
        slabs.push(slab);
        self.slab_bytes.store(bytes, Ordering::Relaxed);
        // Release: whoever sees the address sees the length. SYNC POINT slab.
        place.store(address, Ordering::Release);
        Ok(())
    }
}

/// Takes a slab into use with a thread of its own, since page-locking takes 36 ms per GiB, and tells the server.
pub(super) fn take_slab(shared: &Arc<Shared>, slab: worker::Slab, descriptors: Vec<OwnedFd>) {
    let worker::Slab { index, bytes } = slab;
    let theirs = shared.clone();
    let take = move || {
        let locked = theirs.swap != SwapMode::Pageable;
        let added = theirs.store.add(&theirs.device, index, bytes, &descriptors, locked);
        let failure = added.err().unwrap_or_default();
        theirs.tell(from_worker::Body::SlabReady(SlabReady { index, failure }));
    };
    if let Err(error) = std::thread::Builder::new().name(format!("slab-{index}")).spawn(take) {
        let failure = format!("no thread for it: {error}");
        shared.tell(from_worker::Body::SlabReady(SlabReady { index, failure }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use std::sync::atomic::AtomicBool;
    use torpor_proto::control::Message;
    use torpor_proto::control::worker::FromWorker;
    use torpor_proto::handover;
    use torpor_proto::mapping::create_sealed;

    /// A store with a slab of four slots as number 1, which no device knows, and the server's end.
    fn store() -> (Arc<Store>, OwnedFd, Mapping) {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let store = Store::new(Arc::new(theirs));
        let file = create_sealed("slab", 4 * CHUNK_BYTES).unwrap();
        let mapping = Mapping::anywhere(&file, 4 * CHUNK_BYTES as usize).unwrap();
        store.slab_bytes.store(4 * CHUNK_BYTES, Ordering::Relaxed);
        let address = mapping.address().as_ptr().expose_provenance() as u64;
        store.addresses[1].store(address, Ordering::Release);
        (Arc::new(store), ours, mapping)
    }

    fn hear(server: &OwnedFd) -> from_worker::Body {
        let (message, _) = handover::receive(server).unwrap();
        FromWorker::decode(message.as_slice()).unwrap().body.unwrap()
    }

    fn request(server: &OwnedFd) -> StoreRequest {
        match hear(server) {
            from_worker::Body::StoreRequest(request) => request,
            other => panic!("{other:?}"),
        }
    }

    fn places(request: u64, slots: &[u32], more: bool) -> StoreAnswer {
        let places = slots.iter().map(|&slot| worker::Place { chunk: u64::from(slot) + 100, slot }).collect();
        StoreAnswer {
            request,
            result: Some(store_answer::Result::Places(Places { places, more, lease_lost: false })),
        }
    }

    #[test]
    fn slots_have_addresses_and_hashes_where_their_slab_is() {
        let (store, _server, mapping) = store();
        let base = mapping.address().as_ptr() as u64;
        let found = [3, 4, 7, 8, u32::MAX].map(|slot| store.address(slot));
        assert_eq!(found, [None, Some(base), Some(base + 3 * CHUNK_BYTES), None, None]);
        let zeros = blake3::hash(&vec![0; CHUNK_BYTES as usize]);
        assert_eq!((store.hash(3), store.hash(4)), (None, Some(*zeros.as_bytes())));
    }

    #[test]
    fn answers_come_in_parts_to_whoever_asked() {
        let (store, server, _mapping) = store();
        std::thread::scope(|scope| {
            let ask = |client, count| {
                let store = &store;
                scope.spawn(move || store.reserve(client, count, &|| false))
            };
            let (first, second) = (ask(1, 3), ask(2, 1));
            let (one, other) = (request(&server), request(&server));
            let of = |client| [&one, &other].into_iter().find(|request| request.client == client).unwrap();
            store.answer(places(of(1).request, &[4, 5], true));
            store.answer(places(999, &[4], false));
            store.answer(places(of(2).request, &[7], false));
            store.answer(places(of(1).request, &[6], false));
            let slots = |places: Vec<Place>| places.iter().map(|place| place.slot).collect::<Vec<_>>();
            assert_eq!(slots(first.join().unwrap().unwrap().0), [4, 5, 6]);
            assert_eq!(second.join().unwrap().unwrap(), (vec![Place { chunk: 107, slot: 7 }], false));
        });
    }

    #[test]
    fn answers_that_cannot_be_used_are_errors() {
        let (store, server, _mapping) = store();
        let ask = |answer: fn(u64) -> StoreAnswer| {
            std::thread::scope(|scope| {
                let asking = scope.spawn(|| store.reserve(1, 1, &|| false));
                store.answer(answer(request(&server).request));
                asking.join().unwrap()
            })
        };
        assert_eq!(ask(|request| places(request, &[0], false)), Err(StoreError::Lost));
        assert_eq!(ask(|request| places(request, &[4, 5], false)), Err(StoreError::Lost));
        assert_eq!(ask(|request| StoreAnswer { request, result: None }), Err(StoreError::Lost));
        let refusal =
            |request| StoreAnswer { request, result: Some(store_answer::Result::Refusal("full".to_owned())) };
        assert_eq!(ask(refusal), Err(StoreError::Refused("full".to_owned())));
        assert!(store.questions().waiting.is_empty());
    }

    #[test]
    fn a_session_that_is_to_end_waits_no_longer() {
        let (store, server, _mapping) = store();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let asking = scope.spawn(|| store.lease(1, &|| stop.load(Ordering::Relaxed)));
            let late = request(&server).request;
            stop.store(true, Ordering::Relaxed);
            assert_eq!(asking.join().unwrap(), Err(StoreError::Interrupted));
            store.answer(places(late, &[4], false));
        });
        drop(server);
        assert_eq!(store.lease(1, &|| false), Err(StoreError::Lost));
    }

    #[test]
    fn many_chunks_are_told_in_several_messages() {
        let (store, server, _mapping) = store();
        let many: Vec<u64> = (0..CHUNKS_PER_MESSAGE as u64 + 1).map(|low| u64::MAX - low).collect();
        store.release(3, &many);
        store.lease_revoked(3);
        let mut told = Vec::new();
        while let from_worker::Body::ReleaseChunks(release) = hear(&server) {
            told.extend(release.chunks);
        }
        assert_eq!(told, many);
        let contents: Vec<_> = many.iter().map(|&chunk| (chunk, [7; 32])).collect();
        std::thread::scope(|scope| {
            let asking = scope.spawn(|| store.identify(3, &contents, &|| false));
            for count in [CHUNKS_PER_MESSAGE, 1] {
                let request = request(&server);
                let Some(store_request::Body::Identify(identify)) = request.body else { panic!() };
                assert_eq!((identify.chunks.len(), identify.hashes.len()), (count, count));
                store.answer(places(request.request, &vec![4; count], false));
            }
            assert_eq!(asking.join().unwrap().unwrap().len(), many.len());
        });
    }
}
