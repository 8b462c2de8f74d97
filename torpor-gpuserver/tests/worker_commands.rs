//! What one client asks, the worker does: memory, copies, streams, events, staging.

mod worker_support;

use std::time::{Duration, Instant};
use torpor_proto::command::{
    ContextSynchronize, EventCreate, EventDestroy, EventElapsed, EventQuery, EventRecord, EventSynchronize,
    Fill, LimitRaise, MemoryFree, Ping, StreamCreate, StreamDestroy, StreamQuery, StreamSynchronize,
    StreamWaitEvent,
};
use torpor_proto::control::worker::Begin;
use torpor_proto::control::worker::from_worker::Body as From;
use torpor_proto::error::CudaError;
use worker_support::contents::{fill, pattern};
use worker_support::{Client, Worker};

const MIB: u64 = 1 << 20;

#[test]
fn a_worker_describes_its_device_and_ends_with_its_server() {
    let mut worker = Worker::start();
    assert!(!worker.device.name.is_empty());
    assert_eq!(worker.device.uuid.len(), 16);
    assert!(worker.device.total_memory_bytes > 1 << 30);
    // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, CU_DEVICE_ATTRIBUTE_WARP_SIZE.
    assert!(worker.device.attributes[&75] >= 7);
    assert_eq!(worker.device.attributes[&10], 32);
    assert!(worker.device.least_stream_priority >= worker.device.greatest_stream_priority);
    assert!(worker.device.driver_version >= 12_000);
    let _client = worker.attach(0);
    assert_eq!(worker.end().code(), Some(0));
}

#[test]
fn a_driver_that_is_none_is_named() {
    for (driver, word) in [("/no/such/driver.so", "/no/such/driver.so"), ("libc.so.6", "cuInit")] {
        let reason = Worker::fail_to_start(Begin { driver: driver.into(), ..Worker::begin_message() });
        assert!(reason.contains(word), "{reason}");
    }
}

#[test]
fn a_way_that_this_release_does_not_know_is_named() {
    for begin in [
        Begin { swap: "guessed".to_owned(), ..Worker::begin_message() },
        Begin { eviction: "guessed".to_owned(), ..Worker::begin_message() },
        Begin { active_clients: "guessed".to_owned(), ..Worker::begin_message() },
    ] {
        let reason = Worker::fail_to_start(begin);
        assert!(reason.contains("guessed"), "{reason}");
    }
}

#[test]
fn what_limits_of_the_context_take_is_bounded_together_and_a_refusal_changes_nothing() {
    let [stack, printed, heap] = [0, 1, 2];
    // A quarter of the 256 MiB that functions leave is free: 64 MiB beyond the heap of 8 MiB and the buffer of 1 MiB at the beginning.
    // As much more can be taken of the 256 MiB that functions may have.
    let begin = Begin { gpu_limit_bytes: 256 * MIB, ..Worker::begin_message() };
    let mut worker = Worker::start_told(&[("TORPOR_SIMGPU_MEMORY", "512MiB")], begin);
    let (mut greedy, mut other) = (worker.attach(0), worker.attach(1));
    let raise = |client: &mut Client, limit, value| client.ask(LimitRaise { value, limit, reserved: 0 });
    raise(&mut greedy, heap, 48 * MIB).unwrap();
    assert_eq!(raise(&mut greedy, printed, 90 * MIB), Err(CudaError::OUT_OF_MEMORY));
    assert_eq!(raise(&mut greedy, stack, 64 << 10), Err(CudaError::OUT_OF_MEMORY));
    raise(&mut greedy, printed, 25 * MIB).unwrap();
    let all = other.allocate(0, 256 * MIB).expect("limits have taken what was free");
    assert_eq!(
        raise(&mut other, heap, 4 * MIB),
        Err(CudaError::OUT_OF_MEMORY),
        "heaps add up, and there is no room"
    );
    other.post(MemoryFree { address: all }, &[]);
    raise(&mut other, heap, 4 * MIB).unwrap();
    raise(&mut other, printed, 25 * MIB).expect("the other's is large enough");
    assert_eq!(other.allocate(0, 256 * MIB), Err(CudaError::OUT_OF_MEMORY));
    other.allocate(0, 252 * MIB).expect("what limits have not taken");
}

#[test]
fn streams_order_and_events_tell() {
    let mut worker = Worker::start();
    let mut client = worker.attach(0);
    let address = client.allocate(0, 64 * MIB).unwrap();
    for (stream, flags) in [(1, 1), (2, 0), (3, 0)] {
        client.post(StreamCreate { stream, flags, ..StreamCreate::default() }, &[]);
    }
    for event in 0..3 {
        client.post(EventCreate { event, flags: 0 }, &[]);
    }
    client.settle().unwrap();
    assert_eq!(client.ask(EventQuery { event: 0, reserved: 0 }), Ok(()), "never recorded");
    client.post(EventRecord { event: 0, stream: 1, ..EventRecord::default() }, &[]);
    client.post(Fill { stream: 1, ..fill(address, 32 * MIB, 7, 1) }, &[]);
    client.post(EventRecord { event: 1, stream: 1, ..EventRecord::default() }, &[]);
    client.post(StreamWaitEvent { stream: 2, event: 1, ..StreamWaitEvent::default() }, &[]);
    client.post(
        torpor_proto::command::Copy {
            destination: address + 32 * MIB,
            source: address,
            bytes: 32 * MIB,
            stream: 2,
            reserved: 0,
        },
        &[],
    );
    client.post(EventRecord { event: 2, stream: 2, ..EventRecord::default() }, &[]);
    client.ask(EventSynchronize { event: 2, reserved: 0 }).unwrap();
    assert_eq!(client.ask(EventQuery { event: 1, reserved: 0 }), Ok(()));
    let elapsed = client.ask(EventElapsed { start: 0, end: 2 }).unwrap();
    assert!(f32::from_bits(elapsed.milliseconds_bits) > 0.0);
    // The legacy stream and the blocking streams 2 and 3 wait for each other without being told.
    client.post(Fill { stream: 2, ..fill(address, 32 * MIB, 1, 1) }, &[]);
    client.copy(address + 32 * MIB, address, 32 * MIB, 0);
    client.post(Fill { stream: 3, ..fill(address, 32 * MIB, 2, 1) }, &[]);
    client.copy(client.host.address, address + 48 * MIB, 4096, 0);
    client.copy(client.host.address + 4096, address + 16 * MIB, 4096, 0);
    client.ask(StreamSynchronize { stream: 0, reserved: 0 }).unwrap();
    assert_eq!(client.read_host(0, 4096), vec![1; 4096]);
    assert_eq!(client.read_host(4096, 4096), vec![2; 4096]);
    assert_eq!(client.ask(StreamQuery { stream: 0, reserved: 0 }), Ok(()));
    client.post(StreamDestroy { stream: 2, reserved: 0 }, &[]);
    client.post(EventDestroy { event: 1, reserved: 0 }, &[]);
    client.settle().unwrap();
    assert_eq!(client.ask(StreamQuery { stream: 2, reserved: 0 }), Err(CudaError::INVALID_HANDLE));
    assert_eq!(client.ask(EventQuery { event: 1, reserved: 0 }), Err(CudaError::INVALID_HANDLE));
    assert_eq!(client.ask(EventElapsed { start: 0, end: 1 }), Err(CudaError::INVALID_HANDLE));
    for (stream, flags, error) in [
        (3, 0, CudaError::INVALID_VALUE),
        (0, 0, CudaError::INVALID_VALUE),
        (5, 2, CudaError::INVALID_VALUE),
        (4096, 0, CudaError::OUT_OF_MEMORY),
        (u32::MAX, 1, CudaError::OUT_OF_MEMORY),
    ] {
        client.post(StreamCreate { stream, flags, ..StreamCreate::default() }, &[]);
        assert_eq!(client.settle(), Err(error), "{stream} {flags}");
    }
    client.post(EventCreate { event: 1 << 20, flags: 0 }, &[]);
    assert_eq!(client.settle(), Err(CudaError::OUT_OF_MEMORY));
    for flags in [4, 8, u32::MAX] {
        client.post(EventCreate { event: 9, flags }, &[]);
        assert_eq!(client.settle(), Err(CudaError::INVALID_VALUE), "{flags}");
    }
}

#[test]
fn many_streams_come_and_go_under_the_same_number() {
    let mut worker = Worker::start();
    let mut client = worker.attach(0);
    let address = client.allocate(0, 2 * MIB).unwrap();
    for round in 0..300 {
        client.post(StreamCreate { stream: 1, flags: round % 2, ..StreamCreate::default() }, &[]);
        client.post(Fill { stream: 1, ..fill(address, MIB, round, 1) }, &[]);
        client.post(StreamDestroy { stream: 1, reserved: 0 }, &[]);
    }
    client.settle().unwrap();
    client.post(fill(address, MIB, 77, 1), &[]);
    assert_eq!(client.download(address + 1000, 2), [77, 77]);
}

#[test]
fn staging_is_released_in_order_and_only_when_copied() {
    let mut worker = Worker::start();
    let mut client = worker.attach(0);
    let address = client.allocate(0, 64 * MIB).unwrap();
    assert_eq!(client.channel.staging().released(), 0);
    let first = client.mark();
    client.settle().unwrap();
    assert_eq!(client.channel.staging().released(), first, "nothing to wait for");
    for round in 0..50 {
        let data = pattern(MIB as usize, round);
        client.write_host(0, &data);
        client.copy(address, client.host.address, MIB, 0);
        let mark = client.mark();
        let began = Instant::now();
        while client.channel.staging().released() < mark {
            assert!(began.elapsed() < Duration::from_secs(10), "the mark is never released");
            std::thread::yield_now();
        }
        // Released means copied: what is written over it now must not arrive.
        client.write_host(0, &[0xff; 4096]);
        client.copy(client.host.address + MIB, address, MIB, 0);
        client.settle().unwrap();
        assert_eq!(client.read_host(MIB, MIB as usize), data);
    }
}

#[test]
fn a_thread_of_the_client_waits_while_others_go_on() {
    let mut worker = Worker::start();
    let mut client = worker.attach(0);
    let address = client.allocate(0, 128 * MIB).unwrap();
    for _ in 0..20 {
        client.post(fill(address, 128 * MIB, 3, 1), &[]);
    }
    let waiting = client.ask_later(ContextSynchronize::ALL, &[]);
    client.ask(Ping {}).unwrap();
    client.await_slot(waiting).unwrap();
    assert_eq!(client.ask(StreamQuery { stream: 0, reserved: 0 }), Ok(()));
}

#[test]
fn attaching_is_refused_for_addresses_that_are_not_the_client_s() {
    use torpor_proto::channel::MappedChannel;
    use torpor_proto::control::worker::to_worker::Body as To;
    use torpor_proto::mapping::create_sealed;
    let mut worker = Worker::start();
    let client = worker.attach(0);
    let good = Worker::attach_message(1);
    let mut wrong = vec![
        torpor_proto::control::worker::Attach { arena_address: client.arena.address, ..good.clone() },
        torpor_proto::control::worker::Attach { arena_address: 0, ..good.clone() },
        torpor_proto::control::worker::Attach { arena_bytes: u64::MAX, ..good.clone() },
        torpor_proto::control::worker::Attach { host_address: 0x10_0000, ..good.clone() },
        torpor_proto::control::worker::Attach { staging_bytes: good.host_bytes * 2, ..good.clone() },
        torpor_proto::control::worker::Attach { host_bytes: 0, staging_bytes: 0, ..good.clone() },
        torpor_proto::control::worker::Attach { host_bytes: good.host_bytes - 4096, ..good.clone() },
        torpor_proto::control::worker::Attach { host_address: client.host.address, ..good.clone() },
    ];
    wrong.push(torpor_proto::control::worker::Attach { client: client.id, ..good.clone() });
    for attach in wrong {
        let (_channel, channel_file) = MappedChannel::create().unwrap();
        let host = create_sealed("host", worker_support::HOST_BYTES).unwrap();
        let id = attach.client;
        worker.tell(To::Attach(attach.clone()), &[channel_file, host]);
        match worker.hear() {
            From::ClientFault(fault) => assert_eq!(fault.client, id),
            other => panic!("{attach:?} gives {other:?}"),
        }
        if id != client.id {
            worker.detach(id);
        }
    }
    worker.tell(To::Attach(good.clone()), &[]);
    assert!(matches!(worker.hear(), From::ClientFault(_)), "no descriptors");
    let mut second = worker.attach(1);
    second.ask(Ping {}).unwrap();
}
