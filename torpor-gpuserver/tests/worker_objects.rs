//! Memory objects: what a client may do with them, and what it may not.

mod worker_support;

use torpor_proto::command::{
    Fill, HostLock, MemoryAllocate, MemoryFree, ObjectCreate, ObjectMap, ObjectRelease, ObjectUnmap,
    StreamCreate,
};
use torpor_proto::error::CudaError;
use worker_support::{Client, LIMIT_BYTES, STAGING_BYTES, Worker};

const MIB: u64 = 1 << 20;

/// Homes lie far from where objects are mapped.
const HOMES: u64 = 1 << 32;

fn create(client: &mut Client, number: u64, bytes: u64) -> Result<u64, CudaError> {
    let home = client.arena.address + HOMES + number * 64 * MIB;
    client.ask(ObjectCreate { home, bytes }).map(|()| home)
}

fn map(client: &mut Client, home: u64, offset: u64) -> Result<u64, CudaError> {
    let address = client.arena.address + offset;
    client.ask(ObjectMap { home, address }).map(|()| address)
}

/// What becomes of a posted command.
fn posted(client: &mut Client, post: impl FnOnce(&mut Client)) -> Result<(), CudaError> {
    post(client);
    client.settle()
}

#[test]
fn an_object_is_reached_at_its_views_alone() {
    let mut worker = Worker::start();
    let mut client = worker.attach(0);
    let home = create(&mut client, 0, 4 * MIB).unwrap();
    let copies = |client: &mut Client, address: u64, bytes: u64| {
        posted(client, |client| client.copy(client.host.address, address, bytes, 0))
    };
    assert_eq!(copies(&mut client, home, 8), Err(CudaError::INVALID_VALUE), "the home is none");
    let one = map(&mut client, home, 0).unwrap();
    let other = map(&mut client, home, 8 * MIB).unwrap();
    assert_eq!(client.download(one, 16), [0; 16]);
    client.upload(one + 3 * MIB, &[7; 100]);
    assert_eq!(client.download(other + 3 * MIB, 100), [7; 100]);
    // Side by side with another they are one range, and with an allocation they are not.
    let beside = create(&mut client, 1, 2 * MIB).unwrap();
    map(&mut client, beside, 4 * MIB).unwrap();
    client.allocate(6 * MIB, 2 * MIB).unwrap();
    client.upload(one + 4 * MIB - 8, &[9; 16]);
    assert_eq!(client.download(one + 4 * MIB - 8, 16), [9; 16]);
    assert_eq!(copies(&mut client, one + 6 * MIB - 8, 16), Err(CudaError::INVALID_VALUE));
    let fill =
        Fill { address: one, width: 6 * MIB, height: 1, value: 3, element_bytes: 1, ..Fill::default() };
    client.post(fill, &[]);
    assert_eq!(client.download(other + 4 * MIB - 4, 4), [3; 4]);
    client.post(ObjectUnmap { address: one }, &[]);
    assert_eq!(copies(&mut client, one, 8), Err(CudaError::INVALID_VALUE));
    assert_eq!(client.download(other, 4), [3; 4]);
    client.post(ObjectUnmap { address: other }, &[]);
    let again = map(&mut client, home, 64 * MIB).unwrap();
    assert_eq!(client.download(again + 4 * MIB - 4, 4), [3; 4], "mapped nowhere, it kept its contents");
}

#[test]
fn orders_that_make_no_sense_are_refused() {
    let mut worker = Worker::start();
    let mut client = worker.attach(0);
    let allocation = client.allocate(0, 2 * MIB).unwrap();
    let home = create(&mut client, 0, 4 * MIB).unwrap();
    let arena = client.arena;
    let invalid = Err(CudaError::INVALID_VALUE);
    for (home, bytes) in [
        (home, 4 * MIB),
        (home + 2 * MIB, 2 * MIB),
        (allocation, 2 * MIB),
        (arena.address + 16 * MIB, MIB),
        (arena.address + 16 * MIB + 1, 2 * MIB),
        (arena.address - 2 * MIB, 2 * MIB),
        (arena.end() - 2 * MIB, 2 * MIB),
        (arena.address + 16 * MIB, 0),
        (u64::MAX - 2 * MIB + 1, 2 * MIB),
    ] {
        assert_eq!(client.ask(ObjectCreate { home, bytes }), invalid, "{home:#x} {bytes:#x}");
    }
    assert_eq!(create(&mut client, 1, LIMIT_BYTES), Err(CudaError::OUT_OF_MEMORY));
    let address = map(&mut client, home, 32 * MIB).unwrap();
    for address in [
        address,
        address + 2 * MIB,
        address - 2 * MIB,
        allocation,
        allocation - 2 * MIB,
        home,
        arena.end() - 4 * MIB,
        arena.address + 64 * MIB + 1,
        u64::MAX - 4 * MIB + 1,
        0,
    ] {
        assert_eq!(client.ask(ObjectMap { home, address }), invalid, "{address:#x}");
    }
    let free = arena.address + 128 * MIB;
    for home in [allocation, home + 2 * MIB, address, 0, u64::MAX] {
        assert_eq!(client.ask(ObjectMap { home, address: free }), invalid, "{home:#x}");
        assert_eq!(posted(&mut client, |client| client.post(ObjectRelease { home }, &[])), invalid);
    }
    assert_eq!(
        posted(&mut client, |client| client.post(ObjectRelease { home }, &[])),
        invalid,
        "it is mapped"
    );
    for address in [home, allocation, address + 2 * MIB, 0] {
        assert_eq!(posted(&mut client, |client| client.post(ObjectUnmap { address }, &[])), invalid);
    }
    for address in [home, address] {
        assert_eq!(posted(&mut client, |client| client.post(MemoryFree { address }, &[])), invalid);
        assert_eq!(client.ask(MemoryAllocate { address, bytes: 2 * MIB }), invalid);
    }
    client.post(ObjectUnmap { address }, &[]);
    client.post(ObjectRelease { home }, &[]);
    client.settle().unwrap();
    client.ask(MemoryAllocate { address: home, bytes: 2 * MIB }).unwrap();
    assert_eq!(worker.usage().clients[0].allocated_bytes, 4 * MIB);
}

#[test]
fn an_object_that_is_not_cleared_yet_cannot_be_read() {
    let log = tempfile::NamedTempFile::new().unwrap();
    let path = log.path().to_str().unwrap();
    let mut worker =
        Worker::start_with(&[("TORPOR_SIMGPU_CHECKS", "unordered"), ("TORPOR_SIMGPU_LOG", path)]);
    let mut victim = worker.attach(0);
    let theirs = victim.allocate(0, 32 * MIB).unwrap();
    victim.upload(theirs + 31 * MIB, &[5; MIB as usize]);
    victim.post(MemoryFree { address: theirs }, &[]);
    victim.settle().unwrap();
    let mut client = worker.attach(1);
    client.post(StreamCreate { stream: 1, flags: 1, ..StreamCreate::default() }, &[]);
    let small = create(&mut client, 0, 2 * MIB).unwrap();
    let address = map(&mut client, small, 0).unwrap();
    client.copy(client.host.address, address, 64, 1);
    client.settle().unwrap();
    let large = create(&mut client, 1, 32 * MIB).unwrap();
    let pinned = client.host.address + STAGING_BYTES;
    client.ask(HostLock { address: pinned, bytes: 34 * MIB }).unwrap();
    // It does not wait for the answer, and names the neighbour.
    let mapped = client.ask_later(ObjectMap { home: large, address: address + 2 * MIB }, &[]);
    client.copy(pinned, address, 34 * MIB, 1);
    client.await_slot(mapped).unwrap();
    client.settle().unwrap();
    assert!(client.read_host(STAGING_BYTES, 34 << 20).iter().all(|&byte| byte == 0));
    let unordered = std::fs::read_to_string(log.path()).unwrap();
    assert!(!unordered.contains("check unordered"), "{unordered}");
}
