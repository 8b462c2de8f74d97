//! What one client asks, the worker does: memory, copies, streams, events, staging.

mod worker_support;

use std::time::{Duration, Instant};
use torpor_proto::command::{
    ContextSynchronize, CopyStrided, EventCreate, EventDestroy, EventElapsed, EventQuery, EventRecord,
    EventSynchronize, Fill, HostLock, HostUnlock, LimitRaise, MemoryFree, MemoryInfo, Ping, StreamCreate,
    StreamDestroy, StreamQuery, StreamSynchronize, StreamWaitEvent,
};
use torpor_proto::control::worker::Begin;
use torpor_proto::control::worker::from_worker::Body as From;
use torpor_proto::error::CudaError;
use worker_support::{Client, LIMIT_BYTES, STAGING_BYTES, Worker};

const MIB: u64 = 1 << 20;

fn pattern(bytes: usize, seed: usize) -> Vec<u8> {
    (0..bytes).map(|index| (index * 7 + seed + (index >> 8)) as u8).collect()
}

fn fill(address: u64, width: u64, value: u32, element_bytes: u32) -> Fill {
    Fill { address, width, height: 1, value, element_bytes, ..Fill::default() }
}

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
    // A quarter of the 256 MiB that functions leave: 64 MiB beyond the heap of 8 MiB and the buffer of 1 MiB at the beginning.
    let begin = Begin { gpu_limit_bytes: 768 * MIB, ..Worker::begin_message() };
    let mut worker = Worker::start_told(&[("TORPOR_SIMGPU_MEMORY", "1GiB")], begin);
    let (mut greedy, mut other) = (worker.attach(0), worker.attach(1));
    let raise = |client: &mut Client, limit, value| client.ask(LimitRaise { value, limit, reserved: 0 });
    raise(&mut greedy, heap, 48 * MIB).unwrap();
    assert_eq!(raise(&mut greedy, printed, 41 * MIB), Err(CudaError::OUT_OF_MEMORY));
    assert_eq!(raise(&mut greedy, stack, 64 << 10), Err(CudaError::OUT_OF_MEMORY));
    raise(&mut greedy, printed, 11 * MIB).unwrap();
    // Heaps add up: 4 MiB are within what is left, 20 MiB are not.
    assert_eq!(raise(&mut other, heap, 20 * MIB), Err(CudaError::OUT_OF_MEMORY));
    raise(&mut other, heap, 4 * MIB).unwrap();
    raise(&mut other, printed, 11 * MIB).expect("the other's is large enough");
    for client in [&mut greedy, &mut other] {
        client.allocate(0, 2 * MIB).unwrap();
    }
}

#[test]
fn memory_is_cleared_written_read_and_given_back() {
    let mut worker = Worker::start();
    let mut client = worker.attach(0);
    client.ask(Ping {}).unwrap();
    let before = client.ask(MemoryInfo {}).unwrap();
    assert_eq!(before.total_bytes, LIMIT_BYTES);
    let address = client.allocate(0, 4 * MIB).unwrap();
    assert_eq!(before.free_bytes - client.ask(MemoryInfo {}).unwrap().free_bytes, 4 * MIB);
    assert_eq!(client.download(address, 3 * MIB as usize), vec![0; 3 * MIB as usize]);
    let data = pattern(3 * MIB as usize, 3);
    client.upload(address + 100, &data);
    assert_eq!(client.download(address + 100, data.len()), data);
    let usage = worker.usage();
    assert_eq!((usage.clients[0].client, usage.clients[0].memory_bytes), (client.id, 4 * MIB));
    assert_eq!(usage.clients[0].pinned_bytes, STAGING_BYTES);
    assert!(usage.clients[0].commands >= 6);
    client.post(MemoryFree { address }, &[]);
    client.settle().unwrap();
    assert_eq!(client.ask(MemoryInfo {}).unwrap(), before);
    client.allocate(0, 4 * MIB).unwrap();
    assert_eq!(
        client.download(address + 100, data.len()),
        vec![0; data.len()],
        "memory must come back cleared"
    );
}

#[test]
fn memory_outside_the_rules_is_refused() {
    let mut worker = Worker::start();
    let mut client = worker.attach(2);
    client.allocate(4 * MIB, 4 * MIB).unwrap();
    let arena_bytes = client.arena.bytes;
    for (offset, bytes, error) in [
        (0, MIB, CudaError::INVALID_VALUE),
        (MIB, 2 * MIB, CudaError::INVALID_VALUE),
        (0, 0, CudaError::INVALID_VALUE),
        (4 * MIB, 4 * MIB, CudaError::INVALID_VALUE),
        (2 * MIB, 4 * MIB, CudaError::INVALID_VALUE),
        (6 * MIB, 4 * MIB, CudaError::INVALID_VALUE),
        (arena_bytes, 2 * MIB, CudaError::INVALID_VALUE),
        (arena_bytes - 2 * MIB, 4 * MIB, CudaError::INVALID_VALUE),
        (0u64.wrapping_sub(2 * MIB), 2 * MIB, CudaError::INVALID_VALUE),
        (0, u64::MAX - 2 * MIB + 1, CudaError::INVALID_VALUE),
        (8 * MIB, LIMIT_BYTES, CudaError::OUT_OF_MEMORY),
    ] {
        let address = client.arena.address.wrapping_add(offset);
        let refused = client.ask(torpor_proto::command::MemoryAllocate { address, bytes });
        assert_eq!(refused, Err(error), "{offset:#x} {bytes:#x}");
    }
    client.allocate(8 * MIB, LIMIT_BYTES - 4 * MIB).unwrap();
    client.post(MemoryFree { address: client.arena.address + 6 * MIB }, &[]);
    assert_eq!(client.settle(), Err(CudaError::INVALID_VALUE));
    client.post(MemoryFree { address: client.arena.address + 4 * MIB }, &[]);
    client.settle().unwrap();
}

#[test]
fn copies_outside_what_is_the_client_s_are_refused() {
    let mut worker = Worker::start();
    let mut other = worker.attach(0);
    let theirs = other.allocate(0, 2 * MIB).unwrap();
    let secret = pattern(MIB as usize, 9);
    other.upload(theirs, &secret);
    let mut client = worker.attach(1);
    let ours = client.allocate(0, 2 * MIB).unwrap();
    let (staging, host_end) = (client.host.address, client.host.end());
    for (destination, source, bytes) in [
        (ours, theirs, 16),
        (theirs, ours, 16),
        (ours, other.host.address, 16),
        (ours + 2 * MIB - 8, staging, 16),
        (ours, staging, 2 * MIB + 1),
        (ours, staging, u64::MAX),
        (ours, u64::MAX, 16),
        (u64::MAX - 4, ours, 16),
        (staging + STAGING_BYTES - 8, ours, 16),
        (host_end - 16, ours, 16),
        (0, ours, 16),
    ] {
        client.copy(destination, source, bytes, 0);
        assert_eq!(client.settle(), Err(CudaError::INVALID_VALUE), "{destination:#x} {source:#x} {bytes:#x}");
    }
    client.copy(ours, staging, 16, 7);
    assert_eq!(client.settle(), Err(CudaError::INVALID_HANDLE));
    client.copy(0, 0, 0, 0);
    client.settle().unwrap();
    assert_eq!(other.download(theirs, secret.len()), secret);
}

#[test]
fn strided_copies_and_fills_move_boxes() {
    let mut worker = Worker::start();
    let mut client = worker.attach(0);
    let address = client.allocate(0, 4 * MIB).unwrap();
    let (width, height, depth) = (24, 5, 3);
    let source: Vec<u8> = pattern(32 * 6 * 3, 1);
    client.upload(address, &source);
    let staging = client.host.address;
    let mut strided = CopyStrided {
        destination: address + MIB,
        destination_pitch: 40,
        destination_height: 7,
        source: address,
        source_pitch: 32,
        source_height: 6,
        width_bytes: width,
        height,
        depth,
        stream: 0,
        reserved: 0,
    };
    client.post(strided, &[]);
    client.settle().unwrap();
    let copied = client.download(address + MIB, 40 * 7 * 3);
    let mut expected = vec![0; copied.len()];
    for slice in 0..depth as usize {
        for row in 0..height as usize {
            let (to, from) = ((slice * 7 + row) * 40, (slice * 6 + row) * 32);
            expected[to..to + 24].copy_from_slice(&source[from..from + 24]);
        }
    }
    assert_eq!(copied, expected);
    strided.source = staging;
    strided.destination = address + 2 * MIB;
    client.write_host(0, &source);
    client.post(strided, &[]);
    client.settle().unwrap();
    assert_eq!(client.download(address + 2 * MIB, 40 * 7 * 3), expected);
    for (pitch, rows, slices) in
        [(16, 5, 3), (40, 5, u64::MAX), (u64::MAX, 5, 3), (40, u64::MAX, 3), (MIB, 5, 3)]
    {
        let wrong = CopyStrided { destination_pitch: pitch, height: rows, depth: slices, ..strided };
        client.post(wrong, &[]);
        assert_eq!(client.settle(), Err(CudaError::INVALID_VALUE), "{pitch} {rows} {slices}");
    }
    client.post(fill(address, 10, 0x1234_5678, 4), &[]);
    client.post(fill(address + 40, 10, 0xabcd, 2), &[]);
    client.post(fill(address + 60, 10, 0xef, 1), &[]);
    let rows = Fill { pitch: 16, width: 3, height: 4, ..fill(address + 128, 0, 0x0102, 2) };
    client.post(rows, &[]);
    client.settle().unwrap();
    let filled = client.download(address, 256);
    assert_eq!(filled[..40], 0x1234_5678_u32.to_le_bytes().repeat(10));
    assert_eq!(filled[40..60], 0xabcd_u16.to_le_bytes().repeat(10));
    assert_eq!(filled[60..70], [0xef; 10]);
    for row in 0..4 {
        assert_eq!(filled[128 + row * 16..134 + row * 16], [2, 1, 2, 1, 2, 1]);
        assert_eq!(filled[134 + row * 16..144 + row * 16], source[134 + row * 16..144 + row * 16]);
    }
    for wrong in [
        fill(address, 1, 0, 3),
        fill(address + 1, 1, 0, 4),
        fill(address, u64::MAX / 2, 0, 4),
        Fill { pitch: 2, height: 2, ..fill(address, 1, 0, 4) },
        Fill { pitch: !3, height: u64::MAX, ..fill(address, 1, 0, 4) },
        fill(address + 4 * MIB, 1, 0, 1),
    ] {
        client.post(wrong, &[]);
        assert_eq!(client.settle(), Err(CudaError::INVALID_VALUE), "{wrong:?}");
    }
}

#[test]
fn host_memory_is_locked_used_and_given_back() {
    let mut worker = Worker::start();
    let mut client = worker.attach(0);
    let device = client.allocate(0, 16 * MIB).unwrap();
    let pinned = client.host.address + STAGING_BYTES;
    let offset = STAGING_BYTES;
    let data = pattern(8 * MIB as usize, 5);
    client.write_host(offset, &data);
    client.copy(device, pinned, 8 * MIB, 0);
    assert_eq!(client.settle(), Err(CudaError::INVALID_VALUE), "not locked yet");
    client.ask(HostLock { address: pinned, bytes: 8 * MIB }).unwrap();
    client.copy(device, pinned, 8 * MIB, 0);
    client.settle().unwrap();
    client.ask(HostLock { address: pinned + 8 * MIB, bytes: 8 * MIB }).unwrap();
    client.copy(pinned + 8 * MIB, device, 8 * MIB, 0);
    client.settle().unwrap();
    assert_eq!(client.read_host(offset + 8 * MIB, 8 * MIB as usize), data);
    client.copy(pinned + 8 * MIB, pinned, 4096, 0);
    client.settle().unwrap();
    assert_eq!(worker.usage().clients[0].pinned_bytes, STAGING_BYTES + 16 * MIB);
    for (address, bytes, error) in [
        (pinned, 4096, CudaError::HOST_MEMORY_ALREADY_REGISTERED),
        (pinned + 4 * MIB, 8 * MIB, CudaError::HOST_MEMORY_ALREADY_REGISTERED),
        (pinned - 4096, 4096, CudaError::INVALID_VALUE),
        (pinned + 16 * MIB + 1, 4096, CudaError::INVALID_VALUE),
        (pinned + 16 * MIB, 4095, CudaError::INVALID_VALUE),
        (pinned + 16 * MIB, 0, CudaError::INVALID_VALUE),
        (pinned + 16 * MIB, 1 << 40, CudaError::INVALID_VALUE),
        (device, 4096, CudaError::INVALID_VALUE),
    ] {
        assert_eq!(client.ask(HostLock { address, bytes }), Err(error), "{address:#x} {bytes:#x}");
    }
    let before = client.host_bytes_in_use();
    client.ask(HostUnlock { address: pinned }).unwrap();
    assert_eq!(before - client.host_bytes_in_use(), 8 * MIB);
    assert_eq!(client.ask(HostUnlock { address: pinned }), Err(CudaError::HOST_MEMORY_NOT_REGISTERED));
    client.copy(device, pinned, 4096, 0);
    assert_eq!(client.settle(), Err(CudaError::INVALID_VALUE));
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
    let waiting = client.ask_later(ContextSynchronize {}, &[]);
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
