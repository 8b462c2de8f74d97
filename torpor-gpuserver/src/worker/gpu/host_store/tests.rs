//! Questions and their answers.

use super::slabs::tests::slabs;
use super::*;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use torpor_proto::control::Message;
use torpor_proto::control::worker::{self, FromWorker, Places, StoreRequest, store_answer};
use torpor_proto::handover;
use torpor_proto::mapping::Mapping;

/// A store with a slab of four slots as number 1, which no device knows, and the server's end.
fn store() -> (Arc<Store>, OwnedFd, Mapping) {
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    let (slabs, mapping) = slabs();
    let store = Store { slabs, ..Store::new(Arc::new(ServerSocket::new(theirs))) };
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
    let places = slots
        .iter()
        .map(|&slot| worker::Place { chunk: u64::from(slot) + 100, slot, references: 1, name: None })
        .collect();
    StoreAnswer {
        request,
        result: Some(store_answer::Result::Places(Places { places, more, lease_lost: false })),
    }
}

#[test]
fn answers_come_in_parts_to_whoever_asked() {
    let (store, server, _mapping) = store();
    std::thread::scope(|scope| {
        let ask = |client, count| {
            let store = &store;
            scope.spawn(move || store.reserve(client, count, Room::Made, &|| false))
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
            let asking = scope.spawn(|| store.reserve(1, 1, Room::Made, &|| false));
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
    assert!(store.questions.is_empty());
}

#[test]
fn what_had_no_answer_is_asked_again_and_answered_once() {
    let (store, server, _mapping) = store();
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| store.reserve(1, 2, Room::Made, &|| false));
        let first = request(&server);
        // The first half of an answer, and the server is killed.
        store.answer(places(first.request, &[4], true));
        store.resume();
        assert!(matches!(hear(&server), from_worker::Body::SlabReady(ready) if ready.index == 1));
        assert_eq!(request(&server), first);
        // The next one has heard both.
        for _ in 0..2 {
            store.answer(places(first.request, &[5, 6], false));
        }
        let slots: Vec<_> = asking.join().unwrap().unwrap().0.iter().map(|place| place.slot).collect();
        assert_eq!(slots, [5, 6]);
    });
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
        let asking = scope.spawn(|| store.identify(3, (&contents, false), &|| false));
        for count in [CHUNKS_PER_MESSAGE, 1] {
            let request = request(&server);
            let Some(store_request::Body::Identify(identify)) = request.body else { panic!() };
            assert_eq!((identify.chunks.len(), identify.hashes.len()), (count, count));
            store.answer(places(request.request, &vec![4; count], false));
        }
        assert_eq!(asking.join().unwrap().unwrap().len(), many.len());
    });
}
