//! Stores of one pool: slabs go to who needs them.

use super::worker::Worker;
use super::*;
use tokio::time::timeout;
use torpor_proto::control::worker::{Reserve, SlabReturned, from_worker, store_request};

/// A store apart, with a client of the same number in each.
fn apart(store: &Arc<Store>) -> Arc<Store> {
    let apart = store.apart();
    apart.admit(ClientId(1), "strict");
    apart.start();
    apart
}

/// Lets a worker do what it is told until its store has so many slots.
async fn until(store: &Arc<Store>, worker: &mut Worker, slots: usize) {
    while store.usage().index.total_slots != slots {
        assert_eq!(worker.obey().await, None);
    }
}

fn reserve(count: u32) -> store_request::Body {
    store_request::Body::Reserve(Reserve { count, only_spare: false })
}

#[tokio::test]
async fn a_slab_in_which_nothing_lies_goes_to_the_store_that_needs_it() {
    let common = open(3, None);
    let mut worker = Worker::new(&common);
    assert_eq!(worker.reserve(1, 4).await.unwrap().len(), 4);
    until(&common, &mut worker, 8).await;
    let strict = apart(&common);
    let mut its = Worker::new(&strict);
    // Its first slab, which is the pool's last.
    until(&strict, &mut its, 4).await;
    worker.returns = false;
    let request = its.post(1, reserve(8));
    while worker.returned.is_empty() {
        assert_eq!(worker.obey().await, None);
    }
    assert_eq!((worker.returned.as_slice(), common.usage().index.total_slots), (&[1][..], 4));
    let answer = timeout(Duration::from_millis(50), its.await_answer(request)).await;
    assert!(answer.is_err(), "it has not let go of it yet");
    worker.say(from_worker::Body::SlabReturned(SlabReturned { index: 1 }));
    assert_eq!(its.await_answer(request).await.unwrap().len(), 8);
    // What is in use stays.
    let refusal = its.reserve(1, 1).await.unwrap_err();
    assert!(refusal.contains("16 MiB of the host pool of 24 MiB is in use"), "{refusal}");
    strict.forget(ClientId(1));
    strict.admit(ClientId(2), "strict");
    let request = worker.post(2, reserve(4));
    while its.returned.is_empty() {
        assert_eq!(its.obey().await, None);
    }
    assert_eq!(worker.await_answer(request).await.unwrap().len(), 4);
    assert_sound(&common).await;
    assert_sound(&strict).await;
}

#[tokio::test]
async fn nothing_is_given_back_while_a_slab_is_made_that_has_the_next_number() {
    let common = open(3, None);
    let mut worker = Worker::new(&common);
    worker.reserve(1, 4).await.unwrap();
    until(&common, &mut worker, 8).await;
    let strict = apart(&common);
    common.state().growth = Growth::Making;
    assert!(strict.pool.ask_others(&strict), "it comes");
    assert!(common.state().returning.is_none());
    common.state().growth = Growth::Idle;
    assert!(strict.pool.ask_others(&strict));
    assert!(common.state().returning.is_some());
}

#[tokio::test]
async fn a_slab_that_another_store_is_about_to_have_is_waited_for() {
    let common = open(3, None);
    let mut worker = Worker::new(&common);
    worker.reserve(1, 4).await.unwrap();
    // Made ahead of need, and not page-locked yet.
    while common.state().slabs.len() < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(common.usage().index.total_slots, 4);
    let strict = apart(&common);
    let mut its = Worker::new(&strict);
    until(&strict, &mut its, 4).await;
    let request = its.post(1, reserve(8));
    let answer = timeout(Duration::from_millis(50), its.await_answer(request)).await;
    assert!(answer.is_err(), "it is not there yet");
    while worker.returned.is_empty() {
        assert_eq!(worker.obey().await, None);
    }
    assert_eq!(its.await_answer(request).await.unwrap().len(), 8);
    assert_sound(&common).await;
    assert_sound(&strict).await;
}

#[tokio::test]
async fn a_worker_that_dies_holds_no_slab_and_a_store_that_ends_gives_all_back() {
    let common = open(2, None);
    let mut worker = Worker::new(&common);
    worker.reserve(1, 4).await.unwrap();
    until(&common, &mut worker, 8).await;
    let strict = apart(&common);
    let mut its = Worker::new(&strict);
    // Each store has its first slab, if need be beyond what the pool may have.
    until(&strict, &mut its, 4).await;
    let request = its.post(1, reserve(5));
    let answer = timeout(Duration::from_millis(50), its.await_answer(request)).await;
    assert!(answer.is_err(), "the other slab of the common store is on its way");
    common.disconnect(worker.id);
    its.await_answer(request).await.unwrap_err();
    let mut next = Worker::new(&common);
    next.reserve(2, 4).await.unwrap_err();
    drop((strict, its));
    next.reserve(2, 4).await.unwrap();
    assert_sound(&common).await;
}
