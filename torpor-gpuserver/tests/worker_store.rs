//! A worker page-locks slabs of the host store and answers for clients that it does not have.

mod worker_support;

use std::os::fd::OwnedFd;
use torpor_proto::control::worker::{RevokeLease, Slab, from_worker::Body as From, to_worker::Body as To};
use torpor_proto::mapping::create_sealed;
use worker_support::Worker;

const SLAB_BYTES: u64 = 16 << 20;

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
    for (index, bytes, descriptors, complaint) in [
        (1, SLAB_BYTES, vec![slab()], "there already"),
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
