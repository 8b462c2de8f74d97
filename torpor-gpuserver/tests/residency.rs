//! What eviction keeps, what it copies, and what it leaves behind.

mod served;
mod server_support;
mod worker_support;

use served::{Attached, attach};
use server_support::follower::Follower;
use server_support::server::{Server, eventually};
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use torpor_proto::command::{ArrayCopy, ArrayCreate, CopyEnd, END_IN_ARRAY, END_IN_MEMORY, MemoryFree};
use torpor_proto::control::admin::{
    EnsureFunctionRequest, Function, LoadFunctionRequest, ReportStoreRequest, Terms, UnloadFunctionRequest,
};
use torpor_proto::error::CudaError;

const MIB: u64 = 1 << 20;

/// A server with one simulated GPU and these settings.
fn start(settings: &str) -> (Server, tempfile::NamedTempFile) {
    start_with(settings, "", &["--host-pool", "64MiB", "--host-slab", "16MiB"])
}

/// As [`start`], with a host pool of some size, and the simulated GPU has these faults.
fn start_with(settings: &str, faults: &str, pool: &[&str]) -> (Server, tempfile::NamedTempFile) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(settings.as_bytes()).unwrap();
    let server = served::serve_by("--gpus 0 --pinned-limit 8MiB --staging 4MiB --log debug", |command| {
        // What is saved ahead of time is not copied when it leaves.
        command.args(["--cover", "false"]).args(pool).arg("--config").arg(file.path());
        if !faults.is_empty() {
            command.env("TORPOR_SIMGPU_FAULTS", faults);
        }
    });
    (server, file)
}

fn function(server: &Server, name: &str) -> Function {
    server.functions().into_iter().find(|function| function.name == name).unwrap()
}

#[test]
fn an_evicted_function_has_nothing_on_the_gpu_and_everything_after() {
    let (server, _settings) = start("");
    // What measures takes memory of the GPU meanwhile.
    server.wait_until_measured();
    let Attached { mut client, lifeline: _lifeline } = attach(&server, "f");
    client.load_kernels();
    let free_before = server.gpus()[0].free_memory_bytes;
    let address = client.allocate(0, 4 * MIB).unwrap();
    client.upload(address + 100, &[7; 5000]);
    server.unload("f");
    let evicted = function(&server, "f");
    assert_eq!((evicted.resident_bytes, evicted.allocated_bytes, evicted.host_bytes), (0, 4 * MIB, 2 * MIB));
    assert_eq!(server.gpus()[0].free_memory_bytes, free_before, "nothing is left, not even for the next one");
    client.add_step(address + 2 * MIB, 4, 0);
    assert_eq!(client.download(address + 100, 5000), [7; 5000]);
    assert_eq!(client.words(address + 2 * MIB, 5), [3, 3, 3, 3, 0]);
    let back = function(&server, "f");
    assert_eq!((back.resident_bytes, back.swaps), (4 * MIB, 1));
}

#[test]
fn of_an_evicted_function_the_arrays_leave_too() {
    let (server, _settings) = start("");
    let Attached { mut client, lifeline: _lifeline } = attach(&server, "f");
    client.load_kernels();
    let address = client.allocate(0, 4 * MIB).unwrap();
    client.upload(address, &[7; 1024]);
    let array =
        ArrayCreate { array: 1, format: 1, channels: 1, width: 1024, height: 1024, ..Default::default() };
    client.ask(array).unwrap();
    let array = CopyEnd { place: END_IN_ARRAY, array: 1, y: 1000, ..CopyEnd::default() };
    let memory = CopyEnd { place: END_IN_MEMORY, address, pitch: 1024, height: 1, ..CopyEnd::default() };
    let row = |destination, source| ArrayCopy {
        destination,
        source,
        width_bytes: 1024,
        height: 1,
        depth: 1,
        ..ArrayCopy::default()
    };
    client.post(row(array, memory), &[]);
    client.settle().unwrap();
    server.unload("f");
    let evicted = function(&server, "f");
    assert_eq!((evicted.resident_bytes, evicted.allocated_bytes, evicted.array_bytes), (0, 5 * MIB, MIB));
    let other = CopyEnd { address: address + 2 * MIB, ..memory };
    client.post(row(other, array), &[]);
    client.settle().unwrap();
    assert_eq!(client.download(address + 2 * MIB, 1024), [7; 1024]);
    assert_eq!(function(&server, "f").resident_bytes, 5 * MIB);
}

#[test]
fn a_function_that_is_unloaded_while_it_waits_to_be_loaded_stays_away() {
    let (server, _settings) = start("[scheduler]\nactive_per_gpu = 1");
    let Attached { mut client, lifeline: _lifeline } = attach(&server, "f");
    let Attached { client: mut busy, lifeline: _busy } = attach(&server, "busy");
    client.allocate(0, 4 * MIB).unwrap();
    busy.load_kernels();
    busy.spin();
    eventually("the other has the GPU", || function(&server, "busy").state == "active");
    // All of it is there, so nobody waits for this.
    let request = LoadFunctionRequest { name: "f".to_owned(), gpu: None };
    server.admin(async |mut api| api.load_function(request).await).unwrap();
    eventually("its turn is far", || function(&server, "f").state == "waiting");
    server.unload("f");
    busy.stop_spinning();
    busy.settle().unwrap();
    client.settle().unwrap();
    eventually("the GPU is idle", || function(&server, "busy").state == "idle");
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(function(&server, "f").resident_bytes, 0);
}

#[test]
fn only_what_changed_is_copied_back() {
    let (server, _settings) = start("");
    let follower = Follower::new(&server);
    let Attached { mut client, lifeline: _lifeline } = attach(&server, "f");
    client.load_kernels();
    let address = client.allocate(0, 8 * MIB).unwrap();
    client.upload(address, &[1; MIB as usize]);
    client.upload(address + 4 * MIB, &[2; MIB as usize]);
    assert_eq!(follower.evict(&server, "f").copied_back_bytes, 4 * MIB);
    client.download(address, 1);
    assert_eq!(follower.evict(&server, "f").copied_back_bytes, 0);
    client.add_step(address + 4 * MIB, 1, 0);
    client.settle().unwrap();
    assert_eq!(follower.evict(&server, "f").copied_back_bytes, 2 * MIB);
    assert_eq!(client.words(address + 4 * MIB, 2), [0x0202_0205, 0x0202_0202]);
    // What became zero takes no room any more.
    client.upload(address, &[0; MIB as usize]);
    server.unload("f");
    assert_eq!(function(&server, "f").host_bytes, 2 * MIB);
    assert_eq!(client.download(address, 3), [0; 3]);
}

#[test]
fn a_function_that_changes_needs_no_more_of_the_host_pool_than_it_has() {
    let (server, _settings) = start_with("", "", &["--host-pool", "8MiB", "--host-slab", "8MiB"]);
    let follower = Follower::new(&server);
    let Attached { mut client, lifeline: _lifeline } = attach(&server, "f");
    let address = client.allocate(0, 8 * MIB).unwrap();
    for round in 1..4 {
        for chunk in 0..4 {
            client.upload(address + chunk * 2 * MIB, &[round, chunk as u8]);
        }
        assert_eq!(follower.evict(&server, "f").copied_back_bytes, 8 * MIB);
    }
    for chunk in 0..4 {
        assert_eq!(client.download(address + chunk * 2 * MIB, 3), [3, chunk as u8, 0]);
    }
    // What the pool has no room for stays on the GPU, all of it, and is right there.
    let more = client.allocate(8 * MIB, 2 * MIB).unwrap();
    client.upload(more, &[9; 100]);
    client.upload(address, &[8; 100]);
    let Attached { client: mut other, lifeline: _other } = attach(&server, "other");
    assert_eq!(other.allocate(0, 2 * MIB).map(drop), Ok(()));
    let request = UnloadFunctionRequest { name: "f".to_owned() };
    let refused = server.admin(async |mut api| api.unload_function(request).await).unwrap_err();
    assert!(refused.message().contains("still on the GPU"), "{refused}");
    assert!(server.said("raise --host-pool"), "{}", server.log());
    assert_eq!(client.download(address, 101), [[8; 100].as_slice(), &[0]].concat());
    assert_eq!(client.download(more, 101), [[9; 100].as_slice(), &[0]].concat());
    client.post(MemoryFree { address: more }, &[]);
    client.settle().unwrap();
    server.unload("f");
    assert_eq!(client.download(address, 101), [[8; 100].as_slice(), &[0]].concat());
    assert_eq!(client.download(address + 6 * MIB, 3), [3, 3, 0]);
}

#[test]
fn a_client_that_needs_room_while_its_memory_comes_lets_who_leaves_for_it_have_its_slots() {
    let spill = tempfile::tempdir().unwrap();
    let spill_dir = spill.path().to_str().unwrap();
    let pool =
        ["--gpu-limit", "10MiB", "--host-pool", "8MiB", "--host-slab", "8MiB", "--spill-dir", spill_dir];
    let (server, _settings) = start_with("", "", &pool);
    let Attached { mut client, lifeline: _lifeline } = attach(&server, "f");
    let Attached { client: mut other, lifeline: _other } = attach(&server, "other");
    let segments: Vec<u64> = (0..3).map(|at| client.allocate(at * 2 * MIB, 2 * MIB).unwrap()).collect();
    segments.iter().zip(1..).for_each(|(&address, value)| client.upload(address, &[value; 100]));
    server.unload("f");
    let theirs = other.allocate(0, 4 * MIB).unwrap();
    other.upload(theirs, &[8; 100]);
    other.upload(theirs + 2 * MIB, &[9; 100]);
    // Three of the pool's four slots are this client's as it comes, and the other needs two to leave.
    assert_eq!(client.allocate(6 * MIB, 2 * MIB).map(drop), Ok(()));
    for (&address, value) in segments.iter().zip(1..) {
        assert_eq!(client.download(address, 101), [[value; 100].as_slice(), &[0]].concat());
    }
    assert_eq!(other.download(theirs, 101), [[8; 100].as_slice(), &[0]].concat());
    assert_eq!(other.download(theirs + 2 * MIB, 101), [[9; 100].as_slice(), &[0]].concat());
}

/// Has a function asked often, and one after a while again, and then a third one that needs the room of one of them; who left for it.
fn who_left(
    often: &mut Attached,
    seldom: &mut Attached,
    third: &mut Attached,
    server: &Server,
) -> &'static str {
    const HELD: u64 = 4 * MIB;
    // The memory comes back, whoever lost it.
    let ask = |asked: &mut Attached| {
        let held = asked.client.arena.address;
        assert_eq!(asked.client.download(held, 100), [1; 100]);
    };
    ask(seldom);
    for _ in 0..8 {
        ask(often);
        // Its turn is over.
        std::thread::sleep(Duration::from_millis(50));
    }
    ask(seldom);
    let theirs = third.client.allocate(0, HELD).unwrap();
    let left = ["often", "seldom"].into_iter().find(|name| function(server, name).resident_bytes == 0);
    third.client.post(MemoryFree { address: theirs }, &[]);
    third.client.settle().unwrap();
    left.unwrap()
}

#[test]
fn who_is_asked_often_stays_though_another_one_was_asked_last() {
    for (eviction, leaves) in [("lru", "often"), ("predicted", "seldom")] {
        let settings = format!("[scheduler]\nlinger = \"1ms\"\neviction = \"{eviction}\"");
        let pool = ["--gpu-limit", "10MiB", "--host-pool", "64MiB", "--host-slab", "16MiB"];
        let (server, _settings) = start_with(&settings, "", &pool);
        let mut clients = ["often", "seldom", "third"].map(|name| attach(&server, name));
        let [often, seldom, third] = &mut clients;
        for held in [&mut *often, &mut *seldom] {
            let address = held.client.allocate(0, 4 * MIB).unwrap();
            held.client.upload(address, &[1; 100]);
        }
        // Where the machine stands still for longer than the one rests, it looks as if both did.
        eventually(leaves, || who_left(often, seldom, third, &server) == leaves);
    }
}

#[test]
fn where_clients_leave_for_others_nobody_lingers() {
    let pool = ["--gpu-limit", "10MiB", "--host-pool", "64MiB", "--host-slab", "16MiB"];
    let (server, _settings) = start_with("[scheduler]\nlinger = '1h'", "", &pool);
    let mut clients = ["f0", "f1", "f2"].map(|name| {
        let mut attached = attach(&server, name);
        let address = attached.client.allocate(0, 4 * MIB).unwrap();
        attached.client.upload(address, &[1; 4]);
        (attached, address)
    });
    eventually("nobody has a turn", || {
        // There is room for two, and whoever leaves is chosen among those without a turn.
        for (attached, address) in &mut clients {
            assert_eq!(attached.client.download(*address, 4), [1; 4]);
        }
        std::thread::sleep(Duration::from_millis(100));
        server.functions().iter().all(|function| function.state == "idle")
    });
}

#[test]
fn a_function_that_never_writes_back_begins_every_request_with_what_it_had_when_it_was_first_unloaded() {
    let (server, _settings) = start("[functions.f]\nwriteback = 'never'");
    let follower = Follower::new(&server);
    let Attached { mut client, lifeline: _lifeline } = attach(&server, "f");
    client.load_kernels();
    let address = client.allocate(0, 4 * MIB).unwrap();
    client.upload(address, &[1; 64]);
    client.add_step(address, 1, 0);
    // What the session has not taken from the ring by now would come behind the unloading, and not be kept.
    client.settle().unwrap();
    server.unload("f");
    for _ in 0..2 {
        client.add_step(address, 2, 0);
        assert_eq!(client.words(address, 3), [0x0101_0107, 0x0101_0104, 0x0101_0101]);
        assert_eq!(follower.evict(&server, "f").copied_back_bytes, 0);
    }
    // What the host writes is no scratch, nor is memory that it wrote to before.
    client.upload(address + 2 * MIB, &[9; 4]);
    server.unload("f");
    assert_eq!(client.words(address, 1), [0x0101_0104]);
    assert_eq!(client.download(address + 2 * MIB, 4), [9; 4]);
}

#[test]
fn memory_that_cannot_be_brought_for_once_is_right_afterwards() {
    // The second copy to the GPU, behind the three that measure, is that of the swap-in.
    let (server, _settings) = start_with("", "call:cuMemcpyHtoDAsync_v2@5:fail=1", &["--host-pool", "64MiB"]);
    server.wait_until_measured();
    let Attached { mut client, lifeline: _lifeline } = attach(&server, "f");
    client.load_kernels();
    let address = client.allocate(0, 2 * MIB).unwrap();
    client.upload(address, &[7; 5000]);
    server.unload("f");
    client.add_step(address + MIB, 1, 0);
    assert_eq!(client.settle(), Err(CudaError::INVALID_VALUE));
    let is_right = client.download(address, 5001) == [[7; 5000].as_slice(), &[0]].concat();
    assert!(is_right, "what was in the memory before is seen");
    assert_eq!(server.gpus()[0].worker_restarts, 0);
}

#[test]
fn equal_memory_of_many_functions_is_kept_once() {
    let (server, _settings) = start("");
    let mut functions: Vec<_> = (0..4).map(|number| attach(&server, &format!("f{number}"))).collect();
    for (number, Attached { client, .. }) in functions.iter_mut().enumerate() {
        let address = client.allocate(0, 8 * MIB).unwrap();
        for chunk in 0..3 {
            client.upload(address + chunk * 2 * MIB, &vec![chunk as u8 + 1; MIB as usize]);
        }
        client.upload(address + 6 * MIB, &[number as u8 + 100; 100]);
        server.unload(&format!("f{number}"));
    }
    let used = || {
        let request = async |mut api: torpor_proto::control::admin::admin_client::AdminClient<_>| {
            api.report_store(ReportStoreRequest {}).await
        };
        server.admin(request).unwrap().used_bytes
    };
    eventually("three chunks are shared, and one of each function is its own", || used() == 7 * 2 * MIB);
    for (number, Attached { client, .. }) in functions.iter_mut().enumerate() {
        let address = client.arena.address;
        client.upload(address, &[77; 10]);
        server.unload(&format!("f{number}"));
        assert_eq!(client.download(address, 11), [[77; 10].as_slice(), &[1]].concat());
        assert_eq!(client.download(address + 4 * MIB, 5), [3; 5]);
        assert_eq!(client.download(address + 6 * MIB, 2), [number as u8 + 100; 2]);
    }
}

#[test]
fn a_client_in_the_middle_of_a_copy_keeps_its_turn_between_the_pieces() {
    let (server, _settings) = start("[scheduler]\nactive_per_gpu = 1");
    let Attached { mut client, lifeline: _lifeline } = attach(&server, "f");
    let Attached { client: mut other, lifeline: _other } = attach(&server, "other");
    let address = client.allocate(0, 2 * MIB).unwrap();
    let theirs = other.allocate(0, 2 * MIB).unwrap();
    let copy = |client: &mut worker_support::Client, pieces: std::ops::Range<u8>| {
        for piece in pieces {
            client.upload(address, &[piece; 100]);
            // Longer than a program that others wait for may think, shorter than a slow node may keep it from its CPU.
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    copy(&mut client, 0..1);
    let (before, began) = (function(&server, "f").requests, Instant::now());
    let other_copies = AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while other_copies.load(Ordering::Relaxed) {
                other.upload(theirs, &[7; 100]);
            }
        });
        let channel = client.second_channel();
        let copying = channel.staging().begin_copy();
        copy(&mut client, 0..30);
        drop(copying);
        other_copies.store(false, Ordering::Relaxed);
    });
    // On a slow machine the longest turn may be over meanwhile, more than once.
    let turns = function(&server, "f").requests - before;
    assert!(turns <= 2 + began.elapsed().as_secs(), "{turns} turns for one copy");
    assert_eq!(client.download(address, 1), [29]);
}

#[test]
fn room_that_a_command_waited_for_and_may_not_have_after_all_is_there_for_others() {
    let (server, _settings) = start_with("", "", &["--host-pool", "64MiB", "--gpu-limit", "8MiB"]);
    let Attached { mut client, lifeline: _lifeline } = attach(&server, "f");
    let Attached { client: mut other, lifeline: _other } = attach(&server, "other");
    client.allocate(0, 2 * MIB).unwrap();
    other.load_kernels();
    other.allocate(0, 4 * MIB).unwrap();
    // One that still has its turn would wait for the room alone.
    eventually("its turn is over", || function(&server, "f").state == "idle");
    other.spin();
    eventually("the other has the GPU", || function(&server, "other").state == "active");
    std::thread::scope(|scope| {
        let allocation = scope.spawn(|| client.allocate(2 * MIB, 4 * MIB).map(drop));
        eventually("there is no room meanwhile", || function(&server, "f").state == "waiting");
        let terms = Terms { memory_limit_bytes: Some(2 * MIB), ..Terms::default() };
        let request = EnsureFunctionRequest { name: "f".to_owned(), terms: Some(terms) };
        server.admin(async |mut api| api.ensure_function(request).await).unwrap();
        // Who has left has heard of its limit.
        server.unload("f");
        other.stop_spinning();
        assert_eq!(allocation.join().unwrap(), Err(CudaError::OUT_OF_MEMORY));
    });
    assert_eq!(other.allocate(4 * MIB, 4 * MIB).map(drop), Ok(()));
}
