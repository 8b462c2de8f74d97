//! The pool's growth, and what workers are told of it.

use super::worker::Worker;
use super::*;
use tokio::time::timeout;
use torpor_proto::control::worker::{LeaseRevoked, Reserve, SlabReady, from_worker, store_request};

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
async fn what_is_on_gpus_has_room_before_it_must_leave_and_what_was_reserved_is_not_expected_twice() {
    let store = open(6, None);
    let mut worker = Worker::new(&store);
    store.expect(worker.id, 9 * CHUNK_BYTES + 1);
    while store.usage().index.total_slots < 12 {
        assert_eq!(worker.obey().await, None);
    }
    assert_eq!(worker.reserve(1, 10).await.unwrap().len(), 10);
    while store.usage().index.total_slots < 16 {
        assert_eq!(worker.obey().await, None);
    }
    assert_eq!(worker.slabs, [0, 1, 2, 3], "one is ahead, and nothing is expected any more");
    store.expect(worker.id, u64::MAX);
    while store.usage().index.total_slots < 24 {
        assert_eq!(worker.obey().await, None);
    }
    assert_eq!(worker.slabs.len(), 6, "no more than there may be");
    assert_eq!(worker.reserve(2, 14).await.unwrap().len(), 14);
}

#[tokio::test]
async fn what_is_saved_ahead_of_time_leaves_room_for_those_that_must_leave_and_sends_nobody_to_files() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(2, Some((directory.path(), 100)));
    let mut worker = Worker::new(&store);
    worker.make(1, &[1, 2, 3]).await.unwrap();
    worker.say(from_worker::Body::LeaseRevoked(LeaseRevoked { client: 1 }));
    let spare = |count| store_request::Body::Reserve(Reserve { count, only_spare: true });
    while store.usage().index.total_slots < 8 {
        assert_eq!(worker.obey().await, None);
    }
    let request = worker.post(2, spare(5));
    let refusal = worker.await_answer(request).await.unwrap_err();
    assert!(refusal.contains("could save 10 MiB ahead of time"), "{refusal}");
    let request = worker.post(2, spare(4));
    assert_eq!(worker.await_answer(request).await.unwrap().len(), 4);
    let request = worker.post(2, spare(1));
    worker.await_answer(request).await.unwrap_err();
    assert_eq!(store.usage().index.spilled, 0);
    assert_eq!(worker.reserve(3, 1).await.unwrap().len(), 1, "who must leave has the last one");
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
    let request = worker.post(1, store_request::Body::Reserve(Reserve { count: 1, only_spare: false }));
    assert!(timeout(Duration::from_millis(50), worker.await_answer(request)).await.is_err());
    assert_eq!(store.usage().index.total_slots, 0);
    store.disconnect(slow.id);
    worker.await_answer(request).await.unwrap();
    // A worker that starts later is answered when it can reach what it is told.
    let mut late = Worker::new(&store);
    late.failure = None;
    let request = late.post(2, store_request::Body::Reserve(Reserve { count: 1, only_spare: false }));
    assert!(timeout(Duration::from_millis(50), late.await_answer(request)).await.is_err());
    assert!(!late.slabs.is_empty());
    for &index in &late.slabs {
        late.say(from_worker::Body::SlabReady(SlabReady {
            index,
            failure: String::new(),
            bytes_per_second: 0,
        }));
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
async fn long_answers_come_in_parts() {
    let slab_bytes = 3000 * CHUNK_BYTES;
    let options = StoreOptions { slab_bytes, pool_bytes: slab_bytes, spill: None };
    let store = Store::open(&options, &Keeper::default()).unwrap();
    store.admit(ClientId(1), "ada");
    // No memory is behind these slots.
    store.state().index.add_slab();
    let mut worker = Worker::new(&store);
    assert_eq!(worker.reserve(1, 3000).await.unwrap().len(), 3000);
}
