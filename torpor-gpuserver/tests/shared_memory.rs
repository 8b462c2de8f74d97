//! Memory that processes of one function have together: all see one allocation, which comes and leaves once, and lives until the
//! last of them has done with it.

mod served;
mod server_support;
mod sharing;
mod worker_support;

use server_support::server::{Server, eventually};
use sharing::{HOMES, Process, VIEWS};
use std::time::Duration;
use torpor_proto::command::{
    EventCreate, EventExport, EventImport, EventQuery, EventRecord, EventSynchronize, Fill, MemoryAllocate,
    MemoryFree, MemoryImport, ObjectCreate, ObjectMap, ObjectRelease, ObjectUnmap, Ping, StreamWaitEvent,
};
use torpor_proto::control::admin::{LoadFunctionRequest, ReportStoreRequest};
use torpor_proto::error::CudaError;

const MIB: u64 = 1 << 20;

/// A server with one simulated GPU, on which functions may have 32 MiB.
fn start() -> Server {
    start_on("0")
}

fn start_on(gpus: &str) -> Server {
    served::serve_by(
        "--pinned-limit 16MiB --staging 4MiB --gpu-limit 32MiB --host-pool 64MiB --host-slab 16MiB --log debug",
        |command| {
            command.args(["--gpus", gpus]);
            command.env("TORPOR_SIMGPU_DEVICES", "2");
        },
    )
}

/// Two processes of a function with memory that the first allocated, where each has it.
fn two(server: &Server, bytes: u64) -> (Process, u64, Process, u64) {
    let (mut one, mut other) = (Process::start(server, "f"), Process::start(server, "f"));
    let address = one.client.allocate(0, bytes).unwrap();
    let secret = one.export(address).unwrap();
    let there = other.open(0, bytes, secret).unwrap();
    (one, address, other, there)
}

fn used_slots(server: &Server) -> u64 {
    let report = server.admin(async |mut api| api.report_store(ReportStoreRequest::default()).await);
    report.unwrap().used_bytes / (2 * MIB)
}

#[test]
fn two_processes_see_one_allocation_that_counts_once() {
    let server = start();
    let (mut one, address, mut other, there) = two(&server, 4 * MIB);
    one.client.upload(address + 3 * MIB, &[7; 500]);
    assert_eq!(other.client.download(there + 3 * MIB, 500), [7; 500]);
    other.client.add_step(there, 100, 0);
    other.client.settle().unwrap();
    assert_eq!(one.client.words(address, 101), [vec![3; 100], vec![0]].concat());
    let function = server.listed("f");
    assert_eq!((function.allocated_bytes, function.resident_bytes), (4 * MIB, 4 * MIB));
    assert_eq!(one.export(address), one.export(address), "the same memory has the same secret");
}

#[test]
fn memory_leaves_with_the_last_process_and_comes_back_for_all() {
    let server = start();
    let (mut one, address, mut other, there) = two(&server, 4 * MIB);
    one.client.upload(address, &[5; 1000]);
    other.client.upload(there + 2 * MIB, &[6; 1000]);
    server.unload("f");
    let unloaded = server.listed("f");
    assert_eq!(
        (unloaded.resident_bytes, unloaded.allocated_bytes, unloaded.host_bytes),
        (0, 4 * MIB, 4 * MIB)
    );
    assert_eq!(used_slots(&server), 2, "what two processes have is saved once");
    assert_eq!(other.client.download(there, 1000), [5; 1000]);
    other.client.upload(there, &[9; 1000]);
    assert_eq!(server.listed("f").resident_bytes, 4 * MIB);
    assert_eq!(one.client.download(address, 1000), [9; 1000], "not as it was saved");
    server.unload("f");
    assert_eq!(one.client.download(address + 2 * MIB, 1000), [6; 1000]);
    assert_eq!(other.client.download(there, 1000), [9; 1000]);
    assert_eq!(used_slots(&server), 2);
    assert_eq!(server.listed("f").swaps, 2, "each time for the one that came first");
}

#[test]
fn memory_stays_while_any_process_that_has_it_is_active() {
    let server = start();
    let (mut one, address, mut other, there) = two(&server, 4 * MIB);
    let own = one.client.allocate(64 * MIB, 10 * MIB).unwrap();
    one.client.upload(own, &[1; 100]);
    one.client.upload(address, &[2; 100]);
    other.client.add_step(there + 2 * MIB, 4, 0);
    other.client.spin();
    eventually("the other process is active", || server.listed("f").state == "active");
    let mut third = Process::start(&server, "g");
    let wanted = third.client.allocate(0, 20 * MIB).unwrap();
    third.client.upload(wanted, &[3; 100]);
    assert_eq!(server.listed("f").resident_bytes, 4 * MIB, "what the first process has alone has left");
    other.client.stop_spinning();
    assert_eq!(other.client.words(there + 2 * MIB, 4), [3; 4]);
    assert_eq!(one.client.download(own, 100), [1; 100]);
    assert_eq!(one.client.download(address, 100), [2; 100]);
    assert_eq!(third.client.download(wanted, 100), [3; 100]);
}

#[test]
fn memory_lives_until_the_last_process_gives_it_up() {
    let server = start();
    let (mut one, address, mut other, there) = two(&server, 4 * MIB);
    one.client.upload(address, &[5; 1000]);
    one.free(address);
    assert_eq!(other.client.download(there, 1000), [5; 1000]);
    // The addresses are free again, and have other memory.
    one.client.ask(MemoryAllocate { address, bytes: 4 * MIB }).unwrap();
    one.client.upload(address, &[6; 1000]);
    assert_eq!(other.client.download(there, 1000), [5; 1000]);
    one.free(address);
    eventually("it counts as the other's", || server.listed("f").allocated_bytes == 4 * MIB);
    server.unload("f");
    assert_eq!(other.client.download(there, 1000), [5; 1000]);
    other.close(0);
    let function = server.listed("f");
    assert_eq!((function.allocated_bytes, function.resident_bytes, used_slots(&server)), (0, 0, 0));
}

#[test]
fn a_process_that_is_killed_takes_nothing_from_the_others_and_leaves_nothing() {
    let server = start();
    for is_absent in [false, true] {
        for kills_exporter in [false, true] {
            let (mut one, address, mut other, there) = two(&server, 4 * MIB);
            one.client.upload(address, &[5; 1000]);
            other.client.upload(there + 2 * MIB, &[6; 1000]);
            if is_absent {
                server.unload("f");
            }
            let (killed, mut left, at) =
                if kills_exporter { (one, other, there) } else { (other, one, address) };
            killed.kill(&server);
            for _ in 0..2 {
                assert_eq!(left.client.download(at, 1000), [5; 1000]);
                assert_eq!(left.client.download(at + 2 * MIB, 1000), [6; 1000]);
                server.unload("f");
            }
            left.kill(&server);
            eventually("nothing is left", || used_slots(&server) == 0);
            assert_eq!(server.listed("f").resident_bytes, 0);
        }
    }
}

#[test]
fn objects_are_shared_before_they_are_mapped_and_outlive_who_made_them() {
    let server = start();
    let (mut one, mut other) = (Process::start(&server, "f"), Process::start(&server, "f"));
    let home = one.client.arena.address + HOMES;
    // Whatever was in it before is not seen.
    let dirty = one.client.allocate(0, 4 * MIB).unwrap();
    one.client.upload(dirty, &[1; 4 * MIB as usize]);
    one.free(dirty);
    one.client.ask(ObjectCreate { home, bytes: 4 * MIB }).unwrap();
    let secret = one.export(home).unwrap();
    let there = other.open(3, 4 * MIB, secret).unwrap();
    assert!(other.client.download(there, 4 * MIB as usize).iter().all(|&byte| byte == 0));
    other.client.upload(there, &[8; 100]);
    let here = one.map(home).unwrap();
    assert_eq!(one.client.download(here, 100), [8; 100]);
    one.kill(&server);
    let mut third = Process::start(&server, "f");
    let again = third.open(1, 4 * MIB, secret).unwrap();
    other.kill(&server);
    server.unload("f");
    assert_eq!(third.client.download(again, 100), [8; 100]);
    third.close(1);
    assert_eq!((third.open(2, 4 * MIB, secret), used_slots(&server)), (Err(CudaError::INVALID_VALUE), 0));
}

#[test]
fn what_is_mapped_nowhere_leaves_with_the_rest_and_comes_back_when_it_is_mapped() {
    let server = start();
    let (mut one, address, mut other, there) = two(&server, 4 * MIB);
    other.client.upload(there, &[8; 100]);
    other.client.post(ObjectUnmap { address: there }, &[]);
    other.client.settle().unwrap();
    server.unload("f");
    other.client.allocate(0, 2 * MIB).unwrap();
    assert_eq!(server.listed("f").resident_bytes, 2 * MIB);
    let home = there - VIEWS + HOMES;
    other.map(home).unwrap();
    let alias = other.client.arena.address + VIEWS + 512 * MIB;
    other.client.ask(ObjectMap { home, address: alias }).unwrap();
    assert_eq!(other.client.download(alias, 100), [8; 100]);
    assert_eq!(one.client.download(address, 100), [8; 100]);
}

#[test]
fn a_stranger_has_nothing_of_it() {
    let server = start();
    let (mut one, address, mut other, there) = two(&server, 4 * MIB);
    let secret = one.export(address).unwrap();
    let invalid = Err(CudaError::INVALID_VALUE);
    let mut stranger = Process::start(&server, "g");
    assert_eq!(stranger.open(0, 4 * MIB, secret), invalid, "a secret is good in its function");
    let mut third = Process::start(&server, "f");
    for guess in [[secret[0], secret[1] ^ 1], [secret[1], secret[0]], [0; 2], [u64::MAX; 2]] {
        assert_eq!(third.open(0, 4 * MIB, guess), invalid, "{guess:x?}");
    }
    for bytes in [0, 2 * MIB, 6 * MIB, u64::MAX] {
        assert_eq!(third.open(0, bytes, secret), invalid, "{bytes}");
    }
    let arena = third.client.arena;
    for home in [0, 1, arena.address + 1, arena.end() - 2 * MIB, arena.address - 4 * MIB, there, address] {
        let import = MemoryImport { home, bytes: 4 * MIB, secret, exporter: 0 };
        assert_eq!(third.client.ask(import), Err(CudaError::INVALID_VALUE), "{home:#x}");
    }
    assert_eq!(one.open(0, 4 * MIB, secret), invalid, "the exporter has it");
    assert_eq!(other.open(1, 4 * MIB, secret), invalid, "it has it already");
    for home in [0, address + 2 * MIB, there, u64::MAX] {
        assert_eq!(one.export(home), Err(CudaError::INVALID_VALUE), "{home:#x}");
    }
    other.client.upload(there, &[4; 100]);
    assert_eq!(one.client.download(address, 100), [4; 100], "nobody was harmed");
    one.free(address);
    assert_eq!(third.open(0, 4 * MIB, secret), invalid, "it was freed");
    assert_eq!(other.client.download(there, 100), [4; 100]);
}

#[test]
fn an_importer_reaches_what_it_has_mapped_and_only_as_long_as_it_has() {
    let server = start();
    let (mut one, address, mut other, there) = two(&server, 4 * MIB);
    let invalid = Err(CudaError::INVALID_VALUE);
    let fill = |address, width| Fill { address, width, height: 1, element_bytes: 1, ..Fill::default() };
    let home = there - VIEWS + HOMES;
    for (at, bytes) in [(address, 1), (home, 1), (there + 4 * MIB - 1, 2), (there - 1, 2)] {
        assert_eq!(other.posted(|client| client.post(fill(at, bytes), &[])), invalid, "{at:#x}");
    }
    for address in [home, there] {
        assert_eq!(other.posted(|client| client.post(MemoryFree { address }, &[])), invalid);
    }
    assert_eq!(other.posted(|client| client.post(ObjectRelease { home }, &[])), invalid, "it is mapped");
    other.close(0);
    assert_eq!(other.posted(|client| client.post(fill(there, 1), &[])), invalid);
    assert_eq!(other.posted(|client| client.post(ObjectUnmap { address: there }, &[])), invalid, "twice");
    assert_eq!(other.posted(|client| client.post(ObjectRelease { home }, &[])), invalid, "twice");
    one.client.upload(address, &[4; 100]);
    let secret = one.export(address).unwrap();
    let again = other.open(0, 4 * MIB, secret).unwrap();
    assert_eq!(other.client.download(again, 100), [4; 100]);
}

/// Processes of a function that were placed on different GPUs.
fn apart(server: &Server) -> (Process, Process) {
    let (one, other) = (Process::start(server, "f"), Process::start(server, "f"));
    assert_ne!(one.gpu(server), other.gpu(server));
    (one, other)
}

#[test]
fn who_imports_memory_of_another_gpu_goes_there_and_both_stay() {
    let server = start_on("0,1");
    let (mut one, mut other) = apart(&server);
    let own = other.client.allocate(0, 2 * MIB).unwrap();
    other.client.upload(own, &[1; 100]);
    let address = one.client.allocate(0, 4 * MIB).unwrap();
    one.client.upload(address, &[5; 100]);
    let secret = one.export(address).unwrap();
    let there = other.open_of(4 * MIB, secret, &one).unwrap();
    assert_eq!(other.client.download(there, 100), [5; 100]);
    assert_eq!(other.client.download(own, 100), [1; 100]);
    assert_eq!(one.gpu(&server), other.gpu(&server));
    assert_eq!(server.listed("f").sharing_clients, 2);
    let elsewhere = Some(1 - one.gpu(&server));
    let load = |server: &Server| {
        let request = LoadFunctionRequest { name: "f".to_owned(), gpu: elsewhere };
        server.admin(async |mut api| api.load_function(request).await)
    };
    let refused = load(&server).unwrap_err().to_string();
    assert!(refused.contains("shares memory or events with another process"), "{refused}");
    other.close(0);
    assert_eq!(server.listed("f").sharing_clients, 0);
    load(&server).unwrap();
    // What was exported before is what it was.
    let again = other.open_of(4 * MIB, secret, &one).unwrap();
    assert_eq!(other.client.download(again, 100), [5; 100]);
}

#[test]
fn who_cannot_go_is_come_to() {
    let server = start_on("0,1");
    let (mut one, mut other) = apart(&server);
    let address = one.client.allocate(0, 4 * MIB).unwrap();
    one.client.upload(address, &[5; 100]);
    let secret = one.export(address).unwrap();
    // It shares memory with a third one, so it stays.
    let theirs = other.client.allocate(0, 2 * MIB).unwrap();
    let their_secret = other.export(theirs).unwrap();
    let mut third = Process::start(&server, "f");
    third.open_of(2 * MIB, their_secret, &other).unwrap();
    let stays = other.gpu(&server);
    let there = other.open_of(4 * MIB, secret, &one).unwrap();
    assert_eq!(other.client.download(there, 100), [5; 100]);
    assert_eq!([one.gpu(&server), other.gpu(&server), third.gpu(&server)], [stays; 3]);
}

#[test]
fn who_seeks_what_nobody_has_is_told() {
    let server = start_on("0,1");
    let (mut one, mut other) = apart(&server);
    let address = one.client.allocate(0, 4 * MIB).unwrap();
    let secret = one.export(address).unwrap();
    let mut stranger = Process::start(&server, "g");
    let invalid = Err(CudaError::INVALID_VALUE);
    let wrong = [secret[0], !secret[1]];
    let here = stranger.gpu(&server);
    assert_eq!(stranger.import(0, 4 * MIB, secret, one.client.id), invalid);
    assert_eq!(stranger.gpu(&server), here, "it is not moved to another function's process");
    assert_eq!(other.import(0, 4 * MIB, wrong, one.client.id), invalid);
    for exporter in [0, other.client.id, stranger.client.id, u64::MAX] {
        assert_eq!(other.import(0, 4 * MIB, wrong, exporter), invalid, "{exporter}");
    }
    let id = one.client.id;
    one.kill(&server);
    // It is no client any more before its worker is done with what it had, and who comes meanwhile has that.
    eventually("nobody has it", || match other.import(0, 4 * MIB, secret, id) {
        Ok(home) => {
            other.posted(|client| client.post(ObjectRelease { home }, &[])).unwrap();
            false
        }
        refused => refused == invalid,
    });
}

#[test]
fn who_seeks_what_is_on_its_way_waits_for_it() {
    let server = start_on("0,1");
    let (mut one, mut other) = apart(&server);
    let address = one.client.allocate(0, 4 * MIB).unwrap();
    let secret = one.export(address).unwrap();
    let exporter = one.client.id;
    for round in 0..40 {
        let request = LoadFunctionRequest { name: "f".to_owned(), gpu: Some(1 - one.gpu(&server)) };
        let home = std::thread::scope(|scope| {
            // Both go, one after the other; it is refused if they have memory together before that.
            scope.spawn(|| server.admin(async |mut api| api.load_function(request).await));
            // At every point of that, over the rounds.
            std::thread::sleep(Duration::from_micros(500) * round);
            other.import(0, 4 * MIB, secret, exporter).unwrap()
        });
        other.posted(|client| client.post(ObjectRelease { home }, &[])).unwrap();
    }
}

#[test]
fn events_are_waited_for_in_another_process() {
    let server = start_on("0,1");
    let (mut one, mut other) = apart(&server);
    let event = |event| EventCreate { event, flags: 4 | 2 };
    one.client.post(event(7), &[]);
    let secret = one.client.ask(EventExport { event: 7, reserved: 0 }).unwrap().secret;
    let exporter = one.client.id;
    let import = |event, secret| EventImport { event, reserved: 0, secret, exporter };
    let invalid = Err(CudaError::INVALID_VALUE);
    assert_eq!(other.client.ask(import(3, [secret[1], secret[0]])), invalid);
    other.client.ask(import(3, secret)).unwrap();
    assert_eq!(other.client.ask(import(3, secret)), invalid, "the number is taken");
    assert_eq!(Process::start(&server, "g").client.ask(import(3, secret)), invalid);
    one.client.post(EventCreate { event: 8, flags: 2 }, &[]);
    let not_for_others = one.client.ask(EventExport { event: 8, reserved: 0 });
    assert_eq!(not_for_others, Err(CudaError::INVALID_HANDLE));
    let query = EventQuery { event: 3, reserved: 0 };
    other.client.ask(query).unwrap();
    one.client.spin();
    one.client.post(EventRecord { event: 7, ..EventRecord::default() }, &[]);
    one.client.ask(Ping {}).unwrap();
    assert_eq!(other.client.ask(query), Err(CudaError::NOT_READY));
    let own = other.client.allocate(0, 2 * MIB).unwrap();
    other.client.post(StreamWaitEvent { event: 3, ..StreamWaitEvent::default() }, &[]);
    other.client.add_step(own, 4, 0);
    let synchronized = other.client.ask_later(EventSynchronize { event: 3, reserved: 0 }, &[]);
    other.client.ask(Ping {}).unwrap();
    assert!(!other.client.is_answered(synchronized));
    one.client.stop_spinning();
    other.client.await_slot(synchronized).unwrap();
    assert_eq!(other.client.words(own, 4), [3; 4]);
    one.kill(&server);
    other.client.ask(query).unwrap();
}
