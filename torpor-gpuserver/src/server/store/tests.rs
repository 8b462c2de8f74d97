//! The store with real memory and files, and workers that are the other end of a channel.

use super::index::Place;
use super::*;
use crate::chunk::Hash;
use crate::server::served::Attachment;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};
use tokio::time::timeout;
use torpor_proto::control::worker::{
    Identify, Lease, LeaseRevoked, ReleaseChunks, Reserve, SlabReady, StoreRequest, from_worker,
    store_answer, store_request, to_worker,
};

const SLAB_SLOTS: u64 = 4;
const PATIENCE: Duration = Duration::from_secs(20);

fn open(slabs: u64, spill: Option<(&std::path::Path, u64)>) -> Arc<Store> {
    let spill = spill.map(|(directory, chunks)| SpillOptions {
        directory: directory.to_owned(),
        limit_bytes: chunks * CHUNK_BYTES,
    });
    let slab_bytes = SLAB_SLOTS * CHUNK_BYTES;
    let store = Store::open(&StoreOptions { slab_bytes, pool_bytes: slabs * slab_bytes, spill }).unwrap();
    for (client, function) in ["nobody", "ada", "bob", "cleo"].into_iter().enumerate().skip(1) {
        store.admit(ClientId(client as u64), function);
    }
    store.start();
    store
}

/// A worker without memory of its own.
struct Worker {
    store: Arc<Store>,
    id: WorkerId,
    inbox: mpsc::UnboundedReceiver<Outgoing>,
    /// What it says of slabs.
    failure: Option<String>,
    /// Clients that do not give leases back.
    busy: HashSet<u64>,
    revoked: Vec<u64>,
    slabs: Vec<u32>,
    last: u64,
    /// As the last answer said.
    lease_lost: bool,
}

impl Worker {
    fn new(store: &Arc<Store>) -> Self {
        let (outbox, inbox) = mpsc::unbounded_channel();
        let id = store.connect(7, outbox);
        let (failure, busy, revoked, slabs) = (Some(String::new()), HashSet::new(), Vec::new(), Vec::new());
        Self { store: store.clone(), id, inbox, failure, busy, revoked, slabs, last: 0, lease_lost: false }
    }

    fn say(&self, body: from_worker::Body) {
        assert_eq!(self.store.hear(self.id, body), None);
    }

    fn post(&mut self, client: u64, body: store_request::Body) -> u64 {
        self.last += 1;
        self.say(from_worker::Body::StoreRequest(StoreRequest {
            request: self.last,
            client,
            body: Some(body),
        }));
        self.last
    }

    /// Does what it is told until a request is answered.
    async fn await_answer(&mut self, request: u64) -> Result<Vec<Place>, String> {
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
    async fn obey(&mut self) -> Option<torpor_proto::control::worker::StoreAnswer> {
        let outgoing = timeout(PATIENCE, self.inbox.recv()).await.expect("the store says nothing").unwrap();
        match outgoing.message.body.unwrap() {
            to_worker::Body::Slab(slab) => {
                assert!(matches!(outgoing.attachment, Attachment::Slab(_)));
                self.slabs.push(slab.index);
                if let Some(failure) = self.failure.clone() {
                    self.say(from_worker::Body::SlabReady(SlabReady { index: slab.index, failure }));
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

    async fn reserve(&mut self, client: u64, count: u32) -> Result<Vec<Place>, String> {
        let request = self.post(client, store_request::Body::Reserve(Reserve { count }));
        self.await_answer(request).await
    }

    async fn lease(&mut self, client: u64) -> Result<Vec<Place>, String> {
        let request = self.post(client, store_request::Body::Lease(Lease {}));
        self.await_answer(request).await
    }

    async fn identify(&mut self, client: u64, contents: &[(ChunkId, Hash)]) -> Result<Vec<Place>, String> {
        let (chunks, hashes) = contents.iter().map(|(chunk, hash)| (chunk, hash.to_vec())).unzip();
        let request = self.post(client, store_request::Body::Identify(Identify { chunks, hashes }));
        self.await_answer(request).await
    }

    /// Reserves chunks, writes to each, and identifies them.
    async fn make(&mut self, client: u64, contents: &[u8]) -> Result<Vec<Place>, String> {
        let places = self.reserve(client, contents.len() as u32).await?;
        for (place, &content) in places.iter().zip(contents) {
            memory(&self.store, place.slot).copy_in(&bytes(content));
        }
        let hashes = places.iter().zip(contents).map(|(place, &content)| (place.chunk, hash(content)));
        self.identify(client, &hashes.collect::<Vec<_>>()).await
    }

    fn release(&self, client: u64, chunks: Vec<u64>) {
        self.say(from_worker::Body::ReleaseChunks(ReleaseChunks { client, chunks }));
    }
}

fn bytes(content: u8) -> Vec<u8> {
    vec![content; CHUNK_BYTES as usize]
}

fn hash(content: u8) -> Hash {
    *blake3::hash(&bytes(content)).as_bytes()
}

fn memory(store: &Store, slot: u32) -> SlotMemory {
    store.state().memory(store.slab_slots, slot)
}

fn contents(store: &Store, places: &[Place]) -> Vec<u8> {
    let first = |place: &Place| {
        let bytes = memory(store, place.slot).copy_out();
        assert_eq!(bytes, self::bytes(bytes[0]));
        bytes[0]
    };
    places.iter().map(first).collect()
}

async fn assert_sound(store: &Arc<Store>) {
    let report = store.verify().await;
    assert_eq!((report.damaged, report.contradictions), (vec![], vec![]));
}

/// Waits until the files have been deleted.
async fn files_left(directory: &std::path::Path, count: usize) {
    let deadline = Instant::now() + PATIENCE;
    let files = || {
        let entries = std::fs::read_dir(directory).unwrap();
        entries
            .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|it| it == "torpor-chunk"))
            .count()
    };
    while files() != count {
        assert!(Instant::now() < deadline, "{} files", files());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn the_pool_grows_ahead_of_need_and_as_far_as_it_may() {
    let store = open(3, None);
    let mut worker = Worker::new(&store);
    let first = worker.reserve(1, 4).await.unwrap();
    assert_eq!(first.iter().map(|place| place.slot).collect::<Vec<_>>(), [0, 1, 2, 3]);
    while worker.slabs.len() < 2 {
        assert_eq!(worker.obey().await, None);
    }
    assert_eq!(store.usage().index.total_slots, 8, "a slab ahead");
    assert_eq!(worker.reserve(2, 8).await.unwrap().len(), 8);
    assert_eq!(worker.slabs, [0, 1, 2]);
    let refusal = worker.reserve(3, 1).await.unwrap_err();
    assert!(refusal.contains("function cleo needs 2 MiB"), "{refusal}");
    assert!(
        refusal.contains("24 MiB of the host pool of 24 MiB is in use and there is no spill directory"),
        "{refusal}"
    );
    let refusal = worker.reserve(1, 9).await.unwrap_err();
    assert!(refusal.contains("needs 18 MiB of host memory beside the 8 MiB that it has"), "{refusal}");
    store.forget(ClientId(1));
    assert_eq!(
        worker.reserve(3, 4).await.unwrap(),
        first.iter().map(|place| Place { chunk: place.chunk + 12, ..*place }).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn equal_contents_of_many_functions_take_the_room_of_one() {
    let store = open(2, None);
    let mut worker = Worker::new(&store);
    let first = worker.make(1, &[1, 2]).await.unwrap();
    assert_eq!(worker.make(2, &[1, 2]).await.unwrap(), first);
    assert_eq!(worker.make(3, &[2, 2, 3]).await.unwrap()[..2], [first[1], first[1]]);
    let usage = store.usage().index;
    assert_eq!((usage.used_slots, usage.saved_bytes), (3, 4 * CHUNK_BYTES));
    assert_eq!(
        usage.clients.iter().map(|client| client.referred_bytes / CHUNK_BYTES).collect::<Vec<_>>(),
        [2, 2, 2]
    );
    store.forget(ClientId(1));
    worker.release(3, vec![first[1].chunk]);
    assert_sound(&store).await;
    assert_eq!(contents(&store, &worker.lease(2).await.unwrap()), [1, 2]);
    store.forget(ClientId(2));
    store.forget(ClientId(3));
    assert_eq!(store.usage().index.used_slots, 0);
    let refusal = worker.reserve(3, 1).await.unwrap_err();
    assert!(refusal.contains("not known"), "{refusal}");
}

#[tokio::test]
async fn the_longest_idle_function_is_spilled_and_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(2, Some((directory.path(), 100)));
    let mut worker = Worker::new(&store);
    worker.make(1, &[1, 2, 3]).await.unwrap();
    worker.make(2, &[4, 5, 6]).await.unwrap();
    // What nobody has identified is kept as well.
    let unknown = worker.reserve(1, 1).await.unwrap();
    memory(&store, unknown[0].slot).copy_in(&bytes(9));
    worker.make(3, &[7, 8, 1]).await.unwrap();
    assert_eq!(worker.revoked, [2], "the first used the store later");
    assert_eq!(store.usage().index.spilled, 2);
    assert_sound(&store).await;
    // The third holds the 1 that the first has too.
    worker.make(3, &[10, 11, 12, 13]).await.unwrap();
    assert_eq!(worker.revoked, [2, 1]);
    assert_eq!(contents(&store, &worker.lease(2).await.unwrap()), [4, 5, 6]);
    assert_eq!(contents(&store, &worker.lease(1).await.unwrap()), [1, 2, 3, 9]);
    assert_eq!(contents(&store, &worker.lease(3).await.unwrap()), [1, 7, 8, 10, 11, 12, 13]);
    let spilled = store.usage().index.spilled;
    files_left(directory.path(), spilled).await;
    (1..4).for_each(|client| store.forget(ClientId(client)));
    files_left(directory.path(), 0).await;
    assert_eq!((store.usage().index.used_slots, store.usage().index.spilled), (0, 0));
}

#[tokio::test]
async fn full_files_refuse_reservations_but_not_exchanges() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(1, Some((directory.path(), 4)));
    let mut worker = Worker::new(&store);
    worker.make(1, &[1, 2, 3, 4]).await.unwrap();
    worker.make(2, &[5, 6, 7, 8]).await.unwrap();
    let refusal = worker.reserve(3, 1).await.unwrap_err();
    let expected = "function cleo needs 2 MiB of host memory, but 8 MiB of the host pool of 8 MiB and 8 MiB of the spill limit of 8 MiB are in use";
    assert!(refusal.contains(expected), "{refusal}");
    for _ in 0..2 {
        assert_eq!(contents(&store, &worker.lease(1).await.unwrap()), [1, 2, 3, 4]);
        assert_eq!(contents(&store, &worker.lease(2).await.unwrap()), [5, 6, 7, 8]);
    }
    files_left(directory.path(), 4).await;
}

#[tokio::test]
async fn a_function_that_is_not_idle_is_waited_for_and_one_that_asks_lends_its_room() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(1, Some((directory.path(), 100)));
    let mut worker = Worker::new(&store);
    worker.make(1, &[1, 2]).await.unwrap();
    let theirs = worker.make(2, &[3, 4]).await.unwrap();
    worker.busy = HashSet::from([1, 2]);
    let request = worker.post(3, store_request::Body::Reserve(Reserve { count: 1 }));
    while worker.revoked != [1, 2] {
        assert_eq!(worker.obey().await, None);
    }
    worker.say(from_worker::Body::LeaseRevoked(LeaseRevoked { client: 2 }));
    worker.await_answer(request).await.unwrap();
    // The first waits behind the third now, and cannot give anything back.
    let third = worker.post(3, store_request::Body::Reserve(Reserve { count: 3 }));
    let first = worker.post(1, store_request::Body::Reserve(Reserve { count: 2 }));
    let places = worker.await_answer(third).await.unwrap();
    assert_eq!((places.len(), worker.lease_lost), (3, false));
    worker.say(from_worker::Body::LeaseRevoked(LeaseRevoked { client: 3 }));
    let new = worker.await_answer(first).await.unwrap();
    assert_eq!((new.len(), worker.lease_lost), (2, true));
    for (place, content) in new.iter().zip([5, 6]) {
        memory(&store, place.slot).copy_in(&bytes(content));
    }
    // What it is writing stays where it is, until it says that it is done.
    worker.release(2, theirs.iter().map(|place| place.chunk).collect());
    let second = worker.post(2, store_request::Body::Reserve(Reserve { count: 4 }));
    assert!(timeout(Duration::from_millis(50), worker.await_answer(second)).await.is_err());
    worker.say(from_worker::Body::LeaseRevoked(LeaseRevoked { client: 1 }));
    worker.await_answer(second).await.unwrap();
    worker.say(from_worker::Body::LeaseRevoked(LeaseRevoked { client: 2 }));
    worker.busy.clear();
    assert_eq!(contents(&store, &worker.lease(1).await.unwrap()), [1, 2, 5, 6]);
    assert_sound(&store).await;
}

#[tokio::test]
async fn a_moved_client_s_lease_is_its_new_worker_s_alone() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(1, Some((directory.path(), 8)));
    let mut before = Worker::new(&store);
    before.make(1, &[1, 2]).await.unwrap();
    store.released(ClientId(1));
    let mut after = Worker::new(&store);
    assert_eq!(after.lease(1).await.unwrap().len(), 2);
    // What it was asked for before the move, it says now.
    before.say(from_worker::Body::LeaseRevoked(LeaseRevoked { client: 1 }));
    after.reserve(2, 3).await.unwrap();
    assert_eq!((before.revoked, after.revoked), (vec![], vec![1]));
}

#[tokio::test]
async fn a_damaged_file_fails_the_functions_that_refer_to_it_alone() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(1, Some((directory.path(), 100)));
    let mut worker = Worker::new(&store);
    let damaged = worker.make(1, &[1, 2]).await.unwrap()[0].chunk;
    worker.make(2, &[3, 4]).await.unwrap();
    worker.make(3, &[5, 6, 7, 8]).await.unwrap();
    let path = directory.path().join(format!("{damaged:016x}.torpor-chunk"));
    std::fs::write(&path, bytes(9)).unwrap();
    let report = store.verify().await;
    assert_eq!(report.damaged.len(), 1);
    for named in ["function ada", path.to_str().unwrap(), "damaged"] {
        assert!(report.damaged[0].contains(named), "{report:?}");
    }
    let refusal = worker.lease(1).await.unwrap_err();
    assert!(refusal.contains("function ada") && refusal.contains(path.to_str().unwrap()), "{refusal}");
    std::fs::remove_file(&path).unwrap();
    let refusal = worker.lease(1).await.unwrap_err();
    assert!(refusal.contains("No such file"), "{refusal}");
    assert_eq!(contents(&store, &worker.lease(2).await.unwrap()), [3, 4]);
    // Somebody brings the content again.
    let again = worker.make(2, &[1]).await.unwrap();
    assert_eq!(again[0].chunk, damaged);
    assert_eq!(contents(&store, &worker.lease(1).await.unwrap()), [1, 2]);
    assert_sound(&store).await;
}

#[tokio::test]
async fn a_chunk_that_changed_in_memory_is_found_and_never_spilled() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(1, Some((directory.path(), 100)));
    let mut worker = Worker::new(&store);
    let places = worker.make(1, &[1, 2]).await.unwrap();
    memory(&store, places[0].slot).copy_in(&bytes(9));
    let damaged = store.verify().await.damaged;
    assert_eq!(damaged.len(), 1);
    assert!(damaged[0].contains("function ada") && damaged[0].contains("slot 0 has changed"), "{damaged:?}");
    let refusal = worker.reserve(2, 4).await.unwrap_err();
    assert!(refusal.contains("not idle"), "{refusal}");
    worker.reserve(2, 3).await.unwrap();
    assert_eq!(store.usage().index.spilled, 1);
}

#[tokio::test]
async fn a_file_that_cannot_be_written_is_named_and_nothing_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(1, Some((directory.path(), 100)));
    let mut worker = Worker::new(&store);
    let places = worker.make(1, &[1, 2, 3]).await.unwrap();
    let in_the_way = directory.path().join(format!("{:016x}.torpor-chunk", places[1].chunk));
    std::fs::create_dir(&in_the_way).unwrap();
    let refusal = worker.reserve(2, 4).await.unwrap_err();
    assert!(refusal.contains(in_the_way.to_str().unwrap()), "{refusal}");
    std::fs::remove_dir(&in_the_way).unwrap();
    assert_eq!(contents(&store, &worker.lease(1).await.unwrap()), [1, 2, 3]);
    assert_sound(&store).await;
}

#[tokio::test]
async fn a_slab_is_used_when_every_worker_has_it_and_a_dead_one_is_not_waited_for() {
    let store = open(2, None);
    let (mut worker, mut slow) = (Worker::new(&store), Worker::new(&store));
    slow.failure = None;
    while slow.slabs.is_empty() {
        assert_eq!(slow.obey().await, None);
    }
    let request = worker.post(1, store_request::Body::Reserve(Reserve { count: 1 }));
    assert!(timeout(Duration::from_millis(50), worker.await_answer(request)).await.is_err());
    assert_eq!(store.usage().index.total_slots, 0);
    store.disconnect(slow.id);
    worker.await_answer(request).await.unwrap();
    // A worker that starts later is answered when it can reach what it is told.
    let mut late = Worker::new(&store);
    late.failure = None;
    let request = late.post(2, store_request::Body::Reserve(Reserve { count: 1 }));
    assert!(timeout(Duration::from_millis(50), late.await_answer(request)).await.is_err());
    assert!(!late.slabs.is_empty());
    for &index in &late.slabs {
        late.say(from_worker::Body::SlabReady(SlabReady { index, failure: String::new() }));
    }
    late.failure = Some(String::new());
    late.await_answer(request).await.unwrap();
}

#[tokio::test]
async fn a_slab_that_cannot_be_locked_stops_growth_until_that_worker_is_gone() {
    let store = open(2, None);
    let (mut worker, mut weak) = (Worker::new(&store), Worker::new(&store));
    weak.failure = Some("CUDA_ERROR_OUT_OF_MEMORY (2)".to_owned());
    while weak.slabs.is_empty() {
        assert_eq!(weak.obey().await, None);
    }
    let refusal = worker.reserve(1, 1).await.unwrap_err();
    assert!(
        refusal.contains("the worker of GPU 7 cannot page-lock slab 0: CUDA_ERROR_OUT_OF_MEMORY"),
        "{refusal}"
    );
    store.disconnect(weak.id);
    worker.reserve(1, 1).await.unwrap();
}

#[tokio::test]
async fn a_worker_that_dies_leaves_nothing_though_its_clients_were_asked_for_their_leases() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(1, Some((directory.path(), 100)));
    let (mut worker, mut dying) = (Worker::new(&store), Worker::new(&store));
    dying.busy.insert(1);
    while dying.slabs.is_empty() {
        assert_eq!(dying.obey().await, None);
    }
    let request = dying.post(1, store_request::Body::Reserve(Reserve { count: 4 }));
    let (_, answer) = tokio::join!(
        async {
            while worker.slabs.is_empty() {
                worker.obey().await;
            }
        },
        dying.await_answer(request)
    );
    answer.unwrap();
    let waiting = worker.post(2, store_request::Body::Reserve(Reserve { count: 2 }));
    while dying.revoked.is_empty() {
        assert_eq!(dying.obey().await, None);
    }
    // It dies while it waits for an answer of its own.
    dying.post(1, store_request::Body::Reserve(Reserve { count: 1 }));
    store.disconnect(dying.id);
    store.forget(ClientId(1));
    assert_eq!(worker.await_answer(waiting).await.unwrap().len(), 2);
    assert_sound(&store).await;
}

#[tokio::test]
async fn long_answers_come_in_parts() {
    let slab_bytes = 3000 * CHUNK_BYTES;
    let store = Store::open(&StoreOptions { slab_bytes, pool_bytes: slab_bytes, spill: None }).unwrap();
    store.admit(ClientId(1), "ada");
    // No memory is behind these slots.
    store.state().index.add_slab();
    let mut worker = Worker::new(&store);
    assert_eq!(worker.reserve(1, 3000).await.unwrap().len(), 3000);
}

#[tokio::test]
async fn whatever_clients_do_each_keeps_what_it_wrote() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(3, Some((directory.path(), 60)));
    let mut worker = Worker::new(&store);
    let mut held: HashMap<u64, Vec<u8>> = HashMap::new();
    let mut seed = 12345_u64;
    let mut random = move |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    for _ in 0..150 {
        let client = 1 + random(3);
        let places = worker.lease(client).await.unwrap();
        let its = held.entry(client).or_default();
        let mut found = contents(&store, &places);
        found.sort_unstable();
        let mut expected = its.clone();
        expected.sort_unstable();
        expected.dedup();
        assert_eq!(found, expected);
        if its.len() < 6 {
            let new: Vec<u8> = (0..1 + random(3)).map(|_| random(12) as u8).collect();
            worker.make(client, &new).await.unwrap();
            its.extend(new);
        } else {
            let content = its.swap_remove(random(its.len() as u64) as usize);
            let place = places.iter().find(|place| contents(&store, &[**place]) == [content]).unwrap();
            worker.release(client, vec![place.chunk]);
        }
    }
    assert!(!worker.revoked.is_empty());
    assert_sound(&store).await;
    let report = store.verify().await;
    assert_eq!(report.checked, report.chunks);
    (1..4).for_each(|client| store.forget(ClientId(client)));
    files_left(directory.path(), 0).await;
    assert_eq!(store.usage().index.used_slots, 0);
}
