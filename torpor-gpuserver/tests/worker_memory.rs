//! A worker's memory: given, cleared, written, read, copied, page-locked, and refused.

mod worker_support;

use std::time::{Duration, Instant};
use torpor_proto::command::{CopyStrided, Fill, HostLock, HostUnlock, MemoryFree, MemoryInfo, Ping};
use torpor_proto::control::worker::Begin;
use torpor_proto::error::CudaError;
use worker_support::contents::{fill, pattern};
use worker_support::{LIMIT_BYTES, STAGING_BYTES, Worker};

const MIB: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(30);

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
fn who_asks_for_nothing_for_long_has_no_staging_until_it_copies_again() {
    let begin = Begin { staging_idle_us: 20_000, ..Worker::begin_message() };
    let mut worker = Worker::start_told(&[], begin);
    let mut client = worker.attach(0);
    let channel = client.second_channel();
    let (address, data) = (client.allocate(0, 4 * MIB).unwrap(), pattern(3 * MIB as usize, 5));
    for _ in 0..2 {
        let copying = channel.staging().begin_copy();
        while channel.staging().is_vacating() {
            std::thread::yield_now();
        }
        client.upload(address, &data);
        assert_eq!(client.download(address, data.len()), data);
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(worker.usage().clients[0].pinned_bytes, STAGING_BYTES, "it is in the middle of a copy");
        drop(copying);
        let began = Instant::now();
        while worker.usage().clients[0].pinned_bytes > 0 {
            assert!(began.elapsed() < PATIENCE, "its staging stays");
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(client.host_bytes_in_use(), 0);
    }
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
