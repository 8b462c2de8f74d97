//! Many clients: equal chunks are one, and each client keeps what it wrote.

use super::worker::Worker;
use super::*;
use std::collections::HashMap;
use tokio::time::timeout;
use torpor_proto::control::worker::{Identify, Reserve, store_request};

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
async fn who_finds_the_pool_full_waits_for_equals_to_become_one_as_long_as_any_is_found() {
    let store = open(1, None);
    let mut worker = Worker::new(&store);
    let ada = worker.make(1, &[1, 2]).await.unwrap();
    let bob = worker.reserve(2, 2).await.unwrap();
    for (place, content) in bob.iter().zip([1, 2]) {
        memory(&store, place.slot).copy_in(&bytes(content));
    }
    let request = worker.post(3, store_request::Body::Reserve(Reserve { count: 2, only_spare: false }));
    assert!(timeout(Duration::from_millis(50), worker.await_answer(request)).await.is_err());
    let hashes = [1, 2].map(|content| hash(content).to_vec()).to_vec();
    let chunks = bob.iter().map(|place| place.chunk).collect();
    let identify = Identify { chunks, hashes, is_named: false };
    let equal = worker.post(2, store_request::Body::Identify(identify));
    assert_eq!(worker.await_answer(equal).await.unwrap(), ada);
    assert_eq!(worker.await_answer(request).await.unwrap().len(), 2);
    let refusal = worker.reserve(3, 1).await.unwrap_err();
    assert!(
        refusal.contains("there is no spill directory"),
        "nobody says what the last two contain: {refusal}"
    );
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
