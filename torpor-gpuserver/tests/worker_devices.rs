//! A client whose program sees several devices: each has a legacy stream of its own, which waits for nothing of the others, and is
//! synchronised by itself.

mod worker_support;

use torpor_proto::command::{
    ContextSynchronize, Fill, Home, LEGACY_STREAM, MOST_CONTEXTS, MOST_DEVICES, StreamCreate, StreamDestroy,
    StreamQuery, StreamSynchronize,
};
use torpor_proto::error::CudaError;
use worker_support::contents::fill;
use worker_support::{Client, Worker};

const MIB: u64 = 1 << 20;

/// What the second device's legacy stream is numbered.
const SECOND: u32 = 5;

fn create(client: &mut Client, stream: u32, flags: u32, device: u32) {
    client.post(StreamCreate { stream, flags, context: device, ..StreamCreate::default() }, &[]);
}

fn query(client: &mut Client, stream: u32) -> Result<(), CudaError> {
    client.ask(StreamQuery { stream, reserved: 0 })
}

fn synchronize(client: &mut Client, device: u32) {
    client.ask(ContextSynchronize { context: device, reserved: 0 }).unwrap();
}

#[test]
fn what_one_device_does_waits_for_nothing_of_another() {
    let mut worker = Worker::start();
    let mut client = worker.attach(0);
    client.load_kernels();
    let address = client.allocate(0, 4 * MIB).unwrap();
    create(&mut client, SECOND, LEGACY_STREAM, 1);
    create(&mut client, 1, 0, 0);
    create(&mut client, 2, 0, 1);
    client.settle().unwrap();
    let flag = client.allocate(8 * MIB, 2 * MIB).unwrap();
    client.post(fill(flag, 4, 0, 1), &[]);
    client.settle().unwrap();
    // The first device's legacy stream is busy, and its blocking stream behind it.
    client.launch_at(2, flag, 0);
    client.post(Fill { stream: 1, ..fill(address, 64, 1, 1) }, &[]);
    // The second's are not.
    client.post(Fill { stream: 2, ..fill(address + MIB, 64, 2, 1) }, &[]);
    client.copy(client.host.address, address + MIB, 64, SECOND);
    client.ask(StreamSynchronize { stream: SECOND, reserved: 0 }).unwrap();
    assert_eq!(
        client.read_host(0, 64),
        [2; 64],
        "the legacy stream waits for its own device's blocking stream"
    );
    synchronize(&mut client, 1);
    synchronize(&mut client, 2);
    for busy in [0, 1] {
        assert_eq!(query(&mut client, busy), Err(CudaError::NOT_READY), "stream {busy}");
    }
    let waits = client.ask_later(ContextSynchronize { context: 0, reserved: 0 }, &[]);
    assert!(!client.is_answered(waits));
    client.post(Fill { stream: 2, ..fill(flag, 4, 1, 1) }, &[]);
    client.await_slot(waits).unwrap();
    assert_eq!(query(&mut client, 1), Ok(()));
    client.settle().unwrap();
}

#[test]
fn a_device_has_one_legacy_stream_which_is_never_destroyed() {
    let mut worker = Worker::start();
    let mut client = worker.attach(0);
    // A blocking stream may be there before it, and go before it.
    create(&mut client, 3, 0, 1);
    let address = client.allocate(0, 2 * MIB).unwrap();
    client.post(Fill { stream: 3, ..fill(address, 64, 1, 1) }, &[]);
    client.post(StreamDestroy { stream: 3, reserved: 0 }, &[]);
    create(&mut client, SECOND, LEGACY_STREAM, 1);
    client.settle().unwrap();
    for (stream, flags, device) in [
        (7, LEGACY_STREAM, 1),
        (7, LEGACY_STREAM, 0),
        (7, LEGACY_STREAM | 1, 2),
        (7, 0, MOST_DEVICES * MOST_CONTEXTS),
        (7, LEGACY_STREAM, u32::MAX),
        (SECOND, LEGACY_STREAM, 2),
    ] {
        create(&mut client, stream, flags, device);
        assert_eq!(client.settle(), Err(CudaError::INVALID_VALUE), "{stream} {flags:#x} {device}");
    }
    client.post(StreamDestroy { stream: SECOND, reserved: 0 }, &[]);
    assert_eq!(client.settle(), Err(CudaError::INVALID_HANDLE));
    client.post(Fill { stream: SECOND, ..fill(address, 64, 1, 1) }, &[]);
    client.settle().unwrap();
}

#[test]
fn the_server_hears_of_a_home_that_can_be_one() {
    let mut worker = Worker::start();
    let (mut client, mut other) = (worker.attach(0), worker.attach(1));
    client.post(Home { device: MOST_DEVICES, reserved: 0 }, &[]);
    assert_eq!(client.settle(), Err(CudaError::INVALID_VALUE));
    // The first word of each client, however often they say one.
    for device in [3, 1, 3, 3] {
        client.post(Home { device, reserved: 0 }, &[]);
    }
    client.settle().unwrap();
    other.post(Home { device: 0, reserved: 0 }, &[]);
    assert_eq!(worker.hear_home(), (client.id, 3));
    assert_eq!(worker.hear_home(), (other.id, 0));
}
