//! A worker page-locks slabs of the host store and answers for clients that it does not have.

mod worker_support;

use std::os::fd::OwnedFd;
use std::time::Duration;
use torpor_proto::command::Fill;
use torpor_proto::control::worker::{
    Detach, Evict, Place, Places, RevokeLease, Slab, StoreAnswer, from_worker::Body as From, store_answer,
    store_request, to_worker::Body as To,
};
use torpor_proto::mapping::create_sealed;
use worker_support::Worker;

const SLAB_BYTES: u64 = 16 << 20;
const CHUNK_BYTES: u64 = 2 << 20;

fn offer(worker: &mut Worker, index: u32, bytes: u64, descriptors: &[OwnedFd]) -> String {
    worker.tell(To::Slab(Slab { index, bytes }), descriptors);
    match worker.hear() {
        From::SlabReady(ready) if ready.index == index => ready.failure,
        other => panic!("{other:?}"),
    }
}

#[test]
fn slabs_are_locked_unless_they_are_none() {
    let mut worker = Worker::start();
    let slab = || create_sealed("slab", SLAB_BYTES).unwrap();
    assert_eq!(offer(&mut worker, 0, SLAB_BYTES, &[slab()]), "");
    assert_eq!(offer(&mut worker, 1, SLAB_BYTES, &[slab()]), "");
    assert_eq!(
        offer(&mut worker, 1, SLAB_BYTES, &[slab()]),
        "",
        "a server that goes on where another was killed offers it again"
    );
    for (index, bytes, descriptors, complaint) in [
        (2, SLAB_BYTES, vec![], "0 descriptors"),
        (2, SLAB_BYTES * 2, vec![slab()], "no slab"),
        (2, SLAB_BYTES + 4096, vec![slab()], "no slab"),
        (
            2,
            SLAB_BYTES,
            vec![create_sealed("slab", SLAB_BYTES / 2).unwrap()],
            "shared memory of 8388608 bytes",
        ),
        (u32::MAX, SLAB_BYTES, vec![slab()], "too many"),
    ] {
        let failure = offer(&mut worker, index, bytes, &descriptors);
        assert!(failure.contains(complaint), "{failure}");
    }
    // It goes on serving.
    let client = worker.attach(0);
    worker.detach(client.id);
}

#[test]
fn a_client_that_is_gone_holds_no_lease() {
    let mut worker = Worker::start();
    worker.tell(To::RevokeLease(RevokeLease { client: 77 }), &[]);
    match worker.hear() {
        From::LeaseRevoked(revoked) => assert_eq!(revoked.client, 77),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_dead_client_s_copies_have_ended_when_its_slots_are_the_next_one_s() {
    // A chunk takes 0.2 s.
    let slow = [("TORPOR_SIMGPU_TIME", "real"), ("TORPOR_SIMGPU_PROFILE", "h200:host_gbps=0.01")];
    let mut worker = Worker::start_with(&slow);
    let slab = create_sealed("slab", SLAB_BYTES).unwrap();
    assert_eq!(offer(&mut worker, 0, SLAB_BYTES, &[slab.try_clone().unwrap()]), "");
    let mut client = worker.attach(0);
    let address = client.allocate(0, 8 * CHUNK_BYTES).unwrap();
    let width = 8 * CHUNK_BYTES;
    client.post(Fill { address, width, height: 1, value: 1, element_bytes: 1, ..Fill::default() }, &[]);
    client.settle().unwrap();
    worker.tell(To::Evict(Evict { client: client.id }), &[]);
    let request = match worker.hear() {
        From::StoreRequest(request) => request,
        other => panic!("{other:?}"),
    };
    assert!(matches!(request.body, Some(store_request::Body::Reserve(ref reserve)) if reserve.count == 8));
    // Backwards, so that each is a copy of its own.
    let places = (0..8)
        .map(|index| Place { chunk: u64::from(index), slot: 7 - index, references: 1, name: None })
        .collect();
    let result = store_answer::Result::Places(Places { places, ..Places::default() });
    worker.tell(To::StoreAnswer(StoreAnswer { request: request.request, result: Some(result) }), &[]);
    let mut first = [0; 1];
    while first == [0] {
        rustix::io::pread(&slab, &mut first, 7 * CHUNK_BYTES).unwrap();
    }
    worker.tell(To::Detach(Detach { client: client.id }), &[]);
    assert!(matches!(worker.hear(), From::Detached(detached) if detached.client == client.id));
    let next = vec![2; SLAB_BYTES as usize];
    assert_eq!(rustix::io::pwrite(&slab, &next, 0).unwrap(), next.len());
    std::thread::sleep(Duration::from_secs(2));
    let mut now = vec![0; SLAB_BYTES as usize];
    assert_eq!(rustix::io::pread(&slab, &mut now, 0).unwrap(), now.len());
    assert!(now == next, "the next one's chunks were overwritten");
}
