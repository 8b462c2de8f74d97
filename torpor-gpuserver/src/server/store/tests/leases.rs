//! Who has a lease, who is asked for it, and who is waited for.

use super::worker::Worker;
use super::*;
use rustix::fs::{CWD, FileType, Mode, OFlags, fcntl_setfl, mknodat};
use std::collections::{HashMap, HashSet};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use tokio::time::timeout;
use torpor_proto::control::worker::{
    Identify, Lease, LeaseRevoked, Reserve, from_worker, store_answer, store_request,
};

#[tokio::test]
async fn a_function_that_is_not_idle_is_waited_for_and_one_that_asks_lends_its_room() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(1, Some((directory.path(), 100)));
    let mut worker = Worker::new(&store);
    worker.make(1, &[1, 2]).await.unwrap();
    let theirs = worker.make(2, &[3, 4]).await.unwrap();
    worker.busy = HashSet::from([1, 2]);
    let request = worker.post(3, store_request::Body::Reserve(Reserve { count: 1, only_spare: false }));
    while worker.revoked != [1, 2] {
        assert_eq!(worker.obey().await, None);
    }
    worker.say(from_worker::Body::LeaseRevoked(LeaseRevoked { client: 2 }));
    worker.await_answer(request).await.unwrap();
    // The first waits behind the third now, and cannot give anything back.
    let third = worker.post(3, store_request::Body::Reserve(Reserve { count: 3, only_spare: false }));
    let first = worker.post(1, store_request::Body::Reserve(Reserve { count: 2, only_spare: false }));
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
    let second = worker.post(2, store_request::Body::Reserve(Reserve { count: 4, only_spare: false }));
    assert!(timeout(Duration::from_millis(50), worker.await_answer(second)).await.is_err());
    worker.say(from_worker::Body::LeaseRevoked(LeaseRevoked { client: 1 }));
    worker.await_answer(second).await.unwrap();
    worker.say(from_worker::Body::LeaseRevoked(LeaseRevoked { client: 2 }));
    worker.busy.clear();
    assert_eq!(contents(&store, &worker.lease(1).await.unwrap()), [1, 2, 5, 6]);
    assert_sound(&store).await;
}

#[tokio::test]
async fn who_waits_for_room_needs_none_for_what_another_one_has_brought_meanwhile() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(1, Some((directory.path(), 100)));
    let mut worker = Worker::new(&store);
    worker.make(1, &[1, 2, 3, 4]).await.unwrap();
    let theirs = worker.reserve(2, 4).await.unwrap();
    memory(&store, theirs[0].slot).copy_in(&bytes(1));
    worker.release(2, theirs[1..].iter().map(|place| place.chunk).collect());
    worker.busy.insert(2);
    let first = worker.post(1, store_request::Body::Lease(Lease {}));
    while worker.revoked != [1, 2] {
        assert_eq!(worker.obey().await, None);
    }
    // All that it lacks has room now, and nobody else has any to give.
    let (chunks, hashes) = (vec![theirs[0].chunk], vec![hash(1).to_vec()]);
    let same = worker.post(2, store_request::Body::Identify(Identify { chunks, hashes, is_named: false }));
    let mut answers = HashMap::new();
    while !answers.contains_key(&same) {
        answers.extend(worker.obey().await.map(|answer| (answer.request, answer.result)));
    }
    worker.say(from_worker::Body::LeaseRevoked(LeaseRevoked { client: 2 }));
    while !answers.contains_key(&first) {
        answers.extend(worker.obey().await.map(|answer| (answer.request, answer.result)));
    }
    let answer = &answers[&first];
    assert!(matches!(answer, Some(store_answer::Result::Places(it)) if it.places.len() == 4), "{answer:?}");
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
async fn a_worker_that_dies_leaves_nothing_though_its_clients_were_asked_for_their_leases() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(1, Some((directory.path(), 100)));
    let (mut worker, mut dying) = (Worker::new(&store), Worker::new(&store));
    dying.busy.insert(1);
    while dying.slabs.is_empty() {
        assert_eq!(dying.obey().await, None);
    }
    let request = dying.post(1, store_request::Body::Reserve(Reserve { count: 4, only_spare: false }));
    let (_, answer) = tokio::join!(
        async {
            while worker.slabs.is_empty() {
                worker.obey().await;
            }
        },
        dying.await_answer(request)
    );
    answer.unwrap();
    let waiting = worker.post(2, store_request::Body::Reserve(Reserve { count: 2, only_spare: false }));
    while dying.revoked.is_empty() {
        assert_eq!(dying.obey().await, None);
    }
    // It dies while it waits for an answer of its own.
    dying.post(1, store_request::Body::Reserve(Reserve { count: 1, only_spare: false }));
    store.disconnect(dying.id);
    store.forget(ClientId(1));
    assert_eq!(worker.await_answer(waiting).await.unwrap().len(), 2);
    assert_sound(&store).await;
}

#[tokio::test]
async fn a_restore_whose_worker_and_client_are_gone_leaves_its_chunks_to_the_others() {
    for comes_back in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let store = open(1, Some((directory.path(), 100)));
        let (mut worker, mut dying) = (Worker::new(&store), Worker::new(&store));
        while dying.slabs.is_empty() {
            assert_eq!(dying.obey().await, None);
        }
        let shared = worker.make(1, &[1, 2]).await.unwrap()[0].chunk;
        worker.make(2, &[1, 2]).await.unwrap();
        worker.make(3, &[3, 4, 5, 6]).await.unwrap();
        // Its file takes its time, and perhaps breaks off.
        let (path, aside) =
            (directory.path().join(format!("{shared:016x}.torpor-chunk")), directory.path().join("aside"));
        std::fs::rename(&path, &aside).unwrap();
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        dying.post(1, store_request::Body::Lease(Lease {}));
        while worker.revoked.last() != Some(&3) {
            assert_eq!(worker.obey().await, None);
        }
        let file = once_read(&path).await;
        store.disconnect(dying.id);
        store.forget(ClientId(1));
        let request = worker.post(2, store_request::Body::Lease(Lease {}));
        assert!(timeout(Duration::from_millis(50), worker.await_answer(request)).await.is_err());
        if comes_back {
            fcntl_setfl(&file, OFlags::empty()).unwrap();
            let write = move || (&file).write_all(&bytes(1));
            tokio::task::spawn_blocking(write).await.unwrap().unwrap();
        } else {
            std::fs::rename(&aside, &path).unwrap();
            drop(file);
        }
        assert_eq!(contents(&store, &worker.await_answer(request).await.unwrap()), [1, 2]);
        assert_sound(&store).await;
    }
}

/// A pipe in place of a file that takes its time, once somebody reads it.
async fn once_read(path: &std::path::Path) -> std::fs::File {
    let mut file = OpenOptions::new();
    file.write(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    let deadline = Instant::now() + PATIENCE;
    loop {
        match file.open(path) {
            Ok(file) => return file,
            Err(error) => assert!(Instant::now() < deadline, "nobody reads: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn a_client_that_goes_while_it_waits_is_no_mistake_and_takes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(1, Some((directory.path(), 100)));
    let mut worker = Worker::new(&store);
    let slow = worker.make(1, &[1, 2]).await.unwrap()[0].chunk;
    worker.make(3, &[3, 4, 5, 6]).await.unwrap();
    let path = directory.path().join(format!("{slow:016x}.torpor-chunk"));
    std::fs::remove_file(&path).unwrap();
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let first = worker.post(1, store_request::Body::Lease(Lease {}));
    while worker.revoked.last() != Some(&3) {
        assert_eq!(worker.obey().await, None);
    }
    let file = once_read(&path).await;
    // The first looks for room, so this one waits for its turn.
    worker.post(2, store_request::Body::Reserve(Reserve { count: 4, only_spare: false }));
    tokio::time::sleep(Duration::from_millis(20)).await;
    store.forget(ClientId(2));
    fcntl_setfl(&file, OFlags::empty()).unwrap();
    tokio::task::spawn_blocking(move || (&file).write_all(&bytes(1))).await.unwrap().unwrap();
    assert_eq!(contents(&store, &worker.await_answer(first).await.unwrap()), [1, 2]);
    // Whoever is not there when its request comes is its worker's mistake. Nothing else is answered meanwhile.
    let refusal = worker.lease(2).await.unwrap_err();
    assert!(refusal.contains("not known") && refusal.contains("mistake"), "{refusal}");
    assert_sound(&store).await;
}
