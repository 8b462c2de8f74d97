//! Words that streams write: when, where, and for whom not.

mod worker_support;

use std::time::{Duration, Instant};
use torpor_proto::command::{
    GraphAppend, GraphInstantiate, GraphLaunch, HostLock, HostUnlock, MemoryFree, StreamCreate,
    StreamSynchronize, WordWrite,
};
use torpor_proto::error::CudaError;
use worker_support::kernels::{add_step_parameters, launch, record};
use worker_support::{Client, STAGING_BYTES, Worker};

const MIB: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(30);

fn narrow(address: u64, value: u32, stream: u32) -> WordWrite {
    WordWrite { address, value: value.into(), stream, bytes: 4 }
}

fn wide(address: u64, value: u64, stream: u32) -> WordWrite {
    WordWrite { address, value, stream, bytes: 8 }
}

/// A client with kernels, two streams, a segment, and a page of page-locked memory.
fn client(worker: &mut Worker) -> (Client, u64, u64) {
    let mut client = worker.attach(0);
    client.load_kernels();
    for stream in [1, 2] {
        client.post(StreamCreate { stream, flags: 1, ..StreamCreate::default() }, &[]);
    }
    let device = client.allocate(0, 4 * MIB).unwrap();
    let host = client.host.address + STAGING_BYTES;
    client.ask(HostLock { address: host, bytes: 4096 }).unwrap();
    (client, device, host)
}

/// Whether the program sees a word of its page-locked memory become this, without asking anybody.
fn comes(client: &Client, offset: u64, value: u32) -> bool {
    let began = Instant::now();
    while client.read_host(STAGING_BYTES + offset, 4) != value.to_le_bytes() {
        if began.elapsed() > PATIENCE {
            return false;
        }
        std::thread::yield_now();
    }
    true
}

#[test]
fn words_are_written_in_the_order_of_a_stream() {
    let mut worker = Worker::start();
    let (mut client, device, host) = client(&mut worker);
    client.post(narrow(device + 4, 5, 1), &[]);
    client.add_step(device, 2, 1);
    client.post(wide(device + 8, 7 << 32 | 6, 1), &[]);
    client.ask(StreamSynchronize { stream: 1, reserved: 0 }).unwrap();
    assert_eq!(client.words(device, 5), [3, 8, 6, 7, 0]);
    client.post(wide(host + 64, 9 << 32 | 8, 1), &[]);
    client.post(narrow(host, 1, 1), &[]);
    assert!(comes(&client, 0, 1));
    assert_eq!(client.read_host(STAGING_BYTES + 64, 8), (9_u64 << 32 | 8).to_le_bytes());
    client.settle().unwrap();
}

#[test]
fn a_kernel_waits_for_a_word_that_another_stream_writes() {
    let mut worker = Worker::start();
    let (mut client, device, host) = client(&mut worker);
    client.launch_at(2, host, 1);
    client.add_step(device, 1, 1);
    client.post(narrow(host + 8, 3, 1), &[]);
    client.post(narrow(device + 8, 4, 2), &[]);
    client.ask(StreamSynchronize { stream: 2, reserved: 0 }).unwrap();
    assert_eq!(client.read_host(STAGING_BYTES + 8, 4), [0; 4], "the kernel is still there");
    client.post(narrow(host, 1, 2), &[]);
    assert!(comes(&client, 8, 3));
    client.settle().unwrap();
    assert_eq!(client.words(device, 3), [3, 0, 4]);
}

#[test]
fn a_graph_writes_words_at_each_launch() {
    let mut worker = Worker::start();
    let (mut client, device, host) = client(&mut worker);
    let parameters = add_step_parameters(device, 1);
    let mut words = Vec::new();
    record(&mut words, narrow(device, 10, 0), &[]);
    record(&mut words, launch(1, 0, 1, 16, parameters.len()), &parameters);
    record(&mut words, wide(host, 2, 0), &[]);
    client.post(GraphAppend { graph: 1, reserved: 0 }, bytemuck::cast_slice(&words));
    client.ask(GraphInstantiate { graph: 1, reserved: 0, flags: 0 }).unwrap();
    assert_eq!(client.read_host(STAGING_BYTES, 4), [0; 4], "nothing is written while it is recorded");
    for _ in 0..2 {
        client.post(GraphLaunch { graph: 1, stream: 1 }, &[]);
        assert!(comes(&client, 0, 2));
        client.settle().unwrap();
        assert_eq!(client.words(device, 1), [13]);
        client.write_host(STAGING_BYTES, &[0; 4]);
    }
    let mut wrong = Vec::new();
    record(&mut wrong, narrow(device + 2, 10, 0), &[]);
    client.post(GraphAppend { graph: 2, reserved: 0 }, bytemuck::cast_slice(&wrong));
    let refused = client.ask(GraphInstantiate { graph: 2, reserved: 0, flags: 0 });
    assert_eq!(refused, Err(CudaError::INVALID_VALUE));
}

#[test]
fn nobody_writes_words_where_he_may_not() {
    let mut worker = Worker::start();
    let mut victim = worker.attach(1);
    let theirs = victim.allocate(0, 2 * MIB).unwrap();
    victim.ask(HostLock { address: victim.host.address + STAGING_BYTES, bytes: 4096 }).unwrap();
    let (mut liar, device, host) = client(&mut worker);
    let freed = liar.allocate(4 * MIB, 2 * MIB).unwrap();
    liar.post(MemoryFree { address: freed }, &[]);
    let invalid = [
        narrow(device + 2, 1, 1),
        wide(device + 4, 1, 1),
        wide(device + 4 * MIB - 4, 1, 1),
        WordWrite { bytes: 0, ..narrow(device, 1, 1) },
        WordWrite { bytes: 2, ..narrow(device, 1, 1) },
        WordWrite { bytes: 16, ..narrow(device, 1, 1) },
        WordWrite { value: 1 << 32, ..narrow(device, 1, 1) },
        narrow(freed, 1, 1),
        narrow(0, 1, 1),
        wide(u64::MAX - 7, 1, 1),
        narrow(theirs, 1, 1),
        narrow(victim.host.address + STAGING_BYTES, 1, 1),
        narrow(host + 4096, 1, 1),
    ];
    for wrong in invalid {
        liar.post(wrong, &[]);
        assert_eq!(liar.settle(), Err(CudaError::INVALID_VALUE), "{wrong:?}");
    }
    liar.post(narrow(device, 1, 77), &[]);
    assert_eq!(liar.settle(), Err(CudaError::INVALID_HANDLE));
    liar.ask(HostUnlock { address: host }).unwrap();
    liar.post(narrow(host, 1, 1), &[]);
    assert_eq!(liar.settle(), Err(CudaError::INVALID_VALUE), "not locked any more");
    assert_eq!(victim.words(theirs, 2), [0, 0]);
    assert_eq!(victim.read_host(STAGING_BYTES, 8), [0; 8]);
    assert_eq!(liar.words(device, 2), [0, 0]);
}
